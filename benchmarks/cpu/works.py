"""What is measured, and the contract between the comparison and the systems it compares."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from tritwise.common.errors import TritwiseError

BATCH_PROMPT, BATCH_STEPS = 64, 32


@dataclass(frozen=True)
class Work:
    """`size` is the number of tokens (decode, prefill), of sequences (batch) or of positions (memory)."""

    name: str
    kind: str
    size: int
    threads: int
    unit: str = "tok/s"
    dense: bool = False
    repeated: bool = True    # memory does not change from round to round

    @property
    def context(self) -> int:
        """Positions of one sequence."""
        return {"batch": BATCH_PROMPT + BATCH_STEPS, "load": 128}.get(self.kind, self.size)

    @property
    def bound_by_bandwidth(self) -> bool:
        return self.kind == "decode"


def works(names: str, threads: int) -> list[Work]:
    """The works of a comma-separated list. Raises TritwiseError for a name that there is not."""
    known = {work.name: work for work in (
        Work("decode", "decode", 64, threads),
        Work("decode1", "decode", 64, 1),
        Work("prefill", "prefill", 512, threads),
        Work("batch8", "batch", 8, threads),
        Work("batch32", "batch", 32, threads),
        Work("memory", "memory", 2048, threads, unit="MiB", repeated=False),
        Work("load", "load", 1, threads, unit="s"),
        Work("dense", "decode", 24, threads, dense=True),
        Work("dense1", "decode", 24, 1, dense=True),
    )}
    chosen = names.split(",")
    for name in chosen:
        if name not in known:
            raise TritwiseError(f"there is no work {name!r}", why=f"the works are {', '.join(known)}")
    return [known[name] for name in chosen]


class RefusedError(Exception):
    """A system cannot do this work; the text says why. It becomes a row of the result."""


@dataclass(frozen=True)
class Opened:
    """A system that is ready: every call of `burst` is a fresh short measurement in the work's unit."""

    burst: Callable[[], float]
    bytes_per_token: int
    note: str = ""


class System(Protocol):
    """One row of the table: a program with one model type and one setting."""

    name: str

    def does(self, work: Work) -> bool:
        """Whether this row belongs to the work at all: the dense twin has rows of its own."""
        ...

    def open(self, work: Work) -> AbstractContextManager[Opened]:
        """Make the model file if the cache does not hold it, and start. Raises RefusedError."""
        ...
