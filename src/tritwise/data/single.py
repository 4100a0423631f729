"""One stage by itself: a corpus in, a corpus out, on all cores, resumable like a whole build.

A corpus is a directory of parts, or a data directory that has one. What a stage needs of settings it takes from a
`DataRecipe`.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tritwise.common.errors import TritwiseError
from tritwise.common.files import canonical_json, sha256_bytes, sha256_file
from tritwise.config import DataRecipe
from tritwise.data import dedup
from tritwise.data.corpus_steps import SCATTERED, load_sets, read_task, scatter_task, stored_size
from tritwise.data.documents import part_file, part_files
from tritwise.data.flow import Counts, Step, counts_of, run_steps, sizes_of
from tritwise.data.plan import SavedParts, partition_count, share_out
from tritwise.data.sources import find_repositories, fingerprint
from tritwise.data.stages import (
    Decontaminate,
    DropDuplicates,
    Filter,
    FindFacts,
    PutInOrder,
    Redact,
    Screen,
    Stage,
    transform,
)
from tritwise.data.tally import Tally, add_tallies

# What each stage that maps parts to parts is called.
STAGES: dict[str, Callable[[DataRecipe, int, Path], list[Stage]]] = {
    "filter": lambda data, seed, work: [Filter(data.filters)],
    "redact": lambda data, seed, work: [Redact(data.secrets)],
    "facts": lambda data, seed, work: [FindFacts()],
    "screen": lambda data, seed, work: [Screen(data.screening)],
    "decontaminate": lambda data, seed, work: [Decontaminate(_saved_sets(data, work))],
    "order": lambda data, seed, work: [PutInOrder(data.order, seed)],
}
WORK = ".work"


def read_corpus(data: DataRecipe, out: Path, *, seed: int = 0, workers: int | None = None) -> Tally:
    """Read the sources of `data` into the corpus `out`: every file is a row, and nothing is filtered yet."""
    out = free_directory(out)
    repositories = find_repositories(data.sources)
    tables = [repository for repository in repositories if repository.kind == "parquet"]
    rest = [repository for repository in repositories if repository.kind != "parquet"]
    planned = share_out(rest, seed, data.part_bytes)
    parts = SavedParts.save(out / WORK / "plan.jsonl", planned)
    buckets = data.sources.buckets if tables else 0
    scattered = out / WORK / SCATTERED
    key = _key("read", fingerprint(repositories), data.sources, data.max_repository_bytes, data.part_bytes, seed)
    steps = [Step("scatter", len(tables), partial(scatter_task, data, tables, scattered), key)] if tables else []
    steps.append(Step("read", len(parts) + buckets, partial(read_task, data, parts, scattered, out, []), key,
                      size=partial(stored_size, planned, tables, buckets)))
    return _finish(out, steps, workers)


def run_stage(name: str, corpus: Path, out: Path, data: DataRecipe, *, seed: int = 0,
              workers: int | None = None) -> Tally:
    """Run one of `STAGES` over a corpus; returns the tally of what came out."""
    sources = part_files(corpus)
    out = free_directory(out)
    stages = STAGES[name](data, seed, out / WORK)
    key = _key(name, _identity(sources), data, seed)
    return _finish(out, [Step(name, len(sources), partial(_transform, sources, out, stages, data), key,
                              size=sizes_of(sources))], workers)


def dedup_corpus(corpus: Path, out: Path, data: DataRecipe, *, workers: int | None = None) -> Tally:
    """Drop duplicates of a corpus; `clusters.json` in `out` lists the largest groups."""
    sources = part_files(corpus)
    out = free_directory(out)
    partitions = partition_count(sum(part.stat().st_size for part in sources), data.partitions)
    key = _key("dedup", _identity(sources), data.dedup, partitions)
    folder = out / WORK / key[:16]
    steps = [Step(step.name, step.tasks, step.run, key, step.needless, step.size)
             for step in dedup.steps(sources, folder, data.dedup, partitions)]
    run_steps(out / WORK, steps, workers=workers)
    shutil.copy(folder / "clusters.json", out / "clusters.json")
    return _finish(out, [Step("dedup", len(sources), partial(_drop_duplicates, sources, out, folder, data), key,
                              size=sizes_of(sources))], workers)


def free_directory(out: Path, work: str = WORK) -> Path:
    """The directory to write to; nothing is made yet.

    Raises TritwiseError when something stands there that is not what an unfinished stage left: a directory with `work`.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / work).is_dir())):
        raise TritwiseError(f"{out} is in the way", why="it exists, and no unfinished stage left it",
                            fix="another directory, or move this one away")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir():
        raise TritwiseError(f"{out} cannot be made", why=f"{above} is no directory")
    return out


def _finish(out: Path, steps: list[Step], workers: int | None) -> Tally:
    (out / WORK).mkdir(parents=True, exist_ok=True)  # before any part: it says that what stands here is unfinished
    run_steps(out / WORK, steps, workers=workers)
    tally = add_tallies(counts["tally"] for counts in counts_of(out / WORK, steps[-1]))
    shutil.rmtree(out / WORK)
    return tally


def _key(name: str, *values: object) -> str:
    plain = [value.model_dump(mode="json") if hasattr(value, "model_dump") else value for value in values]
    return sha256_bytes(canonical_json([name, *plain]).encode())


def _identity(parts: list[Path]) -> list[str]:
    return [sha256_file(part) for part in parts]


def _saved_sets(data: DataRecipe, work: Path) -> Path:
    if not data.decontamination.sets:
        raise TritwiseError("no test sets are given", fix="--sets HumanEval.jsonl.gz, or data.decontamination.sets")
    sets = load_sets(data.decontamination.sets, data.decontamination.rules)
    path = work / "test-sets.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    sets.save(path)
    return path


def _transform(sources: list[Path], out: Path, stages: list[Stage], data: DataRecipe, rank: int) -> Counts:
    return {"tally": transform(sources[rank], part_file(out, rank), stages, data.secrets)}


def _drop_duplicates(sources: list[Path], out: Path, folder: Path, data: DataRecipe, rank: int) -> Counts:
    return _transform(sources, out, [DropDuplicates(dedup.decision_path(folder, rank))], data, rank)
