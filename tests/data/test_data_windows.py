"""Scoring windows: every token once, with the promised left context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.data.windows import Window, scoring_windows


@given(st.integers(0, 400), st.integers(2, 60), st.data())
def test_every_token_but_the_first_is_scored_once_with_its_left_context(length, context, data):
    stride = data.draw(st.integers(1, context - 1))
    windows = list(scoring_windows(length, context, stride))
    scored = [token for window in windows for token in range(window.first_scored, window.stop)]
    assert scored == list(range(1, length))
    for index, window in enumerate(windows):
        assert 0 <= window.start < window.first_scored < window.stop <= length
        assert window.stop - window.start <= context
        if index:
            assert window.first_scored - window.start >= context - stride
    if windows:
        assert windows[0].start == 0


def test_a_document_that_fits_is_one_window():
    assert list(scoring_windows(10, 16, 8)) == [Window(0, 10, 1)]


@pytest.mark.parametrize(("context", "stride"), [(8, 0), (8, 8), (8, 9), (1, 1)])
def test_windows_that_leave_a_token_without_left_context_are_refused(context, stride):
    with pytest.raises(TritwiseError, match=f"{context} tokens cannot be {stride} apart"):
        list(scoring_windows(20, context, stride))
