"""`ModelConfig`: the shape of a model, in Hugging Face's own key names.

config.json is read and written without renaming. The one key Hugging Face has no word for is added beside it:
`linear_type` (ternary, binary or dense linears).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tritwise.common.errors import TritwiseError
from tritwise.config.published import LINEAR_RMS_NORM_EPS, MOE_TYPES, model_values
from tritwise.config.rope import LARGEST_FLOAT, SMALLEST_FLOAT, RopeScaling, Rotary, filled, rotary, stretched
from tritwise.config.tokens import FimOrder

# Sizes are 32-bit numbers in the engine, and floats single precision.
MOST = 2**31 - 1
PositiveInt = Annotated[int, Field(gt=0, le=MOST, strict=True)]
PositiveFloat = Annotated[float, Field(ge=SMALLEST_FLOAT, le=LARGEST_FLOAT)]
ScaleType = Literal["float32", "float16", "bfloat16"]
LinearType = Literal["ternary", "binary", "dense"]

class QuantizationConfig(BaseModel):
    """`quantization_config` of a BitNet directory (transformers' `BitNetQuantConfig`).

    `linear_class` alone decides what a stored `weight_scale` means: `bitlinear` divides by it, `autobitlinear`
    multiplies. `quantization_mode` `online` means that the file holds latent weights, to be quantised on the fly.
    Its `use_rms_norm` and `rms_norm_eps` are keys of `ModelConfig`: latent weights in training have them too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    quant_method: Literal["bitnet"] = "bitnet"
    linear_class: Literal["bitlinear", "autobitlinear"] = "bitlinear"
    quantization_mode: Literal["offline", "online"] = "offline"
    modules_to_not_convert: tuple[str, ...] | None = None


class ParameterCount(NamedTuple):
    """Numbers of parameters: linears of the blocks, embedding and head, norms, routers of experts."""

    block: int
    embedding: int
    norm: int
    router: int = 0

    @property
    def total(self) -> int:
        return self.block + self.embedding + self.norm + self.router


class ModelConfig(BaseModel):
    """Shape and arithmetic of a decoder. Immutable; unknown keys are refused.

    `model_type` fixes the block layout: `bitnet` has `attn_sub_norm` and `ffn_sub_norm` (the 2B4T layout),
    `llama` has the two block norms only, `qwen3` these and an RMSNorm of each head's query and key.

    With `num_experts`, every feed-forward is a dense router and so many experts of `moe_intermediate_size`, each like
    the dense feed-forward with an `ffn_sub_norm` of its own; `num_experts_per_tok` of them see a token, weighted by
    the router's softmax (divided by the sum of the chosen ones with `norm_topk_prob`), and a shared one of
    `shared_expert_intermediate_size`, unless that is None, sees every token through a sigmoid gate. The keys and the
    arithmetic are those of transformers' Qwen2-MoE. `intermediate_size` is then not used, and may be left out.

    With `use_rms_norm` every quantised linear has a learnable RMSNorm of its inputs inside, with `linear_rms_norm_eps`
    (1e-6 when left out; None without it), so that no two linears share a quantised input. It comes in addition to the
    norms of the block. In config.json both stand in `quantization_config`, the latter as `rms_norm_eps`.

    `fim_order` is the order in which prefix and suffix stand when the model is asked for the text between them; "psm"
    unless the configuration says otherwise.

    `scale_dtype` is what the scale of a quantised weight is rounded to, in training and wherever latent weights are
    quantised, so that a file which keeps scales in that type is the trained model to the bit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: Literal["bitnet", "llama", "qwen3"] = "bitnet"
    linear_type: LinearType = "ternary"
    scale_dtype: ScaleType = "float32"
    use_rms_norm: Annotated[bool, Field(strict=True)] = False
    linear_rms_norm_eps: PositiveFloat | None = None
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt = None  # type: ignore[assignment]  # as many as heads
    head_dim: PositiveInt = None  # type: ignore[assignment]  # hidden_size / heads
    hidden_act: Literal["silu", "relu2"] = "silu"
    num_experts: PositiveInt | None = None
    num_experts_per_tok: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    shared_expert_intermediate_size: PositiveInt | None = None
    norm_topk_prob: bool = False
    max_position_embeddings: PositiveInt = 2048
    rms_norm_eps: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: PositiveFloat = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    fim_order: FimOrder = "psm"
    quantization_config: QuantizationConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_head_sizes(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
        if values.get("num_key_value_heads") is None and heads is not None:
            values["num_key_value_heads"] = heads
        if values.get("head_dim") is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            if hidden % heads:
                raise ValueError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, "
                                 "and head_dim is not given")
            values["head_dim"] = hidden // heads
        for key in ("num_experts", "shared_expert_intermediate_size"):
            if values.get(key) == 0:
                values[key] = None
        if values.get("num_experts") is not None and values.get("intermediate_size") is None:
            values["intermediate_size"] = values.get("moe_intermediate_size")
        if values.get("use_rms_norm") is True and values.get("linear_rms_norm_eps") is None:
            values["linear_rms_norm_eps"] = LINEAR_RMS_NORM_EPS
        scaling = values.get("rope_scaling")
        if isinstance(scaling, dict):
            longest = cls.model_fields["max_position_embeddings"].default
            values["rope_scaling"] = filled(scaling, values.get("max_position_embeddings", longest))
        return values

    @model_validator(mode="after")
    def _check_shape(self) -> "ModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                             f"num_key_value_heads {self.num_key_value_heads}")
        sizes = {key: getattr(self, key) for key in ("num_experts_per_tok", "moe_intermediate_size")}
        if self.num_experts is None:
            for key in (*sizes, "shared_expert_intermediate_size"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} is set, but num_experts is not")
        elif self.model_type not in MOE_TYPES:
            raise ValueError(f"num_experts is set, but {self.model_type} blocks with experts are not implemented")
        else:
            for key, value in sizes.items():
                if value is None:
                    raise ValueError(f"num_experts is set, but {key} is not")
            if self.num_experts_per_tok > self.num_experts:
                raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} is above "
                                 f"num_experts {self.num_experts}")
        if self.use_rms_norm and self.linear_type == "dense":
            raise ValueError("use_rms_norm is set, but linear_type is dense: the norm is that of a quantised linear")
        if self.use_rms_norm and self.num_experts is not None:
            raise ValueError("use_rms_norm is set, but experts with a norm inside of each linear are not implemented")
        if self.linear_rms_norm_eps is not None and not self.use_rms_norm:
            raise ValueError("linear_rms_norm_eps is set, but use_rms_norm is not")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embedding turns pairs")
        if self.longest_context > MOST:
            raise ValueError(f"rope_scaling reaches {self.longest_context} positions, and {MOST} are the most")
        if self.rope_scaling is not None and self.rope_scaling.rope_type == "yarn" and self.rope_theta <= 1:
            raise ValueError(f"rope_theta {self.rope_theta} has no logarithm that rope_type yarn could divide by")
        if self.model_type == "bitnet" and self.num_attention_heads * self.head_dim != self.hidden_size:
            raise ValueError(f"num_attention_heads x head_dim = {self.num_attention_heads * self.head_dim} must equal "
                             f"hidden_size {self.hidden_size}: attn_sub_norm has that size")
        return self

    @property
    def has_sub_norms(self) -> bool:
        """Whether a block has `attn_sub_norm` and `ffn_sub_norm`."""
        return self.model_type == "bitnet"

    @property
    def has_head_norms(self) -> bool:
        """Whether attention has `q_norm` and `k_norm`, between the projections and the rotary embedding."""
        return self.model_type == "qwen3"

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end a text; empty when none is set."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @property
    def longest_context(self) -> int:
        """Positions that the model can be used with: `max_position_embeddings`, or more where a scaling says so."""
        return max(self.max_position_embeddings, self.rope_scaling.positions if self.rope_scaling else 0)

    def rotary(self) -> Rotary:
        """Inverse frequencies float32 [head_dim / 2] and attention factor of the rotary embedding.

        Raises TritwiseError for a scaling whose values, each in its range, give frequencies that are no numbers.
        """
        try:
            return rotary(self.head_dim, self.rope_theta, self.rope_scaling)
        except ArithmeticError as error:
            raise TritwiseError("this rope_scaling cannot be used", why=str(error)) from None

    def with_rope_scaling(self, scaling: Mapping[str, Any], *, context: int | None = None) -> "ModelConfig":
        """A copy for more positions than the model has, whatever scaling it came with.

        `scaling` holds keys of `rope_scaling`, at least `rope_type`: linear, yarn, llama3, or ntk for a larger theta.
        Without `factor`, the positions reach `context`. Raises TritwiseError for other types and keys.
        """
        original = self.rope_scaling.original_max_position_embeddings if self.rope_scaling else None
        try:
            values, theta, positions = stretched(
                scaling, head_dim=self.head_dim, theta=self.rope_theta, context=context,
                positions=original or self.max_position_embeddings)
        except ValueError as error:
            raise TritwiseError("this rope_scaling cannot be used", why=str(error),
                                fix="for example rope_scaling={'rope_type': 'yarn', 'factor': 4.0}") from None
        return _validated(self.model_dump(exclude_none=True, exclude={"rope_scaling"}) | {
            "rope_scaling": values, "rope_theta": theta,
            "max_position_embeddings": max(self.max_position_embeddings, positions)}, "this rope_scaling")

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape [out, in] of each linear of one block, by its Hugging Face name below `model.layers.N.`."""
        hidden = self.hidden_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
        } | {f"{part}.{name}": shape for part, ffn in self.feed_forward_sizes().items() for name, shape in
             (("gate_proj", (ffn, hidden)), ("up_proj", (ffn, hidden)), ("down_proj", (hidden, ffn)))}

    def feed_forward_sizes(self) -> dict[str, int]:
        """Inner size of each feed-forward of one block, by its name: `mlp`, or the experts and the shared one."""
        if self.num_experts is None:
            return {"mlp": self.intermediate_size}
        sizes = {f"mlp.experts.{expert}": self.moe_intermediate_size for expert in range(self.num_experts)}
        shared = self.shared_expert_intermediate_size
        return sizes | ({"mlp.shared_expert": shared} if shared else {})

    def router_shapes(self) -> dict[str, tuple[int, int]]:
        """Shape [out, in] of each linear of one block that is never quantised: the routers of a model with experts."""
        if self.num_experts is None:
            return {}
        shared = {"mlp.shared_expert_gate": (1, self.hidden_size)} if self.shared_expert_intermediate_size else {}
        return {"mlp.gate": (self.num_experts, self.hidden_size)} | shared

    def norm_shapes(self) -> dict[str, int]:
        """Size of each norm of one block, by its Hugging Face name below `model.layers.N.`."""
        shapes = {"input_layernorm": self.hidden_size, "post_attention_layernorm": self.hidden_size}
        if self.has_sub_norms:
            shapes |= {"self_attn.attn_sub_norm": self.hidden_size}
            shapes |= {f"{part}.ffn_sub_norm": size for part, size in self.feed_forward_sizes().items()}
        if self.has_head_norms:
            shapes |= {"self_attn.q_norm": self.head_dim, "self_attn.k_norm": self.head_dim}
        if self.use_rms_norm:
            shapes |= {f"{name}.rms_norm": inner for name, (_, inner) in self.linear_shapes().items()}
        return shapes

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and unpacked shape of every weight, in Hugging Face's names, block linears included."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for layer in range(self.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            shapes |= {f"{prefix}{name}.weight": shape
                       for name, shape in (self.linear_shapes() | self.router_shapes()).items()}
            shapes |= {f"{prefix}{name}.weight": (size,) for name, size in self.norm_shapes().items()}
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def parameter_count(self) -> ParameterCount:
        """Parameters by kind; `block` counts q, k, v, o, gate, up and down of all layers, as the papers do."""
        layers = self.num_hidden_layers
        return ParameterCount(
            block=layers * sum(out * inner for out, inner in self.linear_shapes().values()),
            embedding=self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2),
            norm=layers * sum(self.norm_shapes().values()) + self.hidden_size,
            router=layers * sum(out * inner for out, inner in self.router_shapes().values()),
        )

    def with_changes(self, **changes: Any) -> "ModelConfig":
        """A checked copy with some keys changed."""
        return _validated(self.model_dump(exclude_none=True) | changes, "these model settings")

    @classmethod
    def from_hf(cls, values: dict[str, Any], *, source: str = "config.json") -> "ModelConfig":
        """Build from the content of a config.json.

        Keys that cannot change the result are dropped; keys that could are accepted only at the value this forward
        pass implements; any other unknown key is refused by name. Newer files hold `rope_parameters` instead of
        `rope_theta` and `rope_scaling`; both forms are understood.
        """
        written_type = values.get("model_type")
        config = _validated(model_values(values, source), source)
        if (config.num_experts is not None) != (written_type in MOE_TYPES.values()):
            raise TritwiseError(f"{source}: model_type {written_type} does not fit num_experts {config.num_experts}",
                                why=f"with experts it is {' or '.join(MOE_TYPES.values())}")
        if config.linear_type == "dense" and config.quantization_config is not None:
            raise TritwiseError(f"{source}: linear_type is dense but quantization_config is present")
        return config

    def to_hf(self, *, dtype: str) -> dict[str, Any]:
        """The content of a config.json that transformers opens unchanged; `dtype` is that of the stored floats."""
        architecture = {"bitnet": "BitNetForCausalLM", "llama": "LlamaForCausalLM",
                        "qwen3": "Qwen3ForCausalLM"}[self.model_type]
        written = self.model_dump(mode="json", exclude_none=True)
        if self.scale_dtype == "float32":
            del written["scale_dtype"]
        if self.fim_order == "psm":
            del written["fim_order"]
        del written["use_rms_norm"]
        eps = written.pop("linear_rms_norm_eps", LINEAR_RMS_NORM_EPS)
        if self.quantization_config is not None:
            written["quantization_config"] |= {"use_rms_norm": self.use_rms_norm, "rms_norm_eps": eps}
        elif self.use_rms_norm:
            written |= {"use_rms_norm": True, "linear_rms_norm_eps": eps}
        if self.num_experts is None:
            del written["norm_topk_prob"]
        else:
            architecture = {"bitnet": "BitNetMoeForCausalLM", "llama": "Qwen2MoeForCausalLM"}[self.model_type]
            written |= {"model_type": MOE_TYPES[self.model_type]}
            if self.model_type == "llama":  # where transformers has other defaults
                written |= {"qkv_bias": False,
                            "shared_expert_intermediate_size": self.shared_expert_intermediate_size or 0}
        # Ids that are not set are written as null: left out, transformers would take its own defaults (128000, 1, 2).
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        return {"architectures": [architecture], "dtype": dtype} | ids | written


def _validated(values: dict[str, Any], source: str) -> ModelConfig:
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(error, source) from None


def config_error(error: ValidationError, source: str) -> TritwiseError:
    """A pydantic error as a TritwiseError that names every bad key."""
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = "this key is unknown" if item["type"] == "extra_forbidden" else item["msg"]
        problems.append(f"{key}: {message}" if key else message)
    return TritwiseError(f"{source} is not valid", why="; ".join(problems))
