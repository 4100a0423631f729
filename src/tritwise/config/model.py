"""`ModelConfig`: the shape of a model, in Hugging Face's own key names.

config.json is read and written without renaming. The one key Hugging Face has no word for is added beside it:
`linear_type` (ternary, binary or dense linears).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tritwise.common.errors import TritwiseError
from tritwise.config.rope import RopeScaling, Rotary, filled, rotary, stretched

PositiveInt = Annotated[int, Field(gt=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LinearType = Literal["ternary", "binary", "dense"]

# Keys that other writers put into config.json and that cannot change what the model computes.
_HARMLESS_KEYS = frozenset({
    "_name_or_path", "architectures", "auto_map", "attention_dropout", "chunk_size_feed_forward", "dtype",
    "id2label", "initializer_range", "is_encoder_decoder", "label2id", "output_attentions",
    "output_hidden_states", "pretraining_tp", "problem_type", "return_dict", "torch_dtype",
    "transformers_version", "use_cache",
})
# Keys that would change it: read when they hold the one value that the forward pass implements, refused otherwise.
_ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
}
# What transformers takes for a key that a config.json leaves out; only keys that change the arithmetic.
_HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "bitnet": {"hidden_act": "relu2", "rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    "llama": {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
}


class QuantizationConfig(BaseModel):
    """`quantization_config` of a BitNet directory (transformers' `BitNetQuantConfig`).

    `linear_class` alone decides what a stored `weight_scale` means: `bitlinear` divides by it, `autobitlinear`
    multiplies. `quantization_mode` `online` means that the file holds latent weights, to be quantised on the fly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    quant_method: Literal["bitnet"] = "bitnet"
    linear_class: Literal["bitlinear", "autobitlinear"] = "bitlinear"
    quantization_mode: Literal["offline", "online"] = "offline"
    use_rms_norm: Literal[False] = False
    rms_norm_eps: float | None = 1e-6
    modules_to_not_convert: tuple[str, ...] | None = None


class ParameterCount(NamedTuple):
    """Numbers of parameters: linears of the blocks, embedding and head, norms."""

    block: int
    embedding: int
    norm: int

    @property
    def total(self) -> int:
        return self.block + self.embedding + self.norm


class ModelConfig(BaseModel):
    """Shape and arithmetic of a decoder. Immutable; unknown keys are refused.

    `model_type` fixes the block layout: `bitnet` has `attn_sub_norm` and `ffn_sub_norm` (the 2B4T layout),
    `llama` has the two block norms only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: Literal["bitnet", "llama"] = "bitnet"
    linear_type: LinearType = "ternary"
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt = None  # type: ignore[assignment]  # as many as heads
    head_dim: PositiveInt = None  # type: ignore[assignment]  # hidden_size / heads
    hidden_act: Literal["silu", "relu2"] = "silu"
    max_position_embeddings: PositiveInt = 2048
    rms_norm_eps: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: PositiveFloat = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
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
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embedding turns pairs")
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
        """Inverse frequencies float32 [head_dim / 2] and attention factor of the rotary embedding."""
        return rotary(self.head_dim, self.rope_theta, self.rope_scaling)

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
        hidden, ffn = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
        }

    def norm_shapes(self) -> dict[str, int]:
        """Size of each norm of one block, by its Hugging Face name below `model.layers.N.`."""
        shapes = {"input_layernorm": self.hidden_size, "post_attention_layernorm": self.hidden_size}
        if self.has_sub_norms:
            shapes |= {"self_attn.attn_sub_norm": self.hidden_size, "mlp.ffn_sub_norm": self.intermediate_size}
        return shapes

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and unpacked shape of every weight, in Hugging Face's names, block linears included."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for layer in range(self.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            shapes |= {f"{prefix}{name}.weight": shape for name, shape in self.linear_shapes().items()}
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
        values = {key: value for key, value in values.items() if key not in _HARMLESS_KEYS} | (
            {"initializer_range": values["initializer_range"]} if values.get("initializer_range") else {})
        for key, allowed in _ONLY_VALUES.items():
            if key in values and values.pop(key) not in allowed:
                raise TritwiseError(f"{source}: {key} is set", why=f"only {allowed[0]} is implemented")
        _read_rope(values, source)
        if isinstance(values.get("eos_token_id"), list):
            values["eos_token_id"] = tuple(values["eos_token_id"])
        if values.get("model_type") not in ("bitnet", "llama"):
            raise TritwiseError(f"{source}: model_type {values.get('model_type')!r} is not supported",
                                why="bitnet and llama are")
        values.setdefault("linear_type", "ternary" if values.get("quantization_config") else "dense")
        values = {key: value for key, value in values.items() if value is not None}
        config = _validated(_HF_DEFAULTS[values["model_type"]] | values, source)
        if config.linear_type == "dense" and config.quantization_config is not None:
            raise TritwiseError(f"{source}: linear_type is dense but quantization_config is present")
        return config

    def to_hf(self, *, dtype: str) -> dict[str, Any]:
        """The content of a config.json that transformers opens unchanged; `dtype` is that of the stored floats."""
        architecture = {"bitnet": "BitNetForCausalLM", "llama": "LlamaForCausalLM"}[self.model_type]
        # Ids that are not set are written as null: left out, transformers would take its own defaults (128000, 1, 2).
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        return {"architectures": [architecture], "dtype": dtype} | ids | self.model_dump(mode="json", exclude_none=True)


def _read_rope(values: dict[str, Any], source: str) -> None:
    """Either form of the rotary settings as `rope_theta` and `rope_scaling`, in place.

    Where both stand, transformers takes `rope_scaling`, and a theta inside of either before the one outside.
    """
    forms = {key: values.pop(key, None) for key in ("rope_scaling", "rope_parameters")}
    key, rope = next(((key, rope) for key, rope in forms.items() if rope), ("", None))
    if rope is None:
        return
    if not isinstance(rope, dict):
        raise TritwiseError(f"{source}: {key} is {rope!r}", why="it is an object with rope_type and its factors")
    rope = dict(rope)
    if rope.pop("partial_rotary_factor", None) not in (1.0, None):
        raise TritwiseError(f"{source}: {key}: partial_rotary_factor is set", why="only 1.0 is implemented")
    theta = rope.pop("rope_theta", None)
    if theta is not None:
        values["rope_theta"] = theta
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        values["rope_scaling"] = rope
    elif set(rope) - {"rope_type", "type"}:
        raise TritwiseError(f"{source}: {key} {rope} is not supported",
                            why="rope_type default has no other key than rope_theta")


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
