"""Best-fit packing: documents into windows of one length, as few cut as can be (arXiv 2404.10830, section 2).

Documents longer than a window are cut into windows and a rest. What fits is then packed by best-fit decreasing: the
longest first, each into the window that has the least room left for it, or into a new one. The rest of each window is
padding. Ids wait in a file meanwhile: in memory are two numbers a piece.
"""

import heapq
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class _Rooms:
    """Which amounts of room some open bin has: a segment tree over 1..capacity, so that the least that suffices is
    found in O(log capacity)."""

    def __init__(self, capacity: int) -> None:
        self._leaves = 1 << (capacity + 1).bit_length()
        self._any = bytearray(2 * self._leaves)  # whether some leaf below a node is set; leaf r is at `leaves` + r
        self._bins: dict[int, list[int]] = {}

    def add(self, room: int, number: int) -> None:
        """Bin `number` has that much room."""
        heapq.heappush(self._bins.setdefault(room, []), number)
        node = self._leaves + room
        while node and not self._any[node]:
            self._any[node] = 1
            node >>= 1

    def take(self, least: int) -> tuple[int, int] | None:
        """(room, bin) of the bin with the least room that is at least `least`, the first opened of equals; it is taken
        out. None when there is no such bin."""
        node = self._leaves + least
        while not self._any[node]:
            while node & 1:  # everything right of a right child is right of its parent
                node >>= 1
            if not node:
                return None
            node += 1  # the sibling on the right
        while node < self._leaves:
            node = 2 * node if self._any[2 * node] else 2 * node + 1
        room = node - self._leaves
        number = heapq.heappop(self._bins[room])
        if not self._bins[room]:
            del self._bins[room]
            self._any[node] = 0
            node >>= 1
            while node:
                self._any[node] = self._any[2 * node] | self._any[2 * node + 1]
                node >>= 1
        return room, number


def best_fit(lengths: Sequence[int] | NDArray[np.integer], capacity: int) -> list[list[int]]:
    """Bins of numbers of items, packed by best-fit decreasing in O(n log n).

    Items go by falling length, equal ones by number; of bins with the same room the one that was opened first is
    taken. Items of a bin, and bins by their first item, are in rising order in the result.
    Raises ValueError for a length outside 1..capacity.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.size and not 0 < int(lengths.min()) <= int(lengths.max()) <= capacity:
        raise ValueError(f"lengths must be in 1..{capacity}")
    rooms, bins = _Rooms(capacity), []
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        room, number = rooms.take(length) or (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        if room > length:
            rooms.add(room - length, number)
    return sorted(map(sorted, bins))


def cut_to_windows(length: int, window: int) -> list[int]:
    """Lengths of the pieces of a document: whole windows and a rest, which is never the last id alone."""
    pieces = [window] * (length // window) + [length % window] * (length % window > 0)
    if len(pieces) > 1 and pieces[-1] == 1:
        pieces[-2:] = [window - 1, 2]
    return pieces


def neighbours(lengths: Sequence[int], groups: Sequence[int], window: int) -> list[int]:
    """How many pieces in a row make one unit: as many of a group (a repository) as a window holds, greedily."""
    counts: list[int] = []
    total, group = 0, None
    for length, own in zip(lengths, groups, strict=True):
        if own == group and total + length <= window:
            counts[-1] += 1
            total += length
        else:
            counts.append(1)
            total, group = length, own
    return counts


class Spool:
    """Pieces of ids on their way to windows: a nameless file in `directory`, and lengths and repositories in memory."""

    def __init__(self, directory: Path, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (closed in __exit__)
        self._lengths: list[int] = []
        self._groups: list[int] = []
        self._is_open: list[bool] = []

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, ids: NDArray[np.integer], group: int, *, is_open: bool = False) -> None:
        """The next piece. `group` is the number of its repository; behind an open one its text goes on: it has a window
        of its own, for what stood behind it there would be taken for that text."""
        self._file.write(ids.astype(self._dtype).tobytes())
        self._lengths.append(len(ids))
        self._groups.append(group)
        self._is_open.append(is_open)

    def windows(self, window: int, padding: int, *, keep_neighbours: bool) -> Iterator[NDArray[np.integer]]:
        """The pieces, packed: those of a window one after the other, and its padding as one of its own behind them."""
        self._file.flush()
        ids = np.memmap(self._file, dtype=self._dtype, mode="r") if self._lengths else np.empty(0, self._dtype)
        lengths = np.array(self._lengths, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        sizes = np.where(np.array(self._is_open, dtype=bool), window, lengths)
        counts = neighbours(sizes.tolist(), self._groups, window) if keep_neighbours else [1] * len(lengths)
        firsts = np.cumsum([0, *counts])[:-1]
        units = np.add.reduceat(sizes, firsts) if len(sizes) else sizes
        for members in best_fit(units, window):
            left = window
            for unit in members:
                for piece in range(firsts[unit], firsts[unit] + counts[unit]):
                    yield ids[starts[piece]:starts[piece] + lengths[piece]]
                    left -= int(lengths[piece])
            if left:
                yield np.full(left, padding, dtype=self._dtype)
