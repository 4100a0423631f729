"""Words and n-grams: against regular expressions, and equal where they should be."""

import collections
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.data.contamination.lookup import Table, distinct_names
from tritwise.data.native import native
from tritwise.data.words import ngram_hashes, words_of


def plain(text: str) -> list[str]:
    small = "".join(c.lower() if c.isascii() else c for c in text)
    return re.findall(r"\w+", small)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("aB1_ \n.’é漢"))))
def test_words_are_runs_of_letters_digits_and_underscores(text):
    words = words_of(text)
    found = [words.joined(i, 1).decode("utf-8", "surrogatepass") for i in range(len(words.hashes))]
    assert found == plain(text)
    assert len(words.codes.decode("utf-8", "surrogatepass")) == len(text)
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


MASK = 2**64 - 1


def plain_hash(word: str) -> int:
    total = sum(byte * pow(0x9E3779B97F4A7C15, i, 2**64) for i, byte in
                enumerate(word.encode("utf-8", "surrogatepass"))) & MASK
    total = (total ^ total >> 32) * 0xD6E8FEB86659FD93 & MASK
    return total ^ total >> 29


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("aB1_ \n.’é漢"))), st.integers(1, 12))
def test_hashes_of_words_and_ngrams_are_the_sums_that_they_are_said_to_be(text, n):
    expected = [plain_hash(word) for word in plain(text)]
    hashes = words_of(text).hashes
    assert hashes.tolist() == expected
    assert ngram_hashes(hashes, n).tolist() == [
        sum(value * 0xC2B2AE3D27D4EB4F**(n - 1 - i) for i, value in enumerate(expected[first:first + n])) & MASK
        for first in range(len(expected) - n + 1)]


def test_a_word_of_any_length_has_that_hash():
    for length in (31, 32, 33, 34, 1000):
        word = ("aß_9" * 300)[:length]
        assert words_of(f"- {word}-").hashes.tolist() == [plain_hash(word)]


def test_a_saved_hash_is_the_one_of_today():
    assert words_of("return Größe_2 0x1F").hashes.tolist() == [plain_hash(w) for w in ("return", "größe_2", "0x1f")]
    assert words_of("self").hashes.tolist() == [0x1b6b87e905767b57]


hashes_of = st.lists(st.one_of(st.integers(0, 5), st.sampled_from([1 << 63, MASK, (1 << 60) + 7])), max_size=80)


@given(hashes_of, hashes_of, st.integers(1, 3))
def test_a_table_finds_every_place_of_each_of_its_hashes(known, words, n):
    grams = ngram_hashes(np.array(words, dtype=np.uint64), n).tolist()
    known = known + grams[::3]
    positions, rows = Table.of(np.array(known, dtype=np.uint64)).find(np.array(words, dtype=np.uint64), n)
    assert list(zip(positions.tolist(), rows.tolist(), strict=True)) == [
        (i, row) for i, gram in enumerate(grams) for row, each in enumerate(known) if each == gram]


@given(st.text(alphabet=st.sampled_from("aAbB01_ .\né")), st.integers(1, 4))
def test_measures_of_words_are_those_of_their_strings(text, n):
    words = words_of(text)
    strings = plain(text)
    names = [word for word in strings if not word[0].isdigit()]
    *numbers, counts = native().word_measures(words.codes, words.hashes, words.starts, words.ends, 3)
    sizes = [len(word.encode()) for word in strings]
    assert numbers == [len(names), sum(len(w.encode()) == 1 for w in names), sum(sizes),
                       sum(size for size in sizes if size > 3)]
    occurs = collections.Counter(names)
    assert counts.tolist() == [occurs[name] for name in sorted(occurs, key=plain_hash)]
    grams = [tuple(strings[i:i + n]) for i in range(len(strings) - n + 1)]
    assert native().distinct_ngrams(words.hashes, n) == len(set(grams))
    assert distinct_names(words, n).tolist() == [
        len({w for w in gram if len(w.encode()) > 1 and not w[0].isdigit()}) for gram in grams]


def test_words_for_numbers_are_no_names():
    words = words_of("One apple, two pears, THIRD apple and twenty-one plums: oneself, 2nd")
    assert distinct_names(words, 5).tolist() == [2, 2, 3, 3, 2, 3, 3, 2]


def test_the_hash_zero_is_counted_as_any_other():
    hashes = np.array([0, 7, 0, 0, MASK], dtype=np.uint64)
    ends = np.arange(1, 6)
    assert native().distinct_ngrams(hashes, 1) == 3
    assert native().word_measures(b"abcde", hashes, ends - 1, ends, 9)[-1].tolist() == [3, 1, 1]


def test_words_that_do_not_lie_in_their_text_are_refused():
    hashes = np.zeros(1, dtype=np.uint64)
    for start, end in ((-1, 1), (0, 4), (2, 2), (2, 1)):
        with pytest.raises(ValueError, match="lie in its text"):
            native().word_measures(b"abc", hashes, np.array([start]), np.array([end]), 9)
    with pytest.raises(ValueError, match="bitmap"):
        native().find_ngrams(hashes, 1, hashes, np.zeros(1, np.int64), np.zeros(8, np.uint8), 50)
    with pytest.raises(ValueError, match="at least one word"):
        native().word_ngrams(hashes, 0)


def test_lines_of_code_are_counted_as_python_strips_and_compares_them():
    chance = random.Random(3)
    pieces = [b"a = 1", b"  a = 1", b"# x", b"// y", b"*", b" * z", b"\t", b"", b"\r", b"\x0b\x1c", b"return value",
              b"\x85"]
    for starts in ((b"#",), (b"//", b"/*", b"* ", b"*/")):
        for _ in range(300):
            content = b"\n".join(chance.choices(pieces, k=chance.randrange(12)))
            lines = [line for each in content.split(b"\n") if (line := each.strip())]
            long = [line for line in lines if len(line) >= 5]
            assert native().code_lines(content, starts, 5) == (
                len(lines), sum(line.startswith(starts) or line == b"*" for line in lines),
                sum(map(len, long)), sum(map(len, set(long))))


@given(st.lists(st.tuples(st.sampled_from([b"aZ09+/=\n", b"-"]), st.integers(1, 150)), max_size=8))
def test_runs_of_base64_are_those_of_the_regular_expression(runs):
    content = b"".join((some * length)[:length] for some, length in runs)
    assert native().base64_runs(content) == [len(run) for run in re.findall(rb"[a-zA-Z0-9+/\n=]{64,}", content)]
