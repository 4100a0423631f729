"""GGUF files of random weights in the layouts of llama.cpp and its forks.

Every tensor is written in the peer's own block format, one after the other, so a file takes seconds and no quantiser is
needed. What a weight is does not change a product's speed. The layout is that of the GGUF specification, version 3
(ggml/docs/gguf.md); the type numbers and block sizes of the forks are in their ggml.h and ggml-common.h.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from works import RefusedError

from tritwise.config import ModelConfig

ALIGNMENT = 32
# Rows in one piece: no layout interleaves more than 4.
_PIECE_ROWS = 1024


@dataclass(frozen=True)
class BlockType:
    """How a type stores a matrix: blocks of `inputs` weights in `block_bytes`, `row_bytes` beside each row's blocks,
    `tensor_bytes` behind the whole tensor.
    """

    number: int
    inputs: int
    block_bytes: int
    row_bytes: int = 0
    tensor_bytes: int = 0

    def size(self, rows: int, columns: int) -> int:
        return rows * (columns // self.inputs * self.block_bytes + self.row_bytes) + self.tensor_bytes


TYPES = {
    "f32": BlockType(0, 1, 4),
    "f16": BlockType(1, 1, 2),
    "bf16": BlockType(30, 1, 2),
    "q8_0": BlockType(8, 32, 34),
    "q6_K": BlockType(14, 256, 210),
    "TQ2_0": BlockType(35, 256, 66),
    "I2_S": BlockType(36, 128, 32, tensor_bytes=32),                # bitnet.cpp: one scale a tensor, behind it
    "IQ2_BN_R4": BlockType(335, 64, 16, row_bytes=4),       # ik_llama.cpp: 4 scales before 4 rows' blocks
}


def fitted(config: ModelConfig, kind: str) -> ModelConfig:
    """`config`, or the nearest shape that the type can hold: the feed-forward width filled up with zeros.

    Raises RefusedError when another width does not fit: it is that of the residual stream and cannot be filled up.
    """
    inputs = TYPES[kind].inputs
    attention = config.num_attention_heads * config.head_dim
    if config.hidden_size % inputs or attention % inputs:
        raise RefusedError(f"{kind} stores blocks of {inputs} inputs; {config.hidden_size} is not a multiple of it")
    rest = -config.intermediate_size % inputs
    return config.with_changes(intermediate_size=config.intermediate_size + rest) if rest else config



def head_type(config: ModelConfig, wanted: str) -> str:
    """The type a head gets: where rows do not fit Q6_K's blocks of 256, llama-quantize takes Q8_0."""
    return "q8_0" if wanted == "q6_K" and config.hidden_size % TYPES["q6_K"].inputs else wanted


@dataclass(frozen=True)
class Tensor:
    name: str
    kind: str
    rows: int       # 0 for a vector
    columns: int

    @property
    def size(self) -> int:
        return TYPES[self.kind].size(max(1, self.rows), self.columns)


def tensors(config: ModelConfig, kind: str, head: str, architecture: str) -> list[Tensor]:
    """The tensors of the architecture in the order of the file: linears of type `kind`, embedding and head of `head`.

    `bitnet` has one matrix for both in every peer; only llama has `output.weight`, where the shape is untied.
    """
    hidden, ffn, dim = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_attention_heads * dim, config.num_key_value_heads * dim
    result = [Tensor("token_embd.weight", head, config.vocab_size, hidden),
              Tensor("output_norm.weight", "f32", 0, hidden)]
    if architecture == "llama" and not config.tie_word_embeddings:
        result.append(Tensor("output.weight", head, config.vocab_size, hidden))
    norms = [("attn_norm", hidden), ("ffn_norm", hidden)]
    if architecture != "llama":
        norms += [("attn_sub_norm", hidden), ("ffn_sub_norm", ffn)]
    linears = (("attn_q", q, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden), ("attn_output", hidden, q),
               ("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden), ("ffn_down", hidden, ffn))
    for layer in range(config.num_hidden_layers):
        result += [Tensor(f"blk.{layer}.{name}.weight", kind, rows, columns) for name, rows, columns in linears]
        result += [Tensor(f"blk.{layer}.{name}.weight", "f32", 0, size) for name, size in norms]
    return result


def bytes_per_token(config: ModelConfig, kind: str, head: str, architecture: str) -> int:
    """Bytes of weights that one decode step of one sequence reads: all but an embedding that is not the head."""
    listed = tensors(config, kind, head, architecture)
    total = sum(tensor.size for tensor in listed)
    untied = any(tensor.name == "output.weight" for tensor in listed)
    return total - (listed[0].size if untied else 0)


def write(path: Path, config: ModelConfig, *, kind: str, head: str, architecture: str, context: int = 4096) -> None:
    """Write the file, whole or not at all."""
    listed = tensors(config, kind, head, architecture)
    partial = path.with_suffix(".part")
    bits = np.random.SFC64(0)
    with partial.open("wb") as file:
        file.write(_header(config, listed, architecture, context))
        for tensor in listed:
            file.write(bytes(-file.tell() % ALIGNMENT))
            for piece in _pieces(tensor, bits):
                file.write(piece)
    os.replace(partial, path)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _header(config: ModelConfig, listed: list[Tensor], architecture: str, context: int) -> bytes:
    counts = {"context_length": context, "embedding_length": config.hidden_size,
              "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
              "attention.head_count": config.num_attention_heads,
              "attention.head_count_kv": config.num_key_value_heads, "rope.dimension_count": config.head_dim,
              "vocab_size": config.vocab_size}
    floats = {"attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": config.rope_theta}
    entries = [_string(key) + struct.pack("<I", 8) + _string(value)
               for key, value in (("general.architecture", architecture), ("tokenizer.ggml.model", "no_vocab"))]
    entries += [_string(f"{architecture}.{key}") + struct.pack("<II", 4, value) for key, value in counts.items()]
    entries += [_string(f"{architecture}.{key}") + struct.pack("<If", 6, value) for key, value in floats.items()]
    places, offset = [], 0
    for tensor in listed:
        shape = (tensor.columns, tensor.rows) if tensor.rows else (tensor.columns,)
        places.append(_string(tensor.name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape,
                                                         TYPES[tensor.kind].number, offset))
        offset += tensor.size + -tensor.size % ALIGNMENT
    start = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(entries)) + b"".join(entries) + b"".join(places)
    return start + bytes(-len(start) % ALIGNMENT)


def _pieces(tensor: Tensor, bits: np.random.BitGenerator) -> Iterator[bytes]:
    if not tensor.rows:
        yield np.ones(tensor.columns, np.float32).tobytes()
        return
    kind = TYPES[tensor.kind]
    scale = np.float32(tensor.columns ** -0.5)
    for first in range(0, tensor.rows, _PIECE_ROWS):
        rows = min(_PIECE_ROWS, tensor.rows - first)
        size = kind.size(rows, tensor.columns) - kind.tensor_bytes
        yield _FILL[tensor.kind](_random_bytes(bits, size), rows, scale)
    if kind.tensor_bytes:
        yield scale.tobytes() + bytes(kind.tensor_bytes - 4)


def _random_bytes(bits: np.random.BitGenerator, count: int) -> NDArray[np.uint8]:
    return bits.random_raw(-(-count // 8)).view(np.uint8)[:count]


def _codes(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fields of 0, 1, 2 from random bits: 3 becomes 2."""
    data &= ~(data >> np.uint8(1) & np.uint8(0x55))
    return data


def _floats(data: NDArray[np.uint8], scale: np.float32, kind: type) -> bytes:
    """Random signs and sizes of [1, 2) * 2^e."""
    words, width = data.view(np.uint16), 10 if kind is np.float16 else 7
    exponent = int(np.floor(np.log2(scale))) + (15 if kind is np.float16 else 127)
    words &= np.uint16(0x8000 | (1 << width) - 1)
    words |= np.uint16(exponent << width)
    return words.tobytes()


def _half_scales(data: NDArray[np.uint8], block: int, place: int, scale: float) -> NDArray[np.uint8]:
    """Put a float16 scale at byte `place` of every block."""
    blocks = data.reshape(-1, block)
    blocks[:, place:place + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    return data


def _tq2(data: NDArray[np.uint8], rows: int, scale: np.float32) -> bytes:
    return _half_scales(_codes(data), 66, 64, scale).tobytes()


def _iq2_bn_r4(data: NDArray[np.uint8], rows: int, scale: np.float32) -> bytes:
    groups = _codes(data).reshape(rows // 4, -1)
    groups[:, :16] = np.full(4, scale, np.float32).view(np.uint8)
    return groups.tobytes()


_FILL = {
    "f16": lambda data, rows, scale: _floats(data, scale, np.float16),
    "bf16": lambda data, rows, scale: _floats(data, scale, ml_dtypes.bfloat16),
    "q8_0": lambda data, rows, scale: _half_scales(data, 34, 0, scale / 128).tobytes(),
    "q6_K": lambda data, rows, scale: _half_scales(data, 210, 208, scale / 4096).tobytes(),
    "TQ2_0": _tq2,
    "I2_S": lambda data, rows, scale: _codes(data).tobytes(),
    "IQ2_BN_R4": _iq2_bn_r4,
}
