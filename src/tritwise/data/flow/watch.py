"""A bar for a step whoever carries it, drawn from its marks and from what its running tasks say of themselves."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_json
from tritwise.common.progress import progress
from tritwise.data.flow.meter import running
from tritwise.data.flow.steps import Step, mark, running_directory

# Looking takes a fiftieth of the time at most, however many marks there are.
_SECONDS_BETWEEN_LOOKS, _LOOKS_SHARE = 0.5, 50


@contextmanager
def watched(work: Path, step: Step, ranks: Sequence[int]) -> Iterator[None]:
    """Draw the bar of a step whose tasks `ranks` are to be done, until the block ends."""
    look = _Look(work, step, ranks)
    with progress(step.name, look.total, completed=look.before, percent=step.size is not None) as bar:
        ended = threading.Event()
        began = time.monotonic()

        def show() -> None:
            done, text, tasks = look.now()
            rate = f"{text / 1e6 / max(time.monotonic() - began, 1e-9):.1f} MB/s" if text else ""
            counted = f"{tasks}/{step.tasks} tasks" if step.size is not None else ""
            bar.update(done, ", ".join(filter(None, (counted, rate))))

        def draw() -> None:
            pause = _SECONDS_BETWEEN_LOOKS
            while not ended.wait(pause):
                looked = time.monotonic()
                show()
                pause = max(_SECONDS_BETWEEN_LOOKS, _LOOKS_SHARE * (time.monotonic() - looked))

        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        show()


class _Look:
    """How far a step is: `total` and `before` (what was done when it began) as its tasks' sizes count, or in tasks."""

    def __init__(self, work: Path, step: Step, ranks: Sequence[int]) -> None:
        self.work, self.step = work, step
        self._sizes = {mark(work, step, rank).name: 1 if step.size is None else max(step.size(rank), 1)
                       for rank in range(step.tasks)}
        self._waiting = {mark(work, step, rank).name for rank in ranks}
        self.total = sum(self._sizes.values())
        self._done = self.before = self.total - sum(self._sizes[name] for name in self._waiting)
        self._text = 0

    def now(self) -> tuple[int, int, int]:
        """What is done, bytes of text that were moved since the beginning, and the number of finished tasks."""
        home = mark(self.work, self.step, 0).parent
        # What runs is looked at first: a task that ends in between counts as finished, and not twice.
        moving = running(running_directory(self.work, self.step))
        try:
            ended = self._waiting.intersection(os.listdir(home))
        except OSError:
            ended = set()
        for name in ended:
            self._waiting.remove(name)
            self._done += self._sizes[name]
            self._text += self._text_of(home / name)
        live = [(self._sizes[f"{name}.json"], moved) for name, moved in moving.items()
                if f"{name}.json" in self._waiting]
        text = self._text + sum(moved.text for _, moved in live)
        done = self._done
        if self.step.size is not None:  # of what is stored, and estimated: a task that has not ended is not done
            done += sum(min(moved.size, size) for size, moved in live)
        return done, text, self.step.tasks - len(self._waiting)

    def _text_of(self, path: Path) -> int:
        try:
            return read_json(path, what="the mark of a finished task").get("text", 0)
        except TritwiseError:  # the step itself says what is wrong with a mark
            return 0
