"""Decisions: which repositories and files of a part are dropped, and for which survivor.

A part's decisions are a file of JSON lines: repositories, files with equal text, near-duplicate files, each by their
place in the part. `clusters.json` lists the largest groups of duplicates for a report.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_file, atomic_write_json, canonical_json, open_regular, read_json
from tritwise.data.dedup.job import Job, SignatureFiles, part_keys, part_of, place_in_part
from tritwise.data.dedup.tables import Columns, gather, name_at
from tritwise.data.documents import Document

Rule = Literal["near_duplicate_repository", "duplicate", "near_duplicate"]
# Names of the steps whose vertices a rule drops, and whether these are files.
_SOURCES: dict[str, tuple[Rule, bool]] = {
    "repositories": ("near_duplicate_repository", False),
    "texts": ("duplicate", True),
    "files": ("near_duplicate", True),
}


@dataclass(frozen=True)
class Decision:
    """A repository (`path` None) or a file that is dropped for a survivor; `jaccard` is estimated, 1 for equal text."""

    repository: str
    path: str | None
    dropped_by: Rule
    survivor_repository: str
    survivor_path: str | None
    jaccard: float

    @property
    def detail(self) -> str:
        """What a document says of it: the survivor and the similarity."""
        survivor = " ".join(name for name in (self.survivor_repository, self.survivor_path) if name is not None)
        return f"{survivor}, Jaccard {self.jaccard:.3f}"


def _dropped(job: Job, source: str, task: int) -> Columns:
    """What a step drops of a part: vertex, survivor, equal bins."""
    return gather(job.partition_paths(f"{source}/dropped"), job.made_by, part_keys(task))


def _places(vertex: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (vertex & np.uint64(0xFFFFFFFF)).astype(np.int64)


def surviving_files(job: Job, task: int, columns: Columns, *, exact: bool = True, near: bool = True,
                    ) -> NDArray[np.bool_]:
    """bool for each kept file of a part: its repository stays, and so does it after the steps that are named."""
    stays = np.ones(len(columns["file_bytes"]), bool)
    if job.recipe.repositories:
        of_repository = np.ones(len(columns["repository_bytes"]), bool)
        of_repository[_places(_dropped(job, "repositories", task)["vertex"])] = False
        stays &= of_repository[columns["file_repository"]]
    for source, wanted in (("texts", exact and job.recipe.exact), ("files", near and job.recipe.files)):
        if wanted:
            stays[_places(_dropped(job, source, task)["vertex"])] = False
    return stays


class _Names:
    """Names of any vertices, from the memory-mapped signature files."""

    def __init__(self, job: Job) -> None:
        self._files = SignatureFiles(job)

    def of(self, vertex: int, is_file: bool) -> tuple[str, str | None]:
        """(repository, path); the path of a repository is None."""
        columns, place = self._files.part(part_of(vertex)), place_in_part(vertex)
        repository = int(columns["file_repository"][place]) if is_file else place
        name = name_at(columns["repository_names"], columns["repository_name_ends"], repository)
        return name, name_at(columns["paths"], columns["path_ends"], place) if is_file else None


def _active(job: Job) -> list[str]:
    recipe = job.recipe
    switches = {"repositories": recipe.repositories, "texts": recipe.exact, "files": recipe.files}
    return [source for source in _SOURCES if switches[source]]


def decision_task(job: Job, task: int) -> None:
    """The decisions on a part, as JSON lines."""
    names = _Names(job)
    with atomic_file(job.path("decisions", task, "jsonl")) as file:
        for source in _active(job):
            rule, is_file = _SOURCES[source]
            rows = _dropped(job, source, task)
            for i in np.argsort(rows["vertex"], kind="stable"):
                survivor = names.of(rows["survivor"][i], is_file)
                jaccard = int(rows["equal"][i]) / job.recipe.permutations
                decision = Decision(*names.of(rows["vertex"][i], is_file), rule, *survivor, jaccard)
                file.write(f"{canonical_json(asdict(decision))}\n".encode("utf-8", "surrogateescape"))


def cluster_task(job: Job, task: int) -> None:
    """clusters.json: of each kind the largest groups of duplicates with members and how many of them stay."""
    names = _Names(job)
    result = {}
    for source in _active(job):
        is_file = _SOURCES[source][1]
        clusters = []
        for other in range(job.partitions):
            clusters += read_json(job.path(f"{source}/clusters", other, "json"), what="clusters of duplicates")
        clusters.sort(key=lambda cluster: (-cluster["members"], cluster["listed"][0]))
        result[_SOURCES[source][0]] = [
            cluster | {"listed": [list(names.of(vertex, is_file)) for vertex in cluster["listed"]]}
            for cluster in clusters[: job.recipe.listed_clusters]]
    atomic_write_json(job.folder / "clusters.json", result)


def read_decisions(path: Path) -> list[Decision]:
    """The decisions on a part. Raises TritwiseError when the file is missing or holds anything else."""
    try:
        with open_regular(path) as file:
            return [_checked(json.loads(line)) for line in file]
    except FileNotFoundError:
        raise TritwiseError(f"{path} does not exist", why="the decisions of deduplication were expected there",
                            fix="run all its steps") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise TritwiseError(f"{path} does not hold decisions of deduplication", why=str(error)) from None


def _checked(value: dict) -> Decision:
    decision = Decision(**value)
    texts = (decision.repository, decision.survivor_repository)
    paths = (decision.path, decision.survivor_path)
    if not all(isinstance(t, str) for t in texts) or not all(p is None or isinstance(p, str) for p in paths) or (
            decision.dropped_by not in get_args(Rule)) or not isinstance(decision.jaccard, int | float) or (
            not 0 <= decision.jaccard <= 1 or (decision.path is None) != (decision.survivor_path is None)):
        raise ValueError(f"{canonical_json(value)} is no decision")
    return decision


def apply(documents: Iterable[Document], decisions: Iterable[Decision]) -> Iterator[Document]:
    """The documents of a part in their order; what is dropped loses its text and says by which rule and for whom.

    Documents that an earlier stage dropped stay as they are.
    """
    fate = {(decision.repository, decision.path): decision for decision in decisions}
    for document in documents:
        decision = fate.get((document.repository, None)) or fate.get((document.repository, document.path))
        if decision is None or not document.is_kept:
            yield document
        else:
            yield replace(document, text="", dropped_by=decision.dropped_by, detail=decision.detail)
