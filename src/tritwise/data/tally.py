"""Counts of what the stages kept and dropped, per rule and language: what a report shows, and sums over parts.

A tally is plain JSON data, made from the rows of documents alone, so any corpus can be counted again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tritwise.data.documents import Document

_SAMPLES = 3  # of a rule, from each part
_SAMPLE_CHARACTERS = 400

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


def tally(documents: Iterable[Document], texts: Mapping[tuple[str, str], str] | None = None) -> Tally:
    """Count documents. Bytes are those of the files on disk.

    `texts` gives the beginnings of texts that were dropped, by (repository, path), for the samples.
    """
    result = empty_tally()
    repositories: set[str] = set()
    for document in documents:
        if document.dropped_by is None:
            repositories.add(document.repository)
            _count(result["kept"], document.language, document.size)
            _count(result["licences"], document.licence or "", document.size)
            continue
        _count(result["dropped"].setdefault(document.dropped_by, {}), document.language, document.size)
        samples = result["samples"].setdefault(document.dropped_by, [])
        if len(samples) < _SAMPLES:
            text = (texts or {}).get((document.repository, document.path), "")
            samples.append({"repository": document.repository, "path": document.path, "language": document.language,
                            "size": document.size, "detail": document.detail, "text": text[:_SAMPLE_CHARACTERS]})
    result["repositories"] = len(repositories)
    return result


def add_tallies(tallies: Iterable[Tally], *, most_samples: int = 5) -> Tally:
    """The sum of tallies of disjoint sets of repositories; of the samples of a rule the first few stay."""
    result = empty_tally()
    for each in tallies:
        for name in ("kept", "licences"):
            for key, (files, size) in each[name].items():
                _count(result[name], key, size, files)
        for rule, languages in each["dropped"].items():
            for language, (files, size) in languages.items():
                _count(result["dropped"].setdefault(rule, {}), language, size, files)
        for rule, samples in each["samples"].items():
            kept = result["samples"].setdefault(rule, [])
            kept += samples[:most_samples - len(kept)]
        for kind, count in each["redacted"].items():
            result["redacted"][kind] = result["redacted"].get(kind, 0) + count
        result["repositories"] += each["repositories"]
    return result


def sum_of(table: Mapping[str, list[int]]) -> tuple[int, int]:
    """(files, bytes) over the entries of a table of a tally."""
    return sum(files for files, _ in table.values()), sum(size for _, size in table.values())
