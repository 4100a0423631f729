"""The report of a data directory: a page, and the same numbers as JSON.

    name, command, vocab_size   what was built, and how to build it again
    funnel                      after each stage: name, files, bytes
    repositories                found, kept: their numbers
    splits                      per split what it holds (`tritwise.data.build.SplitCounts`)
    languages, rules            tables (`tritwise.data.funnel`)
    clusters                    by kind, the largest groups of duplicates: members, kept, listed (texts, the kept first)
    graphs                      of a few repositories: folder, order of its files, what each depends on, language
    licences                    of what was kept: files and bytes
    redacted                    replacements by kind, in what the filters left
    steps, hashes               seconds and bytes of each stage; SHA-256 of every file
"""

from pathlib import Path
from typing import Any

from tritwise.common.files import atomic_write, atomic_write_json
from tritwise.data.build import read_report
from tritwise.measure.data_graphs import drawn_graphs
from tritwise.measure.data_page import data_page

HTML, JSON = "data-report.html", "data-report.json"
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
        "graphs": drawn_graphs(directory), "licences": built["licences"], "redacted": built["redacted"],
        "steps": built["steps"], "hashes": built["hashes"],
    }


def _clusters(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Clusters by their kind, members as texts."""
    return {_CLUSTERS[rule]: [cluster | {"listed": [": ".join(filter(None, member)) for member in cluster["listed"]]}
                              for cluster in clusters]
            for rule, clusters in found.items()}
