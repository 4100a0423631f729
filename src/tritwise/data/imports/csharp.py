"""C#: namespaces, using directives and type names.

Facts of a file:

    package   its first namespace; further ones are imports ("A.B", "^")
    imports   ("A.B", "*") for `using A.B`, ("A.B.C", "static") for `using static`, ("A.B.C", "X") for an alias; with a
              further part "global" where they hold for the whole project
    defines   types that lie in no other type, in full; ".f C" is an extension method f of a type C; "#f" is a member
    uses      names of types mentioned and not defined here: "C", "A.B.C" with what stands behind dots, ".f" is a method
              called behind a dot

A name is looked for in the namespaces of the file and those around them, then in those that are used. A project is the
folder of a .csproj file. Parts of a partial class depend on the part whose file has the class's name.
"""

import posixpath
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import Extensions, decoded, nearest, texts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

if TYPE_CHECKING:
    from tree_sitter import Node

MANIFESTS: frozenset[str] = frozenset()

_QUERY = """
(using_directive) @using
(namespace_declaration name: (_) @namespace) @block
(file_scoped_namespace_declaration name: (_) @namespace) @open
[(class_declaration name: (identifier) @type) (struct_declaration name: (identifier) @type)
    (interface_declaration name: (identifier) @type) (enum_declaration name: (identifier) @type)
    (record_declaration name: (identifier) @type) (delegate_declaration name: (identifier) @type)] @body
(type_parameter name: (identifier) @own)
[(method_declaration name: (identifier) @member) (property_declaration name: (identifier) @member)
    (event_field_declaration (variable_declaration (variable_declarator name: (identifier) @member)))
    (field_declaration (variable_declaration (variable_declarator name: (identifier) @member)))]
(method_declaration name: (identifier) @extension
    parameters: (parameter_list . (parameter (modifier) type: (_) @extended)))
[(_ type: (identifier) @use) (_ returns: (identifier) @use) (base_list (identifier) @use)
    (type_argument_list (identifier) @use) (generic_name . (identifier) @use)
    (qualified_name qualifier: (identifier) @use)
    (qualified_name qualifier: (alias_qualified_name name: (identifier) @use))
    (alias_qualified_name name: (identifier) @use)
    (as_expression right: (identifier) @use) (is_expression right: (identifier) @use)
    (explicit_interface_specifier (identifier) @use) (primary_constructor_base_type type: (identifier) @use)]
[(member_access_expression expression: (identifier) @value) (constant_pattern (identifier) @value)
    (argument (identifier) @value)]
(attribute name: (_) @attribute)
(invocation_expression function: (member_access_expression
    name: [(identifier) @call (generic_name . (identifier) @call)]))
"""
_USING = re.compile(r"(global\s+)?using\s+(static\s+|unsafe\s+)*(?:(@?\w+)\s*=\s*)?(?:global::)?([\w.@\s]+)", re.DOTALL)
_CHAIN = re.compile(rb"\w+(?:\.[A-Z_]\w*){1,7}")
_LAST_NAME = re.compile(rb"(\w+)\s*(?:<.*)?[\[\]?,\s]*\Z", re.DOTALL)
_DOT = ord(".")


def _spaces(found: "Mapping[str, list[Node]]", content: bytes) -> list[tuple[int, int, bytes]]:
    """Where each namespace begins and ends, and its name as it is written, in the order of the text."""
    ends = {node.start_byte: node.end_byte for node in found.get("block", ())}
    opened = {node.start_byte for node in found.get("open", ())}
    starts = sorted([*ends, *opened])
    names = sorted(found.get("namespace", ()), key=lambda node: node.start_byte)
    result = []
    for start, name in zip(starts, names, strict=False):  # a namespace has one name
        text = b"".join(content[slice(*name.byte_range)].split())
        result.append((start, ends.get(start, len(content)), text))
    return result


def _types(found: "Mapping[str, list[Node]]", content: bytes) -> tuple[list[bytes], list[bytes], set[bytes]]:
    """Namespaces in full, types that lie in no other in full, and the names of the others."""
    spaces = _spaces(found, content)
    bodies = sorted((node.start_byte, node.end_byte) for node in found.get("body", ()))
    names = sorted(found.get("type", ()), key=lambda node: node.start_byte)
    outer: list[bytes] = []
    inner: set[bytes] = set()
    stack: list[tuple[int, bytes]] = []  # ends and full names of the namespaces around
    namespaces: list[bytes] = []
    end_of_type = position = 0
    for node in names:
        start, name = node.start_byte, content[slice(*node.byte_range)]
        while position < len(spaces) and spaces[position][0] < start:
            while stack and stack[-1][0] <= spaces[position][0]:
                stack.pop()
            around = stack[-1][1] + b"." if stack else b""
            stack.append((spaces[position][1], around + spaces[position][2]))
            namespaces.append(stack[-1][1])
            position += 1
        while stack and stack[-1][0] <= start:
            stack.pop()
        if start < end_of_type:
            inner.add(name)
            continue
        end_of_type = max(end for begin, end in bodies if begin <= start)
        outer.append(stack[-1][1] + b"." + name if stack else name)
    return namespaces, outer, inner


def _name(node: "Node", content: bytes) -> bytes:
    """The name at a node, with what stands behind its dots; nothing when it stands behind one itself."""
    start = node.start_byte
    if start and content[start - 1] == _DOT:
        return b""
    chain = _CHAIN.match(content, start)
    return chain[0] if chain else content[start:node.end_byte]


def extract(path: str, content: bytes) -> Facts:
    """Facts of a file; SlowFileError as `parse`."""
    tree = parse("c#", content)
    found = captures("c#", _QUERY, tree)
    namespaces, outer, inner = _types(found, content)
    imports: set[tuple[str, ...]] = set()
    usings: list[tuple[int, int]] = []
    for node in found.get("using", ()):
        usings.append(node.byte_range)
        match = _USING.match(content[slice(*node.byte_range)].decode("utf-8", "replace"))
        if match:
            everywhere, static, alias, name = match.groups()
            kind = alias or ("static" if static and "static" in static else "*")
            imports.add(("".join(name.split()), kind, *(["global"] if everywhere else [])))
    package = namespaces[0].decode("utf-8", "replace") if namespaces else ""
    imports |= {(name, "^") for name in decoded(namespaces) if name != package}

    extensions = {}
    extended = sorted(found.get("extended", ()), key=lambda node: node.start_byte)
    starts = [node.start_byte for node in extended]
    for name in found.get("extension", ()):  # the type that may be extended is the next one behind the name
        node = extended[bisect_right(starts, name.start_byte)]
        # Asked here and not by the query: a predicate has the text behind a name copied to look at it.
        if not any(child.type == "modifier" and content[slice(*child.byte_range)] == b"this"
                   for child in node.parent.children):
            continue
        last = _LAST_NAME.search(content[slice(*node.byte_range)])
        extensions[name.start_byte] = b".%s %s" % (content[slice(*name.byte_range)], last[1] if last else b"")
    member_nodes = [node for node in found.get("member", ()) if node.start_byte not in extensions]
    members = texts(member_nodes, content)
    defines = {*outer, *extensions.values(), *(b"#" + name for name in members)}

    own = inner | {name.rpartition(b".")[2] for name in outer} | texts(found.get("own", ()), content)
    head = max((end for _, end in usings), default=0)
    uses = {_name(node, content) for node in found.get("use", ()) if node.start_byte >= head}
    # A value may be a property or a constant of this file: only types begin with a capital and are none of its members.
    uses |= {name for node in found.get("value", ()) if (name := _name(node, content))[:1].isupper()
             and name.partition(b".")[0] not in members}
    for node in found.get("attribute", ()):
        name = content[slice(*node.byte_range)].partition(b"<")[0]
        uses |= {name, name + b"Attribute"}
    uses = {name for name in uses if name.partition(b".")[0] not in own} - {b""}
    uses |= {b"." + name for name in texts(found.get("call", ()), content)}
    return Facts("c#", tuple(sorted(imports)), package, decoded(defines), decoded(uses), wrong_bytes(tree, content))


def _around(namespace: str) -> Iterator[str]:
    """A namespace and those around it, the innermost first; at last the one without a name."""
    while namespace:
        yield namespace
        namespace = namespace.rpartition(".")[0]
    yield ""


def _joined(namespace: str, name: str) -> str:
    return f"{namespace}.{name}" if namespace else name


class _Projects:
    """The project of a file: the nearest folder above it with a .csproj file."""

    def __init__(self, paths: Collection[str]) -> None:
        self._folders = {posixpath.dirname(path) for path in paths if path.endswith(".csproj")}

    def of(self, path: str) -> str:
        folder = posixpath.dirname(path)
        while folder and folder not in self._folders:
            folder = posixpath.dirname(folder)
        return folder


class _Types:
    """The files of each type, and of each extension method by its namespace."""

    def __init__(self, files: Mapping[str, Facts], projects: _Projects) -> None:
        self.files: dict[str, list[str]] = {}
        self.extensions = Extensions()
        self.namespaces: set[str] = set()
        self.project = {path: projects.of(path) for path in files}
        for path in sorted(files):
            facts = files[path]
            self.extensions.add(path, facts.package, facts.defines)
            for name in facts.defines:
                if name[0] not in ".#":
                    self.files.setdefault(name, []).append(path)
                    self.namespaces.update(_around(name.rpartition(".")[0]))
        # What the parts of a partial class hold, so that `C.f` means one of them.
        in_parts = {path for paths in self.files.values() if len(paths) > 1 for path in paths}
        self._members = {path: {name[1:].partition(" ")[0] for name in files[path].defines if name[0] in ".#"}
                         for path in in_parts}
        # Methods of the library's types have names such as StartsWith, too: extensions of types that are defined here
        # count where those are mentioned.
        self.names = {name.rpartition(".")[2] for name in self.files}

    def longest(self, name: str) -> Collection[str]:
        while name:
            if name in self.files:
                return self.files[name]
            name = name.rpartition(".")[0]
        return ()

    def holding(self, paths: Collection[str], member: str) -> Collection[str]:
        """Of the files of one type those that hold a member of it; all of them when none does."""
        return [path for path in paths if member in self._members.get(path, ())] or paths

    def meant(self, importer: str, candidates: Collection[str]) -> set[str]:
        """Of the files that define a type, those of the project that is meant: a partial class has several."""
        if importer in candidates:
            return set()
        own = {path for path in candidates if self.project[path] == self.project[importer]}
        if own:
            return own
        projects = {self.project[path] for path in nearest(importer, candidates)}
        return {path for path in candidates if self.project[path] in projects}


def _targets(facts: Facts, usings: Collection[tuple[str, ...]], types: _Types) -> Iterator[Collection[str]]:
    """The files that define each type in use."""
    own = [facts.package, *(name for name, kind, *_ in facts.imports if kind == "^")]
    # `using B` inside the namespace A may mean A.B.
    used = [full for name, kind, *_ in usings if kind == "*"
            for namespace in _around(facts.package) if (full := _joined(namespace, name)) in types.namespaces]
    aliases = {kind: name for name, kind, *_ in usings if kind not in ("*", "static", "^")}
    places = list(dict.fromkeys([*(place for namespace in own for place in _around(namespace)), *sorted(used)]))

    def in_sight(name: str) -> Collection[str]:
        return next((types.files[full] for place in places if (full := _joined(place, name)) in types.files), ())

    for name, kind, *_ in usings:
        if kind == "static":
            full = (_joined(place, name) for place in _around(facts.package))
            yield next((found for each in full if (found := types.longest(each))), ())
    mentioned = frozenset(name.partition(".")[0] for name in facts.uses if name[0] != ".")
    for name in facts.uses:
        if name[0] == ".":
            yield types.extensions.find(name[1:], places, mentioned, types.names)
            continue
        first, _, rest = name.partition(".")
        if first in aliases:
            yield types.longest(_joined(aliases[first], rest) if rest else aliases[first])
            continue
        found = in_sight(first)
        if rest and len(found) > 1:
            found = types.holding(found, rest.partition(".")[0])
        elif rest and not found:  # the first parts may be a namespace
            found = next((longest for place in places if (longest := _in_full(types, place, name))), ())
        yield found


def _in_full(types: _Types, place: str, name: str) -> Collection[str]:
    """The files of the longest beginning of a name that is a type below a place, when its first part is a namespace."""
    parts = name.split(".")
    if _joined(place, parts[0]) not in types.namespaces:
        return ()
    for length in range(len(parts), 1, -1):
        found = types.files.get(_joined(place, ".".join(parts[:length])))
        if found:
            return found
    return ()


def _parts(types: _Types) -> Iterator[tuple[str, str]]:
    """Pairs of files that hold parts of one class: a part, and the one that is called after the class."""
    for name, paths in types.files.items():
        if len(paths) > 1:
            simple = name.rpartition(".")[2]
            main = next((path for path in paths if posixpath.basename(path) == f"{simple}.cs"), None)
            if main:
                yield from ((path, main) for path in paths if types.project[path] == types.project[main])


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    """For each file, the files of the same repository that define the types it mentions."""
    types = _Types(files, _Projects({*files, *paths}))
    everywhere: dict[str, list[tuple[str, ...]]] = {}
    for path, facts in files.items():
        everywhere.setdefault(types.project[path], []).extend(each for each in facts.imports if each[2:] == ("global",))
    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        usings = [*facts.imports, *sorted(everywhere[types.project[path]])]
        found = {target for each in _targets(facts, usings, types) if each for target in types.meant(path, each)}
        result[path] = found - {path}
    for part, main in _parts(types):
        if part != main:
            result[part].add(main)
    return result
