"""Go: an import names a package, which is a directory; the names that are used say which of its files is meant.

Files of one package see each other without an import. Build tags are not looked at: where several files define a name
for different systems, all are dependencies.

A method or field is looked for among the types that a file can have values of: those that it names, those that the
functions and variables which it names lead to, and so on through the methods and fields that it uses.

Forms: `imports` (path, name) where name is what the file calls it, "" for the package's own name; `defines` holds names
of the package, "Type.name(" for methods and "Type.name" for fields, and each of them again as "what>Type" for the types
that it leads to; `uses` holds "name", "package.name", and ".name" for what is selected from a value, with "(" where it
is called.
"""

import posixpath
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

if TYPE_CHECKING:
    from tree_sitter import Node

MANIFESTS = frozenset(("go.mod",))

_QUERY = """
(package_clause (package_identifier) @package)
(import_spec) @import
(source_file (_) @top)
(field_declaration name: (_) @local)
(method_elem name: (_) @local)
(method_declaration name: (_) @local)
(parameter_declaration name: (_) @local)
(variadic_parameter_declaration name: (_) @local)
(type_parameter_declaration name: (_) @local)
(short_var_declaration left: (expression_list (identifier) @local))
(range_clause left: (expression_list (identifier) @local))
(receive_statement left: (expression_list (identifier) @local))
(type_switch_statement alias: (expression_list (identifier) @local))
(block (statement_list (var_declaration [(var_spec name: (_) @local) (var_spec_list (var_spec name: (_) @local))])))
(block (statement_list (const_declaration (const_spec name: (_) @local))))
(block (statement_list (type_declaration [(type_spec name: (_) @local) (type_alias name: (_) @local)])))
(composite_literal type: [(type_identifier) (qualified_type) (generic_type)]
  body: (literal_value (keyed_element . (literal_element (identifier) @key))))
"""

_NAME = rb"[A-Za-z_\x80-\xff][\w\x80-\xff]*"
# Comments and literals match without a group. A name after a dot is selected; one before a dot may be a package.
_USES = re.compile(rb"//[^\n]*|/\*.*?(?:\*/|\Z)|`[^`]*`|" rb'"(?:[^"\\\n]|\\.)*"|' rb"'(?:[^'\\\n]|\\.)+'|"
                   rb"\d[\w.]*|\.\s*(" + _NAME + rb"\(?)|(" + _NAME + rb")"
                   rb"(?:\.(" + _NAME + rb"\(?)|(\s*:)(?!=))?", re.DOTALL)
# Names that every file may use, and those of values everywhere: they say nothing about where they are defined.
_PREDECLARED = frozenset(
    b"break case chan const continue default defer else fallthrough for func go goto if import interface map package "
    b"range return select struct switch type var any bool byte comparable complex64 complex128 error float32 float64 "
    b"int int8 int16 int32 int64 rune string uint uint8 uint16 uint32 uint64 uintptr true false iota nil append cap "
    b"clear close complex copy delete imag len make max min new panic print println real recover init main _".split())

_NEVER_NAMED = frozenset((b"_", b"init", b"main"))
_TYPE_NAMES = re.compile(rb"(?:" + _NAME + rb"\.)?" + _NAME)
_RECEIVER = re.compile(rb"(" + _NAME + rb")\s*(?:\[[^\]]*\]\s*)?,?\s*\)\s*\Z")
# What a value is made by: NewThing(...), &Thing{...}, new(Thing).
_MAKER = re.compile(rb"&?(?:new\()?((?:" + _NAME + rb"\.)?" + _NAME + rb")\s*[({)]")
_WITH_USES = frozenset(("const_declaration", "function_declaration", "method_declaration", "type_declaration",
                        "var_declaration", "ERROR"))


def extract(path: str, content: bytes) -> Facts:
    tree = parse("go", content)
    found = captures("go", _QUERY, tree)

    def texts(kind: str) -> list[bytes]:
        return [content[node.start_byte:node.end_byte] for node in found.get(kind, ())]

    imports = set()
    for node in found.get("import", ()):
        target, alias = node.child_by_field_name("path"), node.child_by_field_name("name")
        if target is not None:
            name = content[alias.start_byte:alias.end_byte].decode("utf-8", "replace") if alias is not None else ""
            imports.add((content[target.start_byte + 1:target.end_byte - 1].decode("utf-8", "replace"), name))
    tops = sorted((node for node in found.get("top", ()) if node.type in _WITH_USES), key=lambda node: node.start_byte)
    starts = [node.start_byte for node in tops]
    hidden: list[set[bytes]] = [set() for _ in tops]
    keys: set[bytes] = set(texts("key"))
    for kind in ("local", "member", "method"):
        for node in found.get(kind, ()):
            place = bisect_right(starts, node.start_byte) - 1
            if place >= 0:
                hidden[place].add(content[node.start_byte:node.end_byte])
    uses: set[bytes] = {b"." + key for key in keys}
    for top, local in zip(tops, hidden, strict=True):
        local |= _PREDECLARED
        for selected, name, member, colon in set(_USES.findall(content, top.start_byte, top.end_byte)):
            if selected:
                uses.add(b"." + selected)
            elif not name or (colon and name in keys):
                continue
            elif not member:
                uses |= {name} - local
            else:
                uses.add(b"." + member if name in local else name + b"." + member)
    defines = {name for top in tops for name in _definitions(top, content)}
    names = texts("package")
    return Facts("go", tuple(sorted(imports)), names[0].decode("utf-8", "replace") if names else "",
                 _decoded(defines), _decoded(uses - defines), wrong_bytes(tree, content))


def _definitions(top: "Node", content: bytes) -> Iterator[bytes]:
    """What a declaration defines, and which names lead from it to types."""

    def text(node: "Node") -> bytes:
        return content[node.start_byte:node.end_byte]

    def named(what: bytes, *types: "Node | None") -> Iterator[bytes]:
        yield what
        for each in types:
            if each is not None:
                for qualified in set(_TYPE_NAMES.findall(text(each))) - _PREDECLARED:
                    yield what + b">" + qualified

    def specs(node: "Node") -> Iterator["Node"]:
        for each in node.named_children:
            if each.type.endswith("_list"):
                yield from specs(each)
            elif each.type.endswith(("_spec", "_alias")):
                yield each

    if top.type == "function_declaration":
        name = top.child_by_field_name("name")
        if name is not None and text(name) not in _NEVER_NAMED:
            yield from named(text(name), top.child_by_field_name("result"))
    elif top.type == "method_declaration":
        receiver, name = top.child_by_field_name("receiver"), top.child_by_field_name("name")
        owner = _RECEIVER.search(text(receiver)) if receiver is not None else None
        if owner and name is not None:
            yield from named(b"%b.%b(" % (owner[1], text(name)), top.child_by_field_name("result"))
    else:
        for spec in specs(top):
            found, value = spec.child_by_field_name("type"), spec.child_by_field_name("value")
            for name in spec.children_by_field_name("name"):
                if spec.type not in ("type_spec", "type_alias"):
                    if text(name) not in _NEVER_NAMED:
                        yield from named(text(name), found)
                        made = _MAKER.match(text(value)) if found is None and value is not None else None
                        if made:
                            yield b"%b>%b" % (text(name), made[1])
                elif found is not None and found.type in ("struct_type", "interface_type"):
                    yield from _members(text(name), found, content, named)
                else:
                    yield from named(text(name), found)


def _members(owner: bytes, found: "Node", content: bytes, named: "Callable[..., Iterator[bytes]]") -> Iterator[bytes]:
    """Fields of a struct or methods of an interface; what is embedded is reached from the type itself."""
    yield owner
    for child in found.named_children:
        for each in child.named_children if child.type == "field_declaration_list" else (child,):
            names = each.children_by_field_name("name")
            if each.type == "method_elem":
                name = content[names[0].start_byte:names[0].end_byte] if names else b""
                yield from named(b"%b.%b(" % (owner, name), each.child_by_field_name("result"))
            elif each.type == "field_declaration":
                for name in names:
                    yield from named(b"%b.%b" % (owner, content[name.start_byte:name.end_byte]),
                                     each.child_by_field_name("type"))
                if not names:
                    target = each.child_by_field_name("type")
                    short = None if target is None else _TYPE_NAMES.search(
                        content[target.start_byte:target.end_byte])
                    if short:
                        yield from named(b"%b.%b" % (owner, short[0].rpartition(b".")[2]), target)
                        yield from named(owner, target)
            elif each.type in ("type_elem", "constraint_elem"):
                yield from named(owner, each)


def _decoded(names: set[bytes]) -> tuple[str, ...]:
    return tuple(sorted({name.decode("utf-8", "replace") for name in names}))


_MOD_LINE = re.compile(r'^\s*(?:(module|replace)\s+)?"?([^\s"]+)"?(?:\s+v\S+)?(?:\s+=>\s+"?([^\s"]+)"?)?', re.MULTILINE)


def manifest(path: str, content: bytes) -> Facts:
    """go.mod: ("module", path) and ("replace", path, folder) for replacements inside the repository."""
    found = set()
    for directive, name, target in _MOD_LINE.findall(re.sub(r"//[^\n]*", "", content.decode("utf-8", "replace"))):
        if directive == "module":
            found.add(("module", name))
        elif target.startswith("."):
            found.add(("replace", name, target))
    return Facts("go.mod", tuple(sorted(found)))


class _Package:
    """The files of one directory with one package clause, by the names that they define."""

    def __init__(self) -> None:
        self.name = ""
        self.definers: dict[str, set[str]] = defaultdict(set)
        self.members: dict[str, set[str]] = defaultdict(set)  # of a type: "name" and "name("
        self.leads: dict[str, set[tuple[str, str]]] = defaultdict(set)  # of a name: (file, type as the file writes it)

    def add(self, path: str, facts: Facts) -> None:
        self.name = facts.package
        for each in facts.defines:
            what, leads, target = each.partition(">")
            if leads:
                self.leads[what].add((path, target))
                continue
            self.definers[what].add(path)
            owner, dot, member = what.partition(".")
            if dot:
                self.members[owner].add(member)


class _Packages:
    def __init__(self, files: Mapping[str, Facts], manifests: Mapping[str, Facts], repository: str) -> None:
        self._packages: dict[tuple[str, str], _Package] = defaultdict(_Package)
        clauses: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for path, facts in files.items():
            directory = posixpath.dirname(path)
            self._packages[directory, facts.package].add(path, facts)
            if not path.endswith("_test.go"):
                clauses[directory][facts.package] += 1
        # A directory is one package; a file apart (of `package main`, to be run by hand) is not what is imported.
        self._imported = {directory: max(counts, key=lambda name: (name != "main", counts[name], name))
                          for directory, counts in clauses.items()}
        self._modules = [("/" + posixpath.basename(repository) + "/", "")] if repository and not manifests else []
        for path, facts in manifests.items():
            directory = posixpath.dirname(path)
            for each in facts.imports:
                if each[0] == "module":
                    self._modules.append((each[1], directory))
                elif each[0] == "replace":
                    self._modules.append((each[1], posixpath.normpath(posixpath.join(directory, each[2]))))
        self._modules.sort(key=lambda each: (-len(each[0]), each[1]))

    def own(self, path: str, facts: Facts) -> _Package:
        return self._packages[posixpath.dirname(path), facts.package]

    def imported(self, name: str) -> _Package | None:
        for directory in self._directories(name):
            if directory in self._imported:
                return self._packages[directory, self._imported[directory]]
        return None

    def _directories(self, name: str) -> Iterator[str]:
        for module, directory in self._modules:
            if module.startswith("/") and module in f"{name}/":  # no go.mod: GOPATH/src/.../REPOSITORY/directory
                yield f"{name}/".partition(module)[2].rstrip("/")
            elif name == module or name.startswith(module + "/"):
                rest = name[len(module) + 1:]
                yield posixpath.join(directory, rest) if rest else "" if directory == "." else directory
            yield posixpath.join(directory, "vendor", name)


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    packages = _Packages(files, {path: facts for path, facts in manifests.items() if facts.language == "go.mod"},
                         repository)
    scopes = {path: _Scope(path, facts, packages) for path, facts in files.items()}
    result = {}
    for path, facts in files.items():
        found = _reached(path, facts, scopes)
        test = path.endswith("_test.go")
        result[path] = {target for target in found if target != path and (test or not target.endswith("_test.go"))}
    return result


def _usual_names(path: str) -> Iterator[str]:
    """What a package of another module may be called: `yaml` for gopkg.in/yaml.v3 and for github.com/x/go-yaml/v2."""
    parts = path.split("/")
    last = parts[-2] if len(parts) > 1 and re.fullmatch(r"v\d+", parts[-1]) else parts[-1]
    last = re.sub(r"\.v\d+$", "", last)
    yield last
    yield re.sub(r"^go[-_.]?|[-_.]go$", "", last)
    yield from re.split(r"[-_.]", last)


class _Scope:
    """What names mean in one file."""

    def __init__(self, path: str, facts: Facts, packages: _Packages) -> None:
        self.own = packages.own(path, facts)
        self.visible = [self.own]
        self.imported: dict[str, _Package] = {}
        for name, alias in facts.imports:
            package = packages.imported(name)
            if package is not None and alias == ".":
                self.visible.append(package)
            elif package is not None and alias != "_":
                self.imported[alias or package.name] = package
            elif package is None and alias not in (".", "_"):
                self.imported |= dict.fromkeys([alias] if alias else _usual_names(name), _Package())

    def find(self, use: str) -> Iterator[tuple[_Package, str]]:
        """The packages and names that "name" or "package.name" stands for."""
        name, dot, member = use.partition(".")
        if dot and name in self.imported:
            yield self.imported[name], member.rstrip("(")
        else:
            yield from ((package, name) for package in self.visible)


def _reached(path: str, facts: Facts, scopes: Mapping[str, _Scope]) -> set[str]:
    """The files that define what a file names, and the methods and fields that it uses of types it can have."""
    scope = scopes[path]
    found: set[str] = set()
    selected: set[str] = set()
    waiting: list[tuple[_Package, str]] = []
    for use in facts.uses:
        name, dot, member = use.partition(".")
        if dot and name not in scope.imported:
            selected.add(member)
        if name:
            waiting += scope.find(use)
    for package, name in waiting:
        found |= package.definers.get(name, set())
    waiting += ((scope.own, each.partition(">")[0]) for each in facts.defines)
    seen: set[tuple[int, str]] = set()
    while waiting:  # nearest first: a member that is found is not sought among types further away
        level, waiting = waiting, []
        here: set[str] = set()
        for package, name in level:
            if (id(package), name) in seen:
                continue
            seen.add((id(package), name))
            for place, target in package.leads.get(name, ()):
                waiting += scopes[place].find(target)
            members = package.members.get(name)
            for member in selected if members else ():
                # A field can be called, too, and a method can be taken as a value.
                other = member.removesuffix("(") if member.endswith("(") else f"{member}("
                each = member if member in members else other
                if each in members:
                    here.add(member)
                    found |= package.definers[f"{name}.{each}"]
                    waiting.append((package, f"{name}.{each}"))
        selected -= here
    return found
