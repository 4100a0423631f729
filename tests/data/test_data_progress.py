"""What a bar shows of a step that runs, and what stays of it when the process that drew it is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import flow_tasks
import pytest

from tritwise.common import progress
from tritwise.data.documents import Document, read_documents, save_documents
from tritwise.data.flow import Step, meter, run_steps, sizes_of, watch
from tritwise.data.flow.steps import mark, running_directory

STARTER = """
import sys
from functools import partial
from pathlib import Path
import flow_tasks
from tritwise.data.flow import Step, run_steps
if __name__ == "__main__":
    out = Path(sys.argv[1])
    run_steps(out / "work", [Step("waiting", 2, partial(flow_tasks.wait_for_ever, out), "k")], workers=2)
"""


@pytest.fixture
def every_word(monkeypatch):
    """Tasks, looks and lines as often as they come."""
    monkeypatch.setattr(meter, "_SECONDS_BETWEEN_WRITES", 0.0)
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_LOOKS", 0.002)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)


def shares(lines: str) -> list[int]:
    return [int(share) for share in re.findall(r"moving (\d+) %", lines)]


def test_a_bar_moves_inside_of_a_task_and_tells_the_rate(tmp_path, capsys, every_word):
    step = Step("moving", 1, partial(flow_tasks.move, 10, 10, 0.02), "k", size=lambda rank: 100)
    run_steps(tmp_path, [step], workers=1)
    lines = capsys.readouterr().err
    seen = shares(lines)
    assert seen == sorted(seen)
    assert seen[-1] == 100
    assert any(0 < share < 100 for share in seen)
    assert re.search(r"moving \d\d % \| 0/1 tasks, \d+\.\d MB/s \| 0:0\d left\n", lines)
    assert re.search(r"moving 100 % \| 1/1 tasks, \d+\.\d MB/s\n$", lines)


def test_a_task_that_moves_more_than_it_was_thought_to_is_not_done_before_it_ends(tmp_path, capsys, every_word):
    step = Step("moving", 2, partial(flow_tasks.move, 10, 1000, 0.01), "k", size=lambda rank: 100)
    run_steps(tmp_path, [step], workers=1)
    seen = shares(capsys.readouterr().err)
    assert {50, 100} <= set(seen)
    assert not any(50 < share < 100 for share in seen)


def test_a_step_that_goes_on_begins_where_it_was(tmp_path, capsys, every_word):
    step = Step("moving", 4, partial(flow_tasks.move, 5, 20, 0.01), "k", size=lambda rank: 100)
    run_steps(tmp_path, [step], workers=1)
    mark(tmp_path, step, 3).unlink()
    capsys.readouterr()
    run_steps(tmp_path, [step], workers=1)
    assert min(shares(capsys.readouterr().err)) >= 75


def test_documents_move_by_the_bytes_of_their_file(tmp_path):
    path = tmp_path / "00000.parquet"
    texts = [f"{number:06}" * 500_000 for number in range(12)]  # more than one row group
    save_documents(path, (Document("r", f"{n}.py", "Python", text, len(text), "") for n, text in enumerate(texts)))
    with meter.metered(tmp_path / "running") as seen:
        rows = read_documents(path)
        next(rows)
        assert (seen.size, seen.text) == (0, 0)
        assert sum(1 for _ in rows) == len(texts) - 1
    assert 0.5 * sizes_of([path])(0) < seen.size < sizes_of([path])(0)
    assert seen.text == pytest.approx(sum(map(len, texts)), rel=0.01)


def test_nothing_stays_of_what_tasks_said(tmp_path, every_word):
    step = Step("moving", 2, partial(flow_tasks.move, 3, 10, 0.0), "k", size=lambda rank: 100)
    home = running_directory(tmp_path, step)
    home.mkdir(parents=True)
    (home / "00001").write_text("12 ")  # half a word of a killed task
    assert meter.running(home) == {"00001": (0, 0)}
    run_steps(tmp_path, [step], workers=1)
    assert list(home.iterdir()) == []


def test_workers_end_with_the_process_that_gives_them_tasks(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stderr=subprocess.DEVNULL,
                              env=os.environ | {"PYTHONPATH": str(Path(flow_tasks.__file__).parent)})
    workers = []
    try:
        workers = [int(there.read_text()) for there in appeared([tmp_path / "0.pid", tmp_path / "1.pid"])]
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 30
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [worker for worker in workers if is_alive(worker)]
    for worker in left:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    assert not left


def appeared(paths: list[Path]) -> list[Path]:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return paths


def is_alive(process: int) -> bool:
    """Whether it runs; a process that has ended and waits for init to notice does not."""
    try:
        return Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
