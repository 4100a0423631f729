"""`open_directory`: a Hugging Face model directory, checked against its config.json before anything is believed.

    directory = open_directory("runs/quickstart/ternary")
    directory.config                 # ModelConfig
    directory.read("model.layers.0.mlp.up_proj.weight")    # TernaryTensor(packed, scale, shape)
    directory.read("model.norm.weight")                    # float32, float16 or bfloat16 array

What a quantised linear looks like in the file (transformers, integrations/bitnet.py):

| linear_class, mode | `weight` | `weight_scale` [1] |
|---|---|---|
| bitlinear | uint8 row stripes | 1 / scale: the layer divides by it |
| autobitlinear offline | uint8 row stripes, or the codes as floats | scale: the layer multiplies by it |
| autobitlinear online | latent floats, quantised here by absmean (or sign) in float32 | none |
| no quantization_config, linear_type ternary | floats -s, 0 and +s, with an s for each row (ternarised.py) | none |
"""

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_json, read_text
from tritwise.config import ModelConfig
from tritwise.formats.packing import TernaryTensor, holds_field_3, packed_rows, quantise
from tritwise.formats.safetensors_file import DTYPES, StoredTensor
from tritwise.formats.ternarised import codes_and_scales
from tritwise.formats.weight_files import WEIGHTS as WEIGHTS  # the writer's too
from tritwise.formats.weight_files import Place, locate, tensor_error

FLOAT_DTYPES = tuple(name for name in DTYPES if name != "U8")
# What the norms before o_proj and down_proj are called in the models of 1bitLLM.
_OTHER_NAMES = {".self_attn.inner_attn_ln.": ".self_attn.attn_sub_norm.", ".mlp.ffn_layernorm.": ".mlp.ffn_sub_norm."}
# Buffers that old versions of transformers saved; they follow from the configuration.
_IGNORED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True, eq=False)
class FileTensor:
    """Where a weight lies, for a reader that does without numpy: `descriptor` is open as long as the directory lives.

    Floats: `dtype` float32, float16 or bfloat16 in rows of `shape`. Quantised: `dtype` uint8, row stripes of the codes
    of `shape` (out, in), with the `scale` that multiplies; in a `binary` weight the code 0 is an error. The values are
    not checked: a reader that finds some that cannot be calls `refuse`, which raises the error that `read` raises.
    """

    descriptor: int
    offset: int
    dtype: str
    shape: tuple[int, ...]
    scale: float
    binary: bool
    refuse: Callable[[], object]


class ModelDirectory:
    """An opened model; made by `open_directory`. Arrays are read-only views of the mapped files.

    `.path`, `.config`, `.tokenizer_file` (None when the directory has none), `.files` (the safetensors files) and
    `.stored_bytes` (bytes of all weights and scales as stored, without the files' headers).
    """

    def __init__(self, path: Path, config: ModelConfig, tensors: Mapping[str, Place]) -> None:
        self.path, self.config = path, config
        self._tensors = tensors
        self._linears, self._shapes = linear_names(config), config.tensor_shapes()
        tokenizer = path / "tokenizer.json"
        self.tokenizer_file = tokenizer if os.path.lexists(tokenizer) else None
        self.files = tuple(sorted({place.path for place in tensors.values()}))
        self.stored_bytes = sum(self.tensor_bytes(name) for name in self.names())

    def tokenizer_json(self) -> str | None:
        """The content of the directory's tokenizer.json; None when it has none. Raises TritwiseError if unreadable."""
        if self.tokenizer_file is None:
            return None
        return read_text(self.tokenizer_file, what="a tokenizer")

    def names(self) -> tuple[str, ...]:
        """Every weight's name, in the order of `ModelConfig.tensor_shapes()`; scales belong to their weights."""
        return tuple(self._shapes)

    def stored(self, name: str) -> StoredTensor:
        """What the file's header says of a weight: type name ("BF16", "U8", ...), stored shape, place."""
        return self._tensors[name].stored

    def tensor_bytes(self, name: str) -> int:
        """Bytes that a weight takes in the file, its scale included."""
        names = (name, f"{name}_scale") if f"{name}_scale" in self._tensors else (name,)
        return sum(self.stored(each).stop - self.stored(each).start for each in names)

    def read(self, name: str) -> np.ndarray | TernaryTensor:
        """A weight's values, checked: a `TernaryTensor` for a quantised linear, else a float array of its shape.

        Raises KeyError for a name outside `names()`, TritwiseError (with file, tensor and reason) for values that
        cannot be: a field that is no code, a scale that is not positive and finite, NaN or infinite weights.
        """
        if name not in self._shapes:
            raise KeyError(name)
        if name not in self._linears:
            return self._floats(name)
        quantisation = self.config.quantization_config
        if quantisation is None:
            return self._ternarised(name)
        if quantisation.linear_class == "autobitlinear" and quantisation.quantization_mode == "online":
            return self._quantise(name)
        return self._packed(name)

    def latent(self, name: str) -> np.ndarray:
        """The float weights that a quantised linear was made of, where the directory has them, else as `read`."""
        quantisation = self.config.quantization_config
        online = quantisation is not None and (quantisation.linear_class, quantisation.quantization_mode) == (
            "autobitlinear", "online")
        return self._floats(name) if online else self.read(name)

    def source(self, name: str) -> FileTensor | np.ndarray | TernaryTensor:
        """Where a weight lies in its file; the values, as `read` gives them, where they have to be quantised first."""
        stored, file = self.stored(name), self._tensors[name].file
        quantised = name in self._linears
        if quantised and stored.dtype != "U8":
            return self.read(name)
        scale = float(self._scale(name)[0]) if quantised else 1.0
        return FileTensor(file.descriptor, stored.start, DTYPES[stored.dtype].name, self._shapes[name], scale,
                          quantised and self.config.linear_type == "binary", lambda: self.read(name))

    def _error(self, name: str, why: str, fix: str = "") -> TritwiseError:
        return tensor_error(self._tensors[name], why, fix)

    def _array(self, name: str) -> np.ndarray:
        return self._tensors[name].array()

    def _floats(self, name: str) -> np.ndarray:
        array = self._array(name)
        if not all_finite(array):
            raise self._error(name, "it holds NaN or infinite values",
                              "look for the step at which training diverged, or for a damaged file")
        return array

    def _quantise(self, name: str) -> TernaryTensor:
        return quantise(self.config, self._floats(name))

    def _ternarised(self, name: str) -> TernaryTensor:
        try:
            return TernaryTensor.from_codes(*codes_and_scales(self._floats(name)))
        except ValueError as error:
            raise self._error(
                name, f"linear_type is ternary and quantization_config is missing, but {error}",
                "master weights need a quantization_config with quantization_mode online; without linear_type the "
                "model opens as a dense one") from None

    def _packed(self, name: str) -> TernaryTensor:
        shape = self._shapes[name]
        weight = self._array(name)
        if weight.dtype == np.uint8:
            if holds_field_3(weight):
                raise self._error(name, "a 2-bit field holds 3, which stands for no code")
            tensor = TernaryTensor(weight, self._scale(name), shape)
        else:
            codes = weight.astype(np.float32)
            if not np.isin(codes, (-1, 0, 1)).all():
                raise self._error(
                    name, "it holds floats other than -1, 0 and +1, but quantization_mode is offline",
                    "master weights need quantization_mode online in config.json")
            tensor = TernaryTensor.from_codes(codes.astype(np.int8), self._scale(name)[0])
        if self.config.linear_type == "binary" and not tensor.codes().all():
            raise self._error(name, "it holds the code 0, but linear_type is binary")
        return tensor

    def _scale(self, weight_name: str) -> np.ndarray:
        """The scale that multiplies, float32 [1]. Only `linear_class` says whether the stored one divides."""
        name = f"{weight_name}_scale"
        scale = self._array(name).astype(np.float32)
        if self.config.quantization_config.linear_class == "bitlinear":
            with np.errstate(divide="ignore", over="ignore"):
                scale = np.float32(1) / scale
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise self._error(name, f"the scale is {float(self._array(name)[0])}; it must be positive and finite")
        return scale


def open_directory(path: str | Path) -> ModelDirectory:
    """Open a directory with config.json and safetensors weights in Hugging Face's layout.

    The weights are model.safetensors or, when that is absent, the files named by model.safetensors.index.json (the
    order in which transformers looks). Presence, shape and type of every tensor are checked here, values by `read`.
    A tied head that is stored all the same is accepted when it equals the embedding, bit for bit.
    Raises TritwiseError with the file, the tensor and the reason.
    """
    path = Path(path)
    if not os.path.isdir(path):
        raise TritwiseError(f"{path} is not a model directory",
                            why="it is a file" if os.path.isfile(path) else "there is no such directory",
                            fix="give the path of a GGUF file or of a directory with config.json and model.safetensors")
    config = read_config(path)
    tensors = _renamed(locate(path), config)
    # Before a list of names is built from absurd numbers.
    if config.num_hidden_layers * (config.num_experts or 1) > len(tensors):
        experts = f" and num_experts is {config.num_experts}" if config.num_experts else ""
        raise TritwiseError(f"{path / 'config.json'} does not fit the weights",
                            why=f"num_hidden_layers is {config.num_hidden_layers}{experts}, but the files hold "
                                f"{len(tensors)} tensors")
    _check_names(path, config, tensors)
    _check_layout(config, tensors)
    directory = ModelDirectory(path, config, tensors)
    if config.tie_word_embeddings and _HEAD in tensors:
        _check_redundant_head(tensors)
    return directory


def read_config(path: Path) -> ModelConfig:
    """The `ModelConfig` of a model directory, refused where the weights would be read with another meaning."""
    file = path / "config.json"
    values = read_json(file, what="a model configuration")
    if not isinstance(values, dict):
        raise TritwiseError(f"{file} is not a model configuration", why="it is not a JSON object")
    config = ModelConfig.from_hf(values, source=str(file))
    if config.linear_type != "dense":
        if config.quantization_config is None:
            if config.linear_type == "ternary":
                return config  # floats that are ternary already
            raise TritwiseError(f"{file}: linear_type is {config.linear_type} but quantization_config is missing",
                                why="without it other readers take latent weights for a dense model")
        kept = [name for name in config.quantization_config.modules_to_not_convert or () if _keeps_one(name, config)]
        if kept:
            raise TritwiseError(f"{file}: modules_to_not_convert names {', '.join(sorted(kept))}",
                                why="here every linear of every block is quantised, and only the head is not")
    return config


def _keeps_one(pattern: str, config: ModelConfig) -> bool:
    """Whether an entry of `modules_to_not_convert` may name a linear of a block, as transformers matches them.

    It is a name's beginning up to a dot, or its end. transformers also takes it as a regular expression, which is not
    done here with text from a file: whatever holds more than words and dots counts as a name.
    """
    if not re.fullmatch(r"[\w.]+", pattern):
        return True
    pattern = re.sub(r"^model\.layers\.\d+(?=\.|$)", "model.layers.0", pattern)
    names = [f"model.layers.0.{name}" for name in config.linear_shapes()]
    return any(f"{name}.".startswith(pattern.rstrip(".") + ".") or name.endswith(pattern) for name in names)


def linear_names(config: ModelConfig) -> frozenset[str]:
    """Names of the weights that are stored quantised: all block linears, or none in a dense model."""
    if config.linear_type == "dense":
        return frozenset()
    return frozenset(f"model.layers.{layer}.{name}.weight"
                     for layer in range(config.num_hidden_layers) for name in config.linear_shapes())


def all_finite(array: np.ndarray) -> bool:
    """Whether a float16, bfloat16 or float32 array holds neither NaN nor infinity; in blocks, as it may be a map."""
    # The exponent's bits are all set in exactly the values that are not finite.
    word, exponent = {"float32": (np.uint32, 0x7F800000), "float16": (np.uint16, 0x7C00),
                      "bfloat16": (np.uint16, 0x7F80)}[array.dtype.name]
    words = np.ascontiguousarray(array).reshape(-1).view(word)
    step = 1 << 20
    return all(int((words[i:i + step] & word(exponent)).max()) < exponent for i in range(0, len(words), step))


def _renamed(tensors: Mapping[str, Place], config: ModelConfig) -> dict[str, Place]:
    """The tensors by the names of `ModelConfig.tensor_shapes()`; a name that is taken already stays as it is."""
    result = dict(tensors)
    if config.has_sub_norms:
        for name in tensors:
            ours = name
            for theirs, known in _OTHER_NAMES.items():
                ours = ours.replace(theirs, known)
            if ours not in result:
                result[ours] = result.pop(name)
    return result


def _has_scales(config: ModelConfig) -> bool:
    quantisation = config.quantization_config
    return quantisation is not None and not (
        quantisation.linear_class == "autobitlinear" and quantisation.quantization_mode == "online")


def _check_names(path: Path, config: ModelConfig, tensors: Mapping[str, Place]) -> None:
    expected = set(config.tensor_shapes())
    if _has_scales(config):
        expected |= {f"{name}_scale" for name in linear_names(config)}
    missing = sorted(expected - set(tensors))
    if missing:
        raise TritwiseError(f"{path}: {missing[0]} is missing"
                            + (f", and {len(missing) - 1} more tensors" if len(missing) > 1 else ""),
                            why=f"config.json describes a {config.linear_type} {config.model_type} model that has it")
    allowed = expected | ({_HEAD} if config.tie_word_embeddings else set())
    for name in sorted(set(tensors) - allowed):
        if not _IGNORED.fullmatch(name):
            unsaid = ", as quantization_config is missing" if config.quantization_config is None else ""
            raise tensor_error(
                tensors[name],
                f"a {config.linear_type} {config.model_type} model of this config.json has none{unsaid}")


def _check_layout(config: ModelConfig, tensors: Mapping[str, Place]) -> None:
    linears, offline = linear_names(config), _has_scales(config)
    floats_too = not offline or config.quantization_config.linear_class == "autobitlinear"
    shapes = config.tensor_shapes()
    if config.tie_word_embeddings and _HEAD in tensors:
        shapes = shapes | {_HEAD: shapes[_EMBEDDING]}
    for name, shape in shapes.items():
        packed = offline and name in linears
        allowed = [(dtype, shape) for dtype in FLOAT_DTYPES] if not packed or floats_too else []
        if packed:
            allowed.insert(0, ("U8", (packed_rows(shape[0]), shape[1])))
            _check_one(tensors[f"{name}_scale"], [(dtype, (1,)) for dtype in FLOAT_DTYPES])
        _check_one(tensors[name], allowed)


def _check_one(place: Place, allowed: list[tuple[str, tuple[int, ...]]]) -> None:
    entry = place.stored
    if (entry.dtype, entry.shape) not in allowed:
        forms: dict[tuple[int, ...], list[str]] = {}
        for dtype, shape in allowed:
            forms.setdefault(shape, []).append(dtype)
        wanted = " or ".join(f"{'/'.join(dtypes)} {list(shape)}" for shape, dtypes in forms.items())
        raise tensor_error(place, f"it is {entry.dtype} {list(entry.shape)}; config.json asks for {wanted}")


def _check_redundant_head(tensors: Mapping[str, Place]) -> None:
    head, embedding = tensors[_HEAD].array(), tensors[_EMBEDDING].array()
    if head.dtype != embedding.dtype or not np.array_equal(head.view(np.uint8), embedding.view(np.uint8)):
        raise tensor_error(tensors[_HEAD], "it differs from model.embed_tokens.weight, but "
                            "tie_word_embeddings is true",
                            "set tie_word_embeddings to false in config.json if the head is meant")
