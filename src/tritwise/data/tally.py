"""Counts of what the stages kept and dropped, per rule and language: what a report shows, and sums over parts.

A tally is plain JSON data, made from the rows of documents alone, so any corpus can be counted again. The samples of a
rule are the dropped files whose names have the smallest hashes: a draw from all of them, whatever part they lie in.
"""

import hashlib
from bisect import insort
from collections.abc import Iterable, Mapping
from typing import Any

from tritwise.data.documents import Document

SAMPLES = 5  # of a rule
SAMPLE_CHARACTERS = 400

Tally = dict[str, Any]


def empty_tally() -> Tally:
    """`kept` {language: [files, bytes]}, `dropped` {rule: {language: [files, bytes]}}, `samples` {rule: [...]}.

    `redacted` {kind: count} is of the step that redacts alone: rows of documents hold sums without kinds.
    """
    return {"kept": {}, "dropped": {}, "samples": {}, "licences": {}, "redacted": {}, "repositories": 0}


def _count(table: dict[str, list[int]], key: str, size: int, files: int = 1) -> None:
    entry = table.setdefault(key, [0, 0])
    entry[0] += files
    entry[1] += size


def sample_key(repository: str, path: str) -> bytes:
    """What decides whether a file is shown: the smallest of a rule are."""
    return hashlib.sha256(f"sample\0{repository}\0{path}".encode("utf-8", "surrogatepass")).digest()


class Smallest:
    """The values with the smallest keys, at most `SAMPLES` of them; keys differ."""

    def __init__(self) -> None:
        self._entries: list[tuple[bytes, Any]] = []

    def takes(self, key: bytes) -> bool:
        """Whether a value with this key would be among them."""
        return len(self._entries) < SAMPLES or key < self._entries[-1][0]

    def add(self, key: bytes, value: Any) -> None:
        """Put a value among them when it belongs there; what no longer does is forgotten."""
        if self.takes(key):
            insort(self._entries, (key, value), key=lambda entry: entry[0])
            del self._entries[SAMPLES:]

    def values(self) -> list[Any]:
        """By rising key."""
        return [value for _, value in self._entries]


def tally(documents: Iterable[Document], texts: Mapping[tuple[str, str], str] | None = None) -> Tally:
    """Count documents. Bytes are those of the files on disk.

    `texts` gives the beginnings of texts that were dropped, by (repository, path), for the samples.
    """
    result = empty_tally()
    repositories: set[str] = set()
    drawn: dict[str, Smallest] = {}
    for document in documents:
        if document.dropped_by is None:
            repositories.add(document.repository)
            _count(result["kept"], document.language, document.size)
            _count(result["licences"], document.licence or "", document.size)
            continue
        _count(result["dropped"].setdefault(document.dropped_by, {}), document.language, document.size)
        samples, key = drawn.setdefault(document.dropped_by, Smallest()), sample_key(document.repository, document.path)
        if samples.takes(key):
            text = (texts or {}).get((document.repository, document.path), "")
            samples.add(key, {"repository": document.repository, "path": document.path, "language": document.language,
                              "size": document.size, "detail": document.detail, "text": text[:SAMPLE_CHARACTERS]})
    result["samples"] = {rule: samples.values() for rule, samples in drawn.items()}
    result["repositories"] = len(repositories)
    return result


def add_tallies(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies of disjoint sets of repositories; the samples are those of the tally of all."""
    result = empty_tally()
    drawn: dict[str, Smallest] = {}
    for each in tallies:
        for name in ("kept", "licences"):
            for key, (files, size) in each[name].items():
                _count(result[name], key, size, files)
        for rule, languages in each["dropped"].items():
            for language, (files, size) in languages.items():
                _count(result["dropped"].setdefault(rule, {}), language, size, files)
        for rule, samples in each["samples"].items():
            for sample in samples:
                drawn.setdefault(rule, Smallest()).add(sample_key(sample["repository"], sample["path"]), sample)
        for kind, count in each["redacted"].items():
            result["redacted"][kind] = result["redacted"].get(kind, 0) + count
        result["repositories"] += each["repositories"]
    result["samples"] = {rule: samples.values() for rule, samples in drawn.items()}
    return result


def sum_of(table: Mapping[str, list[int]]) -> tuple[int, int]:
    """(files, bytes) over the entries of a table of a tally."""
    return sum(files for files, _ in table.values()), sum(size for _, size in table.values())
