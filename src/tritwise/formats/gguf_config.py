"""The ModelConfig that a GGUF file describes: by its metadata, and by the types and shapes of its tensors.

A value is believed when it has its type and lies in its range; a setting that would change what the model computes and
that this forward pass does not have is refused by name.
"""

import re
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig, QuantizationConfig
from tritwise.config.rope import RopeScaling, rope_divisors
from tritwise.formats.gguf_file import GGUFFile, shown, text_of
from tritwise.formats.gguf_names import ARCHITECTURES, FIM_ORDER, ROPE_FREQS, Architecture, gguf_name
from tritwise.formats.gguf_types import GGUF_TYPES
from tritwise.formats.gguf_values import PLAIN_TYPES, TERNARY_TYPES, floats

_EMBEDDING, _HEAD = gguf_name("model.embed_tokens.weight"), gguf_name("lm_head.weight")
_BLOCK_MATRIX = re.compile(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight")
_READ = frozenset({
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned",
})
# Other settings are accepted when they hold the one value that the forward pass implements.
_ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,), "expert_used_count": (0,), "attention.causal": (True,), "use_parallel_residual": (False,),
    "tensor_data_layout": ("Meta AI original pth",), "attention.clamp_kqv": (0.0,), "logit_scale": (1.0, 0.0),
    "residual_scale": (1.0, 0.0), "embedding_scale": (1.0, 0.0), "attention.scale": (0.0,),
    "attention.sliding_window": (0,),
}
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_IDS = {"bos": "bos", "eos": "eos", "pad": "padding"}


def architecture(file: GGUFFile) -> Architecture:
    """The architecture that the file names. Raises TritwiseError for one that is not supported."""
    name = text_of(file.metadata, "general.architecture")
    if name not in ARCHITECTURES:
        raise TritwiseError(f"the architecture {name!r} is not supported", why=f"{', '.join(ARCHITECTURES)} are")
    return ARCHITECTURES[name]


def model_config(file: GGUFFile) -> ModelConfig:
    """Raises TritwiseError with the key or tensor that is missing, wrong or not supported."""
    prefix = f"{text_of(file.metadata, 'general.architecture')}."
    settings = _Settings(file, prefix)
    embedding = file.tensors.get(_EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise TritwiseError(f"{_EMBEDDING} is missing", why="without it there is no model")
    layers = settings.count("block_count")
    if layers * 9 > len(file.tensors):  # of a block at least; before a list of names is built from an absurd number
        raise TritwiseError(f"{prefix}block_count is {layers}", why=f"the file holds {len(file.tensors)} tensors")
    vocabulary = embedding.shape[0]
    if (stated := settings.count("vocab_size", vocabulary)) != vocabulary:
        raise TritwiseError(f"{_EMBEDDING} cannot be used",
                            why=f"it has {vocabulary} rows, and {prefix}vocab_size is {stated}")
    hidden, heads = settings.count("embedding_length"), settings.count("attention.head_count")
    head_dim = settings.count("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (found := settings.count(key, head_dim)) != head_dim:
            raise TritwiseError(f"{prefix}{key} is {found}",
                                why=f"a head has {head_dim} dimensions, and all of them are needed")
    kind = architecture(file)
    ternary = _is_ternary(file, kind)
    theta = settings.number("rope.freq_base", 10000.0)
    scaling = _scaling(settings) if ROPE_FREQS not in file.tensors else _llama3(file, kind, head_dim, theta)
    return ModelConfig.from_hf({
        "model_type": kind.model_type, "hidden_act": kind.hidden_act, "linear_type": "ternary" if ternary else "dense",
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": settings.count("feed_forward_length"),
        "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": settings.count("attention.head_count_kv", heads), "head_dim": head_dim,
        "max_position_embeddings": settings.count("context_length"),
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta, "rope_scaling": scaling,
        "tie_word_embeddings": _HEAD not in file.tensors,
        "fim_order": text_of(file.metadata, FIM_ORDER),
        "quantization_config": QuantizationConfig(linear_class="autobitlinear") if ternary else None,
    } | _token_ids(file, vocabulary), source=str(file.path))


class _Settings:
    """The metadata of the architecture, by their names without it."""

    def __init__(self, file: GGUFFile, prefix: str) -> None:
        self._prefix = prefix
        self.values = {key[len(prefix):]: value for key, value in file.metadata.items() if key.startswith(prefix)}
        for key, value in self.values.items():
            accepted = key in _READ or (not isinstance(value, list | np.ndarray) and value in _ONLY_VALUES.get(key, ()))
            if not accepted:
                raise TritwiseError(f"{prefix}{key} is {shown(value)}", why="this forward pass does not have it")

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self._one(key, default)
        if type(value) is not int or value < 1:
            raise TritwiseError(f"{self._prefix}{key} is {shown(value)}", why="it has to be a whole number above zero")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The number above zero that was meant by a float32: 1e-5 and not 9.999999747378752e-06."""
        value = self._one(key, default)
        if type(value) not in (int, float) or not _SMALLEST <= value <= _LARGEST:
            raise TritwiseError(f"{self._prefix}{key} is {shown(value)}", why="it has to be a float32 above zero")
        return float(str(np.float32(value)))

    def _one(self, key: str, default: float | None) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise TritwiseError(f"{self._prefix}{key} is missing", why="without it there is no model")
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()  # one for each block
        return value


def _is_ternary(file: GGUFFile, kind: Architecture) -> bool:
    types = {GGUF_TYPES[tensor.type].name for name, tensor in file.tensors.items() if _BLOCK_MATRIX.fullmatch(name)}
    if not types & TERNARY_TYPES and kind.model_type != "bitnet":
        return False
    if others := types - TERNARY_TYPES - set(PLAIN_TYPES):
        raise TritwiseError("it cannot be read as a ternary model",
                            why=f"matrices of its blocks are of type {min(others)}, which holds no exact codes")
    return True


def _scaling(settings: _Settings) -> dict[str, Any] | None:
    kind, factor = text_of(settings.values, "rope.scaling.type") or "none", settings.number("rope.scaling.factor", 1.0)
    original = None
    if "rope.scaling.original_context_length" in settings.values:
        original = settings.count("rope.scaling.original_context_length")
    if kind == "none" or (kind, factor) == ("linear", 1.0):
        return None
    with_original = {"original_max_position_embeddings": original} if kind == "yarn" and original else {}
    return {"rope_type": kind, "factor": factor} | with_original


def _llama3(file: GGUFFile, kind: Architecture, head_dim: int, theta: float) -> dict[str, Any]:
    """The llama3 scaling whose divisors of the frequencies a file holds. Raises TritwiseError for any other ones.

    The four numbers of that scaling do not stand in the file; those besides the factor are taken to be Llama 3.1's.
    """
    tensor = file.tensors[ROPE_FREQS]
    if not kind.interleaved or tensor.shape != (head_dim // 2,) or GGUF_TYPES[tensor.type].name != "F32":
        raise TritwiseError(f"{ROPE_FREQS} cannot be used",
                            why=f"it is read as F32 [{head_dim // 2}], for the architecture llama")
    divisors = floats(tensor.type, file.bytes_of(ROPE_FREQS), tensor.shape)
    factor = float(divisors.max(initial=1.0))
    scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}
    if not 1 <= factor < _LARGEST or not np.allclose(
            divisors, rope_divisors(head_dim, theta, RopeScaling(**scaling)), rtol=1e-6, atol=0):
        raise TritwiseError(f"{ROPE_FREQS} cannot be used", why="it does not hold the divisors of llama3's rope "
                            "scaling with the factors 1 and 4 over 8192 positions")
    return scaling


def _token_ids(file: GGUFFile, vocabulary: int) -> dict[str, int]:
    ids = {}
    for role, theirs in _IDS.items():
        key = f"tokenizer.ggml.{theirs}_token_id"
        if (value := file.metadata.get(key)) is None:
            continue
        if type(value) is not int or not 0 <= value < vocabulary:
            raise TritwiseError(f"{key} is {shown(value)}", why=f"the model has the ids 0 to {vocabulary - 1}")
        ids[f"{role}_token_id"] = value
    return ids
