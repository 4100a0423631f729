"""From band keys to pairs: what shares a key is compared by its signatures."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tritwise.data.dedup.job import Job, Level, SignatureFiles
from tritwise.data.dedup.signatures import ranks
from tritwise.data.dedup.tables import Columns, gather, key_range, mixed, unique_rows, write_table

# Pairs that are compared in one go: two signatures each, so 2 * 4096 * permutations * 4 bytes.
_PAIRS = 4096
# Members of a large bucket that are compared with its leaders in one go.
_MEMBERS = 4096
# Pairs among which those that share several bands are compared once.
_CANDIDATES = 1 << 20


Found = NDArray[np.uint64]  # [pairs, 3]: the lower vertex, the higher one, equal bins


class Signatures:
    """Signatures and ranks of any vertices, read where they are needed from the memory-mapped files of all parts."""

    def __init__(self, job: Job, level: Level) -> None:
        self._files, self._level, self._bins = SignatureFiles(job), level, job.recipe.permutations

    def read(self, vertex: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """uint32 [vertices, permutations]."""
        name = "repository_values" if self._level == "repositories" else "file_values"
        result = np.empty((len(vertex), self._bins), np.uint32)
        for part, where, places in _by_part(vertex):
            result[where] = self._files.part(part)[name][places]
        return result

    def rank(self, vertex: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Ranks uint64 [vertices]."""
        result = np.empty(len(vertex), np.uint64)
        for part, where, places in _by_part(vertex):
            result[where] = ranks(self._files.part(part), self._level, places)
        return result


def _by_part(vertex: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """For each part that has some: its number, where its vertices stand, and their places in it."""
    parts = (vertex >> np.uint64(32)).astype(np.int64)
    for part in np.unique(parts):
        where = np.flatnonzero(parts == part)
        yield int(part), where, (vertex[where] & np.uint64(0xFFFFFFFF)).astype(np.int64)


def pair_task(job: Job, level: Level, task: int) -> None:
    """Pairs of a range of band keys whose estimate reaches the threshold.

    Rows (vertex, other, rank, other_rank, equal bins), both ways round, by the scattered vertex. Memory: 50 bytes for
    each band key of the range, 200 for each pair found, 2^20 candidates and the signatures of 4096 of them.
    """
    rows = gather(job.part_paths(f"{level}/bands"), job.made_by, key_range(task, job.partitions))
    source = Signatures(job, level)
    needed = job.recipe.needed(job.threshold(level))
    found: list[Found] = [np.empty((0, 3), np.uint64)]
    for pairs in _candidates(rows, job.recipe.max_bucket):
        found.append(_compared(pairs, source, needed))
    for bucket in _large_buckets(rows, job.recipe.max_bucket):
        found.extend(_with_leaders(bucket, source, needed, job.recipe.max_leaders))
    vertex, other, equal = unique_rows(np.concatenate(found)).T
    rank, other_rank = source.rank(vertex), source.rank(other)
    both = {"vertex": (vertex, other), "other": (other, vertex), "rank": (rank, other_rank),
            "other_rank": (other_rank, rank), "equal": (equal, equal)}
    columns = {name: np.concatenate(pair) for name, pair in both.items()}
    write_table(job.path(f"{level}/pairs", task), job.made_by, mixed(columns["vertex"]), columns)


def _buckets(rows: Columns) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Vertices sorted by key, and where each key's run of them starts and how long it is."""
    order = np.lexsort([rows["vertex"], rows["key"]])
    keys = rows["key"][order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.int64)
    return rows["vertex"][order], starts, np.diff(np.append(starts, len(keys)))


def _candidates(rows: Columns, max_bucket: int) -> Iterator[NDArray[np.uint64]]:
    """uint64 [pairs, 2]: all pairs of the buckets of 2 to `max_bucket` members; most of them come once."""
    members, starts, sizes = _buckets(rows)
    for size in np.unique(sizes[(sizes > 1) & (sizes <= max_bucket)]):
        first = starts[sizes == size]
        one, two = np.triu_indices(size, 1)
        step = max(1, _CANDIDATES // len(one))
        for i in range(0, len(first), step):
            bucket = members[first[i : i + step, None] + np.arange(size)]
            pairs = unique_rows(np.stack([bucket[:, one].reshape(-1), bucket[:, two].reshape(-1)], axis=1))
            for j in range(0, len(pairs), _PAIRS):
                yield pairs[j : j + _PAIRS]


def _compared(pairs: NDArray[np.uint64], source: Signatures, needed: int) -> Found:
    vertex, other = pairs[:, 0], pairs[:, 1]
    equal = (source.read(vertex) == source.read(other)).sum(axis=1).astype(np.uint64)
    good = equal >= needed
    return np.concatenate([pairs[good], equal[good, None]], axis=1)


def _large_buckets(rows: Columns, max_bucket: int) -> Iterator[NDArray[np.uint64]]:
    members, starts, sizes = _buckets(rows)
    for first, size in zip(starts[sizes > max_bucket], sizes[sizes > max_bucket], strict=True):
        yield members[first : first + size]


def _with_leaders(bucket: NDArray[np.uint64], source: Signatures, needed: int, max_leaders: int) -> Iterator[Found]:
    """Pairs of the members of a large bucket with its leaders: time and memory are linear in the members."""
    bucket = bucket[np.lexsort([bucket, source.rank(bucket)])]
    leaders: list[tuple[np.uint64, NDArray[np.uint32]]] = []
    for i in range(0, len(bucket), _MEMBERS):
        members = bucket[i : i + _MEMBERS]
        values = source.read(members)
        free = np.ones(len(members), bool)
        number = 0
        while True:
            if number == len(leaders):
                if not free.any() or number == max_leaders:
                    break
                first = int(np.argmax(free))
                leaders.append((members[first], values[first].copy()))
            leader, leader_values = leaders[number]
            number += 1
            equal = (values == leader_values).sum(axis=1).astype(np.uint64)
            near = (equal >= needed) & (members != leader)
            free &= ~near & (members != leader)
            yield np.stack([np.minimum(members, leader), np.maximum(members, leader), equal], axis=1)[near]
