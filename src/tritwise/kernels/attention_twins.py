"""The attention kernels' twins in plain torch: what they are tested against, written from the formulas alone.

They say what each kernel has to compute, exactly or in float64, not how it rounds on the way.
"""

import math

import torch
from torch import Tensor

from tritwise.kernels.cache import INT4_GROUP, LayerCache, padded_width


def encode(x: Tensor, cache_type: str) -> tuple[Tensor, Tensor]:
    """What the cache stores of x float32 [..., head_dim]: (stored, scales), as cache.py describes them."""
    width = padded_width(x.shape[-1])
    x = torch.nn.functional.pad(x, (0, width - x.shape[-1]))
    if cache_type == "f16":
        return x.clamp(-65504, 65504).half(), x.new_empty(0)
    if cache_type == "int8":
        absmax = x.abs().amax(-1, keepdim=True).clamp(min=1e-30)
        # A number over a tensor is torch's reciprocal, times the number: rounded twice.
        codes = torch.round(x * (torch.full_like(absmax, 127) / absmax)).clamp(-127, 127)
        return (codes + 128).to(torch.uint8), (absmax / 127)[..., 0]
    groups = x.unflatten(-1, (-1, INT4_GROUP))
    highest, lowest = groups.amax(-1), groups.amin(-1)
    scales = (torch.where(highest > -lowest, highest, lowest) / -8).clamp(-65504, 65504).half()
    steps = torch.where(scales == 0, 0.0, 1 / scales.float())
    codes = (torch.round(groups * steps[..., None]).clamp(-8, 7) + 8).to(torch.uint8)
    return (codes[..., :16] | codes[..., 16:] << 4).flatten(-2), scales


def decode(stored: Tensor, scales: Tensor, cache_type: str) -> Tensor:
    """The numbers that stored codes stand for, float64 [..., width]; exact."""
    if cache_type == "f16":
        return stored.double()
    if cache_type == "int8":
        return (stored.double() - 128) * scales.double()[..., None]
    halves = stored.unflatten(-1, (-1, 16))
    codes = torch.cat([halves & 15, halves >> 4], dim=-1).double() - 8
    return (codes * scales.double()[..., None]).flatten(-2)


def cached(cache: LayerCache, table: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values of the first `length` positions of one sequence, float64 [kv heads, length, head_dim]."""
    pages = table[:-(-length // cache.page_tokens)].long()
    result = []
    for stored, scales in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales)):
        x = decode(stored[pages], scales[pages] if scales.numel() else scales, cache.type)
        result.append(x.transpose(0, 1).flatten(1, 2)[:, :length, :cache.head_dim])
    return result[0], result[1]


def attend_twin(q: Tensor, cache: LayerCache, tables: Tensor, slots: Tensor, positions: Tensor) -> Tensor:
    """softmax(q K^T / sqrt(head_dim)) V over what each row sees, float64 [n, heads, head_dim]; q alike."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    for row, (slot, position) in enumerate(zip(slots.tolist(), positions.tolist(), strict=True)):
        if slot < 0:
            continue
        keys, values = cached(cache, tables[slot], position + 1)
        out[row] = torch.nn.functional.scaled_dot_product_attention(
            q[row].double()[:, None], keys, values, enable_gqa=True)[:, 0]
    return out


def rotate_twin(qkv: Tensor, cache: LayerCache, tables: Tensor, slots: Tensor, positions: Tensor, cos: Tensor,
                sin: Tensor, heads: int, q_norm: Tensor | None = None, k_norm: Tensor | None = None,
                eps: float = 0.0) -> Tensor:
    """Writes the rows' keys and values into the cache and gives their queries, in float32."""
    dims, kv_heads = cache.head_dim, cache.kv_heads
    q, k, v = qkv.unflatten(-1, (-1, dims)).split([heads, kv_heads, kv_heads], dim=1)

    def normed(x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else weight * (x * (1 / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)))

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        c, s = (torch.cat([table[positions.long()]] * 2, dim=-1)[:, None] for table in (cos, sin))
        return x * c + torch.cat([-second, first], dim=-1) * s

    q, k = rotated(normed(q, q_norm)), rotated(normed(k, k_norm))
    for row, (slot, position) in enumerate(zip(slots.tolist(), positions.tolist(), strict=True)):
        if slot < 0:
            continue
        page, place = int(tables[slot, position // cache.page_tokens]), position % cache.page_tokens
        for x, stored, scales in ((k, cache.keys, cache.key_scales), (v, cache.values, cache.value_scales)):
            codes, scale = encode(x[row], cache.type)
            stored[page, :, place] = codes
            if scale.numel():
                scales[page, :, place] = scale
    return q


def score_error(q: Tensor, keys: Tensor, cache_type: str) -> float:
    """A bound on how far a kernel's score, before the softmax, may be from the exact one.

    q [heads, head_dim] and keys [kv heads, n, head_dim], float64. A float16 rounding is 2^-11 of a number: of each
    query, and of each int4 key after its scale. Sums of head_dim products in float32 add head_dim 2^-24, and scale and
    rounding of the products by the constants 2^-22.
    """
    terms = torch.einsum("ghd,gnd->ghn", q.abs().unflatten(0, (len(keys), -1)), keys.abs()).max().item()
    halves = 2 if cache_type == "int4" else 1
    relative = halves * 2.0 ** -11 * 1.001 + q.shape[-1] * 2.0 ** -24 + 2.0 ** -22
    # Below 2^-14 a float16's rounding is 2^-25 instead.
    tiny = 2.0 ** -25 * (keys.abs().sum(-1).max() + halves * q.abs().sum(-1).max()).item()
    return (terms * relative + tiny) / math.sqrt(q.shape[-1])


def output_error(q: Tensor, keys: Tensor, values: Tensor, cache_type: str) -> float:
    """A bound on how far a kernel's output may be from `attend_twin`'s, for one row.

    Scores that are off by e change a softmax weight by a factor within exp(+-2 e). Weights are rounded to float16 once
    for the sum and once for the product, values of int4 once: each 2^-11 of the largest value. Weights below 2^-14 are
    off by up to 2^-25 each, n of them. exp2, merging and float32 sums over n positions add (n + 64) 2^-23.
    """
    n, largest = keys.shape[1], values.abs().max().item()
    e = score_error(q, keys, cache_type)
    roundings = 3 if cache_type == "int4" else 2
    return largest * (math.expm1(2 * e) + roundings * 2.0 ** -11 * 1.01 + 2 * n * 2.0 ** -25 + (n + 64) * 2.0 ** -23)
