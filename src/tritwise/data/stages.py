"""The stages between reading and tokens: each takes documents and gives documents, dropped ones without their text.

A stage is a small object that can be pickled; it is called with an iterable of documents, repository after repository,
and is lazy. `write_part` runs some of them into one part of a corpus. No row is lost: what a stage drops keeps its row
with the name of the rule and what decided.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from tritwise.config.data import ScreeningRecipe
from tritwise.config.data_rules import FilterSettings, SecretSettings
from tritwise.data import dedup
from tritwise.data.contamination import TestSets
from tritwise.data.documents import Document, by_repository, read_documents, save_documents
from tritwise.data.imports import Facts, dependencies, extract
from tritwise.data.imports.parse import SlowFileError
from tritwise.data.order import Order, order_files
from tritwise.data.read import drop
from tritwise.data.rules import broken_rule, by_kind, is_excluded, redact
from tritwise.data.screening import heuristics, syntax
from tritwise.data.screening.quality import QualityModel
from tritwise.data.tally import SAMPLE_CHARACTERS, Smallest, Tally, sample_key, tally

Stage = Callable[[Iterable[Document]], Iterator[Document]]


@dataclass(frozen=True)
class Filter:
    """Rule filters."""

    settings: FilterSettings

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if not document.is_kept:
                yield document
            elif is_excluded(document.path, self.settings):
                yield drop(document, "exclude")
            else:
                broken = broken_rule(document.text, document.language, self.settings)
                yield document if broken is None else drop(document, broken.rule, broken.detail)


@dataclass(frozen=True)
class Redact:
    """Secrets and personal data are replaced and counted, by rule in `counts`; nothing is dropped."""

    settings: SecretSettings

    def __call__(self, documents: Iterable[Document], counts: Counter[str] | None = None) -> Iterator[Document]:
        for document in documents:
            text, found = redact(document.text, self.settings) if document.is_kept else ("", None)
            if not found:
                yield document
                continue
            if counts is not None:
                counts.update(found)
            yield replace(document, text=text, redacted=document.redacted + sum(found.values()))


@dataclass(frozen=True)
class FindFacts:
    """Parse each file once for what dependencies are found from; a file that the parser is too slow for is dropped."""

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if not document.is_kept or document.facts is not None:
                yield document
                continue
            try:
                facts = extract(document.language, document.path, document.text.encode())
            except SlowFileError as error:
                yield drop(document, "slow", str(error))
                continue
            yield document if facts is None else replace(document, facts=facts.to_json())


@dataclass(frozen=True)
class DropDuplicates:
    """What deduplication decided on a part."""

    decisions: Path

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        return dedup.apply(documents, dedup.read_decisions(self.decisions))


@dataclass(frozen=True)
class Screen:
    """Syntax, signs of unreadable code, and the quality model."""

    settings: ScreeningRecipe

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            broken = self._broken(document) if document.is_kept else None
            yield document if broken is None else drop(document, *broken)

    def _broken(self, document: Document) -> tuple[str, str] | None:
        settings = self.settings
        if settings.check_syntax:
            wrong = Facts.from_json(document.facts).wrong_bytes if document.facts is not None else None
            broken = syntax.broken(document.language, document.text, wrong, settings.syntax)
            if broken is not None:
                return broken.rule, broken.detail
        if settings.check_heuristics:
            broken = heuristics.broken(document.text, document.language, settings.heuristics)
            if broken is not None:
                return broken.rule, broken.detail
        if settings.quality_model is not None:
            score = _quality_model(settings.quality_model).score(document.text)
            if score < settings.min_quality:
                return "quality", f"{score:.3f}"
        return None


@dataclass(frozen=True)
class Decontaminate:
    """Files that hold a part of a test set are dropped; `sets` is what `TestSets.save` wrote."""

    sets: Path

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        sets = _test_sets(str(self.sets))
        for document in documents:
            hits = sets.find(document.text) if document.is_kept else []
            if hits:
                yield drop(document, "contamination", f"{hits[0].set} {hits[0].item}: {hits[0].ngram}")
            else:
                yield document


@cache
def _quality_model(path: str) -> QualityModel:
    return QualityModel.load(Path(path))


@cache
def _test_sets(path: str) -> TestSets:
    return TestSets.load(Path(path))


@dataclass(frozen=True)
class PutInOrder:
    """Files of a repository in the order `how`, each with its split and position; dropped ones behind, by path."""

    how: Order
    seed: int
    held_out: frozenset[str] = frozenset()

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for name, members in by_repository(documents):
            kept = {document.path: document for document in members if document.is_kept}
            edges = repository_dependencies(name, members) if self.how == "topological" else {}
            # With a seed of each repository's own: `__init__.py` must not come early in all of them or in none.
            seed = int.from_bytes(hashlib.sha256(f"order\0{self.seed}\0{name}".encode()).digest()[:8], "little")
            order = order_files({path: edges.get(path, set()) & kept.keys() for path in kept}, self.how,
                                seed if self.how == "random" else None)
            split = "held_out" if name in self.held_out else "train"
            for position, path in enumerate(order):
                yield replace(kept[path], split=split, position=position)
            yield from (document for document in members if not document.is_kept)


def repository_dependencies(name: str, documents: Iterable[Document]) -> dict[str, set[str]]:
    """For each file with facts, the files of the repository that it depends on; files that were dropped are among them.

    `documents` are all of one repository, the dropped ones too: an empty `__init__.py` still makes a package.
    """
    documents = list(documents)
    facts = {document.path: Facts.from_json(document.facts) for document in documents if document.facts is not None}
    return dependencies(facts, paths=[document.path for document in documents], repository=name)


class _Samples:
    """Beginnings of a few of the texts that stages drop, by (repository, path)."""

    def __init__(self, secrets: SecretSettings) -> None:
        self._secrets = secrets
        self._of_rule: dict[str, Smallest] = {}

    def texts(self) -> dict[tuple[str, str], str]:
        """Of the files that a tally shows, without secrets."""
        return {name: redact(beginning, self._secrets)[0]
                for samples in self._of_rule.values() for name, beginning in samples.values()}

    def watch(self, stage: Stage, documents: Iterable[Document]) -> Iterator[Document]:
        """What `stage` gives. Of the documents that it drops the beginnings are kept that a tally will ask for."""
        beginnings: dict[tuple[str, str], str] = {}

        def seen() -> Iterator[Document]:
            for document in documents:
                if document.is_kept:
                    beginnings[document.repository, document.path] = document.text[:SAMPLE_CHARACTERS]
                yield document

        for document in stage(seen()):
            beginning = beginnings.pop((document.repository, document.path), None)
            if beginning is not None and document.dropped_by:
                name = document.repository, document.path
                self._of_rule.setdefault(document.dropped_by, Smallest()).add(sample_key(*name), (name, beginning))
            yield document


def write_part(out: Path, documents: Iterable[Document], stages: Sequence[Stage], secrets: SecretSettings) -> Tally:
    """Run stages over documents into the part `out`; returns the tally of what came out."""
    samples = _Samples(secrets)
    replaced: Counter[str] = Counter()
    for stage in stages:
        if isinstance(stage, Redact):
            stage = partial(stage, counts=replaced)
        documents = samples.watch(stage, documents)
    rows: list[Document] = []

    def counted() -> Iterator[Document]:
        for document in documents:
            rows.append(replace(document, text="", facts=None))
            yield document

    save_documents(out, counted())
    return tally(rows, samples.texts()) | {"redacted": by_kind(replaced)}


def transform(source: Path, out: Path, stages: Sequence[Stage], secrets: SecretSettings) -> Tally:
    """Run stages over the part `source` into the part `out`."""
    return write_part(out, read_documents(source), stages, secrets)
