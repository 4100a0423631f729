"""The forward pass: against numpy, and equal to the bit however it is computed."""

import numpy as np
import pytest
from native_models import (
    config,
    from_bfloat16,
    ints,
    load,
    pack_stripes,
    random_weights,
    reference,
    run,
    to_bfloat16,
)

from tritwise import _native

KERNELS = _native.kernels()
TOKENS = np.random.default_rng(7).integers(0, 70, 40).astype(np.int32)

# Widths that are no multiple of 4, 16 or 32; more heads than a query tile holds; group sizes 1, 2, 5.
VARIANTS = {
    "bitnet relu2 gqa tied": config(),
    "bitnet silu mha untied": config(hidden_act="silu", num_key_value_heads=4, tie_word_embeddings=False),
    "binary": config(linear_type="binary", hidden_act="silu"),
    "llama ternary wide heads": config(model_type="llama", head_dim=34, hidden_act="silu"),
    "llama dense": config(model_type="llama", linear_type="dense", hidden_act="silu"),
    "qwen3 ternary": config(model_type="qwen3", hidden_act="silu"),
    "qwen3 dense wide heads": config(model_type="qwen3", linear_type="dense", head_dim=34, hidden_act="silu"),
    "bitnet dense odd": config(linear_type="dense", hidden_size=50, num_attention_heads=5, num_key_value_heads=1,
                               head_dim=10, intermediate_size=37, tie_word_embeddings=False),
    "bitnet group of ten": config(hidden_size=60, num_attention_heads=10, num_key_value_heads=1, head_dim=6,
                                  intermediate_size=131, vocab_size=101),
    "llama norms in linears": config(model_type="llama", head_dim=34, hidden_act="silu", linear_rms_norm_eps=1e-3),
    "bitnet relu2 norms in linears": config(hidden_size=60, num_attention_heads=10, num_key_value_heads=1, head_dim=6,
                                            intermediate_size=131, linear_rms_norm_eps=1e-3),
    "qwen3 binary norms in linears": config(model_type="qwen3", linear_type="binary", linear_rms_norm_eps=1e-6),
}


@pytest.fixture(params=VARIANTS, ids=list(VARIANTS))
def variant(request):
    c = VARIANTS[request.param]
    return c, random_weights(c)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


# float32 sums of up to 131 terms through two layers; measured errors are below 1e-6.
FLOAT_BOUND = 1e-5


@pytest.mark.parametrize("kernel", KERNELS)
def test_dense_logits_agree_with_numpy_in_float64(variant, kernel):
    c, weights = variant
    if c["linear_type"] != "dense":
        c = c | {"linear_type": "dense", "linear_rms_norm_eps": None}
        weights = random_weights(c)
    found = run(load(c, weights, kernel=kernel), TOKENS)
    assert relative(found, reference(c, weights, TOKENS)["logits"]) < FLOAT_BOUND


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_first_layer_has_numpys_codes_and_accumulators(variant, kernel):
    c, weights = variant
    found = load(c, weights, kernel=kernel).trace(TOKENS)
    expected = reference(c, weights, TOKENS)
    np.testing.assert_allclose(found["layers.0.input_layernorm"], expected["layers.0.input_layernorm"], rtol=1e-6)
    if c["linear_type"] == "dense":
        assert not [name for name in found if name.endswith("input_codes")]
    else:
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            for what in ("input_codes", "accumulator"):
                key = f"layers.0.{name}.{what}"
                assert found[key].dtype == (np.int8 if what == "input_codes" else np.int32)
                np.testing.assert_array_equal(found[key], expected[key])
    assert relative(found["layers.0.self_attn.output"], expected["layers.0.self_attn.output"]) < FLOAT_BOUND


def test_every_traced_accumulator_is_the_product_of_the_traced_codes(variant):
    c, weights = variant
    found = load(c, weights).trace(TOKENS)
    linears = [name for name, weight in weights.items() if isinstance(weight, tuple)]
    assert (len(linears) == 14) == (c["linear_type"] != "dense")
    for name in linears:
        short = name.removeprefix("model.").removesuffix(".weight")
        codes = found[f"{short}.input_codes"].astype(np.int32)
        np.testing.assert_array_equal(found[f"{short}.accumulator"], codes @ weights[name][0].astype(np.int32).T)
        assert found[f"{short}.input_scale"].shape == (len(TOKENS),)


def test_whole_models_agree_with_numpy_where_no_code_differs(variant):
    # An int8 code within float rounding of a half may fall on either side, and then all that follows differs a little:
    # only sequences without such a flip can be compared. Sequences are short, so that most have none.
    c, weights = variant
    model = load(c, weights)
    without_flip = 0
    for tokens in TOKENS.reshape(10, 4):
        found, expected = model.trace(tokens), reference(c, weights, tokens)
        if all((found[name] == expected[name]).all() for name in found if name.endswith("input_codes")):
            without_flip += 1
            for name in ("layers.0.output", "layers.1.output", "norm", "logits"):
                assert relative(found[name], expected[name]) < FLOAT_BOUND
    assert without_flip >= 5


def test_logits_are_equal_to_the_bit_on_every_kernel_and_thread_count(variant):
    c, weights = variant
    for head in ("stored", "int8"):
        expected = run(load(c, weights, head=head, kernel="scalar"), TOKENS).tobytes()
        for kernel in KERNELS:
            for threads in (1, 2, 3):
                found = run(load(c, weights, head=head, kernel=kernel, threads=threads), TOKENS)
                assert found.tobytes() == expected


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("head", ["stored", "int8"])
def test_logits_are_equal_to_the_bit_for_every_prefill_chunk(variant, kernel, head):
    c, weights = variant
    model = load(c, weights, kernel=kernel, head=head, threads=2)
    expected = run(model, TOKENS).tobytes()
    for chunk in (1, 2, 3, 7, 13, 39):
        model.reset(0)
        assert run(model, TOKENS, chunk=chunk).tobytes() == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_logits_are_equal_to_the_bit_beside_other_sequences(variant, kernel):
    c, weights = variant
    model = load(c, weights, kernel=kernel, threads=2)
    alone = run(model, TOKENS)
    model.reset(0)
    # Slot 2 decodes TOKENS one by one, interleaved with the prefill of slot 0 and another decode in slot 3.
    other = TOKENS[::-1].copy()
    for i, token in enumerate(TOKENS):
        prefill = other[2 * i % 32:2 * i % 32 + 2]
        start = 2 * i % 32
        tokens = np.concatenate([prefill[:1], [token], prefill[1:], [other[i]]]).astype(np.int32)
        found, _ = model.forward(tokens, ints(0, 2, 0, 3), ints(start, i, start + 1, i), ints(1))
        assert found.tobytes() == alone[i:i + 1].tobytes()


def test_long_sequences_cross_the_internal_chunks_unharmed():
    c = config()
    weights = random_weights(c)
    tokens = np.random.default_rng(1).integers(0, 70, 600).astype(np.int32)
    whole = run(load(c, weights, context=600), tokens)
    assert run(load(c, weights, context=600, threads=2), tokens, chunk=117).tobytes() == whole.tobytes()
    dense = config(linear_type="dense")
    weights = random_weights(dense)
    found = run(load(dense, weights, context=600), tokens)
    assert relative(found, reference(dense, weights, tokens)["logits"]) < FLOAT_BOUND


def test_rewinding_a_slot_equals_a_fresh_run(variant):
    c, weights = variant
    model = load(c, weights)
    run(model, TOKENS)
    assert model.length(0) == len(TOKENS)
    changed = np.concatenate([TOKENS[:17], TOKENS[30:20:-1]])
    found = run(model, changed[17:], start=17)
    assert model.length(0) == len(changed)
    assert found.tobytes() == run(load(c, weights), changed)[17:].tobytes()


def test_logits_come_in_the_order_in_which_they_are_asked_for():
    c = config()
    model = load(c, random_weights(c), threads=2)
    all_rows = run(model, TOKENS)
    n = len(TOKENS)
    model.reset(0)
    rows = ints(39, 0, 7, 8, 9, 7)
    found, _ = model.forward(TOKENS, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), rows)
    assert found.tobytes() == all_rows[rows].tobytes()
    assert model.forward(ints(1), ints(0), ints(n), ints())[0].shape == (0, 70)
    assert model.length(0) == n + 1


@pytest.mark.parametrize("head", ["stored", "int8"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_best_ids_are_those_of_the_largest_logits(kernel, head):
    c = config()
    weights = random_weights(c)
    twin = weights["model.embed_tokens.weight"]
    twin[40:] = twin[:30]  # equal logits: the lower id wins
    model = load(c, weights, threads=2, kernel=kernel, head=head)
    all_rows = run(model, TOKENS)
    n = len(TOKENS)
    model.reset(0)
    rows, best_rows = ints(39, 3), ints(5, 38, *range(n), 5)
    logits, best = model.forward(TOKENS, np.zeros(n, np.int32), np.arange(n, dtype=np.int32), rows, best_rows)
    assert logits.tobytes() == all_rows[rows].tobytes()
    np.testing.assert_array_equal(best, all_rows.argmax(axis=1)[best_rows])
    assert (best < 40).all()


@pytest.mark.parametrize("head", ["stored", "f16", "int8", "int4"])
def test_there_is_no_best_id_among_logits_that_are_not_numbers(head):
    c = config()
    weights = random_weights(c)
    weights["model.norm.weight"][:] = 3e38  # times anything above 1.14 is infinite
    model = load(c, weights, head=head)
    assert model.forward(ints(1), ints(0), ints(0), ints(), ints(0))[1].tolist() == [-1]


def test_a_trace_leaves_the_slots_alone_and_equals_a_run():
    c = config()
    model = load(c, random_weights(c))
    run(model, TOKENS[:9], slot=1)
    found = model.trace(TOKENS)
    assert [model.length(slot) for slot in range(4)] == [0, 9, 0, 0]
    assert found["logits"].tobytes() == run(model, TOKENS).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("linear_type", ["dense", "ternary"])
def test_half_precision_weights_compute_as_the_same_values_in_float32(dtype, linear_type):
    c = config(linear_type=linear_type, tie_word_embeddings=False)
    weights = random_weights(c)
    for name, weight in weights.items():
        if not isinstance(weight, tuple):
            # Scaled down, so that float16 holds subnormal numbers too.
            tiny = np.where(np.arange(weight.size).reshape(weight.shape) % 5 == 0, weight * np.float32(1e-6), weight)
            weights[name] = (tiny.astype(np.float16).astype(np.float32) if dtype == "float16"
                             else from_bfloat16(to_bfloat16(tiny)))
    expected = run(load(c, weights), TOKENS).tobytes()
    for kernel in KERNELS:
        assert run(load(c, weights, dtype=dtype, kernel=kernel), TOKENS).tobytes() == expected


def test_the_8_bit_head_is_off_by_its_weight_rounding_only():
    # A code is off by half a step, absmax / 254 of the row, in every weight: the logit by at most that times the sum
    # of |x|. The 15-bit activations add 1 / 32512 of the largest activation times the sum of |w|.
    c = config(tie_word_embeddings=False)
    weights = random_weights(c)
    stored, quantised = (load(c, weights, head=head).trace(TOKENS) for head in ("stored", "int8"))
    x, w = np.abs(stored["norm"].astype(np.float64)), np.abs(weights["lm_head.weight"].astype(np.float64))
    step = w.max(-1) / 127
    bound = x.sum(-1)[:, None] * step / 2 + x.max(-1)[:, None] / 32512 * (w.sum(-1) + w.shape[1] * step)
    error = np.abs(stored["logits"] - quantised["logits"])
    assert (error <= bound * 1.001).all()
    assert error.max() > 0


def test_per_row_scales_equal_one_scale_repeated():
    c = config()
    weights = random_weights(c)
    model = load(c, weights)
    expected = run(model, TOKENS).tobytes()
    for name, weight in weights.items():
        if isinstance(weight, tuple):
            codes, scale = weight
            model.set_ternary(name, pack_stripes(codes), len(codes), np.repeat(scale, len(codes)))
    model.reset(0)
    assert run(model, TOKENS).tobytes() == expected
    name = "model.layers.0.mlp.up_proj.weight"
    codes, scale = weights[name]
    model.set_ternary(name, pack_stripes(codes), len(codes), np.linspace(0.5, 2, len(codes)).astype(np.float32) * scale)
    model.reset(0)
    assert run(model, TOKENS).tobytes() != expected


def with_row_scales(weights, blocks=None):
    """The same codes with scales of their own for each row, or each of some blocks of rows."""
    rng = np.random.default_rng(3)
    scaled = dict(weights)
    for name, weight in weights.items():
        if isinstance(weight, tuple):
            codes, scale = weight
            factors = rng.uniform(0.5, 2, blocks or len(codes)).astype(np.float32)
            scaled[name] = (codes, np.repeat(factors * scale, len(codes) // len(factors)).astype(np.float32))
    return scaled


@pytest.mark.parametrize("blocks", [None, 2])
@pytest.mark.parametrize("name", ["bitnet relu2 gqa tied", "llama ternary wide heads", "qwen3 ternary"])
def test_per_row_scales_are_numpys_on_every_kernel(name, blocks):
    c = VARIANTS[name]
    weights = with_row_scales(random_weights(c), blocks)
    expected = reference(c, weights, TOKENS[:1])  # one token: a code that differs would spoil those behind it
    logits = []
    for kernel in KERNELS:
        for threads, chunk in ((1, 1), (2, 1), (2, 40)):
            model = load(c, weights, kernel=kernel, threads=threads)
            logits.append(run(model, TOKENS, chunk=chunk).tobytes())
        trace = load(c, weights, kernel=kernel).trace(TOKENS[:1])
        assert relative(trace["layers.0.self_attn.output"], expected["layers.0.self_attn.output"]) < FLOAT_BOUND
    assert len(set(logits)) == 1
    one_scale = run(load(c, random_weights(c)), TOKENS).tobytes()
    assert one_scale not in logits


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_that_are_zero_behind_a_squared_relu_are_not_read_and_not_missed(kernel, threads):
    c = config(hidden_size=144, head_dim=36, intermediate_size=1000)  # several items and ranges of inputs
    weights = random_weights(c)
    model = load(c, weights, kernel=kernel, threads=threads)
    trace = model.trace(TOKENS)  # 40 tokens: the whole matrix
    assert model.weight_bytes_skipped == 0
    zeros = sum(int((trace[f"layers.{layer}.mlp.down_proj.input_codes"] == 0).sum()) for layer in range(2))
    few = model.trace(TOKENS[:5])  # so few that each passes over its own inputs
    for name, values in few.items():
        np.testing.assert_array_equal(values, trace[name][:5], err_msg=name)
    before = model.weight_bytes_skipped
    alone = run(model, TOKENS, chunk=1)
    np.testing.assert_array_equal(alone, trace["logits"])
    block = {"avx512vbmi": 20, "avxvnni": 24, "avx2": 24}.get(kernel, 16)
    padding = 2 * len(TOKENS) * (-1000 % block)
    assert model.weight_bytes_skipped - before == (zeros + padding) * 64  # 144 rows are 64 bytes of an input
