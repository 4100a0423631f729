"""A small valid model in a GGUF file by hand: one block, a byte-level tokenizer, ternary matrices of any type."""

import struct
from functools import cache

from tokenizers import pre_tokenizers

from corpus.gguf_layout import GGUF, Key, Tensor, number, numbers, strings, text

# Number, weights a block, bytes a block, bytes before a row, bytes behind all.
TERNARY = {"TQ1_0": (34, 256, 54, 0, 0), "TQ2_0": (35, 256, 66, 0, 0), "I2_S": (36, 128, 32, 0, 32),
           "IQ1_BN": (134, 64, 13, 2, 0), "IQ2_BN": (135, 64, 16, 4, 0), "IQ2_BN_R4": (335, 64, 16, 4, 0)}
FLOATS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30}
_HALF_AT_END = ("TQ1_0", "TQ2_0")
FIELDS = 0b10_01_00_01  # the codes 0, -1, 0 and +1 in every type of two bits a weight


def ternary_bytes(kind: str, rows: int, columns: int, scale: float = 0.5, field: int = FIELDS) -> bytes:
    """A matrix of type `kind` whose every byte of codes is `field`."""
    _, inputs, block, before, behind = TERNARY[kind]
    blocks = columns // inputs
    if kind in _HALF_AT_END:
        return (bytes([field]) * (block - 2) + struct.pack("<e", scale)) * (blocks * rows)
    if kind == "I2_S":
        return bytes([field]) * (block * blocks * rows) + struct.pack("<f", scale) + bytes(behind - 4)
    start = struct.pack("<e" if before == 2 else "<f", scale)
    if kind == "IQ2_BN_R4":
        return (start * 4 + bytes([field]) * (block * blocks * 4)) * (rows // 4)
    return (start + bytes([field]) * (block * blocks)) * rows


def float_bytes(kind: str, values: int, scale: float = 0.03125) -> bytes:
    """So many values; `scale` is the value itself, or the f16 factor of every block."""
    half = struct.pack("<e", scale)
    if kind in ("F32", "F16", "BF16"):
        one = struct.pack("<f", scale)
        return {"F32": one, "F16": half, "BF16": one[2:]}[kind] * values
    block = {"Q4_0": (32, half + b"\x9a" * 16), "Q8_0": (32, half + b"\3" * 32),
             "Q4_K": (256, half + half + b"\x21" * 12 + b"\x9a" * 128),
             "Q6_K": (256, b"\x9a" * 192 + b"\1" * 16 + half)}[kind]
    return block[1] * (values // block[0])


@cache
def vocabulary() -> tuple[str, ...]:
    """The 256 bytes as a byte-level tokenizer writes them, one merge, and two control tokens."""
    return (*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<|end|>", "<|pad|>")


def tokenizer_keys(pre: str = "gpt-2") -> tuple[Key, ...]:
    tokens = vocabulary()
    return (text("tokenizer.ggml.model", "gpt2"), text("tokenizer.ggml.pre", pre),
            strings("tokenizer.ggml.tokens", list(tokens)), strings("tokenizer.ggml.merges", ["a b"]),
            numbers("tokenizer.ggml.token_type", "i32", [1] * 257 + [3, 3]),
            number("tokenizer.ggml.bos_token_id", "u32", 257), number("tokenizer.ggml.eos_token_id", "u32", 257),
            number("tokenizer.ggml.padding_token_id", "u32", 258))


def model(kind: str = "IQ2_BN", *, arch: str = "bitnet-b1.58", embedding: str = "Q8_0", tokenizer: bool = True,
          norm: str = "F32", pre: str = "gpt-2", head: bool = False) -> GGUF:
    """A valid file; `kind` is the type of the blocks' matrices, `embedding` that of embedding and head."""
    hidden = 256 if kind in _HALF_AT_END or embedding in ("Q4_K", "Q6_K") else 128 if kind == "I2_S" else 64
    rows, kv = len(vocabulary()) if tokenizer else 8, hidden // 2
    prefix = f"{arch}."
    keys = [text("general.architecture", arch), text("general.name", "tiny"),
            number(f"{prefix}block_count", "u32", 1), number(f"{prefix}context_length", "u32", 64),
            number(f"{prefix}embedding_length", "u32", hidden), number(f"{prefix}feed_forward_length", "u32", hidden),
            number(f"{prefix}attention.head_count", "u32", 4), number(f"{prefix}attention.head_count_kv", "u32", 2),
            number(f"{prefix}attention.layer_norm_rms_epsilon", "f32", 1e-5),
            number(f"{prefix}rope.freq_base", "f32", 10000.0), number(f"{prefix}vocab_size", "u32", rows)]
    if tokenizer:
        keys += tokenizer_keys(pre)

    def matrix(name: str, out: int) -> Tensor:
        if kind in TERNARY:
            return Tensor(name, (hidden, out), TERNARY[kind][0], ternary_bytes(kind, out, hidden))
        return Tensor(name, (hidden, out), FLOATS[kind], float_bytes(kind, out * hidden))

    def vector(name: str) -> Tensor:
        return Tensor(name, (hidden,), FLOATS[norm], float_bytes(norm, hidden, 1.0))

    def table(name: str) -> Tensor:
        return Tensor(name, (hidden, rows), FLOATS[embedding], float_bytes(embedding, rows * hidden))

    sub_norms = arch != "llama"
    tensors = [table("token_embd.weight"), vector("blk.0.attn_norm.weight"), matrix("blk.0.attn_q.weight", hidden),
               matrix("blk.0.attn_k.weight", kv), matrix("blk.0.attn_v.weight", kv),
               *([vector("blk.0.attn_sub_norm.weight")] if sub_norms else []),
               matrix("blk.0.attn_output.weight", hidden), vector("blk.0.ffn_norm.weight"),
               matrix("blk.0.ffn_gate.weight", hidden), matrix("blk.0.ffn_up.weight", hidden),
               *([vector("blk.0.ffn_sub_norm.weight")] if sub_norms else []), matrix("blk.0.ffn_down.weight", hidden),
               vector("output_norm.weight"), *([table("output.weight")] if head else [])]
    return GGUF(tuple(keys), tuple(tensors))

