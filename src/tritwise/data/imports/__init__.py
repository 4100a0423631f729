"""Which files of a repository depend on which, for each language by its own rules.

    extract(language, path, content) -> Facts      one file, parsed once; a pure function
    extract_manifest(path, content) -> Facts       a file that says how names are resolved: go.mod, package.json, ...
    dependencies(facts) -> {path: {path, ...}}     of one repository, from the facts of all its files

A language is a module of this package with:

    extract(path: str, content: bytes) -> Facts
    MANIFESTS: frozenset[str]                      names of files that `manifest` reads
    manifest(path: str, content: bytes) -> Facts   with `language` being that name; only where there are such files
    edges(files, manifests, paths, repository) -> dict[str, set[str]]
        files: {path: Facts} of this language's files; manifests: {path: Facts}; paths: every path of the repository,
        those without facts too; repository: its name. Targets are keys of `files`, never the file itself.
"""

import posixpath
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import ModuleType

from tritwise.data.imports import c_family, csharp, ecmascript, go, jvm, php, python, ruby, rust, swift
from tritwise.data.imports.facts import Facts
from tritwise.data.imports.simplify import SIMPLIFIED, wrong_bytes_again

__all__ = ["Facts", "dependencies", "extract", "extract_manifest", "languages_with_dependencies"]

# Modules of this package, by the languages whose files see each other: C and C++ share headers, for instance.
_MODULES: dict[ModuleType, tuple[str, ...]] = {
    csharp: ("c#",),
    jvm: ("java", "kotlin", "scala"),
    python: ("python",),
    c_family: ("c", "c++"),
    ecmascript: ("javascript", "typescript"),
    go: ("go",),
    rust: ("rust",),
    php: ("php",),
    ruby: ("ruby",),
    swift: ("swift",),
}
# A share of wrong bytes from which on a file is parsed a second time: the least that any screen drops for.
_SUSPICIOUS = 0.01
_MODULE_OF = {language: module for module, languages in _MODULES.items() for language in languages}


def languages_with_dependencies() -> frozenset[str]:
    """The languages that `extract` knows."""
    return frozenset(_MODULE_OF)


def extract(language: str, path: str, content: bytes) -> Facts | None:
    """Facts of one file (UTF-8), or None when nothing is known about its language's dependencies.

    Raises SlowFileError (of `parse`) when the file takes the parser too long, and TritwiseError when the language's
    grammar is not installed.
    """
    module = _MODULE_OF.get(language)
    if module is None:
        return None
    facts = module.extract(path, content)
    if facts.wrong_bytes > _SUSPICIOUS * len(content) and language in SIMPLIFIED:
        return replace(facts, wrong_bytes=min(facts.wrong_bytes, wrong_bytes_again(language, content)))
    return facts


def extract_manifest(path: str, content: bytes) -> Facts | None:
    """Facts of a file that says how a repository's names are resolved, or None when it is none."""
    for module in _MODULES:
        if posixpath.basename(path) in module.MANIFESTS:
            return module.manifest(path, content)
    return None


def dependencies(facts: Mapping[str, Facts], *, paths: Collection[str] = (),
                 repository: str = "") -> dict[str, set[str]]:
    """For each file, the files of the same repository that it depends on (never itself).

    Args:
        facts: of each file by its path, manifests included.
        paths: every path of the repository when some have no facts.
        repository: its name.

    Returns:
        An entry for every file with facts that is no manifest; files without dependencies have an empty set.
    """
    known = {path: each for path, each in facts.items() if each.language in _MODULE_OF}
    manifests = {path: each for path, each in facts.items() if each.language not in _MODULE_OF}
    result: dict[str, set[str]] = {path: set() for path in known}
    for module, languages in _MODULES.items():
        files = {path: each for path, each in known.items() if each.language in languages}
        if files:
            for path, targets in module.edges(files, manifests, frozenset({*facts, *paths}), repository).items():
                result[path] |= targets
    return result
