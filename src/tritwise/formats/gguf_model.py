"""A model in one GGUF file, behind the interface of `ModelDirectory`.

    model = GGUFModel("model.gguf")       # open_model does the same for a file
    model.config                          # ModelConfig, from the metadata and the tensors' types
    model.read("model.layers.0.mlp.up_proj.weight")       # TernaryTensor

Files of llama.cpp, bitnet.cpp and ik_llama.cpp: architectures `bitnet`, `bitnet-25`, `bitnet-b1.58` and `llama`.
Settings that would change what the model computes and that this forward pass does not have are refused by name, as are
tensors that are missing, superfluous or of another shape. A matrix of the bitnet architectures that is stored in floats
has to hold -s, 0 and +s only, as llama.cpp's converter writes it, and is read as those codes.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig, QuantizationConfig
from tritwise.formats.gguf_file import GGUFFile
from tritwise.formats.gguf_names import ARCHITECTURES, gguf_name
from tritwise.formats.gguf_tokenizer import tokenizer_json
from tritwise.formats.gguf_types import GGUF_TYPES
from tritwise.formats.gguf_values import TERNARY_TYPES, floats, ternary
from tritwise.formats.packing import TernaryTensor
from tritwise.formats.reader import FileTensor, all_finite, linear_names

_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_ROTATED = re.compile(r"model\.layers\.\d+\.self_attn\.([qk])_proj\.weight")
# Settings of an architecture that `_config` reads, and others that are read when they hold the one value that the
# forward pass implements.
_READ = frozenset({
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned",
})
_ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,), "expert_used_count": (0,), "attention.causal": (True,), "use_parallel_residual": (False,),
    "tensor_data_layout": ("Meta AI original pth",), "attention.clamp_kqv": (0.0,), "logit_scale": (1.0, 0.0),
    "residual_scale": (1.0, 0.0), "embedding_scale": (1.0, 0.0), "attention.scale": (0.0,),
    "attention.sliding_window": (0,),
}


class GGUFModel:
    """An opened file; its tensors have Hugging Face's names. Quantised embeddings and heads are read as float32.

    `.path`, `.config`, `.files` and `.stored_bytes` as in `ModelDirectory`.
    Raises TritwiseError with the file, the key or tensor, and the reason.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = GGUFFile(path)
        self.path = self._file.path
        self.files = (self.path,)
        name = self._file.metadata.get("general.architecture")
        if name not in ARCHITECTURES:
            raise TritwiseError(f"{self.path}: the architecture {name!r} is not supported",
                                why=f"{', '.join(ARCHITECTURES)} are")
        self._architecture = ARCHITECTURES[name]
        self.config = self._config(name)
        self._shapes, self._linears = self.config.tensor_shapes(), linear_names(self.config)
        self._check()
        self.stored_bytes = sum(self.tensor_bytes(name) for name in self.names())

    def tokenizer_json(self) -> str | None:
        """The tokenizer in the metadata as the content of a tokenizer.json; None when there is none."""
        try:
            return tokenizer_json(self._file.metadata)
        except TritwiseError as error:
            raise TritwiseError(f"{self.path}: {error.what}", why=error.why) from None

    def names(self) -> tuple[str, ...]:
        """Every weight's name, in the order of `ModelConfig.tensor_shapes()`; scales belong to their weights."""
        return tuple(self._shapes)

    def tensor_bytes(self, name: str) -> int:
        """Bytes that a weight takes in the file, a scale in a tensor of its own included."""
        names = (gguf_name(name), _scale_name(name))
        return sum(tensor.stop - tensor.start for tensor in map(self._file.tensors.get, names) if tensor is not None)

    def read(self, name: str) -> np.ndarray | TernaryTensor:
        """As `ModelDirectory.read`: a `TernaryTensor` for a quantised linear, else a float array of its shape."""
        if name not in self._shapes:
            raise KeyError(name)
        tensor = self._file.tensors[gguf_name(name)]
        data = self._file.bytes_of(gguf_name(name))
        try:
            if name not in self._linears:
                array = floats(tensor.type, data, self._shapes[name])
                if not all_finite(array):
                    raise TritwiseError("", why="it holds NaN or infinite values")
                return self._in_order(name, array)
            if GGUF_TYPES[tensor.type].name in TERNARY_TYPES:
                codes, scale = ternary(tensor.type, data, self._shapes[name])
            else:
                codes, scale = _codes_of(floats(tensor.type, data, self._shapes[name]).astype(np.float32))
            return TernaryTensor.from_codes(self._in_order(name, codes), scale * self._extra_scale(name))
        except TritwiseError as error:
            raise self._error(name, error.why or error.what) from None

    def source(self, name: str) -> FileTensor | np.ndarray | TernaryTensor:
        """Where a weight lies in the file, if it lies there as the engine takes it; else its values, as `read` does."""
        tensor = self._file.tensors[gguf_name(name)]
        kind = GGUF_TYPES[tensor.type].name
        if name in self._linears or kind not in _PLAIN or self._rotated(name):
            return self.read(name)
        return FileTensor(self._file.descriptor, tensor.start, _PLAIN[kind], self._shapes[name], 1.0, False,
                          lambda: self.read(name))

    def _error(self, name: str, why: str, fix: str = "") -> TritwiseError:
        return TritwiseError(f"{self.path}: {gguf_name(name)} cannot be used", why=why, fix=fix)

    def _extra_scale(self, name: str) -> np.float32:
        """What the forks store beside a matrix, to be multiplied with its values."""
        found = self._file.tensors.get(_scale_name(name))
        if found is None:
            return np.float32(1)
        stored = floats(found.type, self._file.bytes_of(_scale_name(name)), found.shape)
        scale = stored.astype(np.float32).reshape(-1)[0]
        if not (np.isfinite(scale) and scale > 0):
            raise TritwiseError("", why=f"{_scale_name(name)} is {float(scale)}; it must be positive and finite")
        return scale

    def _rotated(self, name: str) -> re.Match[str] | None:
        return _ROTATED.fullmatch(name) if self._architecture.interleaved else None

    def _in_order(self, name: str, array: np.ndarray) -> np.ndarray:
        """Rows of q and k as Hugging Face has them: of each head the first halves of all pairs, then the second."""
        match = self._rotated(name)
        if match is None:
            return array
        config = self.config
        heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
        pairs = array.reshape(heads, config.head_dim // 2, 2, -1)
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)

    def _config(self, arch: str) -> ModelConfig:
        metadata, tensors = self._file.metadata, self._file.tensors
        prefix = f"{arch}."
        values = {key[len(prefix):]: value for key, value in metadata.items() if key.startswith(prefix)}
        for key, value in values.items():
            if key in _READ:
                continue
            if key not in _ONLY_VALUES or value not in _ONLY_VALUES[key]:
                raise TritwiseError(f"{self.path}: {prefix}{key} is {value!r}",
                                    why="this forward pass does not have it")

        def number(key: str, default: float | None = None) -> Any:
            value = values.get(key, default)
            if value is None:
                raise TritwiseError(f"{self.path}: {prefix}{key} is missing", why="without it there is no model")
            if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
                value = value[0].item()  # one for each block
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TritwiseError(f"{self.path}: {prefix}{key} is {value!r}", why="it has to be one number")
            return value

        layers = number("block_count")
        if layers > len(tensors):  # before a list of names is built from an absurd number
            raise TritwiseError(f"{self.path}: {prefix}block_count is {layers}",
                                why=f"the file holds {len(tensors)} tensors")
        embedding = tensors.get(gguf_name(_EMBEDDING))
        if embedding is None or len(embedding.shape) != 2:
            raise TritwiseError(f"{self.path}: {gguf_name(_EMBEDDING)} is missing", why="without it there is no model")
        if "rope_freqs.weight" in tensors:
            raise TritwiseError(f"{self.path}: rope_freqs.weight is there", why="frequencies by tensor, as for the "
                                "llama3 rope scaling, are not implemented")
        heads = number("attention.head_count")
        hidden = number("embedding_length")
        head_dim = number("attention.key_length", hidden // heads if heads else 0)
        for key in ("attention.value_length", "rope.dimension_count"):
            if number(key, head_dim) != head_dim:
                raise TritwiseError(f"{self.path}: {prefix}{key} is {number(key)}",
                                    why=f"a head has {head_dim} dimensions, and all of them are needed")
        if number("vocab_size", embedding.shape[0]) != embedding.shape[0]:
            raise self._error(_EMBEDDING, f"it has {embedding.shape[0]} rows, and {prefix}vocab_size is "
                              f"{number('vocab_size')}")
        kinds = {GGUF_TYPES[tensor.type].name for name, tensor in tensors.items()
                 if re.fullmatch(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight", name)}
        ternary_model = bool(kinds & TERNARY_TYPES) or self._architecture.model_type == "bitnet"
        if ternary_model and (others := kinds - TERNARY_TYPES - set(_PLAIN)):
            raise TritwiseError(f"{self.path} cannot be read as a ternary model",
                                why=f"matrices of its blocks are of type {min(others)}, which holds no exact codes")
        ids = {f"{role}_token_id": metadata.get(f"tokenizer.ggml.{theirs}_token_id")
               for role, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
        return ModelConfig.from_hf({
            "model_type": self._architecture.model_type, "hidden_act": self._architecture.hidden_act,
            "linear_type": "ternary" if ternary_model else "dense", "vocab_size": embedding.shape[0],
            "hidden_size": hidden, "intermediate_size": number("feed_forward_length"), "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": number("attention.head_count_kv", heads),
            "head_dim": head_dim, "max_position_embeddings": number("context_length"),
            "rms_norm_eps": _shortest(number("attention.layer_norm_rms_epsilon")),
            "rope_theta": _shortest(number("rope.freq_base", 10000.0)), "rope_scaling": self._scaling(values),
            "tie_word_embeddings": gguf_name(_HEAD) not in tensors,
            "quantization_config": QuantizationConfig(linear_class="autobitlinear") if ternary_model else None,
        } | {key: value for key, value in ids.items() if isinstance(value, int)}, source=str(self.path))

    def _scaling(self, values: dict[str, Any]) -> dict[str, Any] | None:
        kind, factor = values.get("rope.scaling.type", "none"), values.get("rope.scaling.factor", 1.0)
        if kind == "none" or (kind == "linear" and factor == 1.0):
            return None
        scaling = {"rope_type": kind, "factor": factor}
        original = values.get("rope.scaling.original_context_length")
        return scaling | ({"original_max_position_embeddings": original} if kind == "yarn" and original else {})

    def _check(self) -> None:
        tensors = self._file.tensors
        for name, shape in self._shapes.items():
            found = tensors.get(gguf_name(name))
            if found is None:
                raise TritwiseError(f"{self.path}: {gguf_name(name)} is missing",
                                    why=f"the metadata describe a {self.config.model_type} model that has it")
            kind = GGUF_TYPES[found.type].name
            if found.shape != shape:
                raise self._error(name, f"its shape is {list(found.shape)}; the metadata ask for {list(shape)}")
            if kind in TERNARY_TYPES and name not in self._linears:
                raise self._error(name, f"it is of type {kind}, and only the matrices of the blocks are ternary")
        known = {gguf_name(name) for name in self._shapes}
        scales = {_scale_name(name) for name in self._linears}
        for name in scales & set(tensors):
            if tensors[name].shape != (1,) or GGUF_TYPES[tensors[name].type].name not in _PLAIN:
                raise TritwiseError(f"{self.path}: {name} cannot be used", why="a scale is one float")
        if unknown := sorted(set(tensors) - known - scales):
            raise TritwiseError(f"{self.path}: {unknown[0]} is there"
                                + (f", and {len(unknown) - 1} more tensors" if len(unknown) > 1 else ""),
                                why=f"a {self.config.linear_type} {self.config.model_type} model has none")


def _scale_name(name: str) -> str:
    return gguf_name(name.removesuffix("weight") + "scale")


def _shortest(value: float) -> float:
    """The number that was meant by a float32 of the metadata: 1e-5 and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _codes_of(values: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Codes and scale of a matrix of -s, 0 and +s. Raises TritwiseError for any other."""
    scale = np.abs(values).max()
    if not (np.isfinite(scale) and scale > 0 and np.isin(values, (-scale, np.float32(0), scale)).all()):
        raise TritwiseError("", why="it holds other values than -s, 0 and +s, so it is not a ternary matrix")
    return np.sign(values).astype(np.int8), np.float32(scale)
