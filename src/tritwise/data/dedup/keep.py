"""Who stays: of each group the vertex of the lowest rank, and whatever is no near-duplicate of what stays.

Vertices of a component are taken by rising rank. One that is paired with a vertex that stays is dropped for it (for the
most similar one, the lower rank among equals); any other stays. So each dropped text has a survivor that it was itself
compared with, and a chain of small changes never removes a text for one that does not resemble it.
"""

import numpy as np
from numpy.typing import NDArray

from tritwise.common.files import atomic_write_json
from tritwise.data.dedup.components import middles
from tritwise.data.dedup.decisions import surviving_files
from tritwise.data.dedup.job import Job, Level, vertices
from tritwise.data.dedup.signatures import ranks
from tritwise.data.dedup.tables import Columns, gather, key_range, mixed, read_columns, write_table

_PAIR = ("vertex", "other", "rank", "other_rank", "equal")


def join_task(job: Job, level: Level, task: int) -> None:
    """Pairs with the middle of their component, the one of better rank in `other`, by the scattered middle."""
    pairs = gather(job.partition_paths(f"{level}/pairs"), job.made_by, key_range(task, job.partitions))
    worse = (pairs["rank"] > pairs["other_rank"]) | (
        (pairs["rank"] == pairs["other_rank"]) & (pairs["vertex"] > pairs["other"]))
    pairs = {name: pairs[name][worse] for name in _PAIR}
    tied, middle = middles(job, level, task)
    place = np.searchsorted(tied, pairs["vertex"])
    known = np.append(tied, np.uint64(0))[place] == pairs["vertex"]
    known &= place < len(tied)
    root = np.where(known, np.append(middle, np.uint64(0))[place], pairs["vertex"])
    write_table(job.path(f"{level}/joined", task), job.made_by, mixed(root), {"root": root} | pairs)


def keep_task(job: Job, level: Level, task: int) -> None:
    """What is dropped in the components of a range: rows (vertex, survivor, equal bins) by vertex; largest clusters.

    Memory: about 150 bytes for each pair of the range's components.
    """
    rows = gather(job.partition_paths(f"{level}/joined"), job.made_by, key_range(task, job.partitions))
    pairs = {name: rows[name] for name in ("root", *_PAIR)}
    order = np.lexsort([pairs["other"], pairs["vertex"], pairs["rank"]])
    new = _differs(pairs["vertex"][order], pairs["other"][order])  # a pair comes once for each band that both share
    pairs = {name: column[order][new] for name, column in pairs.items()}
    dropped, survivor, equal = _independent(pairs)
    drops = {"vertex": dropped, "survivor": survivor, "equal": equal}
    write_table(job.path(f"{level}/dropped", task), job.made_by, drops["vertex"], drops)
    _write_clusters(job, level, task, pairs, drops)


def _differs(*columns: NDArray) -> NDArray[np.bool_]:
    changed = np.zeros(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        changed |= column[1:] != column[:-1]
    return np.append(True, changed)[: len(columns[0])]


def _independent(pairs: Columns) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Dropped vertices, their survivors and equal bins; pairs stand by the rising rank of their worse vertex."""
    survivor_of: dict[int, tuple[int, int, int]] = {}  # equal bins (negated), rank, vertex of the survivor
    gone: set[int] = set()
    columns = (pairs[name].tolist() for name in _PAIR)
    for vertex, other, _, other_rank, equal in zip(*columns, strict=True):
        if other in gone:
            continue
        gone.add(vertex)
        choice = (-equal, other_rank, other)
        if vertex not in survivor_of or choice < survivor_of[vertex]:
            survivor_of[vertex] = choice
    dropped = np.array(sorted(survivor_of), np.uint64)
    chosen = np.array([survivor_of[v] for v in sorted(survivor_of)], object).reshape(-1, 3)
    return dropped, chosen[:, 2].astype(np.uint64), (-chosen[:, 0]).astype(np.uint64)


def _write_clusters(job: Job, level: Level | str, task: int, pairs: Columns, drops: Columns) -> None:
    """The largest groups: how many members, how many of them stay, and the first members by rank."""
    roots = np.concatenate([pairs["root"], pairs["root"]])
    members = np.concatenate([pairs["vertex"], pairs["other"]])
    rank = np.concatenate([pairs["rank"], pairs["other_rank"]])
    order = np.lexsort([members, rank, roots])
    roots, members, rank = roots[order], members[order], rank[order]
    new = _differs(roots, members, rank)
    roots, members = roots[new], members[new]
    starts = np.flatnonzero(_differs(roots))
    sizes = np.diff(np.append(starts, len(roots)))
    gone = np.isin(members, drops["vertex"])
    result = []
    for i in np.lexsort([members[starts], -sizes])[: job.recipe.listed_clusters] if len(starts) else ():
        run = slice(starts[i], starts[i] + sizes[i])
        listed = members[run][: job.recipe.listed_members].tolist()
        result.append({"members": int(sizes[i]), "kept": int(sizes[i] - gone[run].sum()), "listed": listed})
    atomic_write_json(job.path(f"{level}/clusters", task, "json"), result)


def text_task(job: Job, task: int) -> None:
    """Rows (part of the hash, rest of the hash, vertex, rank) of a part's files in repositories that stay."""
    columns = read_columns(job.path("signatures", task), job.made_by)
    chosen = np.flatnonzero(surviving_files(job, task, columns, exact=False, near=False))
    hashes = columns["file_hashes"][chosen]
    write_table(job.path("texts/hashes", task), job.made_by, hashes[:, 0], {
        "rest": hashes[:, 1], "vertex": vertices(task, len(columns["file_bytes"]))[chosen],
        "rank": ranks(columns, "files", chosen)})


def text_keep_task(job: Job, task: int) -> None:
    """Of the files with equal text in a range of hashes the one of lowest rank stays: rows (vertex, survivor)."""
    rows = gather(job.part_paths("texts/hashes"), job.made_by, key_range(task, job.partitions))
    order = np.lexsort([rows["vertex"], rows["rank"], rows["rest"], rows["key"]])
    rows = {name: column[order] for name, column in rows.items()}
    first = _differs(rows["key"], rows["rest"])
    survivor = rows["vertex"][np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))] if len(first) else (
        rows["vertex"])
    survivor_rank = rows["rank"][np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))]
    gone = ~first
    drops = {"vertex": rows["vertex"][gone], "survivor": survivor[gone],
             "equal": np.full(int(gone.sum()), job.recipe.permutations, np.uint64)}
    write_table(job.path("texts/dropped", task), job.made_by, drops["vertex"], drops)
    pairs = {"root": drops["survivor"], "vertex": drops["vertex"], "other": drops["survivor"],
             "rank": rows["rank"][gone], "other_rank": survivor_rank[gone]}
    _write_clusters(job, "texts", task, pairs, drops)
