"""The quantisers against their formulas in transformers and torchao, and on the inputs that break quantisers."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers.integrations.bitnet import ActQuant, BitLinear, WeightQuant

from tritwise import TritwiseError
from tritwise.ternary import EPS, absmax, absmean, sign

QUANTISERS = (absmean, sign, absmax)
FLOAT32 = st.floats(-2.0**100, 2.0**100, width=32)
MATRICES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=FLOAT32)
# Multiples of 2^-8 in a matrix of 2^n elements: every sum and mean is exact in float32, in any order.
EXACT_MATRICES = st.integers(0, 5).flatmap(lambda n: hnp.arrays(
    np.int32, (4, 1 << n), elements=st.integers(-1000, 1000)).map(lambda a: a.astype(np.float32) / 256))


def undecorated(function):
    """transformers compiles these; the plain Python below the decorator is the formula."""
    return function._torchdynamo_orig_callable


@given(EXACT_MATRICES)
def test_absmean_equals_transformers_weight_quantiser_where_the_mean_is_exact(weight):
    codes, scale = absmean(weight)
    theirs = undecorated(WeightQuant.forward)(None, torch.from_numpy(weight)).numpy()
    # They return codes / (1 / mean); the codes are found back by comparing with the three possible values.
    inverse = np.float32(1) / scale
    assert np.array_equal(codes.astype(np.float32) / inverse, theirs)


@given(MATRICES)
def test_absmean_differs_from_the_division_formula_of_torchao_only_at_ties(weight):
    codes, scale = absmean(weight)
    w = torch.from_numpy(weight)
    theirs = (w / torch.tensor(scale)).round().clamp(-1, 1).to(torch.int8).numpy()
    # W * (1/s) and W / s are each within 1.5 units of the last place (2^-24 relative) of the quotient.
    quotient = np.abs(weight.astype(np.float64) / np.float64(scale))
    near_tie = np.abs(quotient - 0.5) <= 0.5 * 1.5 * 2.0**-23
    assert np.array_equal(codes[~near_tie], theirs[~near_tie])


@given(MATRICES)
def test_the_scale_of_absmean_is_the_exact_mean_rounded_once(weight):
    _, scale = absmean(weight)
    from fractions import Fraction

    exact = sum((Fraction(float(abs(v))) for v in weight.flat), Fraction(0)) / weight.size
    # float64 summation adds at most n * 2^-53 relative before the one rounding to float32.
    assert abs(Fraction(float(scale)) - max(exact, Fraction(float(EPS)))) <= max(
        exact, Fraction(float(EPS))) * Fraction(1, 1 << 24) * Fraction(1001, 1000)


@given(MATRICES)
def test_absmax_codes_equal_transformers_activation_quantisers_exactly(activation):
    codes, scale = absmax(activation)
    theirs, their_scale = undecorated(BitLinear.activation_quant)(None, torch.from_numpy(activation))
    assert np.array_equal(codes, theirs.numpy())
    assert scale.shape == (*activation.shape[:-1], 1)
    # theirs = (1 / max) * 127, ours = max / 127: three roundings.
    assert np.all(np.abs(scale.astype(np.float64) * their_scale.numpy() - 1) <= 3.1 * 2.0**-24)
    fake = undecorated(ActQuant.forward)(None, torch.from_numpy(activation)).numpy()
    assert np.array_equal(codes.astype(np.float32) / their_scale.numpy(), fake)


@given(MATRICES)
def test_sign_equals_the_paper_formula_with_zero_counted_as_minus_one(weight):
    codes, scale = sign(weight)
    centred = torch.from_numpy(weight).double() - float(np.float32(weight.mean(dtype=np.float64)))
    expected = torch.where(torch.sign(centred) > 0, 1, -1).numpy()
    assert np.array_equal(codes, expected)
    assert scale == np.maximum(np.float32(np.abs(weight).mean(dtype=np.float64)), EPS)


@given(MATRICES)
def test_codes_stay_in_range_and_scales_are_positive_and_finite(matrix):
    for quantise, allowed in ((absmean, {-1, 0, 1}), (sign, {-1, 1}), (absmax, set(range(-128, 128)))):
        codes, scale = quantise(matrix)
        assert codes.dtype == np.int8
        assert codes.shape == matrix.shape
        assert set(codes.ravel().tolist()) <= allowed
        assert scale.dtype == np.float32
        assert np.all(np.isfinite(scale))
        assert np.all(scale > 0)


@given(MATRICES)
def test_the_largest_activation_of_each_token_gets_code_127(activation):
    codes, _ = absmax(activation)
    large = np.abs(activation).max(axis=-1) >= EPS
    assert np.all(np.abs(codes.astype(np.int32)).max(axis=-1)[large] == 127)


@given(MATRICES)
def test_tokens_are_quantised_independently(activation):
    codes, scale = absmax(activation)
    for row in range(len(activation)):
        alone, alone_scale = absmax(activation[row])
        assert np.array_equal(alone, codes[row])
        assert np.array_equal(alone_scale, scale[row])


def test_an_all_zero_matrix_has_zero_codes_and_the_smallest_scale():
    zeros = np.zeros((3, 8), np.float32)
    assert not absmean(zeros)[0].any()
    assert absmean(zeros)[1] == EPS
    assert not absmax(zeros)[0].any()
    assert np.all(absmax(zeros)[1] == EPS / np.float32(127))
    assert np.all(sign(zeros)[0] == -1)
    assert sign(zeros)[1] == EPS


def test_an_all_zero_token_beside_others_leaves_their_codes_alone():
    tokens = np.array([[0, 0, 0, 0], [1, -2, 3, -4]], np.float32)
    assert absmax(tokens)[0].tolist() == [[0, 0, 0, 0], [32, -64, 95, -127]]


@pytest.mark.parametrize("huge", [1e30, -1e30, 3.4e38, -3.4e38])
def test_one_huge_weight_leaves_only_itself(huge):
    weight = np.full((8, 8), 0.02, np.float32)
    weight[3, 5] = huge
    expected = np.zeros((8, 8), np.int8)
    expected[3, 5] = np.sign(huge)
    assert np.array_equal(absmean(weight)[0], expected)
    codes, _ = absmax(weight)
    assert codes[3].tolist() == [0, 0, 0, 0, 0, 127 * int(np.sign(huge)), 0, 0]
    assert np.all(codes[:3] == 127)


def test_weight_ties_round_to_even():
    # mean |W| = 2, so 1 / 2 is the tie between 0 and 1, and 3 / 2 the one between 1 and 2.
    weight = np.array([[1, -1, 3, -3]], np.float32)
    codes, scale = absmean(weight)
    assert scale == 2
    assert codes.tolist() == [[0, 0, 1, -1]]


def test_activation_ties_round_to_even():
    # max = 127 makes the scale 1: the values are their own codes before rounding.
    activation = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5], np.float32)
    assert absmax(activation)[0].tolist() == [127, 0, 2, 2, 0, -2, -2, 126]


@pytest.mark.parametrize("quantise", QUANTISERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(quantise, bad):
    matrix = np.ones((4, 6), np.float32)
    matrix[2, 3] = bad
    with pytest.raises(TritwiseError, match=r"1 of 24 values are NaN or infinite[\s\S]*index \[2, 3\]"):
        quantise(matrix)


@pytest.mark.parametrize("quantise", QUANTISERS)
def test_a_float64_beyond_float32_is_refused(quantise):
    with pytest.raises(TritwiseError, match="infinite"):
        quantise(np.array([[1e300, 1.0]]))


@pytest.mark.parametrize("quantise", QUANTISERS)
@pytest.mark.parametrize(("bad", "reason"), [
    (np.zeros((0, 4), np.float32), "empty"), (np.array([["a"]]), "type"), (np.ones((2, 2), complex), "type"),
    (np.ones((2, 2), bool), "type"),
])
def test_what_is_not_real_numbers_is_refused(quantise, bad, reason):
    with pytest.raises(TritwiseError, match=reason):
        quantise(bad)


@pytest.mark.parametrize("quantise", QUANTISERS)
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_float_types_give_what_their_float32_values_give(quantise, dtype):
    matrix = np.random.default_rng(0).normal(0, 0.02, (16, 32)).astype(np.float32).astype(dtype)
    for ours, expected in zip(quantise(matrix), quantise(matrix.astype(np.float32)), strict=True):
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize("quantise", QUANTISERS)
def test_the_input_is_left_unchanged(quantise):
    matrix = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    before = matrix.copy()
    quantise(matrix)
    assert np.array_equal(matrix, before)


def test_gaussian_weights_split_as_the_normal_distribution_says():
    # P(|W| < mean|W| / 2) = 2 Phi(sqrt(2/pi) / 2) - 1 = 0.310; four standard errors of 10^6 draws are 0.0019.
    codes, _ = absmean(np.random.default_rng(2).normal(0, 0.02, (1000, 1000)))
    assert abs((codes == 0).mean() - 0.3101) < 0.0019
