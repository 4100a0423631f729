"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 5.0


def format_duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts steps towards `total`; made by `progress()`.

    On a terminal `rich` draws the bar; elsewhere a plain line is printed at most every five seconds and at the end.
    """

    def __init__(self, title: str, total: int, completed: int, bar, *, percent: bool = False) -> None:
        self.title, self.total, self.completed, self._percent = title, total, completed, percent
        self._bar = bar
        self._task = bar.add_task(title, total=total, completed=completed, note="") if bar else None
        self._began, self._start, self._last_line = time.monotonic(), completed, -float("inf")

    def seconds_left(self) -> float | None:
        """Estimate from the mean speed of this run; None before the first step."""
        done = self.completed - self._start
        if done <= 0:
            return None
        return (time.monotonic() - self._began) / done * (self.total - self.completed)

    def update(self, completed: int, note: str = "") -> None:
        """Set the number of finished steps and the text shown beside them (loss, tokens/s, ...)."""
        self.completed = completed
        if self._bar:
            self._bar.update(self._task, completed=completed, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES or completed >= self.total:
            self._last_line = now
            left = self.seconds_left()
            eta = f" | {format_duration(left)} left" if left is not None and completed < self.total else ""
            text = f" | {note}" if note else ""
            done = f"{100 * completed // max(self.total, 1)} %" if self._percent else f"{completed}/{self.total}"
            print(f"{self.title} {done}{text}{eta}", file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int, *, completed: int = 0, percent: bool = False) -> Iterator[Progress]:
    """Yield a `Progress`. Output goes to standard error, so standard output stays a program's.

    `percent` shows the finished share in place of numbers that tell a reader nothing, such as bytes.
    """
    if not sys.stderr.isatty():
        yield Progress(title, total, completed, None, percent=percent)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    done = TaskProgressColumn() if percent else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), done, TextColumn("{task.fields[note]}"),
               TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        yield Progress(title, total, completed, bar, percent=percent)
