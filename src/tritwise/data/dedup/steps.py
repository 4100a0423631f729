"""The steps of a deduplication, each a number of tasks that know only files.

    signatures   part    names, sizes, hashes and signatures of its repositories and files
    bands        part    a row for each band of each signature                          | for repositories,
    pairs        range   of band keys: what shares one and is similar                   | then for files of those
    large, small range   of vertices: rounds of large-star and small-star               | that stay. In between
    joined       range   of vertices: pairs with the middle of their component's star   | texts/hashes, texts/dropped:
    dropped      range   of components: who is dropped for whom                         | files with equal text
    decisions    part    decisions on its repositories and files, as JSON lines
    clusters     one     the largest groups, for a report

Exact duplicates are looked for when whole repositories have gone: a fork keeps the files that it shares with its origin
until both were compared as wholes, and no file is dropped for one that goes with its repository.

A task reads files of earlier steps and writes its own ones atomically; it may run in any process and order within its
step, and again. The rounds of components are planned up to `max_rounds`; a task that finds the mark of convergence does
nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tritwise.common.errors import TritwiseError
from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup.components import converged, large_task, small_task
from tritwise.data.dedup.decisions import cluster_task, decision_task
from tritwise.data.dedup.job import Job, Level
from tritwise.data.dedup.keep import join_task, keep_task, text_keep_task, text_task
from tritwise.data.dedup.pairs import pair_task
from tritwise.data.dedup.signatures import band_task, signature_task
from tritwise.data.flow import sizes_of


class Step(NamedTuple):
    """`run(rank)` does task `rank`, 0 to tasks - 1; it can be pickled. `needless` says that no task has to.

    `size(rank)` is how many bytes of documents the task reads; None where tasks read none.
    """

    name: str
    tasks: int
    run: Callable[[int], None]
    needless: Callable[[], bool] | None = None
    size: Callable[[int], int] | None = None


def steps(parts: Sequence[Path], folder: Path, recipe: DedupRecipe, partitions: int) -> list[Step]:
    """The steps for a corpus in their order: each needs all tasks of those before it.

    `folder` takes what the tasks write: one for each corpus and setting. `partitions` is the number of tasks of the
    steps that are shuffled by key; a task's memory falls with it, and no result depends on it.

    Raises TritwiseError when there is nothing to do.
    """
    if not parts or partitions < 1:
        raise TritwiseError("there is nothing to deduplicate", why=f"{len(parts)} parts, {partitions} partitions")
    job = Job(tuple(Path(part) for part in parts), Path(folder), recipe, partitions)
    result = [Step("signatures", len(parts), partial(signature_task, job), size=sizes_of(job.parts))]
    if recipe.repositories:
        result += _near(job, "repositories")
    if recipe.exact:
        result += [Step("texts/hashes", len(parts), partial(text_task, job)),
                   Step("texts/dropped", partitions, partial(text_keep_task, job))]
    if recipe.files:
        result += _near(job, "files")
    return [*result, Step("decisions", len(parts), partial(decision_task, job)),
            Step("clusters", 1, partial(cluster_task, job))]


def _near(job: Job, level: Level) -> list[Step]:
    result = [Step(f"{level}/bands", len(job.parts), partial(band_task, job, level)),
              Step(f"{level}/pairs", job.partitions, partial(pair_task, job, level))]
    for number in range(job.recipe.max_rounds):
        done = partial(converged, job, level)
        result += [Step(f"{level}/large-{number}", job.partitions, partial(large_task, job, level, number), done),
                   Step(f"{level}/small-{number}", job.partitions, partial(small_task, job, level, number), done)]
    return [*result, Step(f"{level}/joined", job.partitions, partial(join_task, job, level)),
            Step(f"{level}/dropped", job.partitions, partial(keep_task, job, level))]


def decision_path(folder: Path, part: int) -> Path:
    """Where the decisions on a part lie when all steps have run."""
    return Path(folder) / "decisions" / f"{part:05d}.jsonl"


def run(planned: Sequence[Step]) -> None:
    """All tasks of all steps, one after the other in this process: for small corpora and tests."""
    for step in planned:
        for rank in range(step.tasks):
            step.run(rank)
