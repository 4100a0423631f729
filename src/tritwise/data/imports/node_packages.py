"""Names that package.json, tsconfig.json and their kin give to files: what `import "name"` means without a path.

Facts of a manifest have these `imports`, where NNN numbers keep the order that the file has:

    package.json   ("main", NNN, path) in order of preference; ("export", subpath, NNN, path) and
                   ("import", name, NNN, path) of the fields `exports` and `imports`, one for each condition;
                   ("workspace", glob)
    tsconfig.json  ("extends", NNN, name); ("base", path); ("path", pattern, NNN, path)
    others         ("workspace", glob)
"""

import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from tritwise.data.imports.facts import Facts

_CONFIGURATIONS = frozenset(f"{stem}.json" for stem in (
    "tsconfig", "jsconfig", "tsconfig.base", "tsconfig.build", "tsconfig.app", "tsconfig.common", "tsconfig.lib",
    "tsconfig.node", "tsconfig.options", "tsconfig.shared", "tsconfig.settings", "base"))
_WORKSPACES = frozenset(("lerna.json", "pnpm-workspace.yaml"))
MANIFESTS = _CONFIGURATIONS | _WORKSPACES | {"package.json"}

# JSON with comments and trailing commas; strings come first, so nothing inside them is taken for a comment.
_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_JSON_EXTRAS = re.compile(rf'("(?:[^"\\]|\\.)*")|{_COMMENT}|,(?=\s*(?:(?:{_COMMENT})\s*)*[}}\]])', re.DOTALL)
_YAML_ITEM = re.compile(r"""^[ \t]*-[ \t]*['"]?([^'"#\n]+?)['"]?[ \t]*(?:#.*)?$""", re.MULTILINE)
# Folders of what a build writes: their files are not in the repository, the sources they are made of are.
_BUILT = frozenset(("build", "cjs", "dist", "dist-cjs", "dist-esm", "es", "esm", "lib", "out", "output"))
_MOST_STARS = 8  # in a pattern of folders; each one more multiplies the time that a match may take
_MAINS = ("source", "module", "main", "browser", "types", "typings")


def _objects(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else \
        [value] if isinstance(value, str) else []


def _targets(value: Any) -> Iterator[str]:
    """The paths of all conditions, in order."""
    if isinstance(value, str):
        yield value
    for each in value if isinstance(value, list) else _objects(value).values():
        yield from _targets(each)


def _package(value: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    yield from (("main", f"{i:03}", value[key]) for i, key in enumerate(_MAINS) if isinstance(value.get(key), str))
    exports = value.get("exports")
    if not any(key.startswith(".") for key in _objects(exports)):
        exports = {".": exports}
    for kind, entries in (("export", exports), ("import", _objects(value.get("imports")))):
        for name, each in _objects(entries).items():
            yield from ((kind, name, f"{i:03}", target) for i, target in enumerate(_targets(each)))
    workspaces = value.get("workspaces")
    yield from (("workspace", each) for each in _strings(_objects(workspaces).get("packages", workspaces)))


def _configuration(value: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    options = _objects(value.get("compilerOptions"))
    yield from (("extends", f"{i:03}", each) for i, each in enumerate(_strings(value.get("extends"))))
    if isinstance(options.get("baseUrl"), str):
        yield ("base", options["baseUrl"])
    for pattern, targets in _objects(options.get("paths")).items():
        yield from (("path", pattern, f"{i:03}", target) for i, target in enumerate(_strings(targets)))


def manifest(path: str, content: bytes) -> Facts:
    """A manifest that is no JSON says nothing; its bytes count as wrong."""
    name = posixpath.basename(path)
    text = content.decode("utf-8-sig", "replace")
    if name == "pnpm-workspace.yaml":
        packages = re.search(r"^packages:[^\n]*\n((?:[ \t]*(?:[-#][^\n]*)?\n?)*)", text, re.MULTILINE)
        return Facts(name, tuple(sorted({("workspace", each) for each in _YAML_ITEM.findall(packages[1])}))
                     if packages else ())
    try:
        value = json.loads(_JSON_EXTRAS.sub(lambda match: match[1] or "", text))
        value = _objects(value)
        if name == "package.json":
            found = set(_package(value))
        elif name == "lerna.json":
            found = {("workspace", each) for each in _strings(value.get("packages"))}
        else:
            found = set(_configuration(value))
    except (ValueError, RecursionError):
        return Facts(name, wrong_bytes=len(content))
    own = value.get("name")
    return Facts(name, tuple(sorted(found)), own if name == "package.json" and isinstance(own, str) else "")


def _matches(pattern: str, name: str) -> str | None:
    """What the star of a pattern stands for in a name ("" without a star), or None."""
    before, star, after = pattern.partition("*")
    if not star:
        return "" if pattern == name else None
    if len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after):
        return name[len(before):len(name) - len(after)]
    return None


def _glob(pattern: str) -> re.Pattern[str]:
    pattern = posixpath.normpath(pattern)
    if pattern.count("*") > _MOST_STARS:
        return re.compile(r"(?!)")
    parts = (re.escape(each) for each in re.split(r"(\*\*/|\*\*|\*)", pattern))
    stars = {r"\*\*/": "(?:.*/)?", r"\*\*": ".*", r"\*": "[^/]*"}
    return re.compile("".join(stars.get(part, part) for part in parts))


def _ancestors(directory: str) -> Iterator[str]:
    while directory:
        yield directory
        directory = posixpath.dirname(directory)
    yield ""


class Packages:
    """Names by the manifests of a repository.

    `find_file(path, importer)` finds the file that a path without extension, or of a folder, means.
    """

    def __init__(self, manifests: Mapping[str, Facts], paths: Collection[str],
                 find_file: Callable[[str, str], str | None]) -> None:
        self._manifests = manifests
        self._find_file = find_file
        self._vendored = any("node_modules/" in path for path in paths)
        self._of_directory = {posixpath.dirname(path): facts for path, facts in manifests.items()
                              if facts.language == "package.json"}
        globs = [(posixpath.dirname(path), each[1]) for path, facts in manifests.items() for each in facts.imports
                 if each[0] == "workspace"]
        self._workspaces: dict[str, str] = {}
        patterns = [_glob(posixpath.join(directory, pattern)) for directory, pattern in globs if pattern[:1] != "!"]
        out = [_glob(posixpath.join(directory, pattern[1:])) for directory, pattern in globs if pattern[:1] == "!"]
        for directory in sorted(self._of_directory, reverse=True):  # of two with one name the first path stays
            if any(each.fullmatch(directory) for each in patterns) and \
                    not any(each.fullmatch(directory) for each in out):
                self._workspaces[self._of_directory[directory].package] = directory
        self._workspaces.pop("", None)
        # A folder's tsconfig.json first, then what it may only refer to (tsconfig.app.json of Vite's templates).
        self._aliases: dict[str, list[dict[str, list[str]]]] = {}
        self._configurations: dict[str, dict[str, list[str]]] = {}
        self._found: dict[tuple[str, str, str], str | None] = {}
        for path in sorted(manifests, key=lambda each: (posixpath.basename(each) != "tsconfig.json", each)):
            if manifests[path].language in _CONFIGURATIONS:
                self._aliases.setdefault(posixpath.dirname(path), []).append(self._configuration(path))

    def _configuration(self, path: str) -> dict[str, list[str]]:
        """Patterns of names and the paths they stand for, those of extended files too."""
        if path in self._configurations:
            return self._configurations[path]
        result = self._configurations[path] = {}  # stays for a file that extends itself
        directory = posixpath.dirname(path)
        facts = self._manifests[path]
        for name in [each[2] for each in facts.imports if each[0] == "extends"]:
            for candidate in self._extended(directory, name):
                if candidate in self._manifests:
                    result |= self._configuration(candidate)
                    break
        base = next((posixpath.join(directory, each[1]) for each in facts.imports if each[0] == "base"), None)
        own: dict[str, list[str]] = {}
        for each in facts.imports:
            if each[0] == "path":
                own.setdefault(each[1], []).append(posixpath.normpath(posixpath.join(
                    base if base is not None else directory, each[3])))
        result |= own
        if base is not None:
            result["*"] = [*result.get("*", ()), posixpath.normpath(posixpath.join(base, "*"))]
        return result

    def _extended(self, directory: str, name: str) -> Iterator[str]:
        if name.startswith("."):
            places = [directory]
        else:
            scope = 2 if name.startswith("@") else 1
            name, rest = "/".join(name.split("/")[:scope]), "/".join(name.split("/")[scope:])
            places = [self._workspaces[name]] if name in self._workspaces else []
            name = rest or "tsconfig.json"
        for place in places:
            path = posixpath.normpath(posixpath.join(place, name))
            yield from (path, f"{path}.json", posixpath.join(path, "tsconfig.json"))

    def find(self, importer: str, name: str) -> str | None:
        """The file that a name without ./ or / means, or None when it is another project's."""
        key = (posixpath.dirname(importer), posixpath.splitext(importer)[1], name)
        if key not in self._found:
            self._found[key] = None  # should the name lead to itself
            self._found[key] = self._find(importer, name)
        return self._found[key]

    def _find(self, importer: str, name: str) -> str | None:
        directories = list(_ancestors(posixpath.dirname(importer)))
        if name.startswith("#"):
            for directory in directories:
                if directory in self._of_directory:
                    return self._of_field(directory, "import", name, importer)
            return None
        for directory in directories:
            for aliases in self._aliases.get(directory, ()):
                found = self._by_alias(aliases, name, importer)
                if found:
                    return found
        scope = 2 if name.startswith("@") else 1
        package = "/".join(name.split("/")[:scope])
        subpath = "/".join((".", *name.split("/")[scope:]))
        if self._vendored:
            for directory in directories:
                place = posixpath.join(directory, "node_modules", package)
                found = self.of_package(place, subpath, importer)
                if found:
                    return found
        for directory in directories:  # a package that says what it exports may import itself by its name
            own = self._of_directory.get(directory)
            if own is not None:
                if own.package == package and any(each[0] == "export" for each in own.imports):
                    return self.of_package(directory, subpath, importer)
                break
        if package in self._workspaces:
            return self.of_package(self._workspaces[package], subpath, importer)
        return None

    def mains(self, directory: str) -> list[str]:
        """What a folder's package.json names as its file."""
        facts = self._of_directory.get(directory)
        return [each[2] for each in facts.imports if each[0] == "main"] if facts else []

    def _by_alias(self, aliases: Mapping[str, list[str]], name: str, importer: str) -> str | None:
        """By the pattern with the longest text before its star, as TypeScript does."""
        fitting = [(pattern, star) for pattern in aliases if (star := _matches(pattern, name)) is not None]
        for pattern, star in sorted(fitting, key=lambda each: ("*" in each[0], -len(each[0].partition("*")[0]))):
            for target in aliases[pattern]:
                found = self._find_file(posixpath.normpath(target.replace("*", star)), importer)
                if found:
                    return found
        return None

    def _of_field(self, directory: str, field: str, name: str, importer: str) -> str | None:
        """By the fields `exports` or `imports` of the package in a directory."""
        entries = [(each[1], each[3], star) for each in self._of_directory[directory].imports
                   if each[0] == field and (star := _matches(each[1], name)) is not None]
        best = max((len(key.partition("*")[0]) for key, _, _ in entries), default=0)
        targets = [target.replace("*", star) for key, target, star in entries if len(key.partition("*")[0]) == best]
        # A declaration stands for what is implemented elsewhere.
        for target in sorted(targets, key=lambda each: ".d." in each):
            if target.startswith("."):
                found = self._source_of(directory, target, importer)
            else:
                found = self.find(importer, target) if not target.startswith("#") else None
            if found:
                return found
        return None

    def _source_of(self, directory: str, target: str, importer: str) -> str | None:
        """The file, or the source that a build makes it of: dist/a.js of src/a.ts."""
        target = posixpath.normpath(target)
        found = self._find_file(posixpath.normpath(posixpath.join(directory, target)), importer)
        parts = target.split("/")
        if found or parts[0] not in _BUILT:
            return found
        while len(parts) > 1 and parts[0] in _BUILT:
            parts = parts[1:]
        stem = re.sub(r"(?:\.d)?\.[cm]?[jt]sx?$", "", "/".join(parts))
        for place in ("src", ""):
            found = self._find_file(posixpath.normpath(posixpath.join(directory, place, stem)), importer)
            if found:
                return found
        return None

    def of_package(self, directory: str, subpath: str, importer: str) -> str | None:
        """The file of a package's subpath ("." is the package itself)."""
        facts = self._of_directory.get(directory)
        if facts is not None:
            found = self._of_field(directory, "export", subpath, importer)
            if found:
                return found
        if subpath == ".":
            for target in self.mains(directory):
                found = self._source_of(directory, target, importer)
                if found:
                    return found
            places = ("index", "src/index")
        else:
            places = (subpath, posixpath.join("src", subpath))
        for place in places:
            found = self._find_file(posixpath.normpath(posixpath.join(directory, place)), importer)
            if found:
                return found
        return None
