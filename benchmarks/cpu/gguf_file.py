"""GGUF files of random weights in the layouts of llama.cpp and its forks.

Every tensor is written in the peer's own block format, one after the other, so a file takes seconds and no quantiser is
needed. What a weight is does not change a product's speed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from works import RefusedError

from tritwise.config import ModelConfig
from tritwise.formats.gguf_container import GGUFEntry, write_container
from tritwise.formats.gguf_packing import TYPE_NUMBERS
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes

# Rows in one piece: no layout interleaves more than 4.
_PIECE_ROWS = 1024
# Tensor types by what llama-quantize calls them.
TYPES = {name: TYPE_NUMBERS[name.upper()]
         for name in ("f32", "f16", "bf16", "q8_0", "q6_K", "TQ2_0", "I2_S", "IQ2_BN_R4")}


def block_inputs(kind: str) -> int:
    """Inputs of a row that the type stores together."""
    return GGUF_TYPES[TYPES[kind]].inputs


def fitted(config: ModelConfig, kind: str) -> ModelConfig:
    """`config`, or the nearest shape that the type can hold: the feed-forward width filled up with zeros.

    Raises RefusedError when another width does not fit: it is that of the residual stream and cannot be filled up.
    """
    inputs = block_inputs(kind)
    attention = config.num_attention_heads * config.head_dim
    if config.hidden_size % inputs or attention % inputs:
        raise RefusedError(f"{kind} stores blocks of {inputs} inputs; {config.hidden_size} is not a multiple of it")
    rest = -config.intermediate_size % inputs
    return config.with_changes(intermediate_size=config.intermediate_size + rest) if rest else config



def head_type(config: ModelConfig, wanted: str) -> str:
    """The type a head gets: where rows do not fit Q6_K's blocks of 256, llama-quantize takes Q8_0."""
    return "q8_0" if wanted == "q6_K" and config.hidden_size % block_inputs("q6_K") else wanted


@dataclass(frozen=True)
class Tensor:
    name: str
    kind: str
    rows: int       # 0 for a vector
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns) if self.rows else (self.columns,)

    @property
    def size(self) -> int:
        return tensor_bytes(TYPES[self.kind], self.shape)


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
    bits = np.random.SFC64(0)
    entries = [GGUFEntry(tensor.name, TYPES[tensor.kind], tensor.shape, partial(_pieces, tensor, bits))
               for tensor in tensors(config, kind, head, architecture)]
    counts = {"context_length": context, "embedding_length": config.hidden_size,
              "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
              "attention.head_count": config.num_attention_heads,
              "attention.head_count_kv": config.num_key_value_heads, "rope.dimension_count": config.head_dim,
              "vocab_size": config.vocab_size}
    floats = {"attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": config.rope_theta}
    write_container(path, {"general.architecture": architecture, "tokenizer.ggml.model": "no_vocab"} | {
        f"{architecture}.{key}": value for key, value in (counts | floats).items()}, entries)


def _pieces(tensor: Tensor, bits: np.random.BitGenerator) -> Iterator[NDArray[np.uint8]]:
    if not tensor.rows:
        yield np.ones(tensor.columns, np.float32).view(np.uint8)
        return
    number, scale = TYPES[tensor.kind], np.float32(tensor.columns ** -0.5)
    behind = GGUF_TYPES[number].tensor_bytes
    for first in range(0, tensor.rows, _PIECE_ROWS):
        rows = min(_PIECE_ROWS, tensor.rows - first)
        data = _random_bytes(bits, tensor_bytes(number, (rows, tensor.columns)) - behind)
        yield _FILL[tensor.kind](data, rows, scale).view(np.uint8)
    if behind:
        yield np.frombuffer(scale.tobytes() + bytes(behind - 4), np.uint8)


def _random_bytes(bits: np.random.BitGenerator, count: int) -> NDArray[np.uint8]:
    return bits.random_raw(-(-count // 8)).view(np.uint8)[:count]


def _codes(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fields of 0, 1, 2 from random bits: 3 becomes 2."""
    data &= ~(data >> np.uint8(1) & np.uint8(0x55))
    return data


def _floats(data: NDArray[np.uint8], scale: np.float32, kind: type) -> NDArray[np.uint16]:
    """Random signs and sizes of [1, 2) * 2^e."""
    words, width = data.view(np.uint16), 10 if kind is np.float16 else 7
    exponent = int(np.floor(np.log2(scale))) + (15 if kind is np.float16 else 127)
    words &= np.uint16(0x8000 | (1 << width) - 1)
    words |= np.uint16(exponent << width)
    return words


def _half_scales(data: NDArray[np.uint8], block: int, place: int, scale: float) -> NDArray[np.uint8]:
    """Put a float16 scale at byte `place` of every block."""
    blocks = data.reshape(-1, block)
    blocks[:, place:place + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    return data


def _iq2_bn_r4(data: NDArray[np.uint8], rows: int, scale: np.float32) -> NDArray[np.uint8]:
    groups = _codes(data).reshape(rows // 4, -1)
    groups[:, :16] = np.full(4, scale, np.float32).view(np.uint8)
    return groups


_FILL = {
    "f16": lambda data, rows, scale: _floats(data, scale, np.float16),
    "bf16": lambda data, rows, scale: _floats(data, scale, ml_dtypes.bfloat16),
    "q8_0": lambda data, rows, scale: _half_scales(data, 34, 0, scale / 128),
    "q6_K": lambda data, rows, scale: _half_scales(data, 210, 208, scale / 4096),
    "TQ2_0": lambda data, rows, scale: _half_scales(_codes(data), 66, 64, scale),
    "I2_S": lambda data, rows, scale: _codes(data),
    "IQ2_BN_R4": _iq2_bn_r4,
}
