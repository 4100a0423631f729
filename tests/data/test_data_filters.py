"""Rule filters: each rule at its threshold, and the share of letters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.config import FilterRecipe
from tritwise.data.filters import RULES, alphabetic_fraction, broken_rule, is_excluded

FILTERS = FilterRecipe()


def lines(*lengths: int) -> str:
    return "".join("x" * length + "\n" for length in lengths)


@pytest.mark.parametrize(("text", "rule"), [
    (lines(63), None), (lines(62), "min_bytes"), ("é" * 32, None),
    (lines(1000, *[10] * 20), None), (lines(1001, *[10] * 20), "max_line_length"),
    (lines(100, 100), None), (lines(100, 101), "mean_line_length"),
    ("ab" * 25 + "0" * 50 + "1" * 50 + "\n" + "0" * 49, None), ("a" * 25 + "\n" + "0" * 75, "alphabetic_fraction"),
    ("a" * 25 + "0" * 75, None),
    ("<?xml version='1.0'?>\n" + lines(60), "xml"), (lines(79) + "<?xml version='1.0'?>\n", "xml"),
    (lines(50, 50) + "<?xml version='1.0'?>\n", None),
])
def test_a_file_is_dropped_just_beyond_each_threshold(text, rule):
    assert broken_rule(text, FILTERS) == rule
    assert rule is None or rule in RULES


@given(st.text())
def test_the_share_of_letters_is_what_counting_them_gives(text):
    expected = sum(c.isalpha() for c in text) / len(text) if text else 0.0
    assert alphabetic_fraction(text) == expected


def test_exclude_matches_whole_paths_by_shell_pattern():
    filters = FilterRecipe(exclude=("test/*", "*/tests/*"))
    excluded = [path for path in ("test/a.py", "x/tests/b/c.py", "tests/d.py", "x/test.py", "Test/e.py")
                if is_excluded(path, filters)]
    assert excluded == ["test/a.py", "x/tests/b/c.py"]


def test_the_published_thresholds_are_the_defaults():
    assert (FILTERS.max_mean_line_length, FILTERS.max_line_length, FILTERS.min_alphabetic_fraction) == (100, 1000, 0.25)
