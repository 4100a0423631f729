"""Words and n-grams: against regular expressions, and equal where they should be."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.data.words import ngram_hashes, normalised, words_of


def plain(text: str) -> list[str]:
    small = "".join(c.lower() if c.isascii() else c for c in text)
    return re.findall(r"\w+", small)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("aB1_ \n.’é漢"))))
def test_words_are_runs_of_letters_digits_and_underscores(text):
    words = words_of(text)
    found = [words.joined(i, 1).decode("utf-8", "surrogatepass") for i in range(len(words.hashes))]
    assert found == plain(text)
    assert len(normalised(text).decode("utf-8", "surrogatepass")) == len(text)
    assert [text[words.character(i)] for i in range(len(found))] == [
        match.group()[0] for match in re.finditer(r"\w+", text)]


def test_equal_words_have_equal_hashes_wherever_they_stand_and_others_do_not():
    vocabulary = [f"word{i}" for i in range(2000)] + ["a", "b", "ab", "ba", "aa", "é", "漢字"]
    text = " ".join(vocabulary) + "\n" + "\t".join(reversed(vocabulary))
    hashes = words_of(text).hashes
    assert (hashes[:len(vocabulary)] == hashes[len(vocabulary):][::-1]).all()
    assert len(np.unique(hashes)) == len(vocabulary)


def test_words_longer_than_a_block_have_the_hash_of_their_letters():
    long = "ab1" * 30_000
    hashes = words_of(f"x {long} y\n{long}\n{long}b x").hashes
    assert hashes[1] == hashes[3]
    assert hashes[0] == hashes[5]
    assert len(np.unique(hashes)) == 4


@pytest.mark.parametrize("n", range(1, 14))
def test_an_ngram_has_the_hash_of_its_words_in_their_order(n):
    words = [f"w{i % 7}" for i in range(40)]
    hashes = ngram_hashes(words_of(" ".join(words)).hashes, n)
    assert len(hashes) == 40 - n + 1
    grams = [tuple(words[i:i + n]) for i in range(len(hashes))]
    assert len(set(zip(grams, hashes.tolist(), strict=True))) == len(set(grams)) == len(set(hashes.tolist()))
    assert hashes[3] == ngram_hashes(words_of(".".join(words[3:3 + n])).hashes, n)[0]
    assert len(ngram_hashes(words_of(" ".join(words[:n - 1])).hashes, n)) == 0


def test_ngrams_of_several_sizes_are_those_that_each_has_alone():
    words = words_of(" ".join(f"w{i * i % 11}" for i in range(60)))
    for n in (10, 3, 1, 16, 7, 10):
        assert (words.ngrams(n) == ngram_hashes(words.hashes, n)).all()
    assert len(words.ngrams(61)) == 0
