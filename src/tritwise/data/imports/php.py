"""PHP: classes, functions and constants by their full names, which the file's namespace and `use` settle; require.

The file that defines a name is its dependency, whatever the autoloader; composer.json settles which one where several
files define it (PSR-4, PSR-0, class maps).

Forms: `imports` ("class", name), ("const", name), ("function", name[, global name]), ("file", path) relative to the
file, ("tail", path) after something unknown; `defines` "class name", "function name", "const name".
"""

import json
import posixpath
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

if TYPE_CHECKING:
    from tree_sitter import Node

MANIFESTS = frozenset(("composer.json",))

_ANY = "[(name) (qualified_name) (relative_name)]"
_QUERY = f"""
(namespace_definition) @namespace
(namespace_use_declaration) @use
[(require_expression) (require_once_expression) (include_expression) (include_once_expression)] @require
(named_type {_ANY} @class)
(base_clause {_ANY} @class)
(class_interface_clause {_ANY} @class)
(use_declaration {_ANY} @class)
(object_creation_expression {_ANY} @class)
(class_constant_access_expression . {_ANY} @class)
(scoped_call_expression scope: {_ANY} @class)
(scoped_property_access_expression scope: {_ANY} @class)
(binary_expression operator: "instanceof" right: {_ANY} @class)
(attribute . {_ANY} @class)
(function_call_expression function: {_ANY} @function)
[(class_declaration name: (name) @define_class) (interface_declaration name: (name) @define_class)
 (trait_declaration name: (name) @define_class) (enum_declaration name: (name) @define_class)]
(function_definition name: (name) @define_function)
(program (const_declaration (const_element . (name) @define_const)))
(namespace_definition body: (compound_statement (const_declaration (const_element . (name) @define_const))))
"""
_NOT_CLASSES = frozenset(("self", "static", "parent"))
_USE = re.compile(r"use\s+(?:(function|const)\s+)?([\\\w]+)(?:\s+as\s+(\w+))?(?:\s*\{(.*)\})?", re.DOTALL)
_MEMBER = re.compile(r"(?:(function|const)\s+)?([\\\w]+)(?:\s+as\s+(\w+))?")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|#[^\n]*", re.DOTALL)
_HERE = re.compile(r"__DIR__|dirname\s*\(\s*__FILE__\s*\)", re.IGNORECASE)
_ABOVE = re.compile(r"dirname\s*\(\s*(\0+)\s*(?:,\s*(\d)\s*)?\)", re.IGNORECASE)
_STRING = re.compile(r"""^(.*?)\.?\s*(?:'([^'\\]*)'|"([^"\\$]*)")\s*\)*\s*$""", re.DOTALL)


class _Names:
    """What short names mean in one namespace of a file."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._aliases: dict[tuple[str, str], str] = {}

    def own(self, name: str) -> str:
        return f"{self.namespace}\\{name}" if self.namespace else name

    def use(self, text: str) -> Iterator[tuple[str, str]]:
        """Reads a `use` declaration; gives the kind and full name of each clause."""
        text = _COMMENT.sub(" ", text).rstrip("; \n")
        parts = [text] if "{" in text else [f"use {each.strip().removeprefix('use ')}" for each in text.split(",")]
        for part in parts:
            match = _USE.match(part.strip())
            if not match:
                continue
            kind, name, alias, group = match.groups()
            first_kind = kind or self._kind(text)
            clauses = [(first_kind, name, alias)] if group is None else [
                (inner[1] or first_kind, f"{name.rstrip(chr(92))}\\{inner[2]}", inner[3])
                for inner in map(_MEMBER.match, map(str.strip, group.split(","))) if inner]
            for each, full, short in clauses:
                full = full.strip("\\")
                key = short or full.rpartition("\\")[2]
                self._aliases[each or "class", key if each == "const" else key.lower()] = full
                yield each or "class", full

    @staticmethod
    def _kind(text: str) -> str | None:
        match = re.match(r"use\s+(function|const)\s", text)
        return match[1] if match else None

    def resolve(self, kind: str, name: str) -> tuple[str, ...]:
        """The full name, then the global one that a function falls back to."""
        if name.startswith("\\"):
            return (name.strip("\\"),)
        first, separator, rest = name.partition("\\")
        if separator:
            if first.lower() == "namespace":
                return (self.own(rest),)
            known = self._aliases.get(("class", first.lower()))
            return (f"{known}\\{rest}" if known else self.own(name),)
        known = self._aliases.get((kind, first.lower()))
        if known:
            return (known,)
        return (self.own(name), name) if kind == "function" and self.namespace else (self.own(name),)


def _required(text: str) -> tuple[str, str] | None:
    """The file of a require expression: relative to this one's folder, or the tail of a path that is not known."""
    text = _HERE.sub("\0", re.sub(r"^\w+\s*\(?\s*", "", text.strip()))
    while True:
        shorter = _ABOVE.sub(lambda match: match[1] + "\0" * int(match[2] or 1), text)
        if shorter == text:
            break
        text = shorter
    match = _STRING.match(text)
    if not match:
        return None
    head, path = match[1].strip().rstrip(".").strip(), (match[2] or match[3] or "")
    if not path.strip("/"):
        return None
    if not head:
        return "file", path
    if head.strip("\0"):
        return "tail", path.lstrip("/")
    return "file", posixpath.join(*[".."] * (len(head) - 1), path.lstrip("/"))


def extract(path: str, content: bytes) -> Facts:
    tree = parse("php", content)
    found = captures("php", _QUERY, tree)

    def text(node: "Node") -> str:
        return content[node.start_byte:node.end_byte].decode("utf-8", "replace")

    spaces = [(0, _Names(""))]
    for node in sorted(found.get("namespace", ()), key=lambda each: each.start_byte):
        name = node.child_by_field_name("name")
        spaces.append((node.start_byte, _Names(text(name) if name is not None else "")))
    starts = [start for start, _ in spaces]

    def names_at(node: "Node") -> _Names:
        return spaces[bisect_right(starts, node.start_byte) - 1][1]

    imports: set[tuple[str, ...]] = set()
    for node in found.get("use", ()):
        imports.update(names_at(node).use(text(node)))
    for kind in ("class", "function"):
        for name, names in {(text(node), names_at(node)) for node in found.get(kind, ())}:
            if kind != "class" or name.lower() not in _NOT_CLASSES:
                imports.add((kind, *names.resolve(kind, re.sub(r"\s", "", name))))
    for node in found.get("require", ()):
        required = _required(text(node))
        if required:
            imports.add(required)
    defines = {f"{kind} {names_at(node).own(text(node))}" for kind in ("class", "function", "const")
               for node in found.get(f"define_{kind}", ())}
    return Facts("php", tuple(sorted(imports)), spaces[-1][1].namespace, tuple(sorted(defines)),
                 wrong_bytes=wrong_bytes(tree, content))


def manifest(path: str, content: bytes) -> Facts:
    """composer.json: ("psr-4", prefix, folder), ("psr-0", prefix, folder), ("classmap", folder)."""
    try:
        value: Any = json.loads(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return Facts("composer.json", wrong_bytes=len(content))
    found: set[tuple[str, ...]] = set()
    for section in ("autoload", "autoload-dev"):
        table = value.get(section) if isinstance(value, dict) else None
        for kind in ("psr-4", "psr-0", "classmap"):
            entries = table.get(kind) if isinstance(table, dict) else None
            for prefix, places in entries.items() if isinstance(entries, dict) else (("", entries),):
                for place in places if isinstance(places, list) else (places,):
                    if isinstance(place, str):
                        found.add((kind, prefix, place) if kind != "classmap" else (kind, place))
    return Facts("composer.json", tuple(sorted(found)))


def _expected(manifests: Mapping[str, Facts], name: str) -> Iterator[str]:
    """Where composer would look for a class."""
    for manifest_path, facts in sorted(manifests.items()):
        directory = posixpath.dirname(manifest_path)
        for each in facts.imports:
            if each[0] == "psr-4" and name.startswith(each[1]):
                yield posixpath.normpath(posixpath.join(directory, each[2], name[len(each[1]):].replace("\\", "/")))
            elif each[0] == "psr-0" and name.startswith(each[1]):
                space, _, short = name.rpartition("\\")
                yield posixpath.normpath(posixpath.join(directory, each[2], space.replace("\\", "/"),
                                                        short.replace("_", "/")))


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    composers = {path: facts for path, facts in manifests.items() if facts.language == "composer.json"}
    definers: dict[str, list[str]] = defaultdict(list)
    by_name: dict[str, list[str]] = defaultdict(list)
    for path, facts in sorted(files.items()):
        by_name[posixpath.basename(path)].append(path)
        for name in facts.defines:
            definers[name if name.startswith("const ") else name.lower()].append(path)

    def definer(path: str, kind: str, names: tuple[str, ...]) -> str | None:
        for name in names:
            candidates = definers.get(f"const {name}" if kind == "const" else f"{kind} {name}".lower(), ())
            if path in candidates:
                return path
            if len(candidates) > 1:
                expected = {f"{place}.php" for place in _expected(composers, name)}
                candidates = [each for each in candidates if each in expected] or candidates
            if candidates:
                return max(candidates, key=lambda each: (len(posixpath.commonprefix((each, path))), each))
        return None

    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        found = set()
        for kind, *names in facts.imports:
            if kind in ("file", "tail"):
                found.add(_file(path, kind, names[0], files, by_name))
            else:
                found.add(definer(path, kind, tuple(names)))
        result[path] = {target for target in found if target in files and target != path}
    return result


def _file(path: str, kind: str, name: str, files: Collection[str], by_name: Mapping[str, list[str]]) -> str | None:
    if kind == "file":
        for place in (posixpath.dirname(path), ""):
            target = posixpath.normpath(posixpath.join(place, name))
            if target in files:
                return target
    name = re.sub(r"^(?:\.\./|\./)*", "", posixpath.normpath(name))
    ends = [each for each in by_name.get(posixpath.basename(name), ()) if each == name or each.endswith(f"/{name}")]
    return ends[0] if len(ends) == 1 else None
