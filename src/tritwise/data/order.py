"""Dependency order of the files of a repository: what is imported comes before what imports it.

Edges come from the syntax tree, so an import inside a function or a condition counts and one inside a string does not.
"""

import ast
import heapq
import posixpath
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple


class Import(NamedTuple):
    """One imported name: `from <level dots><module> import <name>`; `name` is None for `import module`."""

    level: int
    module: str
    name: str | None


def python_imports(text: str) -> tuple[Import, ...]:
    """The imports of a Python file, in no particular order, each once.

    Raises SyntaxError when the running interpreter cannot parse the text.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are the file's business
            tree = ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nesting deeper than the parser goes
        raise SyntaxError(str(error)) from None
    found: set[Import] = set()
    blocks: list[list[ast.AST]] = [tree.body]
    while blocks:  # statements only: no expression holds an import, and they are most of the tree
        for statement in blocks.pop():
            if isinstance(statement, ast.Import):
                found.update(Import(0, alias.name, None) for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom):
                found.update(Import(statement.level, statement.module or "", alias.name)
                             for alias in statement.names)
            elif not isinstance(statement, (ast.Expr, ast.Assign, ast.Return)):
                for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                    block = getattr(statement, field, None)
                    if isinstance(block, list):
                        blocks.append(block)
    return tuple(sorted(found, key=lambda i: (i.level, i.module, i.name or "")))


class _Modules:
    """Finds the file of a module among the paths of a repository.

    When the repository's root is itself a package, `name` is what absolute imports call it.
    """

    def __init__(self, paths: Collection[str], name: str) -> None:
        self._paths = frozenset(paths)
        self._own_name = name if "__init__.py" in self._paths else None
        self._packages = frozenset(posixpath.dirname(p) for p in paths if posixpath.basename(p) == "__init__.py")
        # A directory that holds a top-level package is where absolute names start; so are `src` and `lib`, which
        # may hold namespace packages, and the repository itself.
        tops = {posixpath.dirname(p) for p in self._packages if p and posixpath.dirname(p) not in self._packages}
        self._roots = sorted(tops | {"", "src", "lib"})

    def _file(self, base: str, names: list[str]) -> str | None:
        """The file of the longest prefix of `names` that is a module below the directory `base`."""
        for length in range(len(names), 0, -1):
            stem = posixpath.join(base, *names[:length])
            for path in (f"{stem}/__init__.py", f"{stem}.py"):  # as Python does: a package hides a module
                if path in self._paths:
                    return path
        return None

    def _own_root(self, path: str) -> str:
        """Where absolute names start for the file: above its outermost package, or beside it when it is in none."""
        directory = posixpath.dirname(path)
        while directory in self._packages and directory:
            directory = posixpath.dirname(directory)
        return directory

    def resolve(self, importer: str, imported: Import) -> str | None:
        """The file of this repository that an import names, or None.

        `from a import b` is the module a.b when there is one, else a. Where only a prefix of the dotted name is here
        (the rest is compiled, or absent), the prefix is what the importer depends on.
        """
        names = [part for part in imported.module.split(".") if part]
        if imported.level:
            base = posixpath.dirname(importer)
            for _ in range(imported.level - 1):
                if not base:
                    return None  # the dots leave the repository
                base = posixpath.dirname(base)
            found = self._file(base, [*names, imported.name])
            if found is None and not names:
                package = posixpath.join(base, "__init__.py")
                found = package if package in self._paths else None
            return found
        names += [imported.name] if imported.name else []
        if names[0] == self._own_name:
            return self._file("", names[1:]) or "__init__.py"
        own = self._own_root(importer)
        for root in (own, *(r for r in self._roots if r != own)):
            found = self._file(root, names)
            if found:
                return found
        return None


def import_edges(imports: Mapping[str, Iterable[Import]], all_paths: Collection[str] = (), *,
                 repository: str = "") -> dict[str, set[str]]:
    """For each file of a repository, the files of the same repository that it imports (never itself).

    Args:
        imports: the imports of each file, by its path in the repository; Python files only.
        all_paths: every Python path of the repository when some are left out of `imports` (an empty `__init__.py`
            was dropped, but still makes its directory a package).
        repository: its name, which absolute imports begin with when its root is itself a package.

    Packages that an import merely passes through (`a/__init__.py` in `import a.b`) are not dependencies of the
    importer: they run, but nothing in them is named.
    """
    modules = _Modules({*imports, *all_paths}, repository)
    edges: dict[str, set[str]] = {path: set() for path in imports}
    for path, names in imports.items():
        targets = {modules.resolve(path, imported) for imported in names}
        edges[path] = {t for t in targets if t in edges and t != path}
    return edges


def _components(dependencies: Mapping[str, set[str]]) -> list[list[str]]:
    """Weakly connected components, each sorted, sorted by their smallest path."""
    neighbours: dict[str, set[str]] = {path: set(targets) for path, targets in dependencies.items()}
    for path, targets in dependencies.items():
        for target in targets:
            neighbours[target].add(path)
    components, seen = [], set()
    for start in sorted(neighbours):
        if start in seen:
            continue
        seen.add(start)
        component, frontier = [start], [start]
        while frontier:
            new = neighbours[frontier.pop()] - seen
            seen |= new
            component += new
            frontier += new
        components.append(sorted(component))
    return components


def dependency_order(dependencies: Mapping[str, set[str]]) -> list[str]:
    """All files, dependencies before dependents (DeepSeek-Coder, arXiv 2401.14196, Algorithm 1).

    Component by component, the file with the fewest dependencies not yet taken is taken next - not necessarily none, so
    a cycle cannot stall it. Ties, and the order of components, go by path. O((files + edges) log files) with a heap
    whose stale entries are skipped; the paper's pair loop is quadratic.

    Every target must itself be a key of `dependencies`.
    """
    dependents: dict[str, list[str]] = {path: [] for path in dependencies}
    for path, targets in dependencies.items():
        for target in targets:
            dependents[target].append(path)
    waiting_for = {path: len(targets) for path, targets in dependencies.items()}
    order: list[str] = []
    taken: set[str] = set()
    for component in _components(dependencies):
        heap = [(waiting_for[path], path) for path in component]
        heapq.heapify(heap)
        while heap:
            count, path = heapq.heappop(heap)
            if path in taken or count != waiting_for[path]:
                continue
            taken.add(path)
            order.append(path)
            for dependent in dependents[path]:
                waiting_for[dependent] -= 1
                if dependent not in taken:
                    heapq.heappush(heap, (waiting_for[dependent], dependent))
    return order
