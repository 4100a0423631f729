"""The rotary kernel writes what the twin writes: codes, scales and queries equal to the bit."""

import dataclasses

import numpy as np
import pytest
import torch

from tritwise.config import ModelConfig
from tritwise.kernels.attention_twins import decode, encode, rotate_twin
from tritwise.kernels.cache import CACHE_TYPES, KVCache
from tritwise.kernels.rotary import rotary_tables, rotate_and_cache

HEADS, KV_HEADS = 4, 2


def rotated(cache_type, head_dim, *, norm=False, twin=False, seed=0, slots=(0, 1, 1, -1, 0),
            positions=(0, 17, 18, 3, 1)):
    """Queries and the cache after one step."""
    generator = torch.Generator().manual_seed(seed)
    layer = KVCache(cache_type, layers=1, pages=5, kv_heads=KV_HEADS, head_dim=head_dim, page_tokens=16).layer(0)
    qkv = torch.randn(len(slots), (HEADS + 2 * KV_HEADS) * head_dim, generator=generator) * 3
    tables = torch.tensor([[4, 1], [2, 0]], dtype=torch.int32)
    inverse = (10000.0 ** -(np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)
    cos, sin = rotary_tables(inverse, 1.0, 32)
    norms = {}
    if norm:
        norms = {name: 1 + 0.1 * torch.randn(head_dim, generator=generator) for name in ("q_norm", "k_norm")}
        norms["eps"] = 1e-5
    slots, positions = (torch.tensor(each, dtype=torch.int32) for each in (slots, positions))
    q = torch.zeros(len(slots), HEADS, head_dim)
    if twin:
        q = rotate_twin(qkv, layer, tables, slots, positions, cos, sin, HEADS, **norms)
        q[slots < 0] = 0
    else:
        rotate_and_cache(qkv, layer, tables, slots, positions, cos, sin, q, **norms)
    return q, layer


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
@pytest.mark.parametrize("head_dim", [8, 64, 100, 128])
def test_queries_codes_and_scales_equal_the_twins_to_the_bit(cache_type, head_dim):
    q, layer = rotated(cache_type, head_dim)
    exact_q, exact = rotated(cache_type, head_dim, twin=True)
    assert torch.equal(q, exact_q)
    for field in dataclasses.fields(layer):
        mine, twins = getattr(layer, field.name), getattr(exact, field.name)
        assert torch.equal(mine, twins) if isinstance(mine, torch.Tensor) else mine == twins


@pytest.mark.parametrize("head_dim", [64, 100])
def test_heads_are_normed_before_they_turn(head_dim):
    """Two sums of head_dim squares may differ by head_dim 2^-23 of their value, the norm by half of that."""
    q, layer = rotated("f16", head_dim, norm=True)
    exact_q, exact = rotated("f16", head_dim, norm=True, twin=True)
    largest = exact_q.abs().max()
    assert (q - exact_q).abs().max() <= head_dim * 2.0 ** -23 * largest
    assert not torch.equal(q, rotated("f16", head_dim)[0])
    assert (layer.keys.float() - exact.keys.float()).abs().max() <= 2.0 ** -10 * exact.keys.abs().max()
    assert torch.equal(layer.values, exact.values)


def test_only_the_rows_places_are_written():
    _, layer = rotated("int8", 64)
    written = (layer.keys != 0).any(-1).any(1)
    assert sorted(map(tuple, written.nonzero().tolist())) == [(0, 1), (0, 2), (4, 0), (4, 1)]


def test_tables_are_those_of_the_model():
    from tritwise.model.decoder import rotary_tables as model_tables

    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = ModelConfig(vocab_size=8, hidden_size=64, num_hidden_layers=1, num_attention_heads=1,
                         num_key_value_heads=1, intermediate_size=16, max_position_embeddings=256,
                         rope_scaling=scaling)
    inverse, factor = config.rotary()
    for mine, models in zip(rotary_tables(inverse, factor, 256), model_tables(256, config), strict=True):
        # torch's float32 cosine is within one unit in the last place, which the factor may round once more.
        torch.testing.assert_close(mine, models[:, :32], rtol=0, atol=2.0 ** -22)


@pytest.mark.parametrize("cache_type", ["int8", "int4"])
def test_codes_are_within_half_a_step(cache_type):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 96, generator=generator) * torch.exp(torch.randn(50, 1, generator=generator) * 4)
    x[0], x[1, 5:] = 0, 0
    stored, scales = encode(x, cache_type)
    error = (decode(stored, scales, cache_type) - x.double()).abs()
    steps = scales.double().abs()
    if cache_type == "int4":
        steps = steps.repeat_interleave(32, dim=-1)
        # The other side of the range ends at 7 steps, one short; the scale's own rounding adds 8 * 2^-11 of a step.
        assert (error <= steps * (1 + 2.0 ** -7) + 2.0 ** -21).all()
        assert (error <= steps * (0.5 + 2.0 ** -7) + 2.0 ** -21).double().mean() > 0.97
    else:
        assert (error <= steps[:, None] * (0.5 + 2.0 ** -16)).all()


def test_rows_that_pad_a_batch_write_nothing():
    """Their positions are those of pages that another sequence holds; neither queries nor cache change."""
    q, layer = rotated("int8", 64, slots=(-1, -1), positions=(0, 17))
    assert not q.any()
    assert not any(getattr(layer, name).any() for name in ("keys", "key_scales", "values", "value_scales"))
