"""Dependencies of a repository that a test writes down as texts by their paths."""

from pathlib import PurePosixPath
from unittest import mock

from tritwise.data.imports import Facts, dependencies, extract, extract_manifest, parse

_LANGUAGES = {
    ".c": "c", ".h": "c", ".cc": "c++", ".hpp": "c++", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".mts": "typescript", ".go": "go", ".rs": "rust",
    ".php": "php", ".rb": "ruby",
}


class _Turned:
    """A query that gives its nodes in another order, as it does from one process to the next."""

    def __init__(self, cursor) -> None:
        self._cursor = cursor

    def captures(self, node) -> dict:
        return {name: nodes[::-1] for name, nodes in self._cursor.captures(node).items()}


def extract_in_any_order(language: str, path: str, content: bytes) -> Facts | None:
    """The facts of a file, which do not depend on the order in which queries give their nodes."""
    facts = extract(language, path, content)
    cursor = parse._cursor
    with mock.patch.object(parse, "_cursor", lambda *query: _Turned(cursor(*query))):
        assert extract(language, path, content) == facts
    return facts


def facts_of(files: dict[str, str]) -> dict[str, Facts]:
    found = {}
    for path, text in files.items():
        language = _LANGUAGES.get(PurePosixPath(path).suffix)
        content = text.encode()
        facts = extract_in_any_order(language, path, content) if language else extract_manifest(path, content)
        if facts is not None:
            found[path] = Facts.from_json(facts.to_json())
    return found


def graph(files: dict[str, str], *, repository: str = "") -> dict[str, list[str]]:
    """Sorted dependencies of every file that has some."""
    edges = dependencies(facts_of(files), paths=files, repository=repository)
    return {path: sorted(targets) for path, targets in edges.items() if targets}
