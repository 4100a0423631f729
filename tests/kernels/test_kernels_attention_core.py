"""The device's cache and attention beside the CPU core's, from the same queries, keys and values."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_caches import attended

from tritwise.kernels.attention_twins import cached, output_error
from tritwise.kernels.cache import KVCache
from tritwise.kernels.rotary import rotate_and_cache

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))


@pytest.mark.parametrize("cache_type", ["f16", "int8", "int4"])
def test_values_in_the_cache_and_outputs_of_attention_are_the_cores(cache_type, monkeypatch):
    import test_native_cache_types as core

    monkeypatch.setattr(core, "TOKENS", core.TOKENS[:40])
    c = core.VARIANTS["two groups of dimensions"] | {"num_hidden_layers": 1}
    weights = core.random_weights(c)
    found = core.load(c, weights, context=64, cache_type=cache_type).trace(core.TOKENS)
    q, k, v = (torch.from_numpy(np.ascontiguousarray(x)) for x in core.queries_keys_values(c, weights, found))
    heads, dim = q.shape[1:]
    layer = KVCache(cache_type, layers=1, pages=4, kv_heads=k.shape[1], head_dim=dim, page_tokens=16).layer(0)
    tables = torch.tensor([[2, 0, 3]], dtype=torch.int32)
    slots, positions = torch.zeros(40, dtype=torch.int32), torch.arange(40, dtype=torch.int32)
    # Queries and keys have been rotated: an angle of zero changes nothing.
    still = torch.ones(40, dim // 2), torch.zeros(40, dim // 2)
    rotated = torch.empty_like(q)
    rotate_and_cache(torch.cat([x.flatten(1) for x in (q, k, v)], dim=1), layer, tables, slots, positions, *still,
                     rotated)
    assert torch.equal(rotated, q)
    expected = torch.from_numpy(np.array(found["layers.0.self_attn.output"])).reshape(40, heads, dim)
    keys, values = cached(layer, tables[0], 40)
    # The first token sees itself alone: the core's output is what its cache holds.
    group = heads // k.shape[1]
    assert torch.equal(expected[0], values[:, 0].float().repeat_interleave(group, dim=0))
    rows = [1, 17, 38, 39]
    out = attended(q[rows].contiguous(), layer, tables, [0] * 4, rows)
    for i, row in enumerate(rows):
        bound = output_error(q[row].double(), keys[:, :row + 1], values[:, :row + 1], cache_type)
        assert (out[i] - expected[row]).abs().max() <= bound
        assert bound < 0.1 * values.abs().max()
