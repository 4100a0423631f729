"""A child process that holds one model and answers each line with one measured number."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from works import BATCH_PROMPT, BATCH_STEPS, RefusedError, Work

WORKERS = Path(__file__).parent / "workers"
running: set[int] = set()    # the workers' process ids
Burst = Callable[[], float]


class Worker:
    """Started with `request` as JSON; `ready` is what it said when it was. RefusedError with its last words if not."""

    def __init__(self, python: str, script: str, request: dict[str, Any]) -> None:
        self._process = subprocess.Popen([python, str(WORKERS / script), json.dumps(request)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.add(self._process.pid)
        try:
            self.ready = json.loads(self._answer())
        except BaseException:
            self.close()
            raise

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RefusedError(last_line(self._process.stderr.read()) or f"ended with status {self._process.wait()}")
        return line

    def measure(self) -> float:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        running.discard(self._process.pid)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()
        self._process.wait()


@contextmanager
def started(python: str, script: str, work: Work, path: Path, **more: Any) -> Iterator[tuple[Burst, dict]]:
    """A burst in the work's unit and what the worker said when it was ready.

    Loading is measured by a process of its own for every burst; before the first one there is nothing to say.
    """
    asked = {"path": str(path), "kind": work.kind, "threads": work.threads, "size": work.size, "context": work.context,
             "prompt": BATCH_PROMPT, "steps": BATCH_STEPS, **more}
    unit = 2**20 if work.kind == "memory" else 1
    if work.kind == "load":
        def load() -> float:
            with closing(Worker(python, script, asked)) as worker:
                return worker.measure()
        yield load, {}
    else:
        with closing(Worker(python, script, asked)) as worker:
            yield lambda: worker.measure() / unit, worker.ready


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
