"""`FILES`: malformed GGUF files by what is wrong with them, each a function that makes the bytes.

Every one is a model that would open but for the one thing that its name says. What a container of a few bytes can have
wrong stands in tests/formats/test_formats_gguf_file.py.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

from corpus.gguf_layout import (
    GGUF,
    TYPES,
    Key,
    Tensor,
    array,
    encode,
    header,
    number,
    numbers,
    parts,
    string,
    strings,
    text,
)
from corpus.gguf_models import FLOATS, TERNARY, float_bytes, model, ternary_bytes, vocabulary

Case = tuple[str, Callable[[], bytes]]
ARCH = "bitnet-b1.58"
Q, UP, EMBEDDING, NORM = "blk.0.attn_q.weight", "blk.0.ffn_up.weight", "token_embd.weight", "output_norm.weight"
COUNTS = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
          "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
          "vocab_size")
NUMBERS = ("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor")
NAN, INFINITY = float("nan"), float("inf")


def _cut(good: GGUF) -> Iterator[Case]:
    """Behind each field of the header, and in the middle of it."""
    at = 0
    for what, content in parts(good):
        for place, where in ((at + len(content) // 2, "in"), (at + len(content), "behind")):
            yield f"header cut {where} {what}", lambda place=place: encode(good)[:place]
        at += len(content)


def _header(good: GGUF) -> Iterator[Case]:
    def case(name: str, **changes) -> Case:
        return name, lambda: encode(replace(good, **changes))

    for magic in (b"GGML", b"FUGG", b"gguf", b"GGUf", b"ggjt", b"\0\0\0\0", b"PK\3\4", b"\x80\4\x95\0"):
        yield case(f"magic {magic!r}", magic=magic)
    yield case("header in big-endian", order=">")
    for version in (0, 1, 4, 2**16, 3 << 24, 2 << 24, 2**32 - 1):
        yield case(f"version {version}", version=version)
    tensors, keys = len(good.tensors), len(good.keys)
    for power in (20, 24, 31, 32, 40, 48, 56, 60, 62, 63):
        yield case(f"2^{power} tensors", tensor_count=2**power)
        yield case(f"2^{power} keys", key_count=2**power)
        # A product with the size of an entry that is small again modulo 2^64.
        yield case(f"2^{power} + {tensors} tensors", tensor_count=2**power + tensors)
        yield case(f"2^{power} + {keys} keys", key_count=2**power + keys)
    yield case("a tensor more than there are", tensor_count=tensors + 1)
    yield case("a tensor less than there are", tensor_count=tensors - 1)
    yield case("a key more than there are", key_count=keys + 1)
    yield case("a key less than there are", key_count=keys - 1)
    yield case("no tensors counted", tensor_count=0)
    yield case("no keys counted", key_count=0)


def _metadata(good: GGUF) -> Iterator[Case]:
    def case(name: str, *keys: Key) -> Case:
        return name, lambda: encode(replace(good, keys=(*good.keys, *keys)))

    def instead(name: str, key: Key) -> Case:
        return name, lambda: encode(good.with_key(key))

    for power in (20, 31, 32, 40, 62, 63):
        yield case(f"a string of 2^{power}", text("a", b"xy", 2**power))
        yield case(f"a string of 2^{power} in an array", array("a", "string", string("x") + string(b"y", 2**power), 2))
        yield case(f"2^{power} arrays in an array", array("a", "array", struct.pack("<IQ", 0, 0), 2**power))
        yield case(f"2^{power} bytes in an array in an array",
                   array("a", "array", struct.pack("<IQ", TYPES["u8"], 2**power) + b"xx", 1))
        yield case(f"2^{power} strings in an array in an array",
                   array("a", "array", struct.pack("<IQ", TYPES["string"], 2**power) + bytes(64), 1))
        for kind in ("u8", "bool", "u16", "f64"):
            yield case(f"2^{power} of {kind} in an array", array("a", kind, bytes(8), 2**power))
    yield case("a string of 2^64 - 1", text("a", b"xy", 2**64 - 1))
    yield case("a string that ends 1 byte behind the file", _last_string(good))
    yield case("elements whose bytes are 2^64 + 8", array("a", "f64", bytes(8), 2**61 + 1))
    for depth in (5, 64, 5000):
        nested = struct.pack("<IQ", TYPES["array"], 1) * depth + struct.pack("<IQB", TYPES["u8"], 1, 1)
        yield case(f"arrays {depth} deep", Key("a", TYPES["array"], nested))
    yield case("a key of an empty name", number("", "u8", 1))
    for name in (b"a\0b", b"a\nb", b"\x1b[2J", b"\xff\xfe", "\u202egpj".encode(), b"\x7f", "\u2028".encode()):
        yield case(f"a key named {name!r}", number(name, "u8", 1))
    yield case("a key of 65536 bytes", number("k" * 65536, "u8", 1))
    yield case("a key of 10 MB", number("k" * 10_000_000, "u8", 1))
    for key in good.keys[:4]:
        yield case(f"{key.name} twice", key)
    yield case("alignment twice", number("general.alignment", "u32", 32), number("general.alignment", "u32", 64))
    for value in (0, 1, 3, 4, 24, 33, 2**21, 2**31):
        yield case(f"alignment {value}", number("general.alignment", "u32", value))
    yield case("alignment 64, tensors at multiples of 32", number("general.alignment", "u32", 64))
    yield case("alignment true", number("general.alignment", "bool", True))
    yield case("alignment of floats", number("general.alignment", "f64", 32.0))
    yield case("an array of alignments", numbers("general.alignment", "u32", [32]))
    for kind in (13, 14, 255, 2**31, 2**32 - 1):
        yield case(f"a value of type {kind}", Key("a", kind, bytes(16)))
        yield case(f"elements of type {kind}", Key("a", 9, struct.pack("<IQ", kind, 1) + bytes(16)))
    for value in (2, 255):
        yield case(f"a bool of {value}", Key("a", TYPES["bool"], bytes([value])))
        yield case(f"a bool of {value} in an array", array("a", "bool", bytes([1, value, 0]), 3))
    for value in ("", "gpt2", "bitnet\0", "LLAMA", "\x1b[31m", "x" * 100_000):
        yield instead(f"architecture {value[:20]!r}", text("general.architecture", value))
    yield instead("an architecture that is not UTF-8", text("general.architecture", b"\xff" * 8))
    yield instead("an architecture of numbers", number("general.architecture", "u32", 1))
    yield "no architecture", lambda: encode(good.without_key("general.architecture"))


def _last_string(good: GGUF) -> Key:
    """A string as the last value, with a length that reaches one byte beyond the file."""
    rest = len(encode(good)) * 2  # more than the file; a smaller lie would fall into the tensors
    return text("a", b"xy", rest)


def _settings(good: GGUF) -> Iterator[Case]:
    def case(key: str, shown: str, value: Key) -> Case:
        return f"{key} {shown}", lambda: encode(good.with_key(value))

    for name in COUNTS:
        key = f"{ARCH}.{name}"
        for value in (0, 3, 5, 2**31, 2**32, 2**63, 2**64 - 1):
            if value > 5 or name != "context_length" or value == 0:
                yield case(name, str(value), number(key, "u64", value))
        yield case(name, "-1", number(key, "i32", -1))
        yield case(name, "of floats", number(key, "f32", 64.0))
        yield case(name, "of text", text(key, "64"))
        yield case(name, "of two values", numbers(key, "u32", [1, 2]))
        yield case(name, "of no values", numbers(key, "u32", []))
    for name in NUMBERS:
        key = f"{ARCH}.{name}"
        for value in (NAN, INFINITY, -INFINITY, -1.0, 0.0, 1e-45, 1e300, 5e-324):
            yield case(name, str(value), number(key, "f64", value))
        yield case(name, "of text", text(key, "1.0"))
    for name in ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length",
                 "attention.layer_norm_rms_epsilon"):
        yield f"no {name}", lambda name=name: encode(good.without_key(f"{ARCH}.{name}"))
    for name, value in (("attention.head_count", 3), ("attention.head_count", 64), ("attention.head_count_kv", 8),
                        ("embedding_length", 128), ("feed_forward_length", 32), ("block_count", 2),
                        ("attention.key_length", 15), ("attention.key_length", 32), ("vocab_size", 258)):
        yield case(name, f"{value}, which does not fit", number(f"{ARCH}.{name}", "u32", value))
    for kind in ("dynamic", "longrope", "yarn\0", "", "x" * 1000):
        yield f"rope scaling {kind[:10]!r}", lambda kind=kind: encode(
            good.with_key(text(f"{ARCH}.rope.scaling.type", kind or "?")).with_key(
                number(f"{ARCH}.rope.scaling.factor", "f32", 2.0)))
    for original, factor in ((2**63, 2.0), (2**40, 3e38), (2**31, 2.0)):
        yield f"yarn of {original} positions by {factor}", lambda original=original, factor=factor: encode(
            good.with_key(text(f"{ARCH}.rope.scaling.type", "yarn")).with_key(
                number(f"{ARCH}.rope.scaling.factor", "f64", factor)).with_key(
                number(f"{ARCH}.rope.scaling.original_context_length", "u64", original)))
    for name, value in (("expert_count", 8), ("attention.sliding_window", 16), ("ssm.state_size", 16)):
        yield case(name, f"{value}, which is not implemented", number(f"{ARCH}.{name}", "u32", value))


def _tokenizers(good: GGUF) -> Iterator[Case]:
    tokens = list(vocabulary())

    def case(name: str, *keys: Key) -> Case:
        def make() -> bytes:
            file = good
            for key in keys:
                file = file.with_key(key)
            return encode(file)
        return f"tokenizer: {name}", make

    def listed(values: list[str | bytes]) -> Key:
        return strings("tokenizer.ggml.tokens", values)

    for kind in ("llama", "bert", "", "gpt2\0"):
        yield case(f"kind {kind!r}", text("tokenizer.ggml.model", kind))
    yield case("kind that is a number", number("tokenizer.ggml.model", "u8", 1))
    yield case("split 'poro'", text("tokenizer.ggml.pre", "poro"))
    yield case("no tokens", listed([]))
    yield case("one token more than embeddings", listed([*tokens, "more"]))
    yield case("a token twice", listed([*tokens[:-1], "ab"]))
    yield case("a token that is not UTF-8", listed([b"\xff", *tokens[1:]]))
    yield case("a token that is half a surrogate pair", listed([b"\xed\xa0\x80", *tokens[1:]]))
    yield case("tokens of numbers", numbers("tokenizer.ggml.tokens", "u32", [1] * len(tokens)))
    yield case("tokens in arrays", array("tokenizer.ggml.tokens", "array",
                                         (struct.pack("<IQ", TYPES["string"], 1) + string("a")) * 259, 259))
    yield case("tokens that are text", text("tokenizer.ggml.tokens", "abc"))
    for power in (20, 40, 63):
        yield case(f"2^{power} tokens", strings("tokenizer.ggml.tokens", list(tokens), 2**power))
    for pair in ("ab", "a  b", "a b c", "", " ", "a ", "a zz", "< |", "x" * 1_000_000, "\x1b[2J b"):
        yield case(f"merge {pair[:12]!r}", strings("tokenizer.ggml.merges", [pair]))
    yield case("a merge that is not UTF-8", strings("tokenizer.ggml.merges", [b"\xff b"]))
    yield case("no merges", strings("tokenizer.ggml.merges", []))
    yield case("merges of numbers", numbers("tokenizer.ggml.merges", "u32", [1, 2]))
    yield case("types of floats", numbers("tokenizer.ggml.token_type", "f32", [1] * 259))
    yield case("types of text", text("tokenizer.ggml.token_type", "1"))
    yield case("a type too few", numbers("tokenizer.ggml.token_type", "i32", [1] * 258))
    yield case("a type too many", numbers("tokenizer.ggml.token_type", "i32", [1] * 260))
    yield case("no types", numbers("tokenizer.ggml.token_type", "i32", []))
    yield case("a merge makes a control token", strings("tokenizer.ggml.merges", ["a b"]),
               numbers("tokenizer.ggml.token_type", "i32", [1] * 256 + [3, 3, 3]))
    for role in ("bos", "eos", "padding"):
        for value in (259, 2**31, 2**64 - 1):
            yield case(f"{role} id {value}", number(f"tokenizer.ggml.{role}_token_id", "u64", value))
        yield case(f"{role} id -1", number(f"tokenizer.ggml.{role}_token_id", "i32", -1))
        yield case(f"{role} id of text", text(f"tokenizer.ggml.{role}_token_id", "1"))


def _tensors(good: GGUF) -> Iterator[Case]:
    def case(name: str, tensor: str, **changes) -> Case:
        return name, lambda: encode(good.with_tensor(tensor, **changes))

    def more(name: str, *tensors: Tensor) -> Case:
        return name, lambda: encode(good.with_more(*tensors))

    one = Tensor("extra", (8,), 0, bytes(32))
    for count in (0, 5, 255, 2**31, 2**32 - 1):
        yield case(f"{count} dimensions", Q, dimensions=count)
    for sizes in ((0,), (0, 64), (64, 0), (2**64 - 1, 64), (64, 2**64 - 1), (2**63, 2), (2**32, 2**32), (2**62 + 16, 4),
                  (2**63 - 1, 2), (1, 2**63), (64, 64, 2**58), (2**16,) * 4, (64, 2**58 + 64), (4096,), (64, 64, 2),
                  (32, 128), (64, 65), (64, 63), (63, 64), (64, 1, 64), (1, 64, 64), (64, 64, 1, 1, 1)):
        yield case(f"a matrix of {' x '.join(map(str, sizes))}", Q, sizes=sizes)
    for sizes in ((64, 1), (1, 64), (32, 2), (63,), (65,), (1,)):
        yield case(f"a norm of {' x '.join(map(str, sizes))}", NORM, sizes=sizes,
                   data=float_bytes("F32", sizes[0] * (sizes[1] if len(sizes) > 1 else 1)))
    for sizes in ((64 * 259,), (64, 259, 1), (259, 64), (64, 7, 37)):
        yield case(f"an embedding of {' x '.join(map(str, sizes))}", EMBEDDING, sizes=sizes, kind=FLOATS["F16"],
                   data=float_bytes("F16", 64 * 259))
    for kind in (3, 4, 5, 6, 7, 9, 15, 16, 31, 33, 37, 38, 39, 40, 133, 136, 334, 2**16, 2**31, 2**32 - 1):
        yield case(f"a matrix of type {kind}", Q, kind=kind)
    for kind in (0, 1, 2, 8, 12, 30, 34, 35, 36, 335):
        yield case(f"a matrix of IQ2_BN called type {kind}", Q, kind=kind)
    for kind in TERNARY:
        number_, inputs, *_ = TERNARY[kind]
        wide = model("TQ2_0") if inputs > 64 else good
        hidden = 256 if inputs > 64 else 64
        rows = 260 if kind == "IQ2_BN_R4" else 259
        yield f"an embedding of {kind}", lambda wide=wide, kind=kind, number_=number_, hidden=hidden, rows=rows: encode(
            wide.with_tensor(EMBEDDING, kind=number_, sizes=(hidden, rows), data=ternary_bytes(kind, rows, hidden)))
        norm = ternary_bytes(kind, 4 if kind == "IQ2_BN_R4" else 1, hidden)
        yield f"a norm of {kind}", lambda wide=wide, number_=number_, norm=norm, hidden=hidden: encode(
            wide.with_tensor(NORM, kind=number_, sizes=(hidden,), data=norm))
    for offset in (1, 8, 31, 33, 2**63, 2**64 - 32, 2**64 - 1, 2**63 - 32, 2**40, 2**32, 0, 32, 64, 2**20):
        yield case(f"a matrix at {offset}", Q, offset=offset)
    end = len(encode(good)) // 32 * 32
    for offset in (end, end - 32, end - len(header(good)) // 32 * 32):
        yield case(f"the last tensor at {offset}", NORM, offset=offset)
    yield "two tensors in one place", lambda: encode(good.with_tensor(
        "blk.0.ffn_gate.weight", offset=_offset(good, UP)))
    yield "two tensors exchanged, one longer", lambda: encode(good.with_tensor(
        EMBEDDING, offset=_offset(good, "blk.0.attn_norm.weight")).with_tensor("blk.0.attn_norm.weight", offset=0))
    yield "a hole of 32 bytes", lambda: encode(good.with_tensor(UP, data=ternary_bytes("IQ2_BN", 64, 64) + bytes(32)))
    yield "a hole of 1 MB", lambda: encode(good.with_tensor(UP, data=ternary_bytes("IQ2_BN", 64, 64) + bytes(1 << 20)))
    for tail in (1, 32, 4096):
        yield f"{tail} bytes behind the last tensor", lambda tail=tail: encode(replace(good, tail=bytes(tail)))
    yield "a second file behind the last tensor", lambda: encode(replace(good, tail=encode(good)))
    yield more("a tensor that no model has", one)
    for name in ("", "a\0b", "\x1b[2J", "\u202ea", b"\xff\xfe", "a" * 65, "a\nwhy: it is fine", " "):
        yield more(f"a tensor named {name!r}", replace(one, name=name))
    yield more("a tensor with a name of 10 MB", replace(one, name="n" * 10_000_000))
    for name in ("blk.-1.attn_q.weight", "blk.00.attn_q.weight", "blk.1.attn_q.weight", "blk.0.attn_q.bias",
                 f"blk.{2**63}.attn_q.weight", "blk.0.attn_q.weight ", "BLK.0.ATTN_Q.WEIGHT", "rope_freqs.weight",
                 "blk.0.ffn_gate_exps.weight", "../../token_embd.weight", "output.bias", "blk.0.attn_q.scale.weight"):
        yield more(f"a tensor {name!r}", replace(one, name=name))
    for tensor in good.tensors:
        yield f"{tensor.name} twice", lambda tensor=tensor: encode(good.with_more(tensor))
        yield f"no {tensor.name}", lambda tensor=tensor: encode(good.without_tensor(tensor.name))
    yield more("a head of another shape", Tensor("output.weight", (64, 8), 1, float_bytes("F16", 512)))


def _offset(good: GGUF, name: str) -> int:
    offset = 0
    for tensor in good.tensors:
        if tensor.name == name:
            return offset
        offset += -(-len(tensor.data) // good.alignment) * good.alignment
    raise KeyError(name)


def _values() -> Iterator[Case]:
    bad_scales = (NAN, INFINITY, -INFINITY, -0.5, 0.0)
    for kind in TERNARY:
        good = model(kind, tokenizer=False, embedding="F16")
        tensor = next(each for each in good.tensors if each.name == Q)
        rows, columns = tensor.sizes[1], tensor.sizes[0]
        plain = tensor.data

        def case(name: str, data: bytes, good: GGUF = good) -> Case:
            return name, lambda: encode(good.with_tensor(Q, data=data))

        for scale in bad_scales:
            spoiled = ternary_bytes(kind, rows, columns, scale)
            yield case(f"{kind} with the scale {scale}", spoiled)
            if kind != "I2_S" and scale:
                unit = len(plain) // (rows // 4 if kind == "IQ2_BN_R4" else rows)
                yield case(f"{kind} with the scale {scale} in its last row", plain[:-unit] + spoiled[-unit:])
        if kind != "I2_S":
            unit = len(plain) // (rows // 4 if kind == "IQ2_BN_R4" else rows)
            yield case(f"{kind} with two scales", plain[:-unit] + ternary_bytes(kind, rows, columns, 0.25)[-unit:])
        if kind not in ("TQ1_0", "IQ1_BN"):
            for field in (0b11_01_01_01, 0b01_01_01_11, 0xFF):
                yield case(f"{kind} with the field 3 in {field:08b}", ternary_bytes(kind, rows, columns, 0.5, field))
            place = 20  # a byte of codes in each of these types
            yield case(f"{kind} with one field 3", plain[:place] + b"\xc0" + plain[place + 1:])
    for kind in FLOATS:
        for value in (NAN, INFINITY, -INFINITY):
            good = model("IQ2_BN" if kind not in ("Q4_K", "Q6_K") else "TQ2_0", tokenizer=False, embedding=kind)
            tensor = good.tensors[0]
            spoiled = float_bytes(kind, tensor.sizes[0] * tensor.sizes[1], value)
            yield f"an embedding of {kind} with {value}", lambda good=good, spoiled=spoiled: encode(
                good.with_tensor(EMBEDDING, data=spoiled))
            unit = 210 if kind == "Q6_K" else 144 if kind == "Q4_K" else 34 if kind == "Q8_0" else 18 \
                if kind == "Q4_0" else 4
            yield (f"an embedding of {kind} with {value} at its end",
                   lambda good=good, spoiled=spoiled, tensor=tensor, unit=unit: encode(
                       good.with_tensor(EMBEDDING, data=tensor.data[:-unit] + spoiled[-unit:])))
            yield f"a head of {kind} with {value}", lambda kind=kind, value=value: encode(
                (good := model("IQ2_BN" if kind not in ("Q4_K", "Q6_K") else "TQ2_0", tokenizer=False, head=True,
                               embedding=kind)).with_tensor("output.weight", data=float_bytes(
                                   kind, good.tensors[0].sizes[0] * 8, value)))
    small = model(tokenizer=False)
    for kind in ("F32", "F16", "BF16"):
        for value in (NAN, INFINITY):
            yield f"a norm of {kind} with {value}", lambda kind=kind, value=value: encode(
                small.with_tensor(NORM, kind=FLOATS[kind], data=float_bytes(kind, 64, value)))
    floats = model("F16", tokenizer=False)
    for name, values in (("three magnitudes", (0.5, 0.25, -0.5, 0.0)), ("only zeros", (0.0,) * 4), ("NaN", (NAN,) * 4),
                         ("one NaN", (0.5, -0.5, NAN, 0.0)), ("infinities", (INFINITY, -INFINITY) * 2)):
        data = struct.pack("<4e", *values) * (64 * 16)
        yield f"a ternary matrix of F16 with {name}", lambda data=data: encode(floats.with_tensor(Q, data=data))
    for name, value in (("NaN", NAN), ("infinity", INFINITY), ("-1", -1.0), ("0", 0.0), ("3e38", 3e38),
                        ("1e-45", 1e-45)):
        scale = Tensor("blk.0.attn_q.scale", (1,), 0, struct.pack("<f", value))
        with_scale = small.with_tensor(Q, data=ternary_bytes("IQ2_BN", 64, 64, 4.0 if value > 1 else 0.25))
        yield f"a scale beside a matrix that is {name}", lambda file=with_scale, scale=scale: encode(
            file.with_more(scale))
    for sizes, kind, data in (((2,), 0, bytes(8)), ((1, 1), 0, struct.pack("<f", 1)), ((32,), 8, bytes(34)),
                              ((64,), 135, bytes(20))):
        scale = Tensor("blk.0.attn_q.scale", sizes, kind, data)
        yield f"a scale of shape {sizes} and type {kind}", lambda scale=scale: encode(small.with_more(scale))


def _numbered(cases: Iterator[Case]) -> dict[str, Callable[[], bytes]]:
    """By name; of two fields with one name the second is called so."""
    named: dict[str, Callable[[], bytes]] = {}
    for name, make in cases:
        if name in named:
            raise ValueError(f"two files are called {name!r}")
        named[name] = make
    return named


def _all() -> Iterator[Case]:
    good = model()
    small = model(tokenizer=False)
    for cases in (_cut(small), _header(small), _metadata(small), _settings(small), _tokenizers(good), _tensors(good),
                  _values()):
        yield from cases


FILES = _numbered(_all())
