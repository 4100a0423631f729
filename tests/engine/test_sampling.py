"""The sampler against transformers' own logits warpers, and its own promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tritwise.common.errors import TritwiseError
from tritwise.engine.sampling import (
    History,
    Sampling,
    distribution,
    log_probability,
    mask_words,
    sample,
    uniform,
)


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
    if how.min_p:
        warpers.append(MinPLogitsWarper(how.min_p))
    scores = warpers(torch.zeros(1, 1, dtype=torch.long), torch.tensor(logits, dtype=torch.float64)[None])
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize("size", [7, 300, 5000])
@pytest.mark.parametrize("spread", [0.1, 2.0, 10.0])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [
    (0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.9, 0.0), (0, 0.01, 0.0), (50, 0.8, 0.0), (10_000, 0.999, 0.0), (0, 1.0, 0.2),
    (0, 0.9, 0.05), (300, 0.95, 0.1)])
def test_kept_tokens_and_probabilities_are_those_of_transformers(size, spread, top_k, top_p, min_p):
    logits = np.random.default_rng(size + int(spread * 10)).normal(0, spread, size).astype(np.float32)
    how = Sampling(temperature=0.7, top_k=top_k, top_p=top_p, min_p=min_p)
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
    slack = len(values) * 2.0**-44  # top-p adds up whole numbers of 2^-44, each rounded, in the head and in the total
    assert base[kept].sum() >= top_p - slack
    smallest = base[kept].min()
    assert kept.sum() == 1 or base[kept].sum() - smallest < top_p + slack


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("bias", [{}, {3: 1.5, 200: -100.0, 17: -0.25}])
def test_bias_and_repetition_penalty_change_the_logits_as_transformers_does(penalty, bias):
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, 300).astype(np.float32)
    ids = rng.integers(0, 300, 60)
    how = Sampling(temperature=1.0, repetition_penalty=penalty, logit_bias=bias)
    processors = LogitsProcessorList()
    if bias:
        processors.append(SequenceBiasLogitsProcessor([[[id_], value] for id_, value in bias.items()]))
    processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    theirs = processors(torch.tensor(ids)[None], torch.tensor(logits)[None])[0]
    # Of logits that are equal to the bit, softmaxes differ by the roundings of their sums and of their exponents,
    # each of which is below 2^7.
    found_ids, found = distribution(logits, how, History(ids.tolist()))
    np.testing.assert_allclose(found, theirs.double().softmax(-1).numpy()[found_ids], rtol=(300 + 256) * 2.0**-52)
    assert 1 - theirs.double().softmax(-1).numpy()[found_ids].sum() < 1e-12
    assert sample(logits, Sampling(repetition_penalty=penalty, logit_bias=bias), 0, History(ids.tolist())) == \
        int(theirs.argmax())


def test_frequency_and_presence_penalties_are_openais_formula_over_the_generated_tokens_alone():
    logits = np.random.default_rng(6).normal(0, 2, 50).astype(np.float32)
    history = History([7, 7, 8], prompt=3)
    for token in [9, 9, 9, 4, 7]:
        history.append(token)
    counts = np.zeros(50, dtype=np.float32)
    counts[[9, 4, 7]] = [3, 1, 1]
    expected = logits - counts * np.float32(0.5) - (counts > 0) * np.float32(0.25)
    how = Sampling(temperature=1.0, frequency_penalty=0.5, presence_penalty=0.25)
    ids, found = distribution(logits, how, history)
    assert len(ids) == 50
    wanted = np.exp(expected.astype(np.float64))
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=(50 + 256) * 2.0**-52)


def test_a_mask_comes_as_words_of_either_sign_as_a_row_or_as_bytes():
    words = np.array([0x80000001, 0x00000002], dtype=np.uint32)
    for mask in (words, words.view(np.int32), words[None], words.tobytes()):
        np.testing.assert_array_equal(mask_words(mask, 64), words)
    assert mask_words(None, 64) is None
    # A head that is padded beyond the tokenizer: what the mask does not reach is forbidden.
    assert mask_words(words, 100).tolist() == [0x80000001, 2, 0, 0]
    assert mask_words(words, 20).tolist() == [0x80000001]
    for bad in (words.astype(np.float32), np.zeros((2, 2), np.uint32), b""):
        with pytest.raises(TritwiseError, match="the constraint's mask"):
            mask_words(bad, 64)


def test_a_mask_that_allows_nothing_is_an_error():
    with pytest.raises(TritwiseError, match="no token can be drawn at position 3"):
        sample(np.zeros(40, np.float32), Sampling(), 3, mask=np.zeros(2, np.uint32))


def test_log_probabilities_are_of_the_models_own_distribution():
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4])).astype(np.float32)
    found = log_probability(logits, 0, 2)
    assert found.logprob == pytest.approx(np.log(0.1), rel=1e-6)
    assert [id_ for id_, _ in found.top] == [3, 2]
    assert found.top[0][1] == pytest.approx(np.log(0.4), rel=1e-6)


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
    {"top_k": 1.5}, {"top_p": 0}, {"top_p": 1.01}, {"top_p": float("nan")}, {"seed": -1}, {"seed": 1 << 64},
    {"min_p": -0.1}, {"min_p": 1.1}, {"repetition_penalty": 0}, {"repetition_penalty": float("inf")},
    {"frequency_penalty": float("nan")}, {"presence_penalty": float("inf")}, {"logit_bias": {-1: 1.0}},
    {"logit_bias": {3: float("nan")}}, {"logit_bias": {3: float("inf")}}])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(TritwiseError, match=next(iter(setting))):
        Sampling(**setting)
