"""Which repositories go into which part: whole ones, in seeded order, parts of about equal size.

The order of parts and of repositories inside them is the order of the training stream, so it must not be alphabetical.
It depends on names, sizes and the seed, never on the machine.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from tritwise.data.split import seeded_order

# A part is closed when it holds `data.part_bytes`. A small corpus is cut finer, so that all cores have something to do.
PART_BYTES, SMALLEST_PART_BYTES, WANTED_PARTS = 32 << 20, 4 << 20, 16


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
