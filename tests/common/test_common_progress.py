"""Progress in a log, and the error type's text."""

import pytest

from tritwise import TritwiseError
from tritwise.common import progress as module
from tritwise.common.progress import format_duration, progress


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"),
                                               (3600, "1:00:00"), (90061, "25:01:01"), (-1, "0:00")])
def test_durations_read_as_a_clock(seconds, text):
    assert format_duration(seconds) == text


def test_a_log_gets_a_line_every_five_seconds_and_the_last_one(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("train", 20) as bar:
        for step in range(1, 21):
            now[0] += 1.0
            bar.update(step, f"loss {step}")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train 1/20 | loss 1 | 0:19 left", "train 6/20 | loss 6 | 0:14 left", "train 11/20 | loss 11 | 0:09 left",
        "train 16/20 | loss 16 | 0:04 left", "train 20/20 | loss 20"]


def test_time_left_counts_only_the_steps_of_this_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("train", 100, completed=90) as bar:
        assert bar.seconds_left() is None
        now[0] = 10.0
        bar.update(95)
        assert bar.seconds_left() == 10.0


def test_an_error_says_what_why_and_what_to_type():
    assert str(TritwiseError("it broke")) == "it broke"
    assert str(TritwiseError("it broke", why="rust", fix="oil it")) == "it broke\nwhy: rust\ntry: oil it"
