"""The sampler of the core: every kernel gives the same bits, cuts are exact, a mask's bits are read as documented."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise import _native

KERNELS = _native.kernels()
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "frequency_penalty": 0.0,
       "presence_penalty": 0.0, "bias_ids": [], "bias_values": [], "seed": 0}


def how(**changes):
    return _native.SamplingSettings(**OFF | changes)


def row(size: int, spread: float = 3.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def weights_of(logits: np.ndarray, temperature: float) -> np.ndarray:
    """e^((l - max) / T) by the core's operations, each of which rounds as IEEE says: the same doubles."""
    x = (logits.astype(np.float64) - float(logits.max())) * (1 / temperature)
    inside = np.maximum(x, -708.0)
    n = np.rint(inside * 1.4426950408889634)
    r = (inside - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = np.full_like(r, 1 / 6227020800)
    for factor in (479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1):
        p = p * r + 1 / factor
    return np.where(x < -708.0, 0.0, np.ldexp(p, n.astype(int)))


def kept_by_sorting(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float):
    """Ids and probabilities, by sorting the whole vocabulary; masses are Python's whole numbers."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    weights = weights_of(logits, temperature)[order]
    if top_k:
        order, weights = order[:top_k], weights[:top_k]
    count = len(weights)
    if top_p < 1:
        masses = [round(weight * 2.0 ** min(44, 62 - (len(logits) - 1).bit_length())) for weight in weights.tolist()]
        target = min(math.ceil(top_p * float(sum(masses))), sum(masses))
        count = next(i for i, mass in enumerate(itertools.accumulate(masses), 1) if mass >= target)
    keep = (np.arange(len(weights)) < count) & (weights >= min_p) & (weights > 0)
    ids = order[keep]
    probabilities = weights[keep] / weights[keep].sum()
    return np.sort(ids), probabilities[np.argsort(ids)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [1, 15, 64, 257, 8192, 128_256])
@pytest.mark.parametrize("cut", [{}, {"top_p": 0.95}, {"top_p": 0.3}, {"top_p": 0.9999}, {"min_p": 0.05},
                                 {"top_k": 40, "top_p": 0.9}, {"top_k": 3000, "top_p": 0.999, "min_p": 0.001}])
def test_kept_tokens_and_probabilities_are_those_of_a_sorted_vocabulary(kernel, size, cut):
    for spread in (0.01, 1.0, 6.0):
        logits = row(size, spread, size)
        ids, probabilities = _native.distribution(how(temperature=0.8, kernel=kernel, **cut), logits)
        expected, wanted = kept_by_sorting(logits, 0.8, cut.get("top_k", 0), cut.get("top_p", 1.0),
                                           cut.get("min_p", 0.0))
        np.testing.assert_array_equal(ids, expected)
        # Sums of `size` roundings.
        np.testing.assert_allclose(probabilities, wanted, rtol=size * 2.0**-52)


def test_weights_are_exponentials():
    logits = row(5000, 6.0)
    expected = np.exp((logits.astype(np.float64) - logits.max()) / 0.8)
    np.testing.assert_allclose(weights_of(logits, 0.8), expected, rtol=256 * 2.0**-52)


@given(st.lists(st.one_of(st.sampled_from([-math.inf, -30.0, -1.0, -0.0, 0.0, 0.5]), st.floats(-40, 40, width=32)),
                min_size=1, max_size=600),
       st.integers(0, 600), st.sampled_from([5e-324, 1e-12, 0.25, 0.5, 0.9, 1 - 1e-9, 1 - 2.0**-53, 1.0]),
       st.sampled_from([0.0, 1e-9, 0.3, 1.0]), st.sampled_from([0.01, 0.7, 1.0, 30.0]), st.sampled_from(KERNELS))
@settings(max_examples=150, deadline=None)
def test_what_is_kept_is_exact(values, top_k, top_p, min_p, temperature, kernel):
    logits = np.array([*values, 1.0], dtype=np.float32)
    cut = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    ids, _ = _native.distribution(how(kernel=kernel, **cut), logits)
    np.testing.assert_array_equal(ids, kept_by_sorting(logits, **cut)[0])


@pytest.mark.parametrize("top_k", [100, 300])
def test_zeros_of_either_sign_are_equal(top_k):
    logits = np.array([-0.0, 0.0] * 400, np.float32)
    assert _native.distribution(how(top_k=top_k), logits)[0].tolist() == list(range(top_k))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9999])
def test_masses_of_more_than_two_to_the_18_tokens_do_not_overflow(top_p):
    for logits in (np.zeros(300_000, np.float32), row(300_000)):
        ids, _ = _native.distribution(how(top_p=top_p), logits)
        np.testing.assert_array_equal(ids, kept_by_sorting(logits, 1.0, 0, top_p, 0.0)[0])


def test_the_boundary_may_lie_among_masses_that_were_rounded_up():
    """8192 weights of 0.52 units are masses of 1: what they hold in truth is less than 1 - p of the total, and they
    lie below the last bucket of logits, but as whole numbers the first of them are needed."""
    logits = np.full(8193, -31.15, np.float32)
    logits[100] = 0
    top_p = 1 - 2.0**-31.9
    ids, _ = _native.distribution(how(top_p=top_p), logits)
    expected, _ = kept_by_sorting(logits, 1.0, 0, top_p, 0.0)
    assert 1 < len(expected) < 8193
    np.testing.assert_array_equal(ids, expected)


@given(st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0]), min_size=1, max_size=700), st.integers(1, 700),
       st.sampled_from([0.25, 0.5, 0.9, 1.0]))
@settings(max_examples=80, deadline=None)
def test_among_equal_logits_the_lowest_ids_are_kept(values, top_k, top_p):
    logits = np.array(values, dtype=np.float32)
    for cut in ({"top_k": top_k}, {"top_p": top_p}):
        ids, _ = _native.distribution(how(**cut), logits)
        dropped = np.setdiff1d(np.arange(len(logits)), ids)
        edge = logits[ids].min()
        assert (logits[dropped] <= edge).all()
        tied = dropped[logits[dropped] == edge]
        assert tied.size == 0 or ids[logits[ids] == edge].max() < tied.min()
        if "top_k" in cut:
            assert len(ids) == min(top_k, len(logits))


@given(st.integers(1, 3000), st.floats(0.05, 20), st.floats(1e-3, 5), st.integers(0, 400), st.floats(0.01, 1),
       st.floats(0, 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_kernel_draws_the_same_token(size, spread, temperature, top_k, top_p, min_p, seed, position):
    logits = row(size, spread, size)
    history = np.arange(0, size, 3, dtype=np.int32)
    mask = np.random.default_rng(size).integers(0, 2**32, -(-size // 32), dtype=np.uint32) | np.uint32(1)
    drawn = {_native.sample(how(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
                                repetition_penalty=1.3, frequency_penalty=0.1, kernel=kernel),
                            logits, position, history, len(history) // 2, mask) for kernel in KERNELS}
    assert len(drawn) == 1
    shares = {_native.distribution(how(temperature=temperature, top_p=top_p, kernel=kernel), logits)[1].tobytes()
              for kernel in KERNELS}
    assert len(shares) == 1


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_the_draw_is_numpys_philox_keyed_by_seed_and_position(seed, position):
    key = np.array([seed, position], dtype=np.uint64)
    assert _native.uniform(seed, position) == int(np.random.Philox(key=key).random_raw() >> 11) * 2.0**-53


def test_a_draw_is_the_inverse_of_the_distribution_by_rising_id():
    logits = row(1000, 2.0)
    for cut in ({}, {"top_p": 0.9}, {"top_k": 300}):
        settings_ = how(seed=4, **cut)
        ids, probabilities = _native.distribution(settings_, logits)
        cumulative = np.cumsum(probabilities)
        for position in range(200):
            at = np.searchsorted(cumulative, _native.uniform(4, position), side="right")
            assert _native.sample(settings_, logits, position) == ids[at]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [1, 31, 32, 33, 1000])
def test_a_mask_forbids_the_tokens_whose_bit_is_zero(kernel, size):
    rng = np.random.default_rng(size)
    allowed = rng.random(size) < 0.4
    allowed[rng.integers(size)] = True
    words = np.zeros(-(-size // 32), dtype=np.uint32)
    for id_ in np.flatnonzero(allowed):
        words[id_ // 32] |= np.uint32(1 << (int(id_) % 32))
    logits = row(size)
    ids, _ = _native.distribution(how(kernel=kernel), logits, mask=words)
    np.testing.assert_array_equal(ids, np.flatnonzero(allowed))
    best = _native.sample(how(temperature=0.0, kernel=kernel), logits, 0, mask=words)
    assert best == np.where(allowed, logits, -np.inf).argmax()
    with pytest.raises(ValueError, match="words"):
        _native.sample(how(), logits, 0, mask=np.zeros(len(words) + 1, np.uint32))
    with pytest.raises(ValueError, match="no token is allowed"):
        _native.sample(how(), logits, 0, mask=np.zeros_like(words))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("at", [0, 63, 64, 99])
def test_a_nan_or_an_infinity_is_found_wherever_it_stands_even_behind_a_mask(kernel, at):
    for bad in (math.nan, math.inf):
        logits = row(100)
        logits[at] = bad
        for mask in (None, ~(np.uint32(1) << np.arange(4, dtype=np.uint32) * 0)):
            with pytest.raises(ValueError, match="NaN or infinite"):
                _native.sample(how(kernel=kernel), logits, 0, mask=mask)


def test_minus_infinity_is_never_drawn():
    logits = np.full(500, -np.inf, dtype=np.float32)
    logits[[3, 77]] = [1.0, 0.5]
    for cut in ({}, {"top_p": 0.999}, {"top_k": 400}, {"top_k": 2}):
        assert _native.distribution(how(**cut), logits)[0].tolist() == [3, 77]


def test_log_probabilities_are_those_of_the_softmax_and_the_likeliest_come_first():
    logits = row(5000, 4.0)
    expected = logits.astype(np.float64) - logits.max()
    expected -= np.log(np.exp(expected).sum())
    for top in (0, 1, 20, 300):
        chosen, ids, values = _native.log_probabilities(logits, 17, top)
        assert chosen == pytest.approx(expected[17], rel=1e-13)
        np.testing.assert_array_equal(ids, np.argsort(-logits, kind="stable")[:top])
        np.testing.assert_allclose(values, expected[ids], rtol=1e-13)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"history": np.array([5], np.int32)}, "history: id 5"), ({"history": np.array([-1], np.int32)}, "history: id -1"),
    ({"history": np.array([1], np.int32), "prompt": 2}, "longer than the history")])
def test_a_history_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _native.sample(how(repetition_penalty=2.0), row(5), 0, **arguments)


def test_a_bias_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="logit_bias: id 9"):
        _native.sample(how(bias_ids=[9], bias_values=[1.0]), row(9), 0)
