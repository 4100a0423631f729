"""Steps on the cores of this machine: one task at a time in each of a few processes."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path

from tritwise.common.errors import TritwiseError
from tritwise.data.flow.steps import Step, prepare, run_task, sent
from tritwise.data.flow.watch import watched

# A process is replaced after this many tasks, so that what libraries keep cannot grow with the corpus.
_TASKS_A_PROCESS = 64


def available_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_steps(work: Path, steps: Sequence[Step], *, workers: int | None = None) -> None:
    """Run steps one after the other, finished tasks left out. `workers` None means all cores; 1 stays in this process.

    Raises what a task raises, once the tasks that were running beside it have ended.
    """
    workers = workers or available_cores()
    with _Pool(workers) as pool:
        for step in steps:
            if step.needless is not None and step.needless():
                continue
            ranks = prepare(work, step)
            with watched(work, step, ranks):
                if min(workers, len(ranks)) <= 1:
                    for rank in ranks:
                        run_task(work, step, rank)
                else:
                    pool.run(work, step, ranks)


def _end_with_parent() -> None:
    """See to it that a worker ends at once when the process that gives it tasks was killed.

    Else it would wait for the next task for ever, with all its memory.
    """
    parent = multiprocessing.parent_process()

    def follow() -> None:
        wait_for_end([parent.sentinel])
        os._exit(1)  # as if killed itself: nothing is written in part

    threading.Thread(target=follow, daemon=True).start()


class _Pool:
    """Processes that are started when a step first needs them, and serve all later ones."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Not forked: libraries here have threads of their own. max_tasks_per_child needs spawned processes too.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _end_with_parent,
                                             max_tasks_per_child=_TASKS_A_PROCESS)
        return self._pool

    def run(self, work: Path, step: Step, ranks: Sequence[int]) -> None:
        """The given tasks of a step, no more handed out at once than there are processes."""
        pool, step = self._started(), sent(step)
        waiting = iter(ranks)
        running: set[Future] = {pool.submit(run_task, work, step, rank) for rank in islice(waiting, self.workers)}
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    if (rank := next(waiting, None)) is not None:
                        running.add(pool.submit(run_task, work, step, rank))
        except BrokenProcessPool:
            raise TritwiseError(f"{step.name}: a worker process was killed",
                                why="most often because memory was short; finished tasks are kept",
                                fix="the same command again, with fewer workers") from None
