"""Mixture of experts: against numpy, equal to the bit however it is computed, and only touched experts are read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_models import (
    config,
    feed_forward_sizes,
    ints,
    load,
    pack_stripes,
    random_weights,
    reference,
    rotary_of,
    route,
    run,
)

from tritwise import _native

KERNELS = _native.kernels()
TOKENS = np.random.default_rng(7).integers(0, 70, 40).astype(np.int32)
FLOAT_BOUND = 1e-5  # float32 sums of up to 131 terms through two layers; measured errors are below 1e-6


def experts(**changes):
    return config(num_experts=7, num_experts_per_tok=3, moe_intermediate_size=37, norm_topk_prob=False) | changes


VARIANTS = {
    "bitnet": experts(),
    "bitnet normalised with a wider shared expert": experts(norm_topk_prob=True, shared_expert_intermediate_size=100),
    "llama with a narrower shared expert": experts(model_type="llama", hidden_act="silu",
                                                   shared_expert_intermediate_size=20, tie_word_embeddings=False),
    "binary": experts(linear_type="binary", hidden_act="silu", num_experts=40, num_experts_per_tok=2),
    "dense llama": experts(model_type="llama", linear_type="dense", hidden_act="silu", norm_topk_prob=True,
                           shared_expert_intermediate_size=50),
    "one of one": experts(num_experts=1, num_experts_per_tok=1),
    "all of four": experts(num_experts=4, num_experts_per_tok=4, shared_expert_intermediate_size=16),
}


@pytest.fixture(params=VARIANTS, ids=list(VARIANTS))
def variant(request):
    c = VARIANTS[request.param]
    return c, random_weights(c)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_routes_and_accumulators(c, weights, found, n):
    """A trace: the chosen experts are the router's best, and every expert's integers are the products of its tokens."""
    for layer in range(c["num_hidden_layers"]):
        prefix = f"layers.{layer}.mlp."
        chosen, share = route(c, found[f"{prefix}gate.logits"])
        np.testing.assert_array_equal(found[f"{prefix}gate.experts"], chosen)
        np.testing.assert_allclose(found[f"{prefix}gate.weights"], share, rtol=1e-6)
        for part in feed_forward_sizes(c):
            name = f"layers.{layer}.{part}"
            expert = part.removeprefix("mlp.experts.")
            at = np.arange(n) if part == "mlp.shared_expert" else np.nonzero((chosen == int(expert)).any(-1))[0]
            if len(at) == 0:
                assert not [key for key in found if key.startswith(f"{name}.")]
                continue
            np.testing.assert_array_equal(found[f"{name}.positions"], at)
            if c["linear_type"] == "dense":
                continue
            for linear in ("gate_proj", "up_proj", "down_proj"):
                codes = found[f"{name}.{linear}.input_codes"].astype(np.int32)
                matrix = weights[f"model.{name}.{linear}.weight"][0].astype(np.int32)
                np.testing.assert_array_equal(found[f"{name}.{linear}.accumulator"], codes @ matrix.T)


@pytest.mark.parametrize("kernel", KERNELS)
def test_dense_logits_agree_with_numpy_in_float64(variant, kernel):
    c = variant[0] | {"linear_type": "dense"}
    weights = random_weights(c)
    model = load(c, weights, kernel=kernel)
    expected = reference(c, weights, TOKENS)
    for layer in range(2):  # no logits so near one another that rounding would choose others
        ranked = np.sort(expected[f"layers.{layer}.mlp.gate.logits"], axis=-1)
        if c["num_experts"] > c["num_experts_per_tok"]:
            k = c["num_experts_per_tok"]
            assert (ranked[:, -k] - ranked[:, -k - 1]).min() > 1e-4
    assert relative(run(model, TOKENS), expected["logits"]) < FLOAT_BOUND


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_expert_multiplies_the_tokens_that_chose_it(variant, kernel):
    c, weights = variant
    assert_routes_and_accumulators(c, weights, load(c, weights, kernel=kernel).trace(TOKENS), len(TOKENS))


def test_whole_models_agree_with_numpy_where_no_code_differs(variant):
    # As for dense feed-forwards: an int8 code within float rounding of a half may fall on either side.
    c, weights = variant
    model = load(c, weights)
    without_flip = 0
    for tokens in TOKENS.reshape(10, 4):
        found, expected = model.trace(tokens), reference(c, weights, tokens)
        codes = [name for name in found if name.endswith("input_codes")]
        if all((found[name] == expected[name]).all() for name in codes):
            without_flip += 1
            for name in ("layers.0.output", "layers.1.output", "logits"):
                assert relative(found[name], expected[name]) < FLOAT_BOUND
    assert without_flip >= 5


def test_logits_are_equal_to_the_bit_on_every_kernel_and_thread_count(variant):
    c, weights = variant
    expected = run(load(c, weights, kernel="scalar"), TOKENS).tobytes()
    for kernel in KERNELS:
        for threads in (1, 2, 3):
            assert run(load(c, weights, kernel=kernel, threads=threads), TOKENS).tobytes() == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_logits_are_equal_to_the_bit_for_every_prefill_chunk(variant, kernel):
    c, weights = variant
    model = load(c, weights, kernel=kernel, threads=2)
    expected = run(model, TOKENS).tobytes()
    for chunk in (1, 2, 3, 7, 13, 39):
        model.reset(0)
        assert run(model, TOKENS, chunk=chunk).tobytes() == expected


def test_long_sequences_cross_the_internal_chunks_unharmed(variant):
    c, weights = variant
    tokens = np.random.default_rng(1).integers(0, 70, 600).astype(np.int32)
    whole = run(load(c, weights, context=600), tokens)
    assert run(load(c, weights, context=600, threads=2), tokens, chunk=117).tobytes() == whole.tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_logits_are_equal_to_the_bit_beside_other_sequences(variant, kernel):
    c, weights = variant
    model = load(c, weights, kernel=kernel, threads=2)
    alone = run(model, TOKENS)
    model.reset(0)
    for i, token in enumerate(TOKENS):  # slot 2 decodes beside a prefill in slot 0
        start = 2 * i % 32
        tokens = ints(TOKENS[-1 - start], token, TOKENS[-2 - start])
        found, _ = model.forward(tokens, ints(0, 2, 0), ints(start, i, start + 1), ints(1), ints())
        assert found.tobytes() == alone[i:i + 1].tobytes()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_counts_of_experts_route_and_multiply_right_and_with_equal_bits(data):
    count = data.draw(st.integers(1, 8), "experts")
    c = experts(num_hidden_layers=1, num_experts=count, num_experts_per_tok=data.draw(st.integers(1, count), "k"),
                moe_intermediate_size=data.draw(st.integers(1, 70), "size"),
                norm_topk_prob=data.draw(st.booleans(), "normalised"),
                shared_expert_intermediate_size=data.draw(st.sampled_from([None, 1, 45]), "shared"),
                linear_type=data.draw(st.sampled_from(["ternary", "dense"]), "type"))
    weights = random_weights(c, seed=data.draw(st.integers(0, 99), "seed"))
    router = weights["model.layers.0.mlp.gate.weight"]
    if data.draw(st.booleans(), "all tokens to the same experts"):
        router[:] = 0  # all logits are 0: the first k experts get every token, the others none
    n = data.draw(st.integers(1, 20), "tokens")
    model = load(c, weights)
    found = model.trace(TOKENS[:n])
    assert_routes_and_accumulators(c, weights, found, n)
    one_by_one = run(load(c, weights, kernel="scalar", threads=2), TOKENS[:n], chunk=1)
    assert found["logits"].tobytes() == one_by_one.tobytes()


def test_among_equal_logits_the_lowest_ids_win():
    c = experts(num_experts=6, num_experts_per_tok=3)
    weights = random_weights(c)
    for layer in range(2):
        weights[f"model.layers.{layer}.mlp.gate.weight"][:] = 0
    assert (load(c, weights).trace(TOKENS)["layers.1.mlp.gate.experts"] == [0, 1, 2]).all()
    weights["model.layers.0.mlp.gate.weight"][[1, 4]] = 0.5  # two rows that are equal to the bit
    found = load(c, weights).trace(TOKENS)
    first = found["layers.0.mlp.gate.logits"][:, 1] > 0
    assert first.any()
    assert not first.all()
    expected = np.where(first[:, None], [0, 1, 4], [0, 2, 3])
    np.testing.assert_array_equal(found["layers.0.mlp.gate.experts"], expected)


def test_one_expert_that_sees_every_token_is_the_dense_feed_forward():
    dense = config(intermediate_size=37)
    sparse = experts(num_experts=1, num_experts_per_tok=1)
    weights = random_weights(sparse)
    same = {name.replace("mlp.experts.0.", "mlp."): weight
            for name, weight in weights.items() if "mlp.gate." not in name}
    for kernel in KERNELS:
        expected = run(load(dense, same, kernel=kernel), TOKENS)
        assert run(load(sparse, weights, kernel=kernel), TOKENS).tobytes() == expected.tobytes()


def test_experts_that_no_token_chose_are_not_read():
    c = experts(num_experts=16, num_experts_per_tok=2)
    weights = random_weights(c)
    tokens = TOKENS[:3]
    traced = load(c, weights).trace(tokens)
    chosen = [set(traced[f"layers.{layer}.mlp.gate.experts"].ravel().tolist()) for layer in range(2)]
    expected = traced["logits"].tobytes()
    # Whoever reads a scale that is not a number carries it into the logits.
    for layer, touched in enumerate(chosen):
        for expert in set(range(16)) - touched:
            for linear in ("gate_proj", "up_proj", "down_proj"):
                name = f"model.layers.{layer}.mlp.experts.{expert}.{linear}.weight"
                weights[name] = (weights[name][0], np.array([np.nan], np.float32))
    model = load(c, weights, threads=2)
    assert run(model, tokens).tobytes() == expected
    assert model.experts_read == len(chosen[0]) + len(chosen[1])
    name = f"model.layers.0.mlp.experts.{min(chosen[0])}.up_proj.weight"
    weights[name] = (weights[name][0], np.array([np.nan], np.float32))
    assert np.isnan(run(load(c, weights), tokens)).any()


def test_a_token_reads_its_own_experts_and_the_shared_one_and_a_step_each_touched_expert_once():
    c = experts(num_experts=16, num_experts_per_tok=2, shared_expert_intermediate_size=64)
    model = load(c, random_weights(c), slots=4)
    run(model, TOKENS[:1])
    assert model.experts_read == 2 * 2
    before = model.experts_read
    model.forward(np.repeat(TOKENS[:1], 4), ints(0, 1, 2, 3), ints(0, 0, 0, 0), ints(0), ints())
    assert model.experts_read - before == 2 * 2  # four sequences with one token choose the same experts
    # What 14 of 16 experts weigh is missing from a token's bytes, in packed ternary and in float32.
    for linear_type in ("ternary", "dense"):
        sizes = {}
        for count in (15, 16):
            variant = c | {"num_experts": count, "linear_type": linear_type}
            made = load(variant, random_weights(variant))
            sizes[count] = made.weight_bytes, made.weight_bytes_per_token
        # One more expert adds its matrices, norm and a row of the router to memory, and only the row to a token's
        # bytes, where it fits into the padding.
        assert sizes[16][0] > sizes[15][0]
        assert sizes[16][1] == sizes[15][1]


def test_per_row_scales_and_a_second_set_of_an_expert_are_taken():
    c = experts()
    weights = random_weights(c)
    model = load(c, weights)
    expected = run(model, TOKENS).tobytes()
    name = "model.layers.1.mlp.experts.5.down_proj.weight"
    codes, scale = weights[name]
    model.set_ternary(name, pack_stripes(codes), len(codes), np.repeat(scale, len(codes)))
    model.reset(0)
    assert run(model, TOKENS).tobytes() == expected


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_experts": 2}, "not below num_experts_per_tok"),
    ({"num_experts": -1}, "num_experts must be 0 to 65536"),
    ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
    ({"moe_intermediate_size": 0}, "moe_intermediate_size is 0"),
    ({"moe_intermediate_size": 1 << 19}, "more than 262144 inputs"),
    ({"shared_expert_intermediate_size": -4}, "shared_expert_intermediate_size not negative"),
])
def test_settings_that_cannot_work_are_refused(changes, message):
    c = experts(**changes)
    with pytest.raises(ValueError, match=message):
        _native.Model(c, threads=1, kernel=KERNELS[0], head="stored", slots=1, context=8, **rotary_of(c))


def test_a_missing_expert_is_named():
    c = experts(shared_expert_intermediate_size=16)
    weights = random_weights(c)
    left_out = {name: weights.pop(name) for name in (
        "model.layers.1.mlp.experts.6.up_proj.weight", "model.layers.0.mlp.shared_expert.ffn_sub_norm.weight",
        "model.layers.0.mlp.gate.weight", "model.layers.1.mlp.shared_expert_gate.weight")}
    with pytest.raises(ValueError, match="missing") as caught:
        load(c, weights)
    assert all(name in str(caught.value) for name in left_out)
