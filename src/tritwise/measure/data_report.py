"""The report of a data directory: a page, and the same numbers as JSON.

    name, command, vocab_size   what was built, and how to build it again
    funnel                      after each stage: name, files, bytes
    repositories                found, kept: their numbers
    splits                      per split what it holds (`tritwise.data.build.SplitCounts`)
    languages, rules            tables (`tritwise.data.funnel`)
    clusters                    by kind, the largest groups of duplicates: members, kept, listed (texts, the kept first)
    graphs                      of a few repositories: order of files, and what each depends on
    licences                    of what was kept: files and bytes
    redacted                    replacements by kind, in what the filters left
    steps, hashes               seconds and bytes of each stage; SHA-256 of every file
"""

from pathlib import Path
from typing import Any

from tritwise.common.files import atomic_write, atomic_write_json
from tritwise.data.build import read_report
from tritwise.data.documents import Document, by_repository, part_files, read_documents
from tritwise.data.stages import repository_dependencies
from tritwise.measure.data_page import data_page

HTML, JSON = "data-report.html", "data-report.json"
# Of the repositories with so many files, those with the most dependencies are drawn.
_SMALLEST, _LARGEST, _DRAWN = 6, 60, 3
# They are looked for in so many parts, evenly spaced: a page of a large corpus must not read all of it.
_LOOKED_AT = 32
_CLUSTERS = {"near_duplicate_repository": "repositories", "duplicate": "files with equal text",
             "near_duplicate": "files that are nearly equal"}


def write_data_report(directory: Path, *, name: str | None = None, command: str = "") -> Path:
    """Write the report into a data directory; returns the page's path. Raises TritwiseError when it is no such one."""
    directory = Path(directory)
    report = data_report(directory, name=name, command=command)
    atomic_write_json(directory / JSON, report)
    atomic_write(directory / HTML, data_page(report))
    return directory / HTML


def data_report(directory: Path, *, name: str | None = None, command: str = "") -> dict[str, Any]:
    """The report as plain JSON data."""
    built = read_report(directory)
    return {
        "name": name or built["recipe"], "command": command, "vocab_size": built["vocab_size"],
        "funnel": built["funnel"], "repositories": built["repositories"],
        "splits": {split: built[split] for split in ("train", "held_out")},
        "languages": built["languages"], "rules": built["rules"], "clusters": _clusters(built["clusters"]),
        "graphs": _graphs(directory), "licences": built["licences"], "redacted": built["redacted"],
        "steps": built["steps"], "hashes": built["hashes"],
    }


def _clusters(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Clusters by their kind, members as texts."""
    return {_CLUSTERS[rule]: [cluster | {"listed": [": ".join(filter(None, member)) for member in cluster["listed"]]}
                              for cluster in clusters]
            for rule, clusters in found.items()}


def _graphs(directory: Path) -> list[dict[str, Any]]:
    """The repositories that are drawn, chosen by their numbers of dependencies, then by name."""
    chosen: list[tuple[int, str, dict[str, Any]]] = []
    parts = part_files(directory)
    for part in parts[::-(-len(parts) // _LOOKED_AT)]:
        for name, members in by_repository(read_documents(part)):
            order = [document.path for document in sorted(filter(_is_placed, members), key=lambda d: d.position or 0)]
            if not _SMALLEST <= len(order) <= _LARGEST:
                continue
            edges = repository_dependencies(name, members)
            kept = set(order)
            dependencies = {path: sorted(edges.get(path, set()) & kept) for path in order}
            count = sum(map(len, dependencies.values()))
            chosen.append((-count, name, {"repository": name, "order": order, "dependencies": dependencies}))
            chosen = sorted(chosen, key=lambda entry: entry[:2])[:_DRAWN]
    return [graph for count, _, graph in chosen if count]


def _is_placed(document: Document) -> bool:
    return document.position is not None
