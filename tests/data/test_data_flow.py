"""The flow of steps: every task once, whatever was killed in between, and the same on datatrove's executors."""

import json
import sys
from collections import Counter
from functools import partial

import flow_tasks
import pytest

from tritwise.common.errors import TritwiseError
from tritwise.data.flow import Step, counts_of, run_steps, seconds_of, total
from tritwise.data.flow.steps import mark


def calls(out) -> Counter:
    return Counter((out / "calls").read_text().split())


def squares(out, tasks: int = 5, *, key: str = "k", run=flow_tasks.write_square) -> Step:
    out.mkdir(exist_ok=True)
    return Step("squares", tasks, partial(run, out), key)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_and_counted(tmp_path, workers):
    step = squares(tmp_path / "out")
    run_steps(tmp_path / "work", [step], workers=workers)
    run_steps(tmp_path / "work", [step], workers=workers)
    assert calls(tmp_path / "out") == Counter(map(str, range(5)))
    counts = counts_of(tmp_path / "work", step)
    assert [each["sum"] for each in counts] == [0, 1, 4, 9, 16]
    assert total(counts, "files") == 5
    assert seconds_of(tmp_path / "work", step) >= 0


def test_a_killed_process_loses_only_its_task(tmp_path):
    step = squares(tmp_path / "out", run=flow_tasks.kill_once)
    with pytest.raises(TritwiseError, match="killed"):
        run_steps(tmp_path / "work", [step], workers=2)
    done = calls(tmp_path / "out")
    assert "2" not in done
    run_steps(tmp_path / "work", [step], workers=2)
    marked = {rank for rank in done if mark(tmp_path / "work", step, int(rank)).exists()}
    assert calls(tmp_path / "out").keys() == set("01234")
    assert all(calls(tmp_path / "out")[rank] <= 2 for rank in marked)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_task_says_why_and_the_others_are_kept(tmp_path, workers):
    step = squares(tmp_path / "out", 3, run=flow_tasks.fail)
    with pytest.raises(TritwiseError, match="task 1 cannot be done") as caught:
        run_steps(tmp_path / "work", [step], workers=workers)
    assert (caught.value.why, caught.value.fix) == ("it never can", "another one")
    assert mark(tmp_path / "work", step, 0).exists()
    with pytest.raises(TritwiseError, match="of 3 tasks are not done"):
        counts_of(tmp_path / "work", step)


def test_another_key_or_another_number_of_tasks_does_all_again(tmp_path):
    run_steps(tmp_path / "work", [squares(tmp_path / "out", 3)], workers=1)
    run_steps(tmp_path / "work", [squares(tmp_path / "out", 3, key="other")], workers=1)
    assert calls(tmp_path / "out") == Counter({"0": 2, "1": 2, "2": 2})
    run_steps(tmp_path / "work", [squares(tmp_path / "out", 2, key="other")], workers=1)
    assert calls(tmp_path / "out")["0"] == 3
    assert not mark(tmp_path / "work", squares(tmp_path / "out", 3), 2).exists()


def test_a_step_that_turns_out_to_be_needless_is_left_out(tmp_path):
    first = squares(tmp_path / "first")
    needless = [Step(name, 2, partial(flow_tasks.write_square, tmp_path), "k", (tmp_path / "first" / there).exists)
                for name, there in (("done", "4.txt"), ("to_do", "absent"))]
    run_steps(tmp_path / "work", [first, *needless], workers=1)
    assert calls(tmp_path) == Counter({"0": 1, "1": 1})
    assert not mark(tmp_path / "work", needless[0], 0).exists()


def test_a_damaged_mark_is_refused(tmp_path):
    step = squares(tmp_path / "out", 2)
    run_steps(tmp_path / "work", [step], workers=1)
    mark(tmp_path / "work", step, 1).write_text("{")
    with pytest.raises(TritwiseError, match="the mark of a finished task"):
        run_steps(tmp_path / "work", [step], workers=1)


def test_without_datatrove_the_cluster_says_what_to_install(tmp_path, monkeypatch):
    from tritwise.data.flow import cluster

    monkeypatch.setitem(sys.modules, "datatrove.executor", None)  # what Python takes for not installed
    with pytest.raises(TritwiseError, match=r"tritwise\[cluster\]"):
        cluster.run_steps(tmp_path / "work", [squares(tmp_path / "out")], "datatrove")


def test_datatrove_carries_the_steps_and_another_executor_goes_on(tmp_path):
    from tritwise.data.flow import cluster

    step = squares(tmp_path / "out")
    run_steps(tmp_path / "work", [step], workers=1)
    mark(tmp_path / "work", step, 3).unlink()
    cluster.run_steps(tmp_path / "work", [step], "datatrove", workers=2)
    assert calls(tmp_path / "out") == Counter({"0": 1, "1": 1, "2": 1, "3": 2, "4": 1})
    assert json.loads(mark(tmp_path / "work", step, 3).read_text())["counts"] == {"files": 1, "sum": 9}
    with pytest.raises(TritwiseError):
        cluster.run_steps(tmp_path / "work", [squares(tmp_path / "bad", 3, run=flow_tasks.fail)], "datatrove",
                          workers=1)
