"""Fill-in-the-middle: nothing is lost, the rate holds, and the result is a pure function of its inputs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.config import FimRecipe
from tritwise.data.fim import Plain, Turned, cut_at_line_ends, turn

TEXTS = st.text(alphabet="ab \n", min_size=1, max_size=200)


def whole(document: Plain | Turned) -> str:
    if isinstance(document, Plain):
        return document.text
    return document.prefix + document.middle + document.suffix


@given(TEXTS, st.integers(1, 40))
def test_pieces_join_to_the_text_and_are_cut_at_line_ends(text, limit):
    pieces = cut_at_line_ends(text, limit)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.endswith("\n") or (len(piece) == limit and "\n" not in piece)


def test_a_piece_takes_as_many_lines_as_fit():
    assert cut_at_line_ends("aa\nbb\ncc\n", 6) == ["aa\nbb\n", "cc\n"]
    assert cut_at_line_ends("aa\nbb\ncc\n", 8) == ["aa\nbb\n", "cc\n"]
    assert cut_at_line_ends("aa\nbb\ncc\n", 9) == ["aa\nbb\ncc\n"]


@given(TEXTS, st.floats(0, 1), st.integers(1, 40), st.integers(0, 9), st.text())
def test_turning_loses_nothing(text, rate, limit, seed, key):
    recipe = FimRecipe(rate=rate, max_document_chars=limit)
    documents = turn(text, recipe, seed=seed, key=key)
    assert "".join(map(whole, documents)) == text
    assert documents == turn(text, recipe, seed=seed, key=key)
    # Plain neighbours are one text.
    assert not any(isinstance(a, Plain) and isinstance(b, Plain) for a, b in pairwise(documents))


@given(TEXTS, st.integers(0, 10))
def test_the_path_comment_stays_in_the_prefix(text, seed):
    [document] = turn("# a.py\n" + text, FimRecipe(rate=1, max_document_chars=1000), seed=seed, key="", header=7)
    assert document.prefix.startswith("# a.py\n")


def test_rate_zero_leaves_the_text_and_rate_one_turns_every_piece():
    text = "line\n" * 100
    assert turn(text, FimRecipe(rate=0, max_document_chars=50), seed=0, key="k") == [Plain(text)]
    turned = turn(text, FimRecipe(rate=1, max_document_chars=50), seed=0, key="k")
    assert len(turned) == 10
    assert all(isinstance(document, Turned) for document in turned)


def test_half_the_pieces_are_turned_and_cuts_are_uniform():
    text = "0123456789" * 10
    counts, cuts = 0, []
    trials = 4000
    for key in range(trials):
        [document] = turn(text, FimRecipe(rate=0.5), seed=3, key=str(key))
        if isinstance(document, Turned):
            counts += 1
            cuts.append(len(document.prefix))
    # Binomial: five standard deviations of sqrt(n p q).
    assert abs(counts - trials / 2) < 5 * (trials / 4) ** 0.5
    # The smaller of two uniform integers in 0..100: mean 33.17 (sum of P(min > k) = ((100 - k) / 101)^2), sd < 24.
    expected = sum(((100 - k) / 101) ** 2 for k in range(100))
    assert abs(sum(cuts) / len(cuts) - expected) < 5 * 24 / len(cuts) ** 0.5
    assert {0, 1, 2, 3} < set(cuts)


@pytest.mark.parametrize("change", [{"seed": 1}, {"key": "other"}])
def test_another_seed_or_content_turns_other_pieces(change):
    recipe = FimRecipe(max_document_chars=50)
    assert turn("line\n" * 200, recipe, **({"seed": 0, "key": "k"} | change)) != turn(
        "line\n" * 200, recipe, seed=0, key="k")
