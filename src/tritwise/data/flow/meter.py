"""How far a running task is, for whoever draws a bar: in this process, another one, or on another machine.

A task says it in a small file beside the marks, `WORK/running/STEP/00007`, twice a second at most. Nothing depends on
these files: they are not data, and what a killed task left goes when its step begins again.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_SECONDS_BETWEEN_WRITES = 0.5


class Moved(NamedTuple):
    """What a task has worked through: of its size (as `Step.size` counts), and of text; both in bytes."""

    size: int = 0
    text: int = 0


class _Meter:
    def __init__(self, path: Path) -> None:
        self.path, self.size, self.text, self._written = path, 0, 0, time.monotonic()

    def add(self, size: int, text: int) -> None:
        self.size += size
        self.text += text
        now = time.monotonic()
        if now - self._written >= _SECONDS_BETWEEN_WRITES:
            self._written = now
            with suppress(OSError):  # a full disk is for the task itself to meet
                self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:  # over what stood there, equally long: a reader never finds it empty
            os.write(file, f"{self.size:20} {self.text:20}\n".encode())
        finally:
            os.close(file)


_running: _Meter | None = None  # a process does one task at a time


@contextmanager
def metered(path: Path) -> Iterator[_Meter]:
    """Count what `moved` says until the block ends, visible in the file `path` meanwhile."""
    global _running
    outer, _running = _running, _Meter(path)
    try:
        yield _running
    finally:
        _running = outer
        path.unlink(missing_ok=True)


def moved(size: int = 0, text: int = 0) -> None:
    """Called by what reads for a task: so many more bytes were worked through. Says nothing outside of tasks."""
    if _running is not None:
        _running.add(size, text)


def _said(path: Path) -> Moved:
    """What stands in the file of a task; nothing when that is gone or no two numbers."""
    try:
        size, text = path.read_text().split()
        return Moved(int(size), int(text))
    except (OSError, ValueError):
        return Moved()


def running(directory: Path) -> dict[str, Moved]:
    """What all running tasks of a step said last, by the names of their files."""
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    return {name: _said(directory / name) for name in names}
