"""Ruby: require, require_relative, load and autoload of literal names; constants where file names say whose they are.

A constant is followed only to a file that both defines it and is named after it, as Zeitwerk asks: `A::BigThing` in
a/big_thing.rb. Modules are opened in many files, so the definition alone would say little.

Forms: `imports` ("require", name), ("relative", path) relative to the file's folder; `defines` full names of classes,
modules and constants; `uses` "nesting|name", where nesting is the full name of the class or module around.
"""

import posixpath
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

if TYPE_CHECKING:
    from tree_sitter import Node

MANIFESTS: frozenset[str] = frozenset()

_QUERY = """
(call !receiver method: (identifier) arguments: (argument_list)) @call
(call receiver: (constant) method: (identifier) arguments: (argument_list)) @call
(class name: (_) @name) @space
(module name: (_) @name) @space
(assignment left: [(constant) (scope_resolution)] @assigned)
(constant) @constant
(scope_resolution) @constant
"""
# Predicates in the query would cost more than the parser.
_LOADS = re.compile(rb"(?:require(?:_relative|_dependency)?|load|(?:\w+\s*\.\s*)?autoload)\b")
_LONGEST_CALL = 1000  # bytes; calls nest, and no name of a file is that long
_CALL = re.compile(r"(?:\w+\.)?(\w+)\s*\(?\s*(.*?)\s*\)?\s*\Z", re.DOTALL)
_STRING = r"""(?:'([^'\\]*)'|"([^"\\#]*)")"""
_LITERAL = re.compile(rf"{_STRING}\s*(?:,.*)?\Z", re.DOTALL)
_AUTOLOAD = re.compile(rf""":?["']?\w+["']?\s*,\s*{_STRING}""")
# What names this file's folder, and what a path is joined to it with.
_FOLDER = re.compile(r"File\.dirname\s*\(?\s*(?:File\.expand_path\s*\(?\s*)?__FILE__\s*\)*|__dir__\b\)?")
_PARTS = re.compile(_STRING)
_NAME = re.compile(r"(?:::)?[A-Z]\w*(?:::[A-Z]\w*)*\Z")


def _required(text: str) -> tuple[str, str] | None:
    match = _CALL.match(text)
    if not match:
        return None
    method, argument = match.groups()
    if method == "autoload":
        found = _AUTOLOAD.match(argument)
        return ("require", found[1] or found[2]) if found else None
    literal = _LITERAL.match(argument)
    if literal:
        return "relative" if method == "require_relative" else "require", literal[1] or literal[2] or ""
    parts = [a or b for a, b in _PARTS.findall(re.sub(r'"#\{(__dir__)\}/', r'\1, "', argument))]
    if not parts or "#{" in argument.replace("#{__dir__}", "") or "\\" in argument:
        return None
    if _FOLDER.search(argument):
        return "relative", posixpath.join(*(part.lstrip("/") for part in parts))
    if "__FILE__" in argument and len(parts) == 1:  # expand_path("../x", __FILE__) starts below the file itself
        return "relative", parts[0].removeprefix("../") if parts[0].startswith("../") else f"./{parts[0]}"
    return None


def extract(path: str, content: bytes) -> Facts:
    tree = parse("ruby", content)
    found = captures("ruby", _QUERY, tree)

    def text(node: "Node") -> str:
        return content[node.start_byte:node.end_byte].decode("utf-8", "replace")

    loads = (node for node in found.get("call", ()) if node.end_byte - node.start_byte < _LONGEST_CALL and
             _LOADS.match(content, node.start_byte))
    imports = {required for node in loads if (required := _required(text(node)))}
    names = sorted((node.start_byte, node.end_byte) for node in found.get("name", ()))
    spaces = [(node.start_byte, node.end_byte) for node in found.get("space", ())]
    assigned = {node.start_byte for node in found.get("assigned", ())}
    places = [(start, -end, False) for start, end in spaces]
    places += [(node.start_byte, -node.end_byte, True) for node in found.get("constant", ())]
    defines: set[str] = set()
    uses: set[str] = set()
    around: list[tuple[int, str]] = []  # where each open class or module ends, and its full name
    seen = -1  # the end of the last whole constant
    named = {start for start, _ in names}
    for start, end, is_constant in sorted(places):  # outer before inner
        while around and around[-1][0] <= start:
            around.pop()
        nesting = around[-1][1] if around else ""
        if not is_constant:
            name = content[slice(*names[bisect_right(names, (start,))])].decode("utf-8", "replace")
            full = name[2:] if name.startswith("::") else f"{nesting}::{name}" if nesting else name
            around.append((-end, full))
            defines.add(full)
        elif -end > seen:
            seen = -end
            name = content[start:-end].decode("utf-8", "replace")
            if start in assigned:
                defines.add(f"{nesting}::{name}" if nesting else name)
            elif start not in named and _NAME.match(name):
                uses.add(f"{nesting}|{name}")
    return Facts("ruby", tuple(sorted(imports)), "", tuple(sorted(defines)), tuple(sorted(uses)),
                 wrong_bytes(tree, content))


_ROOTS = frozenset(("lib", "test", "spec", "features"))


class _Files:
    """Finds what is required: below folders called lib, and below test and spec for what lies in them."""

    def __init__(self, paths: Collection[str]) -> None:
        self._by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)  # name below a root: (root, path)
        self._by_constant: dict[str, list[str]] = defaultdict(list)
        self._paths = frozenset(paths)
        for path in sorted(paths):
            parts = path.split("/")
            places = [i for i, part in enumerate(parts[:-1], 1) if part in _ROOTS]
            for i in (0, *places):
                self._by_name["/".join(parts[i:])].append(("/".join(parts[:i]), path))
            app = [i + 1 for i, part in enumerate(parts[:-2], 1) if part == "app"]
            for i in {0, *places, *app, *(i + 1 for i in app if i < len(parts) - 1 and parts[i] == "concerns")}:
                self._by_constant[_plain("::".join(parts[i:]).removesuffix(".rb"))].append(path)

    def required(self, path: str, name: str) -> str | None:
        for each in (name, f"{name}.rb"):
            candidates = [(root, target) for root, target in self._by_name.get(each, ())
                          if posixpath.basename(root) in ("lib", "") or path.startswith(f"{root}/")]
            if candidates:  # the nearest root; the repository itself is one only when nothing else is
                return max(candidates, key=lambda each: (
                    bool(each[0]), len(posixpath.commonprefix((path, each[0]))), -each[0].count("/"), each[1]))[1]
        return None

    def relative(self, path: str, name: str) -> str | None:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        return next((each for each in (f"{place}.rb", place) if each in self._paths), None)

    def named(self, constant: str) -> list[str]:
        """Files that are named after a constant."""
        return self._by_constant.get(_plain(constant), [])


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _candidates(use: str) -> Iterator[str]:
    """Full names that a constant may have, the innermost first, then those of what it is inside of."""
    nesting, _, name = use.partition("|")
    if name.startswith("::"):
        nesting, name = "", name[2:]
    parts = nesting.split("::") if nesting else []
    pieces = name.split("::")
    for length in range(len(pieces), 0, -1):
        for depth in range(len(parts), -1, -1):
            yield "::".join((*parts[:depth], *pieces[:length]))


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    places = _Files(files)
    defined = {name for facts in files.values() for name in facts.defines}
    defines = {path: frozenset(facts.defines) for path, facts in files.items()}
    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        found: set[str | None] = set()
        for kind, name in facts.imports:
            found.add(places.relative(path, name) if kind == "relative" else places.required(path, name))
        for use in facts.uses:
            constant = next((each for each in _candidates(use) if each in defined), None)
            if constant is None or constant in defines[path]:
                continue
            parts = constant.split("::")
            for length in range(len(parts), 0, -1):  # a constant may stand in the file of the class around it
                owners = [each for each in places.named("::".join(parts[:length])) if constant in defines[each]]
                if owners:
                    found |= set(owners) if len(owners) == 1 else set()
                    break
        result[path] = {target for target in found if target is not None and target != path}
    return result
