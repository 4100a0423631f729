"""The types of the cache: what is stored, attention over it against numpy, and equal bits however it is computed."""

import numpy as np
import pytest
from native_models import config, ints, load, random_weights, rotary_of, run

from tritwise import _native

KERNELS = _native.kernels()
TYPES = ("f32", "f16", "int8", "int4")
# Crosses pages of 64 and pieces of 256 positions, and ends inside a block of 16.
TOKENS = np.random.default_rng(9).integers(0, 70, 601).astype(np.int32)
VARIANTS = {
    "two groups of dimensions": config(model_type="llama", head_dim=34),
    "group of ten": config(hidden_size=60, num_attention_heads=10, num_key_value_heads=1, head_dim=6),
    "wide heads": config(model_type="llama", head_dim=128, num_attention_heads=2, num_key_value_heads=2),
}


@pytest.fixture(scope="module", params=VARIANTS, ids=list(VARIANTS))
def variant(request):
    c = VARIANTS[request.param] | {"num_hidden_layers": 1}
    return c, random_weights(c)


def queries_keys_values(c, weights, found):
    """The float32 inputs of layer 0's attention [n, heads, dim], from its traced accumulators, to the bit."""
    dim, n = c["head_dim"], len(TOKENS)
    parts = []
    for name in ("q_proj", "k_proj", "v_proj"):
        key = f"layers.0.self_attn.{name}"
        scale = found[f"{key}.input_scale"][:, None] * weights[f"model.{key}.weight"][1]
        parts.append((found[f"{key}.accumulator"].astype(np.float32) * scale).reshape(n, -1, dim))
    inverse = rotary_of(c)["inverse_frequencies"]
    angles = (np.arange(n, dtype=np.float32)[:, None] * inverse).astype(np.float64)[:, None]
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    for i in (0, 1):
        a, b = np.split(parts[i], 2, axis=-1)
        parts[i] = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return parts


def stored(x, cache_type):
    """What the cache gives back for x [..., dim], by the formulas of native/README.md."""
    if cache_type == "f32":
        return x
    if cache_type == "f16":
        return x.astype(np.float16).astype(np.float32)
    if cache_type == "int8":
        top = np.abs(x).max(-1, keepdims=True)
        return np.rint(x * (np.float32(127) / top)) * (top / np.float32(127))
    parts = []
    for begin in range(0, x.shape[-1], 32):
        group = x[..., begin:begin + 32]
        high, low = group.max(-1, keepdims=True), group.min(-1, keepdims=True)
        scale = (np.where(high > -low, high, low) / np.float32(-8)).astype(np.float16).astype(np.float32)
        parts.append(np.clip(np.rint(group * (np.float32(1) / scale)), -8, 7) * scale)
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("cache_type", TYPES)
def test_attention_is_that_of_the_rounded_keys_and_values_in_float64(variant, cache_type):
    c, weights = variant
    found = load(c, weights, context=601, cache_type=cache_type).trace(TOKENS)
    q, k, v = queries_keys_values(c, weights, found)
    assert cache_type == "f32" or not np.array_equal(stored(k, cache_type), k)
    group = c["num_attention_heads"] // c["num_key_value_heads"]
    k, v = (np.repeat(stored(x, cache_type), group, axis=1).astype(np.float64) for x in (k, v))
    scores = np.einsum("qhd,khd->hqk", q.astype(np.float64), k) / np.sqrt(c["head_dim"])
    scores = np.where(np.tri(len(TOKENS), dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("hqk,khd->qhd", e / e.sum(-1, keepdims=True), v).reshape(len(TOKENS), -1)
    # A sum of n products in a chain is off by n units (2^-24) of the sum of magnitudes at most: 128 dimensions in a
    # score, of which the softmax makes a relative error, and 256 positions and 3 merges in a value.
    largest = np.einsum("qhd,khd->hqk", np.abs(q), np.abs(k)).max() / np.sqrt(c["head_dim"])
    bound = (2 * c["head_dim"] * largest + 300) * 2.0**-24 * np.abs(v).max()
    assert np.abs(found["layers.0.self_attn.output"] - expected).max() < bound
    assert bound < 0.002 * np.abs(v).max()


@pytest.mark.parametrize("cache_type", TYPES)
def test_logits_are_equal_to_the_bit_on_every_kernel_thread_count_and_chunk(variant, cache_type):
    c, weights = variant
    expected = run(load(c, weights, context=601, cache_type=cache_type, kernel="scalar"), TOKENS)
    for kernel in KERNELS:
        for threads, chunk in ((1, 601), (2, 97), (3, 256)):
            model = load(c, weights, context=601, cache_type=cache_type, kernel=kernel, threads=threads)
            assert run(model, TOKENS, chunk=chunk).tobytes() == expected.tobytes()
            # One by one at the end, where a query's positions are split over the threads.
            assert run(model, TOKENS[590:], start=590, chunk=1).tobytes() == expected[590:].tobytes()


def test_equal_bits_with_more_threads_than_heads_and_several_long_sequences():
    c = config(num_key_value_heads=1)
    weights = random_weights(c)
    alone = load(c, weights, context=601, cache_type="f16")
    expected = [run(alone, TOKENS[:length], slot=slot)[-1:] for slot, length in enumerate((601, 300, 20))]
    model = load(c, weights, context=601, cache_type="f16", threads=8)
    for slot, length in enumerate((601, 300, 20)):
        run(model, TOKENS[:length - 1], slot=slot)
    last = np.array([TOKENS[length - 1] for length in (601, 300, 20)], np.int32)
    found, _ = model.forward(last, ints(0, 1, 2), ints(600, 299, 19), ints(0, 1, 2))
    assert found.tobytes() == np.concatenate(expected).tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_keys_beyond_float16_saturate(kernel):
    c = config(num_hidden_layers=1)
    weights = random_weights(c)
    for name in ("k_proj", "v_proj"):
        codes, _ = weights[f"model.layers.0.self_attn.{name}.weight"]
        weights[f"model.layers.0.self_attn.{name}.weight"] = codes, np.array([3e5], np.float32)
    found = run(load(c, weights, cache_type="f16", kernel=kernel), TOKENS[:40])
    assert np.isfinite(found).all()
    assert found.tobytes() == run(load(c, weights, cache_type="f16", kernel="scalar"), TOKENS[:40]).tobytes()


@pytest.mark.parametrize("cache_type", ["int8", "int4"])
def test_keys_and_values_of_zero_stay_zero(cache_type):
    c = config(num_hidden_layers=1)
    weights = random_weights(c)
    for name in ("k_proj", "v_proj"):
        codes, scale = weights[f"model.layers.0.self_attn.{name}.weight"]
        weights[f"model.layers.0.self_attn.{name}.weight"] = np.zeros_like(codes), scale
    found = load(c, weights, cache_type=cache_type).trace(TOKENS[:40])
    assert not found["layers.0.self_attn.output"].any()


def test_bytes_of_a_token_are_those_of_the_stated_layouts():
    c = config(head_dim=64, num_attention_heads=4, model_type="llama")
    weights = random_weights(c)
    sides = 2 * 2 * 2  # layers, heads, keys and values
    expected = {"f32": 64 * 4, "f16": 64 * 2, "int8": 64 + 4, "int4": 32 + 2 * 2}
    for cache_type, size in expected.items():
        model = load(c, weights, cache_type=cache_type)
        assert model.cache_bytes_per_token == sides * size
        assert model.cache_type == cache_type
        assert model.page_bytes == -(-sides * size * _native.page_positions // 4096) * 4096
    with pytest.raises(ValueError, match=r"cache_type is 'int3', f32, f16, int8 and int4 are known"):
        load(c, weights, cache_type="int3")


def test_a_sequence_of_32768_positions_agrees_with_numpy_in_float64():
    c = config(model_type="llama", linear_type="dense", num_hidden_layers=1, num_attention_heads=2,
               num_key_value_heads=1, head_dim=8, hidden_size=16, intermediate_size=16)
    weights, n, dim = random_weights(c), 32768, 8
    tokens = np.random.default_rng(3).integers(0, 70, n).astype(np.int32)
    rows = np.array([0, 255, 256, 16383, 20000, 32767], np.int32)
    model = load(c, weights, context=n, cache_type="f32", threads=2, slots=1)
    found, _ = model.forward(tokens, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), rows)

    def weight(name):
        return weights[f"model.layers.0.{name}.weight"].astype(np.float64)

    def norm(x, w):
        return w * x / np.sqrt((x * x).mean(-1, keepdims=True) + c["rms_norm_eps"])

    # Angles as transformers computes them, in float32: at this distance their rounding is felt.
    inverse = rotary_of(c)["inverse_frequencies"]
    angles = (np.arange(n, dtype=np.float32)[:, None] * inverse).astype(np.float64)[:, None]

    def rotate(x, at):
        a, b = np.split(x, 2, axis=-1)
        cos, sin = np.cos(angles[at]), np.sin(angles[at])
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    h = weights["model.embed_tokens.weight"].astype(np.float64)[tokens]
    x = norm(h, weight("input_layernorm"))
    k = rotate((x @ weight("self_attn.k_proj").T).reshape(n, 1, dim), slice(None))[:, 0]
    v = x @ weight("self_attn.v_proj").T
    q = rotate((x[rows] @ weight("self_attn.q_proj").T).reshape(len(rows), 2, dim), rows)
    out = np.empty((len(rows), 2, dim))
    for i, row in enumerate(rows):
        scores = q[i] @ k[:row + 1].T / np.sqrt(dim)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        out[i] = e / e.sum(-1, keepdims=True) @ v[:row + 1]
    h = h[rows] + out.reshape(len(rows), -1) @ weight("self_attn.o_proj").T
    x = norm(h, weight("post_attention_layernorm"))
    gate, up = x @ weight("mlp.gate_proj").T, x @ weight("mlp.up_proj").T
    h = h + (np.maximum(gate, 0) ** 2 * up) @ weight("mlp.down_proj").T
    expected = norm(h, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].astype(np.float64).T
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
