"""The sampler against transformers' own logits warpers, and its own promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tritwise.common.errors import TritwiseError
from tritwise.engine.sampling import Sampling, distribution, sample, uniform


def probabilities(logits: np.ndarray, how: Sampling) -> np.ndarray:
    ids, kept = distribution(logits, how)
    full = np.zeros(len(logits))
    full[ids] = kept
    return full


def transformers_probabilities(logits: np.ndarray, how: Sampling) -> np.ndarray:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(how.temperature))])
    if how.top_k:
        warpers.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1:
        warpers.append(TopPLogitsWarper(how.top_p))
    scores = warpers(torch.zeros(1, 1, dtype=torch.long), torch.tensor(logits, dtype=torch.float64)[None])
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("size", [7, 300, 5000])
@pytest.mark.parametrize("spread", [0.1, 2.0, 10.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.9), (0, 0.01), (50, 0.8), (10_000, 0.999)])
def test_kept_tokens_and_probabilities_are_those_of_transformers(size, spread, top_k, top_p):
    logits = np.random.default_rng(size + int(spread * 10)).normal(0, spread, size).astype(np.float32)
    how = Sampling(temperature=0.7, top_k=top_k, top_p=top_p)
    ours, theirs = probabilities(logits, how), transformers_probabilities(logits, how)
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    # float64: the sum has `size` roundings; an exponent of size e that is rounded once on each side (before or after
    # the maximum is taken off) moves the exponential by e roundings.
    exponent = 2 * np.abs(logits).max() / how.temperature
    np.testing.assert_allclose(ours, theirs, rtol=(size + 2 * exponent) * 2.0**-52, atol=0)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=400, unique=True),
       st.integers(0, 400), st.floats(0.01, 1.0), st.floats(0.05, 3.0))
@settings(max_examples=60, deadline=None)
def test_top_p_keeps_the_shortest_head_that_holds_the_mass(values, top_k, top_p, temperature):
    how = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = np.array(values, dtype=np.float32)
    kept = probabilities(logits, how) > 0
    base = probabilities(logits, Sampling(temperature=temperature, top_k=top_k))
    slack = len(values) * 2.0**-52
    assert base[kept].sum() >= top_p - slack
    smallest = base[kept].min()
    assert kept.sum() == 1 or base[kept].sum() - smallest < top_p + slack


def test_temperature_zero_is_the_largest_logit_and_ties_go_to_the_lowest_id():
    logits = np.array([0, 3, 1, 3], dtype=np.float32)
    assert sample(logits, Sampling(), 0) == 1
    ids, kept = distribution(np.array([2, 5, 5, 5, 1], dtype=np.float32), Sampling(temperature=1, top_k=2))
    assert ids.tolist() == [1, 2]
    assert kept.tolist() == [0.5, 0.5]


def test_a_tiny_temperature_is_greedy_and_does_not_overflow():
    logits = np.array([1.0, 2.0, 1.5], dtype=np.float32)
    assert {sample(logits, Sampling(temperature=1e-300, seed=s), 0) for s in range(20)} == {1}


def test_a_draw_depends_on_seed_and_position_alone():
    assert uniform(3, 17) == uniform(3, 17)
    assert len({uniform(seed, position) for seed in range(30) for position in range(30)}) == 900
    drawn = np.array([uniform(1, i) for i in range(4000)])
    # The mean of n uniform draws has standard deviation sqrt(1 / 12 n); five of them.
    assert abs(drawn.mean() - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4])).astype(np.float32)
    counts = np.bincount([sample(logits, Sampling(temperature=1, seed=5), i) for i in range(8000)], minlength=4)
    expected = 8000 * np.array([0.1, 0.2, 0.3, 0.4])
    assert ((counts - expected) ** 2 / expected).sum() < 21.1  # chi-squared, 3 degrees of freedom, p = 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_an_error(bad, temperature):
    logits = np.array([0, bad, 1], dtype=np.float32)
    with pytest.raises(TritwiseError, match="position 9 are not numbers"):
        sample(logits, Sampling(temperature=temperature), 9)


@pytest.mark.parametrize("setting", [
    {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": -1},
    {"top_k": 1.5}, {"top_p": 0}, {"top_p": 1.01}, {"top_p": float("nan")}, {"seed": -1}, {"seed": 1 << 64}])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(TritwiseError, match=next(iter(setting))):
        Sampling(**setting)
