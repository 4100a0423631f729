"""The steps from repositories to documents in their order: scatter, read, dedup, screen, split, order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, canonical_json, read_json, sha256_bytes, sha256_file
from tritwise.config import CorpusRecipe, DataRecipe
from tritwise.data import dedup
from tritwise.data.contamination import TestSets, load_test_sets
from tritwise.data.documents import DOCUMENTS, Document, part_file
from tritwise.data.flow import Counts, Step, each_count, sizes_of
from tritwise.data.plan import SavedParts, partition_count, share_out
from tritwise.data.read import Reader
from tritwise.data.sources import Repository, find_repositories, fingerprint, scatter, trained_only
from tritwise.data.split import choose_held_out
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
    write_part,
)
from tritwise.data.tally import Tally, add_tallies, sum_of

# Raised when the code of a step changes what it writes.
VERSIONS = {"scatter": 1, "read": 3, "dedup": 1, "screen": 2, "split": 1, "order": 1}
HELD_OUT = "held_out.json"
SCATTERED = "scattered"


@dataclass(frozen=True)
class Plan:
    """What is read: parts of whole repositories, and the Parquet files whose rows are brought together first.

    `size` is in bytes as they are stored.
    """

    parts: tuple[tuple[Repository, ...], ...]
    tables: tuple[Repository, ...]
    trained_only: frozenset[str]
    fingerprint: str
    size: int

    @classmethod
    def of(cls, recipe: CorpusRecipe) -> "Plan":
        repositories = find_repositories(recipe.data.sources)
        tables = tuple(repository for repository in repositories if repository.kind == "parquet")
        rest = [repository for repository in repositories if repository.kind != "parquet"]
        parts = tuple(share_out(rest, recipe.seed, recipe.data.part_bytes))
        return cls(parts, tables, trained_only(rest), fingerprint(repositories),
                   sum(repository.size for repository in repositories))


class Corpus:
    """The documents of a recipe in the making: the steps, and what they left."""

    def __init__(self, recipe: CorpusRecipe, out: Path, plan: Plan) -> None:
        self.recipe, self.out, self.plan = recipe, Path(out), plan
        self.work = self.out / "work"
        self.buckets = recipe.data.sources.buckets if plan.tables else 0
        self.part_count = len(plan.parts) + self.buckets
        self._keys: dict[str, str] = {}
        data = recipe.data
        stages = [Filter(data.filters), Redact(data.secrets), FindFacts()]
        # Under the name of what it holds: a task of an earlier plan that still runs somewhere reads its own.
        parts = SavedParts.save(self.work / f"plan-{_hash(self._sources_key())[:16]}.jsonl", plan.parts)
        self.read = self._step("read", self.part_count, partial(read_task, data, parts, self.work / SCATTERED,
                                                                self.work / "read", stages),
                               self._sources_key(), data.filters, data.secrets,
                               size=partial(stored_size, plan.parts, plan.tables, self.buckets))
        self.duplicates = self._dedup_steps()
        sets = self._test_sets()
        self.screen = self._step("screen", self.part_count,
                                 partial(_screen, data, self.work, self._dedup_folder(), sets is not None),
                                 self._keys["dedup"], data.screening, _model_hash(data), data.secrets, sets,
                                 size=sizes_of(self._parts_in(self.work / "read")))
        self.split = self._step("split", 1, partial(_split, recipe, self.work, self.screen, plan.trained_only),
                                self._keys["screen"], data.held_out_fraction, recipe.seed)
        self.order = self._step("order", self.part_count, partial(_order, recipe, self.work, self.out),
                                self._keys["split"], data.order, recipe.seed,
                                size=sizes_of(self._parts_in(self.work / "screened")))

    def steps(self) -> list[Step]:
        """All of them, in their order."""
        scattering = [self._step("scatter", len(self.plan.tables), partial(
            scatter_task, self.recipe.data, self.plan.tables, self.work / SCATTERED), self.plan.fingerprint)]
        return [*(scattering if self.plan.tables else []), self.read, *self.duplicates, self.screen, self.split,
                self.order]

    def key(self) -> str:
        """What the documents are the result of."""
        return self._keys["order"]

    def parts(self) -> list[Path]:
        """The files of the documents."""
        return self._parts_in(self.out / DOCUMENTS)

    def tally(self, work: Path) -> Tally:
        """What was kept and dropped; samples and replacements are those of the steps that made them."""
        result = add_tallies(counts["tally"] for counts in each_count(work, self.order))
        read, screened = (add_tallies(counts["tally"] for counts in each_count(work, step))
                          for step in (self.read, self.screen))
        result["samples"] = read["samples"] | {rule: samples for rule, samples in screened["samples"].items()
                                               if rule not in read["samples"]}
        result["redacted"] = read["redacted"]
        return result

    def held_out(self) -> frozenset[str]:
        """Names of the held-out repositories."""
        return _held_out(self.work)

    def repository_count(self) -> int:
        """Repositories that have a file, kept or not."""
        return sum(counts["repositories"] for counts in each_count(self.work, self.read))

    def clusters(self) -> dict[str, Any]:
        """The largest clusters of duplicates, by rule."""
        path = self._dedup_folder() / "clusters.json"
        return read_json(path, what="clusters of duplicates") if self.duplicates else {}

    def timed(self, work: Path) -> Iterator[tuple[str, list[Step], int]]:
        """Steps under the name of their stage, with the bytes of files that went into it."""
        everything, kept = self._bytes(work, self.read, dropped=True), self._bytes(work, self.read)
        for step in self.steps():
            if step.name == "scatter" or step is self.read:
                yield step.name, [step], everything
        yield "dedup", self.duplicates, kept
        yield from (("screen", [self.screen], kept), ("split", [self.split], 0),
                    ("order", [self.order], self._bytes(work, self.order)))

    def _bytes(self, work: Path, step: Step, *, dropped: bool = False) -> int:
        tally = add_tallies(counts["tally"] for counts in each_count(work, step))
        return sum_of(tally["kept"])[1] + dropped * sum(sum_of(each)[1] for each in tally["dropped"].values())

    def _step(self, name: str, tasks: int, run: Any, *reads: Any, size: Callable[[int], int] | None = None) -> Step:
        self._keys[name] = _hash([name, VERSIONS[name], tasks, *reads])
        return Step(name, tasks, run, self._keys[name], size=size)

    def _parts_in(self, directory: Path) -> list[Path]:
        return [part_file(directory, number) for number in range(self.part_count)]


    def _sources_key(self) -> list[Any]:
        data = self.recipe.data
        return [self.plan.fingerprint, data.sources.model_dump(mode="json", exclude={"paths", "folders"}),
                data.max_repository_bytes, data.part_bytes, self.recipe.seed]

    def _dedup_steps(self) -> list[Step]:
        settings = self.recipe.data.dedup
        partitions = partition_count(self.plan.size, self.recipe.data.partitions)
        self._keys["dedup"] = _hash(["dedup", VERSIONS["dedup"], self._keys["read"], settings, partitions])
        if not (settings.exact or settings.files or settings.repositories) or not self.part_count:
            return []
        parts = self._parts_in(self.work / "read")
        return [Step(f"dedup/{step.name}", step.tasks, step.run, self._keys["dedup"], step.needless, step.size)
                for step in dedup.steps(parts, self._dedup_folder(), settings, partitions)]

    def _dedup_folder(self) -> Path:
        """Of these settings alone: the mark that its rounds have converged must not be taken for that of others."""
        return self.work / f"dedup-{self._keys['dedup'][:16]}"

    def _test_sets(self) -> str | None:
        """Write the index of the test sets where the tasks find it; returns its hash."""
        settings = self.recipe.data.decontamination
        if not settings.sets:
            return None
        sets = load_sets(settings.sets, settings.rules)
        path = self.work / "test-sets.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        sets.save(path)
        return sha256_bytes(path.read_bytes())


def load_sets(paths: Iterable[str], rules: Any) -> TestSets:
    """The test sets of files and directories; a single file that `TestSets.save` wrote is taken as it is."""
    paths = [Path(path) for path in paths]
    if len(paths) == 1 and paths[0].is_file():
        try:
            return TestSets.load(paths[0])
        except TritwiseError:  # it is a test set itself
            pass
    return TestSets.build(load_test_sets(paths), rules)


def _model_hash(data: DataRecipe) -> str | None:
    model = data.screening.quality_model
    if model is None:
        return None
    if not Path(model).is_file():
        raise TritwiseError(f"{model} does not exist", why="data.screening.quality_model names it",
                            fix="tritwise data quality train")
    return sha256_file(Path(model))


def _hash(values: list[Any]) -> str:
    plain = [value.model_dump(mode="json") if hasattr(value, "model_dump") else value for value in values]
    return sha256_bytes(canonical_json(plain).encode())


def stored_size(parts: Sequence[Sequence[Repository]], tables: Sequence[Repository], buckets: int, rank: int) -> int:
    """Bytes of a part as its repositories are stored; of a bucket, its share of the tables."""
    return sum(each.size for each in parts[rank]) if rank < len(parts) else sum(each.size for each in tables) // buckets


def scatter_task(data: DataRecipe, tables: Sequence[Repository], scattered: Path, rank: int) -> Counts:
    """Bring the rows of one Parquet file into buckets below `scattered`."""
    sources = data.sources
    directory = scatter(tables[rank].location, scattered, sources.buckets, max_bytes=sources.max_bytes)
    return {"directory": directory.name}


def read_task(data: DataRecipe, parts: Sequence[Sequence[Repository]] | SavedParts, scattered: Path, out: Path,
              stages: Sequence[Stage], rank: int) -> Counts:
    """Read a part's repositories, or those of a bucket when `rank` is behind all parts, into a part of `out`."""
    reader = Reader(data.sources, data.max_repository_bytes)
    documents = (reader.repositories(parts[rank]) if rank < len(parts) else
                 reader.bucket(sorted(scattered.iterdir()), rank - len(parts)))
    names: set[str] = set()
    tally = write_part(part_file(out, rank), _named(names, documents), stages, data.secrets)
    return {"tally": tally, "repositories": len(names)}


def _named(names: set[str], documents: Iterable[Document]) -> Iterator[Document]:
    """The documents; collects the names of their repositories."""
    for document in documents:
        names.add(document.repository)
        yield document


def _screen(data: DataRecipe, work: Path, duplicates: Path, has_sets: bool, rank: int) -> Counts:
    stages: list[Stage] = [Screen(data.screening)]
    if data.dedup.exact or data.dedup.files or data.dedup.repositories:
        stages.insert(0, DropDuplicates(dedup.decision_path(duplicates, rank)))
    if has_sets:
        stages.append(Decontaminate(work / "test-sets.json"))
    kept: dict[str, int] = {}
    out = part_file(work / "screened", rank)
    tally = transform(part_file(work / "read", rank), out, [*stages, partial(_counted, kept)], data.secrets)
    return {"tally": tally, "kept_bytes": kept}


def _counted(kept: dict[str, int], documents: Iterable[Document]) -> Iterator[Document]:
    """The documents; adds up the kept text of each repository, in bytes."""
    for document in documents:
        if document.is_kept:
            kept[document.repository] = kept.get(document.repository, 0) + len(document.text.encode())
        yield document


def _split(recipe: CorpusRecipe, work: Path, screen: Step, only_trained: frozenset[str], rank: int) -> Counts:
    sizes = {name: size for counts in each_count(work, screen) for name, size in counts["kept_bytes"].items() if size}
    held_out = choose_held_out(sizes, recipe.data.held_out_fraction, recipe.seed,
                               may_be_held_out=lambda name: name not in only_trained) if sizes else []
    atomic_write_json(work / HELD_OUT, held_out)
    return {"repositories": len(sizes), "held_out": len(held_out)}


def _held_out(work: Path) -> frozenset[str]:
    return frozenset(read_json(work / HELD_OUT, what="the names of held-out repositories"))


def _order(recipe: CorpusRecipe, work: Path, out: Path, rank: int) -> Counts:
    stage = PutInOrder(recipe.data.order, recipe.seed, _held_out(work))
    tally = transform(part_file(work / "screened", rank), part_file(out / DOCUMENTS, rank), [stage],
                      recipe.data.secrets)
    return {"tally": tally}
