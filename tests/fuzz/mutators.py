"""Changes that keep an input's structure, so that they reach what lies behind the header.

    mutate("gguf", data, random.Random(0))
"""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from corpus.gguf_layout import GGUF, TYPES, Key, Tensor, decode, encode, string
from corpus.gguf_models import FLOATS, TERNARY, float_bytes, ternary_bytes

from fuzz.targets import INDEX, WEIGHTS, join, split

SPECIAL = [0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, 256, 65535, 65536,
           *(2**n + d for n in (31, 32, 62, 63, 64) for d in (-1, 0, 1))]
FLOATING = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-40, 3e38, 65504.0, float("nan"), float("inf"), float("-inf")]
TEXTS = [b"", b"\0", b"a", b"\xff", b"\x1b[2J", b"a\nb", "é世🙂".encode(), b"a b", b" ", b"x" * 300, b"\xed\xa0\x80",
         b"<|end|>", b"gpt2", b"llama", b"bitnet", b"qwen2", b"llama-bpe", b"yarn", b"linear", b"none"]
JSON = ["null", "true", "false", "0", "1", "-1", "2", "4", "16", "1.5", "1e308", "1e400", "1e-320", "NaN", "Infinity",
        "2147483647", "2147483648", "9223372036854775808", "1" + "0" * 400, "[]", "{}", '""', '"x"', "[[]]", '{"a":1}',
        "[0,0]", "[0]", '["a","b"]', '"\\ud800"', '"\\u0000"', '"yarn"', '"llama3"', '"linear"', '"llama"', '"bitnet"',
        '"dense"', '"ternary"', '"online"', '"F16"', '"U8"', '"BF16"', '"../a.safetensors"', '"a.safetensors"']


def mutate(target: str, data: bytes, rng: random.Random) -> bytes:
    """Another input of `target`, one to four changes away."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4))):
        data = _blindly(data, rng) if rng.random() < 0.05 else MUTATORS[target](data, rng)
    return data


def _blindly(data: bytes, rng: random.Random) -> bytes:
    """Bits, bytes and pieces without regard to what they are."""
    if not data:
        return bytes(rng.randrange(256) for _ in range(8))
    content, at = bytearray(data), rng.randrange(len(data))
    kind = rng.randrange(6)
    if kind == 0:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        content[at] = rng.randrange(256)
    elif kind == 2:
        del content[at:at + rng.choice((1, 4, 8, 64))]
    elif kind == 3:
        content[at:at] = content[at:at + rng.choice((1, 4, 8, 64))]
    elif kind == 4:
        size = rng.choice((1, 2, 4, 8))
        content[at:at + size] = (rng.choice(SPECIAL) % 2**(8 * size)).to_bytes(size, "little")
    else:
        del content[at:]
    return bytes(content)


def _gguf(data: bytes, rng: random.Random) -> bytes:
    try:
        file = decode(data)
        return encode(rng.choice(GGUF_CHANGES)(file, rng))
    except (ValueError, IndexError, KeyError, struct.error, OverflowError, MemoryError):
        return _blindly(data, rng)


def _key_value(file: GGUF, rng: random.Random) -> GGUF:
    """Another value of a key, of its type or another one."""
    at = rng.randrange(len(file.keys))
    key = file.keys[at]
    kind = key.kind if rng.random() < 0.7 else rng.choice(list(TYPES.values()))
    changed = replace(key, kind=kind, value=_value(kind, key, rng))
    return replace(file, keys=(*file.keys[:at], changed, *file.keys[at + 1:]))


def _value(kind: int, key: Key, rng: random.Random) -> bytes:
    if kind == TYPES["string"]:
        return string(rng.choice(TEXTS), None if rng.random() < 0.9 else rng.choice(SPECIAL) % 2**64)
    if kind == TYPES["array"]:
        if key.kind != kind:
            return struct.pack("<IQ", rng.choice(list(TYPES.values())), rng.choice(SPECIAL) % 2**64) + bytes(16)
        return _array(key.value, rng)
    if kind == TYPES["f32"]:
        return struct.pack("<f", rng.choice(FLOATING))
    if kind == TYPES["f64"]:
        return struct.pack("<d", rng.choice([*FLOATING, 1e300, 5e-324]))
    size = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 7: 1, 10: 8, 11: 8}.get(kind, 8)
    return (rng.choice(SPECIAL) % 2**(8 * size)).to_bytes(size, "little")


def _array(value: bytes, rng: random.Random) -> bytes:
    kind, count = struct.unpack_from("<IQ", value)
    body = value[12:]
    if kind == TYPES["string"]:
        items, at = [], 0
        for _ in range(count):
            length = int.from_bytes(body[at:at + 8], "little")
            items.append(body[at + 8:at + 8 + length])
            at += 8 + length
        items = items or [b""]
        at = rng.randrange(len(items))
        change = rng.randrange(6)
        if change == 0:
            items[at] = rng.choice(TEXTS)
        elif change == 1:
            items[at] = rng.choice(items)
        elif change == 2:
            del items[at:at + rng.choice((1, 8, 64))]
        elif change == 3:
            items[at:at] = [rng.choice(items) + rng.choice(TEXTS) for _ in range(rng.choice((1, 3)))]
        elif change == 4:  # a merge, perhaps of tokens that are there
            items.append(rng.choice(items) + b" " + rng.choice(items))
        else:
            rng.shuffle(items)
        return struct.pack("<IQ", kind, len(items)) + b"".join(map(string, items))
    change = rng.randrange(4)
    if change == 0:
        return struct.pack("<IQ", kind, rng.choice(SPECIAL) % 2**64) + body
    if change == 1:
        return struct.pack("<IQ", rng.choice(list(TYPES.values())), count) + body
    if change == 2 and body:
        content, at = bytearray(body), rng.randrange(len(body))
        content[at] = rng.choice((0, 1, 2, 3, 4, 5, 6, 255))
        return value[:12] + bytes(content)
    size = len(body) // max(count, 1)
    return struct.pack("<IQ", kind, max(count - 1, 0)) + body[:len(body) - size]


def _entries(file: GGUF, rng: random.Random) -> GGUF:
    """Keys or tensors twice, left out, exchanged or renamed."""
    field = rng.choice(("keys", "tensors"))
    items = list(getattr(file, field))
    at, other = rng.randrange(len(items)), rng.randrange(len(items))
    change = rng.randrange(4)
    if change == 0:
        del items[at]
    elif change == 1:
        items.insert(at, items[other])
    elif change == 2:
        items[at], items[other] = items[other], items[at]
    else:
        name = items[other].name if rng.random() < 0.5 else rng.choice(
            [*TEXTS, b"output.weight", b"blk.0.attn_q.scale", b"blk.1.attn_q.weight", b"general.alignment",
             b"tokenizer.ggml.token_type", b"bitnet-b1.58.rope.scaling.type"])
        items[at] = replace(items[at], name=name)
    return replace(file, **{field: tuple(items)})


def _tensor_field(file: GGUF, rng: random.Random) -> GGUF:
    """A size, type, offset or number of dimensions that need not fit."""
    at = rng.randrange(len(file.tensors))
    tensor, change = file.tensors[at], rng.randrange(6)
    sizes = list(tensor.sizes) or [1]
    which = rng.randrange(len(sizes))
    if change == 0:
        sizes[which] = rng.choice([*SPECIAL, sizes[which] + 1, sizes[which] * 2, sizes[which] // 2]) % 2**64
        tensor = replace(tensor, sizes=tuple(sizes))
    elif change == 1:
        rng.shuffle(sizes)
        tensor = replace(tensor, sizes=tuple(sizes + [1] * rng.randrange(4)))
    elif change == 2:
        kinds = [kind for kind, *_ in TERNARY.values()] + list(FLOATS.values())
        tensor = replace(tensor, kind=rng.choice([*kinds, 3, 16, 2**32 - 1]))
    elif change == 3:
        tensor = replace(tensor, offset=rng.choice([*SPECIAL, 2**64 - 32, len(tensor.data)]) % 2**64)
    elif change == 4:
        tensor = replace(tensor, dimensions=rng.choice((0, 1, 2, 3, 4, 5, 2**31, 2**32 - 1)))
    else:
        tensor = replace(tensor, data=tensor.data[:-32] if rng.random() < 0.5 else tensor.data + bytes(32))
    return replace(file, tensors=(*file.tensors[:at], tensor, *file.tensors[at + 1:]))


def _retyped(file: GGUF, rng: random.Random) -> GGUF:
    """A tensor of another type or size with as many bytes as that takes: the container stays whole."""
    at = rng.randrange(len(file.tensors))
    tensor = file.tensors[at]
    columns, rows = (*tensor.sizes, 1)[:2] if tensor.sizes else (32, 1)
    if rng.random() < 0.3:
        rows = max(1, rng.choice((rows - 1, rows + 1, rows * 2, 1)))
    if columns * rows > 1 << 18:
        return file
    scale = rng.choice((0.5, 0.5, 0.25, *FLOATING))
    if rng.random() < 0.6:
        kind = rng.choice(list(TERNARY))
        field = rng.choice((0b10_01_00_01, 0, 0x55, 0xAA, rng.randrange(256)))
        number, data = TERNARY[kind][0], ternary_bytes(kind, rows, columns, min(scale, 65504.0), field)
    else:
        kind = rng.choice(list(FLOATS))
        number, data = FLOATS[kind], float_bytes(kind, rows * columns, min(scale, 65504.0))
    sizes = (columns,) if len(tensor.sizes) == 1 else (columns, rows)
    return replace(file, tensors=(*file.tensors[:at], replace(tensor, kind=number, sizes=sizes, data=data),
                                  *file.tensors[at + 1:]))


def _tensor_data(file: GGUF, rng: random.Random) -> GGUF:
    """Bytes of a tensor, among them numbers that are none."""
    at = rng.randrange(len(file.tensors))
    tensor = file.tensors[at]
    content = bytearray(tensor.data or b"\0")
    place = rng.choice((0, len(content) - rng.choice((1, 2, 4, 32)), rng.randrange(len(content)))) % len(content)
    piece = rng.choice((bytes([rng.randrange(256)]), struct.pack("<f", rng.choice(FLOATING)),
                        struct.pack("<e", rng.choice((0.0, -1.0, 65504.0, 1e-7))), b"\0\x7c", b"\0\x7e", b"\xff" * 4))
    content[place:place + len(piece)] = piece
    return replace(file, tensors=(*file.tensors[:at], replace(tensor, data=bytes(content[:len(tensor.data)])),
                                  *file.tensors[at + 1:]))


def _head(file: GGUF, rng: random.Random) -> GGUF:
    """Version, counts, alignment, bytes behind all, tensors in another order."""
    change = rng.randrange(6)
    if change == 0:
        return replace(file, version=rng.choice((0, 1, 2, 3, 4, 3 << 24)))
    if change == 1:
        return replace(file, key_count=rng.choice([*SPECIAL, len(file.keys) - 1, len(file.keys) + 1]) % 2**64)
    if change == 2:
        return replace(file, tensor_count=rng.choice([*SPECIAL, len(file.tensors) - 1, len(file.tensors) + 1]) % 2**64)
    if change == 3:
        alignment = rng.choice((8, 16, 64, 256, 4096))
        key = Key(b"general.alignment", TYPES["u32"], struct.pack("<I", alignment))
        return replace(file, keys=(*file.keys, key), alignment=alignment)
    if change == 4:
        return replace(file, tail=bytes(rng.choice((1, 31, 32, 64))))
    return replace(file, tensors=tuple(rng.sample(file.tensors, len(file.tensors))))


GGUF_CHANGES: list[Callable[[GGUF, random.Random], GGUF]] = [
    _key_value, _key_value, _entries, _tensor_field, _retyped, _tensor_data, _tensor_data, _head]


def _json(data: bytes, rng: random.Random) -> bytes:
    """A value of a JSON text replaced, removed, moved, or a key twice."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _blindly(data, rng)
    places: list[tuple[Any, Any]] = []

    def walk(inside: Any) -> None:
        for key in list(inside if isinstance(inside, dict) else range(len(inside))):
            places.append((inside, key))
            if isinstance(inside[key], dict | list):
                walk(inside[key])

    if isinstance(value, dict | list):
        walk(value)
    if not places:
        return rng.choice(JSON).encode()
    # The outer values first: a vocabulary has more places than everything else together.
    inside, key = rng.choice(places if rng.random() < 0.5 else [each for each in places if each[0] is value])
    change, mark = rng.randrange(5), "@VALUE@"
    text = rng.choice(JSON)
    if type(inside[key]) in (int, float) and abs(inside[key]) < 2**63 and rng.random() < 0.5:  # near what it was
        old = inside[key]
        text = repr(rng.choice((old * 2, old // 2, old + 1, old * 4, old + 0.5)))
        change = 4
    if change == 0:
        del inside[key]
    elif change == 1:
        other, there = rng.choice(places)
        inside[key] = other[there] if other[there] is not inside and not isinstance(other[there], dict | list) else mark
    elif change == 2 and isinstance(inside, dict):
        inside[rng.choice(("", "a", "\x1b[2J", "model_type", "rope_scaling", "type", *map(str, inside)))] = mark
    elif change == 3 and isinstance(inside, list):
        inside.append(mark)
    else:
        inside[key] = mark
    written = json.dumps(value, ensure_ascii=rng.random() < 0.5).replace(f'"{mark}"', text)
    if rng.random() < 0.03:
        written = written.replace("{", '{"model_type": "llama", ', 1)
    return written.encode("utf-8", "surrogatepass")


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8:8 + length], data[8 + length:]
    change = rng.random()
    if change < 0.6:
        header = _json(header, rng)
        length = len(header)
    elif change < 0.7:
        length = rng.choice([*SPECIAL, length - 1, length + 8]) % 2**64
    else:
        rest = _blindly(rest, rng) if rng.random() < 0.3 or not rest else _poked(rest, rng)
    return length.to_bytes(8, "little") + header + rest


def _poked(data: bytes, rng: random.Random) -> bytes:
    content, at = bytearray(data), rng.randrange(len(data))
    piece = rng.choice((struct.pack("<f", rng.choice(FLOATING)), b"\xc0", b"\x80\x7f", b"\0\x7c", b"\xff" * 4))
    content[at:at + len(piece)] = piece
    return bytes(content[:len(data)])


def _directory(data: bytes, rng: random.Random) -> bytes:
    parts = split(data)
    if not parts:
        return _blindly(data, rng)
    name = rng.choice(list(parts))
    if rng.random() < 0.02:
        del parts[name]
    else:
        parts[name] = (_safetensors if name == WEIGHTS else _json)(parts[name], rng)
    if INDEX not in parts and rng.random() < 0.01:
        parts[INDEX] = b'{"weight_map": {"model.norm.weight": "a.safetensors"}}'
    return join(parts)


MUTATORS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "gguf": _gguf, "gguf-tokenizer": _gguf, "directory": _directory, "config": _json, "tokenizer": _json}


def cross(target: str, one: bytes, other: bytes, rng: random.Random) -> bytes:
    """Parts of two inputs in one."""
    if target in ("gguf", "gguf-tokenizer"):
        try:
            first, second = decode(one), decode(other)
        except (ValueError, IndexError, KeyError, struct.error):
            return one
        names = {tensor.name: tensor for tensor in second.tensors}
        tensors: list[Tensor] = [names.get(tensor.name, tensor) if rng.random() < 0.3 else tensor
                                 for tensor in first.tensors]
        keys = first.keys if rng.random() < 0.5 else second.keys
        return encode(replace(first, tensors=tuple(tensors), keys=keys))
    if target == "directory":
        first, second = split(one), split(other)
        return join({name: rng.choice((first, second)).get(name, b"") for name in {*first, *second}})
    return one[:rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1):]
