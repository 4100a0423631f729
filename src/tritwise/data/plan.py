"""Which repositories go into which part: whole ones, in seeded order, parts of about equal size.

The order of parts and of repositories inside them is the order of the training stream, so it must not be alphabetical.
It depends on names, sizes and the seed, never on the machine.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tritwise.common.files import atomic_write
from tritwise.data.sources.files import Repository
from tritwise.data.split import seeded_order

# A part is closed when it holds `data.part_bytes`. A small corpus is cut finer, so that all cores have something to do.
PART_BYTES, SMALLEST_PART_BYTES, WANTED_PARTS = 32 << 20, 4 << 20, 16
# Stored bytes for each task of a step that is shuffled by key: 32 band keys of 50 bytes for each of some 10^5 files.
_PARTITION_BYTES, _MOST_PARTITIONS = 1 << 29, 4096


class Sized(Protocol):
    """What a repository must say of itself here."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...


AnySized = TypeVar("AnySized", bound=Sized)


def part_bytes(total: int, most: int = PART_BYTES) -> int:
    """How large a part should be, `most` at most, when everything is `total` bytes."""
    return min(most, max(SMALLEST_PART_BYTES, -(-total // WANTED_PARTS)))


def partition_count(total: int, least: int) -> int:
    """How many tasks share a shuffled step over `total` stored bytes: so many that a task's memory does not grow."""
    return max(least, min(-(-total // _PARTITION_BYTES), _MOST_PARTITIONS))


def share_out(repositories: Iterable[AnySized], seed: int, most: int = PART_BYTES) -> list[tuple[AnySized, ...]]:
    """Parts of whole repositories; a repository larger than a part is a part of its own with what stands before it."""
    by_name = {repository.name: repository for repository in repositories}
    ordered = [by_name[name] for name in seeded_order(by_name, seed, "parts")]
    return list(_cut(ordered, part_bytes(sum(repository.size for repository in ordered), most)))


def _cut(repositories: Sequence[AnySized], limit: int) -> Iterator[tuple[AnySized, ...]]:
    part: list[AnySized] = []
    size = 0
    for repository in repositories:
        part.append(repository)
        size += repository.size
        if size >= limit:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


@dataclass(frozen=True)
class SavedParts:
    """The parts of a plan as lines of a file. A task is told where they begin, and no task carries the whole plan."""

    path: Path
    starts: tuple[int, ...]

    @classmethod
    def save(cls, path: Path, parts: Sequence[Sequence[Repository]]) -> "SavedParts":
        """Write the parts, each a line of JSON in ASCII, for names need not be UTF-8."""
        lines = [f"{json.dumps(part)}\n" for part in parts]
        atomic_write(path, "".join(lines))
        starts, place = [], 0
        for line in lines:
            starts.append(place)
            place += len(line)
        return cls(path, tuple(starts))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> list[Repository]:
        with self.path.open("rb") as file:
            file.seek(self.starts[number])
            return [Repository(*fields) for fields in json.loads(file.readline())]
