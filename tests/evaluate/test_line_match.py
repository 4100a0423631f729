"""Measures of a generated line against their definitions, and against the standard library where it has one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.evaluate.cross_file.line_match import code_of, edit_similarity, identifiers, match


def common_subsequence(a: str, b: str) -> int:
    """Length of the longest common subsequence by the textbook's table."""
    row = [0] * (len(b) + 1)
    for x in a:
        previous = 0
        for n, y in enumerate(b, start=1):
            previous, row[n] = row[n], previous + 1 if x == y else max(row[n], row[n - 1])
    return row[-1]


@given(st.text("ab(. é漢", max_size=40), st.text("ab(. é漢", max_size=40))
def test_edit_similarity_is_twice_the_common_subsequence_over_both_lengths(a, b):
    expected = 2 * common_subsequence(a, b) / (len(a) + len(b)) if a or b else 1.0
    assert edit_similarity(a, b) == expected
    assert edit_similarity(b, a) == expected


@pytest.mark.parametrize(("a", "b", "value"), [
    ("", "", 1), ("", "a", 0), ("abc", "abc", 1), ("abcd", "bcda", 0.75),
    ("this is a test", "this is a test!", 28 / 29),
    ("run(x)", "run(y)", 10 / 12),
])
def test_edit_similarity_of_known_pairs(a, b, value):
    assert math.isclose(edit_similarity(a, b), value)


def test_comments_and_white_space_around_do_not_count_and_strings_do():
    assert code_of("  f('#1', \"# 2\\\"#\")  # a comment 'of text") == "f('#1', \"# 2\\\"#\")"
    assert match("f(1)  # one", "  f(1)").exact
    assert not match("f('a')", "f('b')").exact
    assert match("f('a')", "f('b')").identifiers_exact


def test_identifiers_are_names_in_order_without_keywords_and_strings():
    assert identifiers("return run_2(x, größe) if not 'text' else x.y[3j]  # z") == ["run_2", "x", "größe", "x", "y"]


@pytest.mark.parametrize(("generated", "reference", "exact", "f1"), [
    ("a(b)", "a(b)", True, 1.0), ("a(b)", "a(c)", False, 0.5), ("a(b, b)", "a(b)", False, 1.0), ("1", "2", True, 1.0),
    ("", "a", False, 0.0), ("b(a)", "a(b)", False, 1.0),
])
def test_identifier_scores(generated, reference, exact, f1):
    found = match(generated, reference)
    assert (found.identifiers_exact, found.identifier_f1) == (exact, f1)
