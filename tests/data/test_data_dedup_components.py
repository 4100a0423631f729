"""Connected components in rounds of tasks over files, against networkx."""

from pathlib import Path
from tempfile import TemporaryDirectory

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup.components import large_star, large_task, middles, small_star, small_task
from tritwise.data.dedup.job import Job
from tritwise.data.dedup.tables import mixed, write_table

VERTICES = st.integers(0, 12) | st.sampled_from([1 << 32, (1 << 32) + 1, 5 << 32, 2**64 - 1])
EDGES = st.lists(st.tuples(VERTICES, VERTICES).filter(lambda edge: edge[0] != edge[1]), max_size=40)


def both_ways(edges) -> np.ndarray:
    array = np.array(edges, np.uint64).reshape(-1, 2)
    return np.concatenate([array, array[:, ::-1]])


def smallest_of_components(edges) -> dict[int, int]:
    """The smallest vertex of the component of each vertex that is not the smallest itself."""
    return {v: min(members) for members in networkx.connected_components(networkx.Graph(edges))
            for v in members if v != min(members)}


@settings(deadline=None)
@given(EDGES)
def test_rounds_end_in_stars_around_the_smallest_vertex(edges):
    neighbours = both_ways(edges)
    for _ in range(10):
        stars, done = large_star(neighbours)
        if done:
            break
        neighbours = both_ways(small_star(stars))
    assert done
    assert dict(stars.tolist()) == smallest_of_components(edges)


@pytest.mark.parametrize("length", [2, 3, 1000])
def test_a_path_takes_no_more_rounds_than_the_logarithm_of_its_length_and_edges_do_not_multiply(length):
    neighbours = both_ways([(i, i + 1) for i in range(length - 1)])
    rounds = 0
    while not large_star(neighbours)[1]:
        neighbours = both_ways(small_star(large_star(neighbours)[0]))
        assert len(neighbours) <= 2 * (length - 1)
        rounds += 1
    assert rounds <= np.ceil(np.log2(length))


def job_with_pairs(folder: str, edges, partitions: int, max_rounds: int = 5) -> Job:
    """A job whose pairs are these edges, spread over the files as if found by several tasks."""
    job = Job((Path("00000.parquet"),), Path(folder), DedupRecipe(max_rounds=max_rounds), partitions)
    for task in range(partitions):
        rows = both_ways(edges[task::partitions])
        write_table(job.path("files/pairs", task), job.made_by, mixed(rows[:, 0]),
                    {"vertex": rows[:, 0], "other": rows[:, 1]})
    return job


def run_rounds(job: Job) -> dict[int, int]:
    for number in range(job.recipe.max_rounds):
        for task_of in (large_task, small_task):
            for task in reversed(range(job.partitions)):
                task_of(job, "files", number, task)
                task_of(job, "files", number, task)  # a task may run again
    return {int(v): int(m) for task in range(job.partitions)
            for v, m in zip(*middles(job, "files", task), strict=True)}


@settings(max_examples=6, deadline=None)
@given(edges=EDGES, partitions=st.integers(1, 3))
def test_tasks_over_files_find_the_components_whatever_the_number_of_partitions(edges, partitions):
    with TemporaryDirectory() as folder:
        assert run_rounds(job_with_pairs(folder, edges, partitions)) == smallest_of_components(edges)


def test_rounds_after_convergence_write_nothing_and_too_few_rounds_are_an_error(tmp_path):
    edges = [(i, i + 1) for i in range(7)]
    job = job_with_pairs(str(tmp_path), edges, 2)
    assert set(run_rounds(job).values()) == {0}
    assert job.path("files/large-3", 0).exists()
    assert not job.path("files/large-4", 0).exists()
    few = job_with_pairs(str(tmp_path / "few"), edges, 2, max_rounds=2)
    with pytest.raises(TritwiseError, match=r"2 rounds were too few(.|\n)*dedup.max_rounds"):
        run_rounds(few)
    more = Job(few.parts, few.folder, DedupRecipe(max_rounds=5), 2)  # goes on from where the rounds ended
    assert set(run_rounds(more).values()) == {0}
