"""Caches with random contents for the tests of attention."""

import numpy as np
import torch

from tritwise.kernels.attention import attend, plan_attention, workspace
from tritwise.kernels.attention_twins import encode
from tritwise.kernels.cache import KVCache


def filled_cache(cache_type, *, kv_heads, head_dim, pages, page_tokens=16, seed=0):
    """One layer whose every page holds random keys and values, some dimensions much larger than others."""
    generator = torch.Generator().manual_seed(seed)
    cache = KVCache(cache_type, layers=1, pages=pages, kv_heads=kv_heads, head_dim=head_dim, page_tokens=page_tokens)
    layer = cache.layer(0)
    spread = torch.exp(torch.randn(head_dim, generator=generator) * 0.7)
    for stored, scales in ((layer.keys, layer.key_scales), (layer.values, layer.value_scales)):
        x = torch.randn(pages, kv_heads, page_tokens, head_dim, generator=generator) * spread
        codes, scale = encode(x, cache_type)
        stored.copy_(codes)
        if scale.numel():
            scales.copy_(scale)
    return layer


def tables_of(lengths, page_tokens, pages, seed=0):
    """Pages in random order for sequences of these lengths, none of them twice."""
    order = np.random.default_rng(seed).permutation(pages)
    most = max(-(-length // page_tokens) for length in lengths)
    tables = torch.zeros(len(lengths), most, dtype=torch.int32)
    for row, length in enumerate(lengths):
        count = -(-length // page_tokens)
        tables[row, :count] = torch.from_numpy(order[:count].astype(np.int32))
        order = order[count:]
    return tables


def attended(q, layer, tables, slots, positions, **how):
    """The kernels' output for these rows; a row that nothing is written for stays NaN."""
    plan = plan_attention(np.array(slots, np.int32), np.array(positions, np.int32),
                          group=q.shape[1] // layer.kv_heads, **how)
    out = torch.full_like(q, float("nan"))
    room = workspace(len(q), q.shape[1], max(1, plan.chunks), layer.width)
    attend(q, layer, tables, plan, room, out)
    return out
