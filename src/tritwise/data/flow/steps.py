"""A step is numbered tasks that share nothing: files in, files out, in any order and process, as often as one likes.

A finished task leaves a mark, `WORK/done/STEP/00007.json`, written after its output and holding what it counted. So a
killed run goes on with the tasks that have no mark, whoever carries them (`local.py`, `cluster.py`).
"""

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, read_json
from tritwise.data.flow.meter import metered

Counts = dict[str, Any]
DONE, RUNNING = "done", "running"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Step:
    """`run(rank)` does task `rank` of `tasks` and returns what it counted, as JSON can hold it.

    `run` can be pickled, reads nothing that another task of this step writes, writes each file whole or not at all,
    and gives the same bytes whenever it is called. `key` changes with everything that decides them. `needless` says,
    when the steps before are done, that no task has anything to do. `size`, called when they are done, too, says about
    how many bytes task `rank` will say that it has `moved`; None where all tasks count as one.
    """

    name: str
    tasks: int
    run: Callable[[int], Counts | None]
    key: str
    needless: Callable[[], bool] | None = None
    size: Callable[[int], int] | None = None


def mark(work: Path, step: Step, rank: int) -> Path:
    """Where the mark of a finished task stands."""
    return work / DONE / step.name / f"{rank:05}.json"


def running_directory(work: Path, step: Step) -> Path:
    """Where running tasks say how far they are (`meter`), each in a file with its number."""
    return work / RUNNING / step.name


def run_task(work: Path, step: Step, rank: int) -> Counts:
    """Do one task unless it is done; returns its mark: `counts`, `seconds`, and bytes of `text` that were moved."""
    path = mark(work, step, rank)
    if path.exists():
        return read_json(path, what="the mark of a finished task")
    with needs_room(work, step.name), metered(running_directory(work, step) / path.stem) as meter:
        began = time.perf_counter()
        counts = step.run(rank) or {}
        record = {"key": step.key, "counts": counts, "seconds": round(time.perf_counter() - began, 3),
                  "text": meter.text}
        atomic_write_json(path, record)
    return record


@contextmanager
def needs_room(work: Path, what: str) -> Iterator[None]:
    """A full disk becomes a TritwiseError; what was written in part is gone, and what was finished stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise TritwiseError(f"{what}: there is no room on the disk of {work}", why=str(error),
                            fix="make room and run the same command again; finished tasks are kept") from None


def prepare(work: Path, step: Step) -> list[int]:
    """The tasks of a step that are still to be done.

    Marks under another key are of other settings, and all of them are forgotten with what they stand for.
    """
    home = work / DONE / step.name
    marks = {rank: mark(work, step, rank) for rank in range(step.tasks)}
    known = sorted(home.glob("*.json")) if home.is_dir() else []
    foreign = set(known) - set(marks.values())
    if foreign or any(read_json(path, what="the mark of a finished task").get("key") != step.key for path in known):
        shutil.rmtree(home)
    shutil.rmtree(running_directory(work, step), ignore_errors=True)  # what killed tasks said
    return [rank for rank, path in marks.items() if not path.exists()]


def each_count(work: Path, step: Step) -> Iterator[Counts]:
    """What each task of a finished step counted, in order, one in memory at a time.

    Raises TritwiseError when one is not done.
    """
    return (record["counts"] for record in _records(work, step))


def sizes_of(paths: Sequence[Path]) -> Callable[[int], int]:
    """`Step.size` for tasks that each read one of the files."""
    return lambda rank: paths[rank].stat().st_size


def sent(step: Step) -> Step:
    """What a task's process needs of a step; the rest is for the one that hands out tasks, and need not be pickled."""
    return replace(step, needless=None, size=None)


def counts_of(work: Path, step: Step) -> list[Counts]:
    """All that `each_count` gives: for few tasks."""
    return list(each_count(work, step))


def seconds_of(work: Path, step: Step) -> float:
    """Seconds of all tasks of a finished step together, whatever ran at once; 0 of one that was needless."""
    if step.needless is not None and step.needless():
        step = replace(step, tasks=len(list((work / DONE / step.name).glob("*.json"))))
    return round(sum(record["seconds"] for record in _records(work, step)), 3)


def _records(work: Path, step: Step) -> Iterator[Mapping[str, Any]]:
    paths = [mark(work, step, rank) for rank in range(step.tasks)]
    missing = [rank for rank, path in enumerate(paths) if not path.exists()]
    if missing:
        raise TritwiseError(f"{step.name}: {len(missing)} of {step.tasks} tasks are not done",
                            why=f"the first of them is {missing[0]}", fix="run the same command again")
    return (read_json(path, what="the mark of a finished task") for path in paths)


def total(counts: Sequence[Counts], name: str) -> int:
    """The sum over tasks of one number that they counted."""
    return sum(each.get(name, 0) for each in counts)
