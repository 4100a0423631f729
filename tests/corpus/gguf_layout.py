"""A GGUF container by hand, so that every field of it can be wrong.

    encode(GGUF(keys=(text("general.architecture", "llama"),), tensors=(Tensor("a", (8,), 0, bytes(32)),)))
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

TYPES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "string": 8, "array": 9,
         "u64": 10, "i64": 11, "f64": 12}
_FORMS = {"u8": "<B", "i8": "<b", "u16": "<H", "i16": "<h", "u32": "<I", "i32": "<i", "f32": "<f", "bool": "<?",
          "u64": "<Q", "i64": "<q", "f64": "<d"}


@dataclass(frozen=True)
class Key:
    """A key, the number of its type, and the bytes of its value."""

    name: str | bytes
    kind: int
    value: bytes


@dataclass(frozen=True)
class Tensor:
    """`sizes` with the innermost first, as in the file; `offset` and `dimensions` where they are to be wrong."""

    name: str | bytes
    sizes: tuple[int, ...]
    kind: int
    data: bytes = b""
    offset: int | None = None
    dimensions: int | None = None


@dataclass(frozen=True)
class GGUF:
    """A file; what is None is computed."""

    keys: tuple[Key, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    magic: bytes = b"GGUF"
    version: int = 3
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32
    tail: bytes = b""
    order: str = "<"  # byte order of the header's own numbers

    def with_key(self, key: Key) -> "GGUF":
        """The same file with this key in the place of the one of its name, or behind all."""
        names = [each.name for each in self.keys]
        if key.name not in names:
            return replace(self, keys=(*self.keys, key))
        return replace(self, keys=tuple(key if each.name == key.name else each for each in self.keys))

    def without_key(self, name: str) -> "GGUF":
        return replace(self, keys=tuple(key for key in self.keys if key.name != name))

    def with_tensor(self, name: str, **changes: Any) -> "GGUF":
        """The same file with other fields of one tensor."""
        return replace(self, tensors=tuple(replace(each, **changes) if each.name == name else each
                                           for each in self.tensors))

    def without_tensor(self, name: str) -> "GGUF":
        return replace(self, tensors=tuple(each for each in self.tensors if each.name != name))

    def with_more(self, *tensors: Tensor) -> "GGUF":
        return replace(self, tensors=(*self.tensors, *tensors))


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A string of the file, with a length that may be a lie."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if length is None else length) + data


def number(name: str, kind: str, value: float) -> Key:
    return Key(name, TYPES[kind], struct.pack(_FORMS[kind], value))


def text(name: str, value: str | bytes, length: int | None = None) -> Key:
    return Key(name, TYPES["string"], string(value, length))


def array(name: str, kind: str, body: bytes, count: int) -> Key:
    return Key(name, TYPES["array"], struct.pack("<IQ", TYPES[kind], count) + body)


def numbers(name: str, kind: str, values: list[float]) -> Key:
    return array(name, kind, b"".join(struct.pack(_FORMS[kind], value) for value in values), len(values))


def strings(name: str, values: list[str | bytes], count: int | None = None) -> Key:
    return array(name, "string", b"".join(map(string, values)), len(values) if count is None else count)


def parts(file: GGUF) -> Iterator[tuple[str, bytes]]:
    """Every field of the header with what it is, then the data of each tensor with the padding before it."""
    order = file.order
    yield "magic", file.magic
    yield "version", struct.pack(f"{order}I", file.version)
    counts = ((file.tensor_count, file.tensors, "tensor count"), (file.key_count, file.keys, "key count"))
    for count, listed, what in counts:
        yield what, struct.pack(f"{order}Q", len(listed) if count is None else count)
    for key in file.keys:
        shown = key.name if isinstance(key.name, str) else "bytes"
        yield f"{shown[:40]}, name", string(key.name)
        yield f"{shown[:40]}, type", struct.pack("<I", key.kind)
        yield f"{shown[:40]}, value", key.value
    offset = 0
    for tensor in file.tensors:
        shown = tensor.name[:40] if isinstance(tensor.name, str) else "bytes"
        yield f"{shown}, name", string(tensor.name)
        yield f"{shown}, dimensions", struct.pack("<I", len(tensor.sizes) if tensor.dimensions is None
                                                  else tensor.dimensions)
        yield f"{shown}, sizes", struct.pack(f"<{len(tensor.sizes)}Q", *tensor.sizes)
        yield f"{shown}, tensor type", struct.pack("<I", tensor.kind)
        yield f"{shown}, offset", struct.pack("<Q", offset if tensor.offset is None else tensor.offset)
        offset += -(-len(tensor.data) // file.alignment) * file.alignment


def header(file: GGUF) -> bytes:
    return b"".join(content for _, content in parts(file))


def encode(file: GGUF) -> bytes:
    """The whole file."""
    content = bytearray(header(file))
    for tensor in file.tensors:
        content += bytes(-len(content) % file.alignment) + tensor.data
    if not file.tensors:
        content += bytes(-len(content) % file.alignment)
    return bytes(content) + file.tail


def decode(content: bytes) -> GGUF:
    """The other way, without any check of what is read: for a file that `encode` made, or nearly so.

    Raises ValueError, IndexError or struct.error where the fields cannot even be told apart.
    """
    version, tensors, keys = struct.unpack_from("<IQQ", content, 4)
    at = 24

    def take(size: int) -> bytes:
        nonlocal at
        if size > len(content) - at:
            raise ValueError("the file ends before its fields do")
        at += size
        return content[at - size:at]

    def value(kind: int) -> bytes:
        names = {number: name for name, number in TYPES.items()}
        if kind == TYPES["string"]:
            length = take(8)
            return length + take(int.from_bytes(length, "little"))
        if kind == TYPES["array"]:
            head = take(12)
            kind, count = struct.unpack("<IQ", head)
            if kind in (TYPES["string"], TYPES["array"]):
                return head + b"".join(value(kind) for _ in range(min(count, len(content))))
            return head + take(struct.calcsize(_FORMS[names[kind]]) * count)
        if kind not in names:
            raise ValueError(f"there is no type {kind}")
        return take(struct.calcsize(_FORMS[names[kind]]))

    def name() -> bytes:
        return take(int.from_bytes(take(8), "little"))

    if tensors + keys > len(content):
        raise ValueError("the file cannot hold so many")
    listed = []
    for _ in range(keys):
        key = name()
        kind = int.from_bytes(take(4), "little")
        listed.append(Key(key, kind, value(kind)))
    found = []
    for _ in range(tensors):
        called = name()
        count = int.from_bytes(take(4), "little")
        sizes = struct.unpack(f"<{count}Q", take(8 * count))
        kind, offset = struct.unpack("<IQ", take(12))
        found.append((called, sizes, kind, offset))
    begin = -(-at // 32) * 32
    ends = sorted([offset for *_, offset in found] + [len(content) - begin])
    described = []
    for called, sizes, kind, offset in found:
        end = next((end for end in ends if end > offset), offset)
        described.append(Tensor(called, sizes, kind, content[begin + offset:begin + end]))
    return GGUF(tuple(listed), tuple(described), content[:4], version)
