"""A model in one GGUF file, behind the interface of `ModelDirectory`.

    model = GGUFModel("model.gguf")       # open_model does the same for a file
    model.config                          # ModelConfig, from the metadata and the tensors' types
    model.read("model.layers.0.mlp.up_proj.weight")       # TernaryTensor

Files of llama.cpp, bitnet.cpp and ik_llama.cpp: architectures `bitnet`, `bitnet-25`, `bitnet-b1.58` and `llama`.
Settings that would change what the model computes and that this forward pass does not have are refused by name, as are
tensors that are missing, superfluous or of another shape. A matrix of the bitnet architectures that is stored in floats
has to hold -s, 0 and +s only, as llama.cpp's converter writes it, and is read as those codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.formats.gguf_config import architecture, model_config
from tritwise.formats.gguf_file import GGUFFile
from tritwise.formats.gguf_names import ROPE_FREQS, gguf_name, q_or_k
from tritwise.formats.gguf_tokenizer import tokenizer_json
from tritwise.formats.gguf_types import GGUF_TYPES
from tritwise.formats.gguf_values import PLAIN_TYPES, TERNARY_TYPES, I2SLayout, floats, ternary, ternary_scale
from tritwise.formats.packing import TernaryTensor
from tritwise.formats.reader import FileTensor, all_finite, linear_names


@dataclass(frozen=True)
class GGUFCodes:
    """A ternary matrix as the file holds it: the bytes of a type, for `_native.unpack_gguf`.

    `scale` multiplies. `head_dim` is 0, or that of q or k whose rows lie in pairs (`Architecture.interleaved`).
    """

    type: str
    data: NDArray[np.uint8]
    shape: tuple[int, int]
    scale: np.float32
    head_dim: int
    read: Callable[[], np.ndarray | TernaryTensor]

    def refuse(self) -> None:
        """Raise the TritwiseError that says what is wrong with the bytes."""
        self.read()


class GGUFModel:
    """An opened file; its tensors have Hugging Face's names. Quantised embeddings and heads are read as float32.

    `i2s_layout` says how I2_S tensors are laid out (`ternary`), which a file does not say; None is that of x86.
    `.path`, `.config`, `.files` and `.stored_bytes` as in `ModelDirectory`; `.metadata` is the file's.
    Raises TritwiseError with the file, the key or tensor, and the reason.
    """

    def __init__(self, path: str | Path, *, i2s_layout: I2SLayout | None = None) -> None:
        self._file = GGUFFile(path)
        self.metadata = self._file.metadata
        self.path = self._file.path
        self.files = (self.path,)
        try:
            self._architecture = architecture(self._file)
            self.config = model_config(self._file)
        except TritwiseError as error:
            raise TritwiseError(f"{self.path}: {error.what}", why=error.why) from None
        self._shapes, self._linears = self.config.tensor_shapes(), linear_names(self.config)
        self._check()
        self._i2s_layout = self._layout(i2s_layout)
        self.stored_bytes = sum(self.tensor_bytes(name) for name in self.names())

    def tokenizer_json(self) -> str | None:
        """The tokenizer in the metadata as the content of a tokenizer.json; None when there is none."""
        try:
            return tokenizer_json(self._file.metadata, self.config.vocab_size)
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
                codes, scale = ternary(tensor.type, data, self._shapes[name], self._i2s_layout)
            else:
                codes, scale = _codes_of(floats(tensor.type, data, self._shapes[name]).astype(np.float32))
            return TernaryTensor.from_codes(self._in_order(name, codes), self._scaled(name, scale))
        except TritwiseError as error:
            raise self._error(name, error.why or error.what) from None

    def source(self, name: str) -> FileTensor | GGUFCodes | np.ndarray | TernaryTensor:
        """Where a weight lies in the file, if it lies there as the engine takes it; else its values, as `read` does."""
        tensor = self._file.tensors[gguf_name(name)]
        kind = GGUF_TYPES[tensor.type].name
        if name in self._linears and kind in TERNARY_TYPES and self._i2s_layout == "x86":
            data, shape = self._file.bytes_of(gguf_name(name)), self._shapes[name]
            try:
                scale, whole = ternary_scale(tensor.type, data, shape)
                if whole:
                    return GGUFCodes(kind, data, shape, self._scaled(name, scale),
                                     self.config.head_dim if self._rotated(name) else 0, partial(self.read, name))
            except TritwiseError as error:
                raise self._error(name, error.why or error.what) from None
        if name in self._linears or kind not in PLAIN_TYPES or self._rotated(name):
            return self.read(name)
        return FileTensor(self._file.descriptor, tensor.start, PLAIN_TYPES[kind].name, self._shapes[name], 1.0, False,
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

    def _rotated(self, name: str) -> bool:
        return self._architecture.interleaved and q_or_k(name) is not None

    def _scaled(self, name: str, scale: np.float32) -> np.float32:
        with np.errstate(over="ignore", under="ignore"):
            product = scale * self._extra_scale(name)
        if not (np.isfinite(product) and product > 0):
            raise TritwiseError("", why=f"its scale {float(scale)} times {_scale_name(name)} is {float(product)}; it "
                                "must be positive and finite")
        return product

    def _in_order(self, name: str, array: np.ndarray) -> np.ndarray:
        """Rows of q and k as Hugging Face has them: of each head the first halves of all pairs, then the second."""
        if not self._rotated(name):
            return array
        pairs = array.reshape(-1, self.config.head_dim // 2, 2, array.shape[1])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)

    def _layout(self, wanted: I2SLayout | None) -> I2SLayout:
        if wanted is None:
            return "x86"
        if not any(GGUF_TYPES[tensor.type].name == "I2_S" for tensor in self._file.tensors.values()):
            raise TritwiseError(f"{self.path} has no layout of I2_S that could be {wanted}",
                                why="none of its tensors is of that type")
        return wanted

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
        known = {gguf_name(name) for name in self._shapes} | {ROPE_FREQS}
        scales = {_scale_name(name) for name in self._linears}
        for name in scales & set(tensors):
            if tensors[name].shape != (1,) or GGUF_TYPES[tensors[name].type].name not in PLAIN_TYPES:
                raise TritwiseError(f"{self.path}: {name} cannot be used", why="a scale is one float")
        if unknown := sorted(set(tensors) - known - scales):
            raise TritwiseError(f"{self.path}: {unknown[0]} is there"
                                + (f", and {len(unknown) - 1} more tensors" if len(unknown) > 1 else ""),
                                why=f"a {self.config.linear_type} {self.config.model_type} model has none")


def _scale_name(name: str) -> str:
    return gguf_name(name.removesuffix("weight") + "scale")


def _codes_of(values: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Codes and scale of a matrix of -s, 0 and +s. Raises TritwiseError for any other."""
    scale = np.abs(values).max()
    if not (np.isfinite(scale) and scale > 0 and np.isin(values, (-scale, np.float32(0), scale)).all()):
        raise TritwiseError("", why="it holds other values than -s, 0 and +s, so it is not a ternary matrix")
    return np.sign(values).astype(np.int8), np.float32(scale)
