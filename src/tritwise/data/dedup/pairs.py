"""From band keys to pairs: what shares a key is compared by its signatures."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tritwise.data.dedup.job import Job, Level, part_of, place_in_part
from tritwise.data.dedup.signatures import ranks
from tritwise.data.dedup.tables import Columns, gather, key_range, mixed, read_columns, unique_rows, write_table

# Pairs that are compared in one go: two signatures each, so 2 * 4096 * permutations * 4 bytes.
_PAIRS = 4096
# Members of a large bucket that are compared with its leaders in one go.
_MEMBERS = 4096
_NO_PAIRS = np.empty((0, 2), np.uint64)


class Signatures:
    """Signatures and ranks of any vertices, read where they are needed from the memory-mapped files of all parts."""

    def __init__(self, job: Job, level: Level) -> None:
        self._job, self._level = job, level
        self._parts: dict[int, tuple[NDArray[np.uint32], NDArray[np.uint64]]] = {}

    def _part(self, part: int) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        if part not in self._parts:
            columns = read_columns(self._job.path("signatures", part), self._job.made_by)
            name = "repository_values" if self._level == "repositories" else "file_values"
            self._parts[part] = columns[name], ranks(columns, self._level)
        return self._parts[part]

    def read(self, vertex: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """uint32 [vertices, permutations] and ranks uint64 [vertices]."""
        values = np.empty((len(vertex), self._job.recipe.permutations), np.uint32)
        rank = np.empty(len(vertex), np.uint64)
        parts = (vertex >> np.uint64(32)).astype(np.int64)
        for part in np.unique(parts):
            where = np.flatnonzero(parts == part)
            places = (vertex[where] & np.uint64(0xFFFFFFFF)).astype(np.int64)
            of_part, part_ranks = self._part(int(part))
            values[where], rank[where] = of_part[places], part_ranks[places]
        return values, rank

    def rank(self, vertex: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Ranks uint64 [vertices]."""
        return np.array([self._part(part_of(v))[1][place_in_part(v)] for v in vertex], np.uint64)


def pair_task(job: Job, level: Level, task: int) -> None:
    """Pairs of a range of band keys whose estimate reaches the threshold.

    Rows (vertex, other, rank, other_rank, equal bins), both ways round, by the scattered vertex. Memory: 16 bytes for
    each band key of the range, 40 for each pair found, and the signatures of 4096 pairs.
    """
    rows = gather(job.part_paths(f"{level}/bands"), job.made_by, key_range(task, job.partitions))
    source = Signatures(job, level)
    needed = job.recipe.needed(job.threshold(level))
    found: list[Columns] = []
    for pairs in _in_pieces(_unique(_candidates(rows, job.recipe.max_bucket))):
        found.append(_compared(pairs, source, needed))
    for bucket in _large_buckets(rows, job.recipe.max_bucket):
        found.extend(_with_leaders(bucket, source, needed, job.recipe.max_leaders))
    pairs = {name: np.concatenate([np.empty(0, np.uint64), *(piece[name] for piece in found)])
             for name in ("vertex", "other", "rank", "other_rank", "equal")}
    both = {"vertex": ("vertex", "other"), "other": ("other", "vertex"), "rank": ("rank", "other_rank"),
            "other_rank": ("other_rank", "rank"), "equal": ("equal", "equal")}
    columns = {name: np.concatenate([pairs[one], pairs[two]]) for name, (one, two) in both.items()}
    write_table(job.path(f"{level}/pairs", task), job.made_by, mixed(columns["vertex"]), columns)


def _buckets(rows: Columns) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Vertices sorted by key, and where each key's run of them starts and how long it is."""
    order = np.lexsort([rows["vertex"], rows["key"]])
    keys = rows["key"][order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.int64)
    return rows["vertex"][order], starts, np.diff(np.append(starts, len(keys)))


def _candidates(rows: Columns, max_bucket: int) -> Iterator[NDArray[np.uint64]]:
    """uint64 [pairs, 2]: all pairs of the buckets of 2 to `max_bucket` members, bucket size by bucket size."""
    members, starts, sizes = _buckets(rows)
    for size in range(2, max_bucket + 1):
        first = starts[sizes == size]
        one, two = np.triu_indices(size, 1)
        step = max(1, (1 << 20) // len(one))
        for i in range(0, len(first), step):
            bucket = members[first[i : i + step, None] + np.arange(size)]
            yield np.stack([bucket[:, one].reshape(-1), bucket[:, two].reshape(-1)], axis=1)


def _unique(pieces: Iterator[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    kept = _NO_PAIRS
    for pairs in pieces:
        kept = unique_rows(np.concatenate([kept, pairs]))
    return kept


def _in_pieces(pairs: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    return (pairs[i : i + _PAIRS] for i in range(0, len(pairs), _PAIRS))


def _compared(pairs: NDArray[np.uint64], source: Signatures, needed: int) -> Columns:
    vertex, other = pairs[:, 0], pairs[:, 1]
    (values, rank), (other_values, other_rank) = source.read(vertex), source.read(other)
    equal = (values == other_values).sum(axis=1).astype(np.uint64)
    good = equal >= needed
    columns = {"vertex": vertex, "other": other, "rank": rank, "other_rank": other_rank, "equal": equal}
    return {name: column[good] for name, column in columns.items()}


def _large_buckets(rows: Columns, max_bucket: int) -> Iterator[NDArray[np.uint64]]:
    members, starts, sizes = _buckets(rows)
    for first, size in zip(starts[sizes > max_bucket], sizes[sizes > max_bucket], strict=True):
        yield members[first : first + size]


def _with_leaders(bucket: NDArray[np.uint64], source: Signatures, needed: int, max_leaders: int) -> Iterator[Columns]:
    """Pairs of the members of a large bucket with its leaders: time and memory are linear in the members."""
    bucket = bucket[np.lexsort([bucket, source.rank(bucket)])]
    leaders: list[tuple[np.uint64, np.uint64, NDArray[np.uint32]]] = []
    for i in range(0, len(bucket), _MEMBERS):
        members = bucket[i : i + _MEMBERS]
        values, rank = source.read(members)
        free = np.ones(len(members), bool)
        number = 0
        while True:
            if number == len(leaders):
                if not free.any() or number == max_leaders:
                    break
                first = int(np.argmax(free))
                leaders.append((members[first], rank[first], values[first].copy()))
            leader, leader_rank, leader_values = leaders[number]
            number += 1
            equal = (values == leader_values).sum(axis=1).astype(np.uint64)
            near = (equal >= needed) & (members != leader)
            free &= ~near & (members != leader)
            where = np.flatnonzero(near)
            yield {"vertex": members[where], "other": np.full(len(where), leader), "rank": rank[where],
                   "other_rank": np.full(len(where), leader_rank), "equal": equal[where]}
