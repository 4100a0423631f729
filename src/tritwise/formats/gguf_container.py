"""Writing the container of a GGUF file, version 3: metadata, the table of tensors, their bytes. gguf_file.py reads it.

    entries = [GGUFEntry("token_embd.weight", 1, (8, 256), pieces)]
    write_container("model.gguf", {"general.architecture": "bitnet"}, entries)

Source: the GGUF specification (ggml, docs/gguf.md).
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.files import atomic_file
from tritwise.formats.gguf_file import DEFAULT_ALIGNMENT, LONGEST_NAME, MAGIC
from tritwise.formats.gguf_types import tensor_bytes

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64 = 4, 5, 6, 7, 8, 9, 10
_OF_ARRAYS = {"int32": _INT32, "uint32": _UINT32, "float32": _FLOAT32}


class GGUFEntry(NamedTuple):
    """A tensor to be written: type number, shape with the innermost axis last, and what makes its pieces when its turn
    comes (uint8 arrays, together as long as `tensor_bytes` says), so that no two tensors are in memory at once.
    """

    name: str
    type: int
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[NDArray[np.uint8]]]


def write_container(path: str | Path, metadata: Mapping[str, Any], entries: Sequence[GGUFEntry]) -> None:
    """Write the file, whole or not at all.

    Values are str, bool, int (uint32, or uint64 from 2^32 on), float (float32), a list of str, or an array of int32,
    uint32 or float32. Raises ValueError for a value of another type, a name that is too long or there twice, a shape
    that the type cannot hold, and pieces that are not as long as the type and shape say.
    """
    head = _head(metadata, entries)
    with atomic_file(Path(path)) as file:
        file.write(head + bytes(-len(head) % DEFAULT_ALIGNMENT))
        for entry in entries:
            _write_tensor(file, entry)


def _head(metadata: Mapping[str, Any], entries: Sequence[GGUFEntry]) -> bytes:
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names) or max(map(len, names), default=0) > LONGEST_NAME:
        raise ValueError(f"names of tensors are to differ and to have at most {LONGEST_NAME} characters")
    parts = [MAGIC, struct.pack("<IQQ", 3, len(entries), len(metadata))]
    parts += [_string(key) + _value(key, value) for key, value in metadata.items()]
    offset = 0
    for name, kind, shape, _ in entries:
        parts.append(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset))
        size = tensor_bytes(kind, shape)
        offset += size + -size % DEFAULT_ALIGNMENT
    return b"".join(parts)


def _write_tensor(file: BinaryIO, entry: GGUFEntry) -> None:
    expected, written = tensor_bytes(entry.type, entry.shape), 0
    for piece in entry.pieces():
        file.write(np.ascontiguousarray(piece).data)
        written += piece.nbytes
    if written != expected:
        raise ValueError(f"{entry.name} takes {expected} bytes, {written} were given")
    file.write(bytes(-expected % DEFAULT_ALIGNMENT))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<IB", _BOOL, value)
    if isinstance(value, int) and 0 <= value < 2**64:
        return struct.pack("<II", _UINT32, value) if value < 2**32 else struct.pack("<IQ", _UINT64, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.name in _OF_ARRAYS:
        kind = _OF_ARRAYS[value.dtype.name]
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + value.astype(value.dtype.newbyteorder("<")).tobytes()
    raise ValueError(f"{key}: {type(value).__name__} has no place in GGUF metadata here")
