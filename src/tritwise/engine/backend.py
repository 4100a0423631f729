"""The contract between the scheduler and whatever computes: token ids with slots and positions in, logits out."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tritwise.engine.sampling import History, Sampling, Words


def _none() -> NDArray[np.int32]:
    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class Draw:
    """How a row's token is drawn: settings, the ids before it where they look back, and a mask of what is allowed."""

    how: Sampling
    history: History | None = None
    mask: Words | None = None


@dataclass(frozen=True)
class Batch:
    """One step's work, for any number of sequences at once.

    `tokens`, `slots`, `positions` are int32 [n]: row i is token `tokens[i]` of the sequence in cache slot `slots[i]`
    at `positions[i]`. The rows of one slot stand in ascending order of position and continue what the slot holds;
    a smaller first position rewinds it. `logits_for` is int32 [m]: the rows whose logits are wanted. `best_for` is
    int32 [b]: the rows of which only the most likely id is wanted, which is cheaper. `draw_for` is int32 [d]: the rows
    of which the next token is wanted, drawn as `draws` says of each; only by settings that `Backend.draws` takes. One
    with a history or a mask is the only row of its slot.
    """

    tokens: NDArray[np.int32]
    slots: NDArray[np.int32]
    positions: NDArray[np.int32]
    logits_for: NDArray[np.int32]
    best_for: NDArray[np.int32] = field(default_factory=_none)
    draw_for: NDArray[np.int32] = field(default_factory=_none)
    draws: tuple[Draw, ...] = ()


@dataclass(frozen=True)
class Output:
    """What a step gives: `logits` float32 [m, vocab] for `logits_for`, `best` int32 [b] and `drawn` int32 [d] alike.

    `best` is the lowest id among equal largest logits, `drawn` the token that `Sampler.draw` gives for the position
    behind the row; both are -1 where the largest logit is NaN or infinite.
    """

    logits: NDArray[np.float32]
    best: NDArray[np.int32]
    drawn: NDArray[np.int32] = field(default_factory=_none)


@dataclass(frozen=True)
class BackendInfo:
    """What is running: for people and reports, never for decisions of the scheduler."""

    backend: str
    kernel: str
    head: str
    threads: int
    weight_bytes: int              # held in memory
    weight_bytes_per_token: int    # read for one decoded token with its logits
    weight_bytes_per_best: int     # read for one greedy token
    cache_bytes_per_token: int


class PagedCache(Protocol):
    """Keys and values in pages of `page_tokens` positions, which rows (slots) may share.

    Rows 0 .. slots-1 of the backend take part in `Backend.forward`; the others only keep pages. A forward call that
    needs more pages than are free fails; a row writes to a copy of a page that it shares.
    """

    page_tokens: int
    rows: int
    context: int
    pages_total: int

    @property
    def pages_in_use(self) -> int: ...

    def pages_needed(self, slot: int, first: int, end: int) -> int:
        """Free pages that a forward call takes for the positions [first, end) of a slot; below zero: gives back."""
        ...

    def pages_held(self, slots: list[int]) -> int:
        """Pages that these slots hold together, each counted once."""
        ...

    def share(self, source: int, target: int, positions: int) -> None:
        """Make `target` hold the first positions of `source`, and nothing else, without a copy."""
        ...

    def reset(self, slot: int) -> None:
        """Make a slot hold nothing."""
        ...


class Backend(Protocol):
    """A model with `slots` KV caches of `context` positions each.

    The logits of a row depend only on the tokens of its own sequence: not on batch mates, chunking or threads.
    """

    slots: int
    context: int
    vocab_size: int
    cache: PagedCache

    @property
    def info(self) -> BackendInfo: ...

    def draws(self, how: Sampling) -> bool:
        """Whether it draws tokens by these settings itself, masked or not, which saves carrying logits about."""
        ...

    def forward(self, batch: Batch) -> Output:
        """Logits, most likely ids and drawn tokens, as the batch asks."""
        ...

    def close(self) -> None: ...


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:  # not Linux, or hidden by a container: every processor counts as a core
        return str(cpu)


def _cgroup_limit() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, -(-int(quota) // int(period)))


def available_cores() -> int:
    """Physical cores this process may use: its affinity mask, siblings counted once, within the cgroup's CPU quota."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = len({_siblings(cpu) for cpu in allowed})
    return min(cores, _cgroup_limit() or cores)
