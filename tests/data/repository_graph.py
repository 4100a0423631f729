"""Dependencies of a repository that a test writes down as texts by their paths."""

from pathlib import PurePosixPath

from tritwise.data.imports import Facts, dependencies, extract, extract_manifest

_LANGUAGES = {
    ".c": "c", ".h": "c", ".cc": "c++", ".hpp": "c++", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".mts": "typescript", ".go": "go", ".rs": "rust",
    ".php": "php", ".rb": "ruby",
}


def facts_of(files: dict[str, str]) -> dict[str, Facts]:
    found = {}
    for path, text in files.items():
        language = _LANGUAGES.get(PurePosixPath(path).suffix)
        facts = extract(language, path, text.encode()) if language else extract_manifest(path, text.encode())
        if facts is not None:
            found[path] = Facts.from_json(facts.to_json())
    return found


def graph(files: dict[str, str], *, repository: str = "") -> dict[str, list[str]]:
    """Sorted dependencies of every file that has some."""
    edges = dependencies(facts_of(files), paths=files, repository=repository)
    return {path: sorted(targets) for path, targets in edges.items() if targets}
