"""Tasks for the tests of the flow; processes that are spawned find them by this name."""

import os
import signal
import time
from pathlib import Path

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write
from tritwise.data.flow import moved


def write_square(out: Path, rank: int) -> dict:
    """Write rank squared, and note each call, so that a second one is seen."""
    atomic_write(out / f"{rank}.txt", str(rank * rank))
    with (out / "calls").open("a") as calls:
        calls.write(f"{rank}\n")
    return {"files": 1, "sum": rank * rank}


def kill_once(out: Path, rank: int) -> dict:
    """Task 2 is killed the first time, as when memory is short."""
    flag = out / "killed"
    if rank == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return write_square(out, rank)


def fail(out: Path, rank: int) -> dict:
    if rank == 1:
        raise TritwiseError("task 1 cannot be done", why="it never can", fix="another one")
    return write_square(out, rank)


def move(times: int, bytes_each: int, seconds: float, rank: int) -> None:
    """Work through bytes, waiting after each of them."""
    for _ in range(times):
        moved(bytes_each, 100_000)
        time.sleep(seconds)


def wait_for_ever(out: Path, rank: int) -> None:
    """Say who waits, then do."""
    atomic_write(out / f"{rank}.pid", str(os.getpid()))
    while True:
        time.sleep(60)
