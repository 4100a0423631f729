"""Connected components of the pairs without a task that holds all of them: alternating large-star and small-star.

Kiveris, Lattanzi, Mirrokni, Rastogi and Vassilvitskii, Connected Components in MapReduce and Beyond (SoCC 2014):

    large-star   each vertex ties its larger neighbours to the smallest of its neighbours and itself
    small-star   each vertex ties its smaller neighbours and itself to the smallest of them

A task sees the neighbours of the vertices of its range of scattered numbers. Rounds end when every vertex is the middle
of a star, smaller than all its neighbours, or has one neighbour only, a smaller one: each task can say so of its own
vertices. The middle is then the smallest vertex of its component.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.data.dedup.job import Job, Level
from tritwise.data.dedup.tables import gather, key_range, mixed, read_columns, unique_rows, write_columns, write_table

Edges = NDArray[np.uint64]  # [edges, 2]


def _grouped(edges: Edges) -> tuple[Edges, NDArray[np.int64], NDArray[np.int64]]:
    """Edges sorted and without repeats; where each first vertex begins; the group of each edge."""
    edges = unique_rows(edges)
    new = np.append(True, edges[1:, 0] != edges[:-1, 0])[: len(edges)]
    return edges, np.flatnonzero(new), np.cumsum(new) - 1


def large_star(edges: Edges) -> tuple[Edges, bool]:
    """What the vertices in the first column emit, each with all its neighbours; and whether all stand in stars."""
    edges, starts, group = _grouped(edges)
    vertex, other = edges.T
    smallest = np.minimum(vertex[starts], other[starts])  # neighbours rise inside a group
    larger = other > vertex
    degree = np.diff(np.append(starts, len(edges)))
    is_star = bool(np.all(larger[starts] | (degree == 1)))
    return np.stack([other[larger], smallest[group][larger]], axis=1), is_star


def small_star(edges: Edges) -> Edges:
    """What the vertices in the first column emit, each with all its smaller neighbours."""
    edges, starts, group = _grouped(edges)
    vertex, other = edges.T
    smallest = other[starts]
    moved = other != smallest[group]
    return unique_rows(np.concatenate([np.stack([other[moved], smallest[group][moved]], axis=1),
                                   np.stack([vertex[starts], smallest], axis=1)]))


def large_task(job: Job, level: Level, number: int, task: int) -> None:
    """Large-star of a round: rows (vertex, other), other < vertex, by scattered vertex; and if all stood in stars."""
    if _marker(job, level).exists():
        return
    source = f"{level}/pairs" if number == 0 else f"{level}/small-{number - 1}"
    edges, is_star = large_star(_neighbours(job, source, task))
    _write(job, f"{level}/large-{number}", task, edges)
    write_columns(_flag(job, level, number, task), job.made_by, {"is_star": np.array([is_star], np.uint8)})


def small_task(job: Job, level: Level, number: int, task: int) -> None:
    """Small-star of a round, both ways round; or the mark that large-star found stars only."""
    if _marker(job, level).exists():
        return
    flags = (_flag(job, level, number, other) for other in range(job.partitions))
    if all(read_columns(flag, job.made_by)["is_star"].all() for flag in flags):
        write_columns(_marker(job, level), job.made_by, {"round": np.array([number], np.int64)})
        return
    edges = small_star(_neighbours(job, f"{level}/large-{number}", task))
    _write(job, f"{level}/small-{number}", task, np.concatenate([edges, edges[:, ::-1]]))


def middles(job: Job, level: Level, task: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The vertices of a range that are not the middle of their star, rising, and the middle of each.

    Raises TritwiseError when the planned rounds were too few.
    """
    if not _marker(job, level).exists():
        raise TritwiseError(f"{job.recipe.max_rounds} rounds were too few for the connected components",
                            why="some component is not a star yet", fix="give dedup.max_rounds more")
    number = int(read_columns(_marker(job, level), job.made_by)["round"][0])
    edges = unique_rows(_neighbours(job, f"{level}/large-{number}", task))
    return edges[:, 0], edges[:, 1]


def _neighbours(job: Job, step: str, task: int) -> Edges:
    rows = gather(job.partition_paths(step), job.made_by, key_range(task, job.partitions))
    return np.stack([rows["vertex"], rows["other"]], axis=1)


def _write(job: Job, step: str, task: int, edges: Edges) -> None:
    write_table(job.path(step, task), job.made_by, mixed(edges[:, 0]), {"vertex": edges[:, 0], "other": edges[:, 1]})


def converged(job: Job, level: Level) -> bool:
    """Whether an earlier round found stars only, so that later ones have nothing to do."""
    return _marker(job, level).exists()


def _marker(job: Job, level: Level) -> Path:
    """Holds the number of the round whose large-star found stars only."""
    return job.folder / level / "converged.safetensors"


def _flag(job: Job, level: Level, number: int, task: int) -> Path:
    return job.path(f"{level}/large-{number}-is-star", task)
