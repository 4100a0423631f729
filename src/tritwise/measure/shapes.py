"""Published model shapes, and models of random weights in them: speed does not depend on what the weights are."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.formats import TernaryTensor

_DENSE = "-dense"


def _paper(hidden: int, ffn: int, heads: int, layers: int, kv_heads: int | None = None) -> ModelConfig:
    # BitNet b1.58's training notes, model configurations; LLaMA's tokenizer has 32000 entries.
    return ModelConfig(vocab_size=32000, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
                       num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=2048)


SHAPES: dict[str, ModelConfig] = {
    # BitNet b1.58 2B4T, arXiv 2504.12285 and its published config.json.
    "2b4t": ModelConfig(vocab_size=128256, hidden_size=2560, intermediate_size=6912, num_hidden_layers=30,
                        num_attention_heads=20, num_key_value_heads=5, hidden_act="relu2", rope_theta=500000.0,
                        max_position_embeddings=4096, tie_word_embeddings=True),
    "paper-700m": _paper(1536, 4096, 24, 24),
    "paper-1.3b": _paper(2048, 5460, 32, 24),
    "paper-3b": _paper(3200, 8640, 32, 26),
    "paper-3.9b": _paper(3200, 12800, 32, 26),
    # LLaMA's sizes in BitNet's layout, as BitNet b1.58's table 2 has them; 70B with the 8 key-value heads of LLaMA 2.
    "paper-7b": _paper(4096, 11008, 32, 32),
    "paper-13b": _paper(5120, 13824, 40, 40),
    "paper-70b": _paper(8192, 28672, 64, 80, kv_heads=8),
    # LLaMA 3 8B's config.json with ternary linears, as Llama3-8B-1.58 has them; its rope_scaling is LLaMA 3.1's.
    "llama-3-8b": ModelConfig(model_type="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
                              num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
                              rope_theta=500000.0, max_position_embeddings=8192),
    # OLMoE-1B-7B, arXiv 2409.02060, table 1: 64 experts, 8 a token; in BitNet's layout.
    "olmoe-1b-7b": ModelConfig(vocab_size=50304, hidden_size=2048, num_hidden_layers=16, num_attention_heads=16,
                               num_experts=64, num_experts_per_tok=8, moe_intermediate_size=1024,
                               max_position_embeddings=4096),
}


def shape_config(name: str) -> ModelConfig:
    """The configuration of a published shape; with `-dense` behind the name, that of its bfloat16 LLaMA twin.

    Raises TritwiseError for another name.
    """
    config = SHAPES.get(name.removesuffix(_DENSE))
    if config is None:
        raise TritwiseError(f"there is no shape {name!r}",
                            why=f"the shapes are {', '.join(SHAPES)}, each also with {_DENSE}")
    return config.with_changes(model_type="llama", linear_type="dense") if name.endswith(_DENSE) else config


def random_tensors(config: ModelConfig, seed: int = 0) -> Iterator[tuple[str, TernaryTensor | NDArray]]:
    """Every tensor of `config.tensor_shapes()`, one after the other, at about the speed of the random bits.

    Ternary codes are 0 half of the time; binary ones are -1 or +1; floats are bfloat16 of the size that keeps a
    layer's output near its input's, norms are ones in float32. The same seed gives the same weights.
    """
    bits = np.random.SFC64(seed)
    block = frozenset(config.linear_shapes())
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 1:
            yield name, np.ones(shape, dtype=np.float32)
        elif config.linear_type != "dense" and name.split(".", 3)[-1].removesuffix(".weight") in block:
            yield name, _random_codes(bits, shape, binary=config.linear_type == "binary")
        else:
            yield name, _random_floats(bits, shape)


def _random_bytes(bits: np.random.BitGenerator, count: int) -> NDArray[np.uint8]:
    return bits.random_raw(-(-count // 8)).view(np.uint8)[:count]


def _random_codes(bits: np.random.BitGenerator, shape: tuple[int, int], *, binary: bool) -> TernaryTensor:
    out, inner = shape
    rows = -(-out // 4)
    packed = _random_bytes(bits, rows * inner).reshape(rows, inner)
    low = packed & np.uint8(0x55)
    if binary:
        packed = low << np.uint8(1)                   # fields 0 and 2
    else:
        packed >>= np.uint8(1)
        packed &= np.uint8(0x55)
        packed += low                                 # the sum of two bits: 0, 1, 1 or 2
    for stripe in range(4):                           # rows that only fill up the last stripes hold 0
        packed[max(0, min(out - stripe * rows, rows)):] &= np.uint8(0xFF ^ 3 << 2 * stripe)
    scale = np.array([(inner * (1 if binary else 0.5)) ** -0.5], dtype=np.float32)
    return TernaryTensor(packed, scale, shape)


def _random_floats(bits: np.random.BitGenerator, shape: tuple[int, ...]) -> NDArray:
    count = int(np.prod(shape))
    words = _random_bytes(bits, 2 * count).view(np.uint16)
    exponent = 127 + int(np.floor(np.log2(shape[-1] ** -0.5)))
    words &= np.uint16(0x807F)                        # random sign and fraction ...
    words |= np.uint16(exponent << 7)                 # ... at one size: +-[1, 2) * 2^e with 2^e <= 1 / sqrt(in)
    return words.view(ml_dtypes.bfloat16).reshape(shape)
