"""What other writers put into config.json, in the keys and layouts of `ModelConfig`.

| config.json | blocks | published as |
|---|---|---|
| model_type bitnet | bitnet | microsoft/bitnet-b1.58-2B-4T |
| model_type llama, architectures BitnetForCausalLM | bitnet, latent weights | 1bitLLM/bitnet_b1_58-* |
| model_type llama | llama | LLaMA; with quantization_config Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E |
| model_type qwen3 | qwen3 | Qwen3, dense |
| model_type qwen2_moe, bitnet_moe | llama, bitnet with experts | Qwen2-MoE without biases; ours |

Keys that cannot change what a model computes are dropped. Keys that could are accepted at the value that this forward
pass implements, and refused by name otherwise. What is left is for `ModelConfig`, which refuses what it does not know.
"""

from typing import Any

from tritwise.common.errors import TritwiseError

# Said about the model, its files, training or sampling; no logit depends on them.
_HARMLESS_KEYS = frozenset({
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures", "attention_dropout", "auto_map",
    "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "is_llama_config", "label2id", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_scores", "prefix", "pretraining_model_parallel", "pretraining_tp", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers.js_config",
    "transformers_version", "typical_p", "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
})
# Read when they hold one of these values; the first is named where they do not.
_ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "attention_bias": (False, None),
    "cross_attention_hidden_size": (None,),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
    "pruned_heads": ({}, None),
    "rope_interleaved": (False, None),
}
# config.json's model_type of a model with experts. transformers' Qwen2-MoE without attention biases is the llama layout
# with experts; for the bitnet layout it has none, and must not open one as something else.
MOE_TYPES = {"llama": "qwen2_moe", "bitnet": "bitnet_moe"}
_LAYOUTS = {kind: kind for kind in ("bitnet", "llama", "qwen3")} | {theirs: ours for ours, theirs in MOE_TYPES.items()}
_REFUSED_TYPES = {"qwen2": "its q_proj, k_proj and v_proj have biases, which are not implemented"}
# Keys of Qwen's configurations: dropped, or read when they hold what the forward pass implements.
_QWEN_HARMLESS = frozenset({"max_window_layers", "output_router_logits", "router_aux_loss_coef", "sliding_window"})
_QWEN_ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "qkv_bias": (False,), "use_sliding_window": (False, None), "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
}
# What transformers takes for a key that a config.json leaves out; only keys that change the arithmetic.
_HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "bitnet": {"hidden_act": "relu2", "rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    "llama": {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    "qwen3": {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768,
              "head_dim": 128},
    "qwen2_moe": {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768,
                  "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
                  "shared_expert_intermediate_size": 5632, "norm_topk_prob": False},
    "bitnet_moe": {},
}
# transformers' BitNetQuantConfig.rms_norm_eps.
LINEAR_RMS_NORM_EPS = 1e-6
_1BITLLM_ARCHITECTURE = "BitnetForCausalLM"  # transformers' own class is BitNetForCausalLM


def model_values(values: dict[str, Any], source: str) -> dict[str, Any]:
    """The content of a config.json as keys and values of `ModelConfig`.

    Raises TritwiseError, with `source` and the key, for a value or model type that is not implemented.
    """
    architectures = values.get("architectures")
    latent = _is_1bitllm(values)
    initial = values.get("initializer_range")
    values = {key: value for key, value in values.items() if key not in _HARMLESS_KEYS}
    if initial:
        values["initializer_range"] = initial
    _take_only(values, _ONLY_VALUES, source)
    _read_rope(values, source)
    if isinstance(values.get("eos_token_id"), list):
        values["eos_token_id"] = tuple(values["eos_token_id"])
    written_type = values.get("model_type")
    if not isinstance(written_type, str):
        raise TritwiseError(f"{source}: model_type {written_type!r} is not supported", why=f"{', '.join(_LAYOUTS)} are")
    if written_type in _REFUSED_TYPES:
        raise TritwiseError(f"{source}: model_type {written_type!r} is not supported", why=_REFUSED_TYPES[written_type])
    if written_type not in _LAYOUTS:
        raise TritwiseError(f"{source}: model_type {written_type!r} is not supported", why=f"{', '.join(_LAYOUTS)} are")
    if written_type == "qwen2_moe":
        values.setdefault("qkv_bias", True)  # theirs when it is left out
    if written_type in ("qwen2_moe", "qwen3"):
        _read_qwen(values, source)
    values["model_type"] = _LAYOUTS[written_type]
    if values.pop("is_bitnet_config", False) and not values.get("quantization_config"):
        raise TritwiseError(f"{source}: is_bitnet_config is set, but quantization_config is missing",
                            why="it does not say whether the weights are codes, latent weights or neither")
    if latent:
        _read_1bitllm(values, architectures, source)
    values.setdefault("linear_type", "ternary" if values.get("quantization_config") else "dense")
    _read_linear_norm(values, source)
    defaults = _HF_DEFAULTS["llama" if latent else written_type]
    return defaults | {key: value for key, value in values.items() if value is not None}


def _take_only(values: dict[str, Any], allowed: dict[str, tuple[Any, ...]], source: str) -> None:
    """Take keys out that have to hold one of some values; a 1 is not True here, nor a 0 False."""
    for key in sorted(allowed.keys() & values.keys()):
        value = values.pop(key)
        if not any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in allowed[key]):
            raise TritwiseError(f"{source}: {key} is {value!r}", why=f"only {allowed[key][0]} is implemented")


def _is_1bitllm(values: dict[str, Any]) -> bool:
    architectures = values.get("architectures")
    named = isinstance(architectures, list) and _1BITLLM_ARCHITECTURE in architectures
    return named or any(values.get(key) is not None for key in ("weight_bits", "input_bits"))


def _read_1bitllm(values: dict[str, Any], architectures: Any, source: str) -> None:
    """The models of 1bitLLM: LLaMA by their model_type, sub-norms and BitLinear by their own code, float weights.

    Their BitLinear quantises both operands in float32 by the formulas of `tritwise.ternary`, whatever type the model is
    in; `weight_bits` is not even looked at. Source: modeling_bitnet.py and utils_quant.py of these repositories.
    """
    if values["model_type"] == "llama" and architectures not in (None, [_1BITLLM_ARCHITECTURE]):
        raise TritwiseError(f"{source}: weight_bits or input_bits is set, but architectures is {architectures}",
                            why=f"their meaning is known for {_1BITLLM_ARCHITECTURE} only")
    _take_only(values, {"weight_bits": (1, None), "input_bits": (8, None)}, source)
    values["model_type"] = "bitnet"
    if values.get("quantization_config") is None:
        values["quantization_config"] = {"linear_class": "autobitlinear", "quantization_mode": "online"}


def _read_linear_norm(values: dict[str, Any], source: str) -> None:
    """`use_rms_norm` and `rms_norm_eps` of quantization_config as keys of `ModelConfig`, in place."""
    quantisation = values.get("quantization_config")
    if not isinstance(quantisation, dict):
        return
    quantisation = values["quantization_config"] = dict(quantisation)
    eps = quantisation.pop("rms_norm_eps", LINEAR_RMS_NORM_EPS)
    used = quantisation.pop("use_rms_norm", None)
    if used is not None and not isinstance(used, bool):
        raise TritwiseError(f"{source}: quantization_config: use_rms_norm is {used!r}", why="it is true or false")
    if used is False and values.get("use_rms_norm"):
        raise TritwiseError(f"{source}: use_rms_norm is true, and in quantization_config false",
                            why="it is said twice, and other readers look in quantization_config")
    if used:
        if eps is None:
            raise TritwiseError(f"{source}: quantization_config: use_rms_norm is set, and rms_norm_eps is null",
                                why="the norm inside of each linear needs a number, 1e-6 when the key is left out")
        values |= {"use_rms_norm": True, "linear_rms_norm_eps": eps}


def _read_qwen(values: dict[str, Any], source: str) -> None:
    """The keys that only Qwen's configurations have, taken out; refused where they would change the result."""
    for key in _QWEN_HARMLESS & set(values):
        del values[key]
    _take_only(values, _QWEN_ONLY_VALUES, source)
    layers = values.pop("layer_types", None)
    if layers and (not isinstance(layers, list) or any(layer != "full_attention" for layer in layers)):
        raise TritwiseError(f"{source}: layer_types are not all full_attention", why="other attention is not "
                            "implemented")


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
