"""The native core's sketches: equal to plain Python's, unbiased against exact Jaccard, and steady on hostile bytes."""

import random

import minhash_reference as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise import _native

PIECES = st.sampled_from(["a", "ab_1", "x" * 63, " ", "(", "\n", "é", "Ж", "漢", "字", "€", "🙂", "_", "0", "\x7f"])
TEXTS = st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=200).map("".join).map(str.encode))


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, bins=st.sampled_from([1, 2, 7, 64]), size=st.integers(1, 6), seed=st.integers(0, 2**64 - 1))
def test_a_sketch_is_the_one_of_plain_python(text, bins, size, seed):
    values, tokens = _native.minhash([text], bins, size, seed)
    assert tokens.tolist() == [len(reference.TOKEN.findall(text))]
    assert values.tolist() == [reference.sketch(text, bins, size, seed)]
    assert _native.shingles(text, size, seed).tolist() == sorted(reference.shingles(text, size, seed))


def test_tokens_that_cross_steps_of_the_scanner_are_whole():
    for before in range(120, 140):
        for word in (b"w" * 70, "漢字".encode() * 30, b"\x80" * 65, b"\xff\x80" * 40, b"a\xe2\x82\xac" * 30):
            text = b" " * before + word + b" end of text"
            assert _native.shingles(text, 2, 1).tolist() == sorted(reference.shingles(text, 2, 1))


def test_a_str_counts_as_its_utf8_and_other_objects_are_refused():
    text = "naïve = 漢字 + 'x' " * 10
    assert (_native.minhash([text], 32, 5, 0)[0] == _native.minhash([text.encode()], 32, 5, 0)[0]).all()
    with pytest.raises(TypeError, match="str or bytes"):
        _native.minhash([3], 32, 5, 0)
    with pytest.raises(UnicodeEncodeError):
        _native.minhash(["\ud800"], 32, 5, 0)
    for bins, size in ((0, 5), (1025, 5), (8, 0), (8, 65)):
        with pytest.raises(ValueError, match="are possible"):
            _native.minhash([text], bins, size, 0)


def words(numbers) -> str:
    return " ".join(f"w{n}" for n in numbers)


def test_the_minimum_of_two_sketches_is_the_sketch_of_the_union_and_repeats_do_not_count():
    a, b = words(range(900)), words(range(700, 5000))
    values = _native.minhash([a, b, a + " " + b, b + "\n" + b], 128, 1, 3)[0]
    assert (np.minimum(values[0], values[1]) == values[2]).all()
    assert (values[1] == values[3]).all()


@pytest.mark.parametrize("jaccard", [0.1, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("union", [20, 200, 4000])
def test_the_share_of_equal_bins_is_an_unbiased_estimate_of_jaccard(union, jaccard):
    bins, trials = 256, 60
    common, random_numbers = round(union * jaccard), random.Random(union)
    estimates = []
    for seed in range(trials):
        elements = random_numbers.sample(range(10**9), union)
        middle = common + (union - common) // 2
        pair = [words(elements[:middle]), words(elements[:common] + elements[middle:])]
        values = _native.minhash(pair, bins, 1, seed)
        estimates.append(float((values[0][0].astype(np.uint32) == values[0][1].astype(np.uint32)).mean()))
    exact = common / union
    deviation = (exact * (1 - exact) / bins) ** 0.5  # of k independent permutations
    assert abs(np.mean(estimates) - exact) < 4 * deviation / trials**0.5
    assert np.std(estimates) < 1.4 * deviation  # the chance that 60 normal draws spread so far is below 1e-5


def test_each_bin_is_drawn_as_often_as_jaccard_says_so_that_bands_of_bins_follow_their_curve():
    bins, trials, rows = 32, 400, 4
    a, b = words(range(100)), words(range(20, 120))  # 80 common of 120
    equal = np.array([(lambda v: v[0] == v[1])(_native.minhash([a, b], bins, 1, seed)[0]) for seed in range(trials)])
    exact = 80 / 120
    assert np.abs(equal.mean(axis=0) - exact).max() < 4.5 * (exact * (1 - exact) / trials) ** 0.5
    bands = equal.reshape(trials, bins // rows, rows).all(axis=2).mean()
    expected = exact**rows
    # Bands of one sketch are not independent; counting trials only is the safe side.
    assert abs(bands - expected) < 4 * (expected * (1 - expected) / trials) ** 0.5


@pytest.mark.parametrize("text", [b"", b"x", b"\xff", b"\x80", b" " * 10_000, b"a b c d"])
def test_texts_shorter_than_a_shingle_have_empty_bins(text):
    values, tokens = _native.minhash([text], 64, 5, 0)
    assert (values == 2**64 - 1).all()
    assert tokens[0] < 5
    assert len(_native.shingles(text, 5, 0)) == 0


def test_a_text_of_one_token_without_end_costs_little():
    repeated = b"again " * 500_000
    values = _native.minhash([repeated, b"again " * 5, b"x" * 3_000_000], 256, 5, 0)[0]
    assert (values[0] == values[1]).all()
    assert (values[2] == 2**64 - 1).all()
