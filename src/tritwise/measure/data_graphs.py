"""Dependency graphs that a report draws: of a few repositories, the folder whose files depend on each other most.

A graph is `repository`, `folder` ("" is all of it), `language`, `order` (paths as they are trained on) and
`dependencies` {path: paths of the folder that it depends on}.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritwise.data.documents import Document, by_repository, part_files, read_documents
from tritwise.data.stages import repository_dependencies

# What can be read on a page: files of a graph, and graphs.
_SMALLEST, _LARGEST, _DRAWN = 5, 50, 6
# They are looked for in so many parts, evenly spaced: a page of a large corpus must not read all of it.
_LOOKED_AT = 32


def drawn_graphs(directory: Path) -> list[dict[str, Any]]:
    """The graphs with the most dependencies, one of a language first, then others; by falling number."""
    parts = part_files(directory)
    best: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
    for part in parts[::-(-len(parts) // _LOOKED_AT)]:
        for repository, members in by_repository(read_documents(part)):
            graph = densest_folder(repository, members)
            if graph is None:
                continue
            entries = best.setdefault(graph["language"], [])
            entries.append((-_count(graph), repository, graph))
            best[graph["language"]] = sorted(entries, key=lambda entry: entry[:2])[:_DRAWN]
    # The best of every language, then the second best of every language, and so on.
    ranked = sorted((rank, *entry) for entries in best.values() for rank, entry in enumerate(entries))
    chosen = sorted(ranked[:_DRAWN], key=lambda entry: entry[1:3])
    return [graph for *_, graph in chosen]


def densest_folder(repository: str, documents: Iterable[Document]) -> dict[str, Any] | None:
    """Of the folders with 5 to 50 ordered files, the one with the most dependencies inside; None when there is none."""
    documents = list(documents)
    placed = sorted((d for d in documents if d.position is not None), key=lambda d: d.position)
    files = Counter(folder for d in placed for folder in _folders(d.path))
    edges = {path: targets for path, targets in repository_dependencies(repository, documents).items() if targets}
    known = {d.path for d in placed}
    inside = Counter(folder for path in known & edges.keys() for target in edges[path] & known
                     for folder in set(_folders(path)) & set(_folders(target)))
    fitting = [folder for folder in inside if _SMALLEST <= files[folder] <= _LARGEST]
    if not fitting:
        return None
    folder = min(fitting, key=lambda name: (-inside[name], files[name], name))
    order = [d.path for d in placed if folder in _folders(d.path)]
    return {"repository": repository, "folder": folder, "language": _language(placed, order), "order": order,
            "dependencies": {path: sorted(edges.get(path, set()) & set(order)) for path in order}}


def _count(graph: Mapping[str, Any]) -> int:
    return sum(map(len, graph["dependencies"].values()))


def _folders(path: str) -> list[str]:
    """The folders above a file, "" for the root, others with a slash at their end."""
    return ["", *(path[:place + 1] for place, character in enumerate(path) if character == "/")]


def _language(documents: Sequence[Document], paths: Sequence[str]) -> str:
    """What most of the files are written in."""
    chosen = set(paths)
    counts = Counter(d.language for d in documents if d.path in chosen)
    return min(counts, key=lambda language: (-counts[language], language))
