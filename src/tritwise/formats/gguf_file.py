"""One GGUF file, read as if an enemy had written it: every size and place is checked before it is used.

    file = GGUFFile("model.gguf")
    file.metadata["general.architecture"]          # "bitnet"
    file.tensors["blk.0.attn_q.weight"]            # GGUFTensor(type, shape, start, stop)
    file.bytes_of("blk.0.attn_q.weight")           # uint8, a read-only view of the mapped file

The layout is that of the GGUF specification (ggml/docs/gguf.md), versions 2 and 3, little-endian. Beyond what it asks
for, tensors have to lie one behind the other without overlaps and gaps, from the beginning of the data to the end of
the file, and no name or key comes twice. A declared length is compared with the bytes that are left before anything
is made of it, so a small file cannot ask for much time or memory.
"""

import mmap
import os
import struct
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.files import open_regular
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Limits of the specification, and of llama.cpp where it has none (GGML_MAX_NAME, GGML_MAX_DIMS).
LONGEST_KEY, LONGEST_NAME, MOST_DIMENSIONS = 65535, 64, 4
DEEPEST_ARRAY = 4
# Limits of ours, far above what any model has: what Python makes of a key, a tensor, a string or an array is several
# times the bytes that it takes in the file. Strings count together, as do their bytes.
MOST_KEYS, MOST_TENSORS, MOST_STRINGS, MOST_TEXT = 1 << 16, 1 << 16, 1 << 21, 1 << 27
_ARRAY_IN_STRINGS = 16  # as so many an array in an array counts
_MOST_INT64 = 2**63 - 1

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
_ARRAYS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


def text_of(metadata: Mapping[str, Any], key: str) -> str | None:
    """A string of the metadata; None where it is missing. Raises TritwiseError for anything else."""
    value = metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise TritwiseError(f"{key} is {shown(value)}", why="it has to be a string")
    return value


def shown(value: Any) -> str:
    """A value for a message: what is long by its length."""
    return f"{len(value)} values" if isinstance(value, list | np.ndarray) else repr(value)[:100]


class GGUFTensor(NamedTuple):
    """What the file says of a tensor: type number, shape with the innermost axis last, and where its bytes lie."""

    type: int
    shape: tuple[int, ...]
    start: int
    stop: int


class GGUFFile:
    """A checked, mapped file: `.path`, `.version`, `.alignment`, `.metadata` and `.tensors`, both in the file's order.

    Metadata values are int, float, bool, str, a numpy array (of numbers or bools) or a list (of strings or arrays).
    Strings that are not UTF-8 keep their bytes as surrogates (PEP 383). `.descriptor` is the open file, for as long as
    this object lives. Raises TritwiseError with the file and the reason for whatever is wrong.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open_regular(self.path) as file:
                self.descriptor = os.dup(file.fileno())
                weakref.finalize(self, os.close, self.descriptor)
                size = os.fstat(file.fileno()).st_size
                if size < 24:
                    raise self._error(f"it has {size} bytes, and the shortest header has 24")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise TritwiseError(f"{self.path} does not exist") from None
        except (OSError, ValueError) as error:
            raise TritwiseError(f"{self.path} cannot be read", why=str(error)) from None
        self._size = len(self._map)
        self._at = 0
        self._strings_made = self._text = 0
        self._read()

    def bytes_of(self, name: str) -> NDArray[np.uint8]:
        """The tensor's bytes, read-only, as a view of the file. Raises KeyError for a name that it does not have."""
        tensor = self.tensors[name]
        flat = np.frombuffer(self._map, dtype=np.uint8, count=tensor.stop - tensor.start, offset=tensor.start)
        if hasattr(mmap, "MADV_DONTNEED"):  # as in SafetensorsFile.array
            page_start = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
            release = weakref.finalize(flat, self._map.madvise, mmap.MADV_DONTNEED, page_start,
                                       tensor.stop - page_start)
            release.atexit = False
        return flat

    def _error(self, why: str) -> TritwiseError:
        return TritwiseError(f"{self.path} is not a whole GGUF file", why=why,
                             fix="copy or download it again; if it stays so, tell the one who made it")

    # Every read goes through here.
    def _take(self, count: int, what: str) -> int:
        """The place of the next `count` bytes, which then count as read."""
        if count > self._size - self._at:
            raise self._error(f"{what} needs {count} bytes at byte {self._at}, and the file ends at {self._size}")
        at, self._at = self._at, self._at + count
        return at

    def _count(self, strings: int, text: int, what: str) -> None:
        """Strings and their bytes, before they are made."""
        self._strings_made, self._text = self._strings_made + strings, self._text + text
        if self._strings_made > MOST_STRINGS or self._text > MOST_TEXT:
            raise self._error(f"with {what} there are more than {MOST_STRINGS} strings, or strings of more than "
                              f"{MOST_TEXT} bytes")

    def _number(self, form: str, what: str) -> Any:
        return struct.unpack_from(form, self._map, self._take(struct.calcsize(form), what))[0]

    def _string(self, what: str, longest: int = _MOST_INT64) -> str:
        length = self._number("<Q", f"the length of {what}")
        if length > longest:
            raise self._error(f"{what} has {length} bytes, and at most {longest} are allowed")
        at = self._take(length, what)
        self._count(1, length, what)
        return self._map[at:at + length].decode("utf-8", "surrogateescape")

    def _name(self, what: str, longest: int) -> str:
        name = self._string(what, longest)
        if not name or not name.isprintable():
            raise self._error(f"{what} is {name!r}, which is no name")
        return name

    def _value(self, key: str, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], key)
        if kind == _BOOL:
            return bool(self._bools(key, 1)[0])
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            if depth == DEEPEST_ARRAY:
                raise self._error(f"{key} holds arrays more than {DEEPEST_ARRAY} deep")
            return self._array(key, depth + 1)
        raise self._error(f"{key} is of type {kind}, which does not exist")

    def _bools(self, key: str, count: int) -> NDArray[np.bool_]:
        values = np.frombuffer(self._map, np.uint8, count, self._take(count, key))
        if count and values.max() > 1:
            raise self._error(f"{key} holds the bool {int(values.max())}, and only 0 and 1 are any")
        return values.astype(np.bool_)

    def _array(self, key: str, depth: int) -> Any:
        kind, count = self._number("<I", f"the type of {key}"), self._number("<Q", f"the length of {key}")
        if kind in _ARRAYS:
            dtype = np.dtype(_ARRAYS[kind])
            return np.frombuffer(self._map, dtype, count, self._take(count * dtype.itemsize, key)).copy()
        if kind == _BOOL:
            return self._bools(key, count)
        if kind not in (_STRING, _ARRAY):
            raise self._error(f"{key} holds elements of type {kind}, which does not exist")
        shortest = 8 if kind == _STRING else 12
        if count * shortest > self._size - self._at:
            raise self._error(f"{key} is said to have {count} elements, and the {self._size - self._at} bytes that are "
                              f"left cannot hold them")
        self._count(count if kind == _STRING else _ARRAY_IN_STRINGS * count, 0, key)
        if kind == _STRING:
            return self._strings(key, count)
        return [self._value(key, kind, depth) for _ in range(count)]

    def _strings(self, key: str, count: int) -> list[str]:
        """As `_string`, `count` times: a vocabulary has some hundred thousand."""
        content, at, result = self._map, self._at, []
        end = min(self._size, at + 8 * count + MOST_TEXT - self._text)
        for _ in range(count):
            begin = at + 8
            at = begin + int.from_bytes(content[at:begin], "little")
            if at > end:
                raise self._error(f"{key}[{len(result)}] lies beyond the end of the file" if at > self._size else
                                  f"with {key} there are strings of more than {MOST_TEXT} bytes")
            result.append(content[begin:at].decode("utf-8", "surrogateescape"))
        self._text += at - self._at - 8 * count
        self._at = at
        return result

    def _read(self) -> None:
        self._take(4, "the magic")
        if self._map[:4] != MAGIC:
            raise TritwiseError(f"{self.path} is not a GGUF file",
                                why=f"it begins with {self._map[:4]!r}, not {MAGIC!r}")
        self.version = self._number("<I", "the version")
        if self.version not in VERSIONS:
            swapped = int.from_bytes(self.version.to_bytes(4, "little"), "big") in VERSIONS
            raise TritwiseError(
                f"{self.path} is GGUF of a version that is not read",
                why="it is big-endian" if swapped else f"it says {self.version}, and "
                f"{' and '.join(map(str, VERSIONS))} are known",
                fix="convert the model again with a present converter" + (" on this machine" if swapped else ""))
        tensors, keys = self._number("<Q", "the number of tensors"), self._number("<Q", "the number of keys")
        # A tensor takes 8 + 1 + 4 + 8 + 4 + 8 bytes of header at least, a key 8 + 1 + 4 + 1.
        if tensors * 33 + keys * 14 > self._size:
            raise self._error(f"it is said to have {tensors} tensors and {keys} keys, and cannot hold them")
        if tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise self._error(f"it has {tensors} tensors and {keys} keys, and at most {MOST_TENSORS} and {MOST_KEYS} "
                              "are read")
        self.metadata: dict[str, Any] = {}
        for number in range(keys):
            key = self._name(f"key {number}", LONGEST_KEY)
            if key in self.metadata:
                raise self._error(f"the key {key} is there twice")
            self.metadata[key] = self._value(key, self._number("<I", f"the type of {key}"), 0)
        self.alignment = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(self.alignment, int) or self.alignment < 8 or self.alignment & (self.alignment - 1) or \
                self.alignment > 1 << 20:
            raise self._error(f"general.alignment is {self.alignment}, no power of two from 8 to {1 << 20}")
        self._place([self._tensor(number) for number in range(tensors)])

    def _tensor(self, number: int) -> tuple[str, int, tuple[int, ...], int, int]:
        name = self._name(f"the name of tensor {number}", LONGEST_NAME)
        dimensions = self._number("<I", f"the dimensions of {name}")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self._error(f"{name} has {dimensions} dimensions, and 1 to {MOST_DIMENSIONS} are allowed")
        sizes = [self._number("<Q", f"the shape of {name}") for _ in range(dimensions)]
        kind, offset = self._number("<I", f"the type of {name}"), self._number("<Q", f"the offset of {name}")
        shape = tuple(reversed(sizes))
        if min(shape) < 1:
            raise self._error(f"{name} has the shape {list(shape)}")
        if kind not in GGUF_TYPES:
            raise TritwiseError(f"{self.path}: {name} cannot be read", why=f"it is of type {kind}; known are "
                                + ", ".join(f"{each.name} ({number})" for number, each in GGUF_TYPES.items()))
        if max(shape) > self._size * 8:  # no type has less than a bit a weight; before sizes are multiplied
            raise self._error(f"{name} has the shape {list(shape)}, more than the file can hold")
        try:
            count = tensor_bytes(kind, shape)
        except ValueError as error:
            raise self._error(f"{name}: {error}") from None
        return name, kind, shape, offset, count

    def _place(self, listed: list[tuple[str, int, tuple[int, ...], int, int]]) -> None:
        begin = -(-self._at // self.alignment) * self.alignment
        self.tensors: dict[str, GGUFTensor] = {}
        for name, kind, shape, offset, count in listed:
            if name in self.tensors:
                raise self._error(f"the tensor {name} is there twice")
            if offset % self.alignment:
                raise self._error(f"{name} lies at {offset}, no multiple of the alignment {self.alignment}")
            start = begin + offset
            if count > self._size or start > self._size - count:
                raise self._error(f"{name} needs {count} bytes at byte {start}, and the file ends at {self._size}")
            self.tensors[name] = GGUFTensor(kind, shape, start, start + count)
        reached = begin if listed else self._at
        before = "the header"
        for name, tensor in sorted(self.tensors.items(), key=lambda item: item[1].start):
            expected = -(-reached // self.alignment) * self.alignment
            if tensor.start < expected:
                raise self._error(f"{name} begins at byte {tensor.start}, inside {before}, which ends at {reached}")
            if tensor.start > expected:
                raise self._error(f"between {before} and {name} lie {tensor.start - expected} bytes that nobody owns")
            reached, before = tensor.stop, name
        padded = -(-reached // self.alignment) * self.alignment
        if self._size not in (reached, padded) and not (not listed and self._size <= padded):
            raise self._error(f"behind {before} lie {self._size - reached} bytes that nobody owns")
