"""Rotary embedding of a batch's queries and keys, and its keys and values into the cache: one launch a layer.

A program takes one head of one row: norm (Qwen3's, over the head), rotation in the half-split form (arXiv 2104.09864,
section 3.4), rounding to the cache's type. Rows of prompts and of decoding sequences may stand side by side.

Reads 4 * (heads + 2 kv heads) * head size bytes a row, twice from L1; writes 4 * heads * head size and a key and value
a kv head. Bound by the launch for few rows, by memory for many.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from tritwise.kernels.attention_tiles import half_dims, within_half
from tritwise.kernels.cache import INT4_GROUP, LayerCache


def rotary_tables(inverse_frequencies: NDArray[np.float32], factor: float, positions: int,
                  device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [positions, head_dim / 2], of `ModelConfig.rotary()`.

    The angle is a float32 product, its cosine is taken in float64 and rounded once, as in the CPU core.
    """
    angles = np.arange(positions, dtype=np.float32)[:, None] * inverse_frequencies.astype(np.float32)
    tables = (function(angles.astype(np.float64)).astype(np.float32) * np.float32(factor)
              for function in (np.cos, np.sin))
    cos, sin = (torch.from_numpy(table).to(device) for table in tables)
    return cos, sin


@triton.jit
def rounded(x):
    """The nearest whole number, half to even, for |x| < 2^22."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def head_values(head, dims, cosines, sines, norm, inverse_rms, wanted: tl.constexpr, NORM: tl.constexpr,
                HEAD_DIM: tl.constexpr):
    """Dimensions `dims` of a head, zero beyond its end; normed, and rotated where `wanted`."""
    HALF: tl.constexpr = HEAD_DIM // 2
    inside = dims < HEAD_DIM
    x = tl.load(head + dims, mask=inside, other=0.0).to(tl.float32)
    if wanted:
        partner = tl.where(dims < HALF, dims + HALF, dims - HALF)
        y = tl.load(head + partner, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            x = tl.load(norm + dims, mask=inside, other=0.0) * (x * inverse_rms)
            y = tl.load(norm + partner, mask=inside, other=0.0) * (y * inverse_rms)
        cos = tl.load(cosines + dims % HALF, mask=inside, other=0.0)
        sin = tl.load(sines + dims % HALF, mask=inside, other=0.0)
        x = x * cos + tl.where(dims < HALF, -y, y) * sin
    return x


@triton.jit
def store_8_bits(x, d, codes, scale, STORED: tl.constexpr):
    """code = round(x * (127 / |x|max)), stored + 128."""
    absmax = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-30)
    code = rounded(x * tl.div_rn(127.0, absmax))
    code = tl.minimum(tl.maximum(code, -127.0), 127.0)
    tl.store(codes + d, (code + 128.0).to(tl.int32).to(tl.uint8), mask=d < STORED)
    tl.store(scale, tl.div_rn(absmax, 127.0))


@triton.jit
def codes_of_4_bits(x, steps):
    code = rounded(x * steps)
    return (tl.minimum(tl.maximum(code, -8.0), 7.0) + 8.0).to(tl.int32)


@triton.jit
def store_4_bits(low, high, codes, scales, STORED: tl.constexpr, GROUPS: tl.constexpr, BLOCK_G: tl.constexpr):
    """Both halves [groups, 16] of each group; the number of largest magnitude over -8 is the scale, as a float16."""
    highest = tl.maximum(tl.max(low, axis=1), tl.max(high, axis=1))
    lowest = tl.minimum(tl.min(low, axis=1), tl.min(high, axis=1))
    scale = within_half(tl.where(highest > -lowest, highest, lowest) * -0.125).to(tl.float16)
    exact = scale.to(tl.float32)
    steps = tl.where(exact == 0.0, 0.0, tl.div_rn(1.0, tl.where(exact == 0.0, 1.0, exact)))[:, None]
    packed = codes_of_4_bits(low, steps) | codes_of_4_bits(high, steps) << 4
    group = tl.arange(0, BLOCK_G)
    place = group[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(codes + place, packed.to(tl.uint8), mask=place < STORED)
    tl.store(scales + group, scale, mask=group < GROUPS)


@triton.jit
def cache_head(head, cosines, sines, norm, inverse_rms, stored, scales, at, wanted: tl.constexpr, NORM: tl.constexpr,
               TYPE: tl.constexpr, HEAD_DIM: tl.constexpr, STORED: tl.constexpr, GROUPS: tl.constexpr,
               BLOCK_D: tl.constexpr):
    """A key or value to position-and-head `at` of the pages."""
    if TYPE == "int4":
        BLOCK_G: tl.constexpr = BLOCK_D // 16
        dims = tl.arange(0, BLOCK_G)[:, None] * 32 + tl.arange(0, 16)[None, :]
        low = head_values(head, dims, cosines, sines, norm, inverse_rms, wanted, NORM, HEAD_DIM)
        high = head_values(head, dims + 16, cosines, sines, norm, inverse_rms, wanted, NORM, HEAD_DIM)
        store_4_bits(low, high, stored + at * STORED, scales + at * GROUPS, STORED, GROUPS, BLOCK_G)
    else:
        d = half_dims(TYPE, BLOCK_D, False)
        x = head_values(head, d, cosines, sines, norm, inverse_rms, wanted, NORM, HEAD_DIM)
        if TYPE == "int8":
            store_8_bits(x, d, stored + at * STORED, scales + at, STORED)
        else:
            tl.store(stored + at * STORED + d, within_half(x).to(tl.float16), mask=d < STORED)


@triton.jit
def rotate_head(qkv, slots, positions, tables, table_width, cosines, sines, q_norm, k_norm, eps, q, keys, key_scales,
                values, value_scales,
                TYPE: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
                PAGE: tl.constexpr, STORED: tl.constexpr, GROUPS: tl.constexpr, BLOCK_D: tl.constexpr,
                BLOCK_HEAD: tl.constexpr, NORM: tl.constexpr):
    """One of the heads + 2 kv heads of a row."""
    row, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + row)
    if slot >= 0:
        position = tl.load(positions + row)
        cos, sin = cosines + position.to(tl.int64) * (HEAD_DIM // 2), sines + position.to(tl.int64) * (HEAD_DIM // 2)
        head = qkv + (row * (HEADS + 2 * KV_HEADS) + index) * HEAD_DIM
        d = tl.arange(0, BLOCK_HEAD)
        inverse_rms = 1.0
        if NORM:
            x = tl.load(head + d, mask=d < HEAD_DIM, other=0.0).to(tl.float32)
            inverse_rms = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(tl.sum(x * x, axis=0), HEAD_DIM * 1.0) + eps))
        if index < HEADS:
            x = head_values(head, d, cos, sin, q_norm, inverse_rms, True, NORM, HEAD_DIM)
            tl.store(q + (row * HEADS + index) * HEAD_DIM + d, x, mask=d < HEAD_DIM)
        else:
            kv_head = (index - HEADS) % KV_HEADS
            page = tl.load(tables + slot.to(tl.int64) * table_width + position // PAGE).to(tl.int64)
            at = (page * KV_HEADS + kv_head) * PAGE + position % PAGE
            if index < HEADS + KV_HEADS:
                cache_head(head, cos, sin, k_norm, inverse_rms, keys, key_scales, at, True, NORM, TYPE, HEAD_DIM,
                           STORED, GROUPS, BLOCK_D)
            else:
                cache_head(head, cos, sin, k_norm, inverse_rms, values, value_scales, at, False, NORM, TYPE, HEAD_DIM,
                           STORED, GROUPS, BLOCK_D)


def rotate_and_cache(qkv: Tensor, cache: LayerCache, tables: Tensor, slots: Tensor, positions: Tensor, cos: Tensor,
                     sin: Tensor, q: Tensor, *, q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                     eps: float = 0.0) -> None:
    """qkv [n, (heads + 2 kv heads) * head_dim] to q float32 [n, heads, head_dim] and into the cache.

    qkv is float32, or bfloat16 or float16 as dense products leave it; it is computed with in float32.
    Row i belongs to `slots[i]` (int32; -1: nothing is done) at `positions[i]`; `tables` int32 [slots, most pages] names
    the pages, which no other sequence may hold where a row writes. `cos` and `sin` as `rotary_tables` makes them.
    """
    n, heads, head_dim = q.shape
    kv_heads, packed = cache.kv_heads, cache.type == "int4"
    stored = cache.width // 2 if packed else cache.width
    assert qkv.shape == (n, (heads + 2 * kv_heads) * cache.head_dim), (qkv.shape, q.shape)
    assert q.dtype == cos.dtype == sin.dtype == torch.float32
    assert qkv.dtype in (torch.float32, torch.bfloat16, torch.float16)
    assert qkv.is_contiguous()
    assert q.is_contiguous()
    assert cos.shape == sin.shape
    assert cos.shape[1] == head_dim // 2
    assert (q_norm is None) == (k_norm is None)
    normed = q_norm is not None
    rotate_head[n, heads + 2 * kv_heads](
        qkv, slots, positions, tables, tables.shape[1], cos, sin, q_norm if normed else qkv,
        k_norm if normed else qkv, eps, q, cache.keys, cache.key_scales, cache.values, cache.value_scales,
        TYPE=cache.type, HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, PAGE=cache.page_tokens, STORED=stored,
        GROUPS=cache.width // INT4_GROUP, BLOCK_D=max(16, 1 << (stored - 1).bit_length()),
        BLOCK_HEAD=1 << (head_dim - 1).bit_length(), NORM=normed, num_warps=1, enable_fp_fusion=False)
