"""Python: import statements wherever they stand, resolved as the interpreter would from the repository's paths.

An import inside a function or a condition counts and one inside a string does not. Files in Python 2 are read too.

`Facts.imports` holds (level, module) for `import module` and (level, module, name) for `from <level dots>module import
name`. The level is a number in decimal, -1 for Python 2's absolute imports, which look beside the file first.
"""

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

MANIFESTS: frozenset[str] = frozenset()

_QUERY = """
(import_statement) @import
(import_from_statement) @from
(future_import_statement) @future
[(print_statement "print" . argument: (_)) (exec_statement)] @python2
"""
# Inside a statement there are no strings, so a number sign begins a comment.
_NOISE = re.compile(rb"#[^\n]*|\\\r?\n|[()]")
_FROM = re.compile(rb"from\s*([.\s]*)([^.\s]?\S*(?:\s*\.\s*\S+)*)\s+import\s*(.*)", re.DOTALL)
_AS = re.compile(rb"\sas\s.*", re.DOTALL)


def _names(text: bytes) -> Iterator[str]:
    """The names of a list such as `a . b as c, d`."""
    for part in text.split(b","):
        name = b"".join(_AS.sub(b"", part).split()).decode("utf-8", "replace")
        if name:
            yield name


def extract(path: str, content: bytes) -> Facts:
    """Facts of a file; SlowFileError as `parse`."""
    tree = parse("python", content)
    found = captures("python", _QUERY, tree)
    is_python2 = "python2" in found and not any(
        b"absolute_import" in content[node.start_byte:node.end_byte] for node in found.get("future", ()))
    absolute = "-1" if is_python2 else "0"
    imports: set[tuple[str, ...]] = set()
    for node in found.get("import", ()):
        text = _NOISE.sub(b" ", content[node.start_byte:node.end_byte])
        imports.update((absolute, name) for name in _names(text[len(b"import"):]))
    for node in found.get("from", ()):
        match = _FROM.fullmatch(_NOISE.sub(b" ", content[node.start_byte:node.end_byte]))
        if match is None:
            continue  # wrong syntax that the parser bore with
        dots, module, names = match.groups()
        level = str(dots.count(b".")) if b"." in dots else absolute
        module_name = b"".join(module.split()).decode("utf-8", "replace")
        imports.update((level, module_name, name) for name in _names(names))
    return Facts("python", tuple(sorted(imports)), wrong_bytes=wrong_bytes(tree, content))


class _Modules:
    """Finds the file of a module among the paths of a repository.

    When the repository's root is itself a package, `name` is what absolute imports call it.
    """

    def __init__(self, paths: Iterable[str], name: str) -> None:
        self._paths = frozenset(path for path in paths if path.endswith((".py", ".pyi")))
        self._own_name = name if "__init__.py" in self._paths else None
        self._packages = frozenset(posixpath.dirname(p) for p in self._paths if posixpath.basename(p) == "__init__.py")
        # A directory that holds a top-level package is where absolute names start; so are `src` and `lib`, which
        # may hold namespace packages, and the repository itself. Roots by the first name that can be found in them.
        tops = {posixpath.dirname(p) for p in self._packages if p and posixpath.dirname(p) not in self._packages}
        self._roots: dict[str, set[str]] = {}
        for path in self._packages | self._paths:
            directory, _, base = path.rpartition("/")
            if directory in tops:
                self._roots.setdefault(base.partition(".")[0], set()).add(directory)
        self._searched: dict[tuple[str, str], tuple[str, ...]] = {}

    def _file(self, base: str, names: list[str]) -> str | None:
        """The file of the module `names` below the directory `base`."""
        stem = posixpath.join(base, *names)
        # As Python does: a package hides a module. A stub stands for a module that is compiled.
        package = f"{stem}/" if stem else ""
        for path in (f"{package}__init__.py", f"{stem}.py", f"{stem}.pyi", f"{package}__init__.pyi"):
            if path in self._paths:
                return path
        return None

    def _search(self, directory: str, first: str) -> tuple[str, ...]:
        """Where absolute names that begin with `first` may start for files in a directory, the likeliest place first.

        That is above the file's outermost package, or beside the file when it is in none; then the directories above
        that; then every other place where such a name can be found, the nearest first.
        """
        if (directory, first) not in self._searched:
            own = directory
            while own in self._packages and own:
                own = posixpath.dirname(own)
            places = [own]
            while own:
                own = posixpath.dirname(own)
                places.append(own)

            def distance(root: str) -> tuple[int, str]:
                return -len(posixpath.commonpath([root, directory])) if root and directory else 0, root

            places += sorted({"src", "lib", *self._roots.get(first, ())}, key=distance)
            self._searched[directory, first] = tuple(dict.fromkeys(places))
        return self._searched[directory, first]

    def resolve(self, importer: str, level: int, module: str, name: str | None) -> str | None:
        """The file of this repository that an import names, or None.

        `from a import b` is the module a.b when there is one, else a. What only passes through a package on the way
        to a module that is not here (compiled, or absent) names nothing.
        """
        names = [part for part in module.split(".") if part]
        directory = posixpath.dirname(importer)
        bases: Iterable[str]
        if level > 0:
            for _ in range(level - 1):
                if not directory:
                    return None  # the dots leave the repository
                directory = posixpath.dirname(directory)
            bases = (directory,)
        elif not names:
            return None
        elif names[0] == self._own_name:
            bases, names = ("",), names[1:]
        else:
            bases = self._search(directory, names[0])
            if level < 0:
                bases = (directory, *bases)
        for base in bases:
            found = (name and self._file(base, [*names, name])) or self._file(base, names)
            if found:
                return found
        return None


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    """For each file of a repository, the files of the same repository that it imports (never itself).

    Packages that an import merely passes through (`a/__init__.py` in `import a.b`) are not dependencies of the
    importer: they run, but nothing in them is named.
    """
    modules = _Modules({*files, *paths}, repository)
    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        targets = {modules.resolve(path, int(level), module, name[0] if name else None)
                   for level, module, *name in facts.imports}
        result[path] = {target for target in targets if target in files and target != path}
    return result
