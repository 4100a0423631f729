"""GGUF files: what the gguf package writes is read back, and what nobody should believe is refused."""

import struct
import time
import tracemalloc
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from tritwise import TritwiseError
from tritwise.formats.gguf_file import GGUFFile
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes

METADATA = {"a.u8": 200, "a.i8": -3, "a.u16": 60000, "a.i16": -300, "a.u32": 2**32 - 1, "a.i32": -(2**31),
            "a.f32": 0.5, "a.bool": True, "a.string": "ternär 世界 🙂", "a.u64": 2**64 - 1, "a.i64": -(2**63),
            "a.f64": 0.1}


def written(path, tensors: dict[str, tuple[np.ndarray, Type | None]], *, strings: int = 3):
    writer = gguf.GGUFWriter(path, "bitnet")
    for key, value in METADATA.items():
        kind = key.removeprefix("a.")
        names = {"u": "uint", "i": "int", "f": "float"}
        method = kind if kind in ("bool", "string") else names[kind[0]] + kind[1:]
        getattr(writer, f"add_{method}")(key, value)
    writer.add_array("a.strings", [f"token {i}" for i in range(strings)])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.floats", [0.5, -1.5])
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_the_gguf_package_writes_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 512)).astype(np.float32)
    quantised = (Type.BF16, Type.Q4_0, Type.Q8_0, Type.TQ1_0, Type.TQ2_0)
    tensors = {"float32": (values, None), "float16": (values[:3].astype(np.float16), None),
               "vector": (values[0, :7].copy(), None)}
    tensors |= {kind.name: (gguf.quants.quantize(values, kind), kind) for kind in quantised}
    file = GGUFFile(written(tmp_path / "a.gguf", tensors))
    assert file.metadata["general.architecture"] == "bitnet"
    for key, value in METADATA.items():
        assert file.metadata[key] == pytest.approx(value)
        assert isinstance(file.metadata[key], type(value))
    assert file.metadata["a.strings"] == ["token 0", "token 1", "token 2"]
    assert file.metadata["a.numbers"].tolist() == [1, 2, 3]
    assert file.metadata["a.floats"].tolist() == [0.5, -1.5]
    assert list(file.tensors) == list(tensors)
    for name, (array, kind) in tensors.items():
        assert file.tensors[name].shape == (values.shape if kind else array.shape)
        assert file.bytes_of(name).tobytes() == array.tobytes()


@pytest.mark.parametrize("number", [number for number, kind in GGUF_TYPES.items() if number <= 35])
def test_sizes_of_blocks_are_those_of_the_gguf_package(number):
    inputs, block_bytes = gguf.GGML_QUANT_SIZES[Type(number)]
    assert Type(number).name == GGUF_TYPES[number].name
    assert tensor_bytes(number, (3, 2 * inputs)) == 6 * block_bytes
    if inputs > 1:
        with pytest.raises(ValueError, match=f"{inputs} or {2 * inputs} would fit"):
            tensor_bytes(number, (3, inputs + 1))


def test_a_vocabulary_takes_little_time(tmp_path):
    path = written(tmp_path / "a.gguf", {"x": (np.zeros(8, np.float32), None)}, strings=400_000)
    begin = time.process_time()
    assert len(GGUFFile(path).metadata["a.strings"]) == 400_000
    assert time.process_time() - begin < 2.0  # 0.2 s on a quiet machine


# A file by hand, so that every field of it can be wrong.

def string(text: str | bytes, length: int | None = None) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if length is None else length) + data


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, body: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + body


def tensor(name: str | bytes, sizes: tuple[int, ...], kind: int, offset: int, dimensions: int | None = None) -> bytes:
    return string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes) if dimensions is None else dimensions, *sizes,
                                      kind, offset)


def made(*, magic: bytes = b"GGUF", version: int = 3, keys: tuple[bytes, ...] = (), tensors: tuple[bytes, ...] = (),
         data: int = 0, key_count: int | None = None, tensor_count: int | None = None, alignment: int = 32) -> bytes:
    head = magic + struct.pack("<IQQ", version, len(tensors) if tensor_count is None else tensor_count,
                               len(keys) if key_count is None else key_count) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + bytes(data)


ONE, TWO = tensor("a", (8,), 0, 0), tensor("b", (8,), 0, 32)
GOOD = made(keys=(key("k", 8, string("v")), key("l", 9, array(8, 2, string("x") + string("y")))), tensors=(ONE, TWO),
            data=64)
HUGE = [2**20, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]

MALFORMED: dict[str, bytes] = {
    "empty": b"", "short": b"GGUF", "magic": made(magic=b"GGML"), "zeros": bytes(64), "text": b"{" * 64,
    "version 0": made(version=0), "version 1": made(version=1), "version 99": made(version=99),
    "big-endian": made(version=3 << 24),
    "the same key": made(keys=(key("k", 0, b"\1"), key("k", 0, b"\1"))),
    "no key": made(keys=(key("", 0, b"\1"),)), "a key of control signs": made(keys=(key("a\nb", 0, b"\1"),)),
    "a key too long": made(keys=(key("k" * 65536, 0, b"\1"),)),
    "a value of no type": made(keys=(key("k", 13, b"\1"),)), "type 2^32 - 1": made(keys=(key("k", 2**32 - 1, b""),)),
    "a bool of 2": made(keys=(key("k", 7, b"\2"),)),
    "an array of bools of 2": made(keys=(key("k", 9, array(7, 2, b"\1\2")),)),
    "elements of no type": made(keys=(key("k", 9, array(13, 1, b"\1")),)),
    "arrays too deep": made(keys=(key("k", 9, array(9, 1) * 50 + array(0, 1, b"\1")),)),
    "alignment 0": made(keys=(key("general.alignment", 4, struct.pack("<I", 0)),)),
    "alignment 1": made(keys=(key("general.alignment", 4, struct.pack("<I", 1)),)),
    "alignment 48": made(keys=(key("general.alignment", 4, struct.pack("<I", 48)),)),
    "alignment 2^40": made(keys=(key("general.alignment", 10, struct.pack("<Q", 2**40)),)),
    "alignment as text": made(keys=(key("general.alignment", 8, string("32")),)),
    "alignment of floats": made(keys=(key("general.alignment", 6, struct.pack("<f", 32.0)),)),
    "alignment -32": made(keys=(key("general.alignment", 5, struct.pack("<i", -32)),)),
    "the same tensor": made(tensors=(ONE, tensor("a", (8,), 0, 32)), data=64),
    "no name": made(tensors=(tensor("", (8,), 0, 0),), data=32),
    "a name of zeros": made(tensors=(tensor(b"a\0b", (8,), 0, 0),), data=32),
    "a name too long": made(tensors=(tensor("a" * 65, (8,), 0, 0),), data=32),
    "no dimension": made(tensors=(tensor("a", (), 0, 0),), data=32),
    "five dimensions": made(tensors=(tensor("a", (1, 1, 1, 1, 8), 0, 0),), data=32),
    "2^32 - 1 dimensions": made(tensors=(tensor("a", (8,), 0, 0, dimensions=2**32 - 1),), data=32),
    "a size of 0": made(tensors=(tensor("a", (0,), 0, 0),), data=32),
    "sizes that overflow": made(tensors=(tensor("a", (2**33, 2**31), 0, 0),), data=32),
    "sizes that wrap to 8": made(tensors=(tensor("a", (2**62 + 2, 4), 0, 0),), data=32),
    "four sizes of 2^16": made(tensors=(tensor("a", (2**16,) * 4, 0, 0),), data=32),
    "no whole block": made(tensors=(tensor("a", (31,), 8, 0),), data=64),
    "three rows of IQ2_BN_R4": made(tensors=(tensor("a", (64, 3), 335, 0),), data=64),
    "unknown type": made(tensors=(tensor("a", (8,), 38, 0),), data=32),
    "type number 2^31": made(tensors=(tensor("a", (8,), 2**31, 0),), data=32),
    "unaligned": made(tensors=(tensor("a", (8,), 0, 8),), data=64),
    "overlap": made(tensors=(ONE, tensor("b", (8,), 0, 0)), data=32),
    "half an overlap": made(tensors=(tensor("a", (16,), 0, 0), TWO), data=64),
    "a gap": made(tensors=(ONE, tensor("b", (8,), 0, 64)), data=96),
    "a gap before the first": made(tensors=(tensor("a", (8,), 0, 32),), data=64),
    "bytes behind the last": made(tensors=(ONE,), data=64), "one byte behind the last": made(tensors=(ONE,), data=33),
    "data cut short": made(tensors=(ONE, TWO), data=63), "no data": made(tensors=(ONE,), data=0),
}
MALFORMED |= {f"{n} tensors": made(tensor_count=n) for n in HUGE}
MALFORMED |= {f"{n} keys": made(key_count=n) for n in HUGE}
MALFORMED |= {f"a string of {n}": made(keys=(key("k", 8, string(b"ab", n)),)) for n in HUGE}
MALFORMED |= {f"a key of {n}": made(keys=(string(b"ab", n),), key_count=1) for n in HUGE}
MALFORMED |= {f"{n} elements of type {kind}": made(keys=(key("k", 9, array(kind, n, bytes(16))),))
              for n in HUGE for kind in (0, 7, 8, 9, 12)}
MALFORMED |= {f"a tensor at {n}": made(tensors=(tensor("a", (8,), 0, n // 32 * 32),), data=32) for n in HUGE}
MALFORMED |= {f"a size of {n}": made(tensors=(tensor("a", (n,), 0, 0),), data=32) for n in HUGE}
# Cut inside the last tensor or before; only the padding behind the last one may be missing.
MALFORMED |= {f"cut at {at}": GOOD[:at] for at in range(0, len(GOOD), 7)}


def refusal(path) -> str:
    with pytest.raises(TritwiseError) as caught:
        GGUFFile(path)
    return str(caught.value)


def test_the_corpus_is_made_from_a_file_that_opens(tmp_path):
    assert len(MALFORMED) >= 60
    (tmp_path / "a.gguf").write_bytes(GOOD)
    file = GGUFFile(tmp_path / "a.gguf")
    assert file.metadata == {"k": "v", "l": ["x", "y"]}
    assert [entry.stop - entry.start for entry in file.tensors.values()] == [32, 32]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_at_once(tmp_path, name: str):
    path = tmp_path / "a.gguf"
    path.write_bytes(MALFORMED[name])
    tracemalloc.start()
    begin = time.process_time()
    message = refusal(path)
    seconds = time.process_time() - begin
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "a.gguf" in message
    assert "why: " in message
    assert seconds < 0.05
    assert peak < 1 << 20


def test_no_file(tmp_path):
    assert "does not exist" in refusal(tmp_path / "b.gguf")
    assert "cannot be read" in refusal(tmp_path)


def test_bytes_that_are_no_text_are_kept(tmp_path):
    (tmp_path / "a.gguf").write_bytes(made(keys=(key("k", 8, string(b"\xff\xfe")),)))
    value: Any = GGUFFile(tmp_path / "a.gguf").metadata["k"]
    assert value.encode("utf-8", "surrogateescape") == b"\xff\xfe"
