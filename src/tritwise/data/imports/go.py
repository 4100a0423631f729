"""Go: an import names a package, which is a directory; the names that are used say which of its files is meant.

Files of one package see each other without an import. Build tags are not looked at: where several files define a name
for different systems, all are dependencies.

Forms: `imports` (path, name) where name is what the file calls it, "" for the package's own name; `defines` holds
names of the package, ".name(" for methods and ".name" for fields; `uses` holds "name", "package.name" and the last two
for what is selected from a value, with "(" where it is called.
"""

import posixpath
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

MANIFESTS = frozenset(("go.mod",))

_QUERY = """
(package_clause (package_identifier) @package)
(import_spec) @import
(source_file (_) @top)
(source_file (function_declaration name: (_) @define))
(source_file (type_declaration [(type_spec name: (_) @define) (type_alias name: (_) @define)]))
(source_file (var_declaration [(var_spec name: (_) @define) (var_spec_list (var_spec name: (_) @define))]))
(source_file (const_declaration (const_spec name: (_) @define)))
(method_declaration name: (_) @method)
(source_file (type_declaration (type_spec type: (interface_type (method_elem name: (_) @method)))))
(source_file (type_declaration (type_spec type: (struct_type (field_declaration_list (field_declaration
  name: (_) @field))))))
(field_declaration name: (_) @member)
(method_elem name: (_) @member)
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

_COMMON_MEMBER_NAMES = (
    "Add Addr Body Bytes Cancel Close Context Copy Count Data Del Delete Done Err Error Errorf Fatal Fatalf Flush "
    "Format Get Handler Header Host ID Index Info Is Key Kind Len Less Lock Method Name New Next Parse Path Pop Print "
    "Printf Println Push Query Read Reset Run Seek Set Size Start Stat Status Stop String Swap Time Type URL Unlock "
    "Unwrap Value Values Wait Write WriteString")
_COMMON_MEMBERS = frozenset(_COMMON_MEMBER_NAMES.split())
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
    defines = {name for name in texts("define") if name not in (b"_", b"init", b"main")}
    # A member that is declared here, be it of a type inside a function, is not another file's.
    own = {b"." + name for name in texts("member")} | {b".%b(" % name for name in texts("method")}
    members = {b"." + name for name in texts("field")} | {b".%b(" % name for name in texts("method")}
    names = texts("package")
    return Facts("go", tuple(sorted(imports)), names[0].decode("utf-8", "replace") if names else "",
                 _decoded(defines | members), _decoded(uses - defines - own), wrong_bytes(tree))


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
        self.definers: dict[str, set[str]] = defaultdict(set)
        self.name = ""

    def add(self, path: str, facts: Facts) -> None:
        self.name = facts.package
        for name in facts.defines:
            self.definers[name].add(path)


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
    return {path: _targets(path, facts, packages) for path, facts in files.items()}


def _usual_names(path: str) -> Iterator[str]:
    """What a package of another module may be called: `yaml` for gopkg.in/yaml.v3 and for github.com/x/go-yaml/v2."""
    parts = path.split("/")
    last = parts[-2] if len(parts) > 1 and re.fullmatch(r"v\d+", parts[-1]) else parts[-1]
    last = re.sub(r"\.v\d+$", "", last)
    yield last
    yield re.sub(r"^go[-_.]?|[-_.]go$", "", last)
    yield from re.split(r"[-_.]", last)


def _targets(path: str, facts: Facts, packages: _Packages) -> set[str]:
    own = packages.own(path, facts)
    visible = [own]
    by_name: dict[str, _Package] = {}
    for name, alias in facts.imports:
        package = packages.imported(name)
        if package is not None and alias == ".":
            visible.append(package)
        elif package is not None and alias != "_":
            by_name[alias or package.name] = package
        elif package is None and alias not in (".", "_"):
            by_name |= dict.fromkeys([alias] if alias else _usual_names(name), _Package())
    packages_here = {id(package): package for package in (*visible, *by_name.values())}.values()
    found: set[str] = set()
    for use in facts.uses:
        name, dot, member = use.partition(".")
        if not name:
            found |= _member_definer(use, path, packages_here, own)
        elif dot and name in by_name:
            found |= by_name[name].definers.get(member.rstrip("("), set())
        else:
            for package in visible:
                found |= package.definers.get(name, set())
            if dot:
                found |= _member_definer("." + member, path, packages_here, own)
    test = path.endswith("_test.go")
    return {target for target in found if target != path and (test or not target.endswith("_test.go"))}


def _member_definer(name: str, path: str, packages: Collection[_Package], own: _Package) -> set[str]:
    """The file that alone defines a method or field of this name, among the packages that this file names.

    Types are not inferred, so a name that types of the standard library have too is left alone, and tests, which
    define many small types, are not looked into.
    """
    if name.strip(".(") in _COMMON_MEMBERS:
        return set()
    definers: set[str] = set()
    for package in packages:
        if package is own or name[1:2].isupper():
            definers |= {each for each in package.definers.get(name, ()) if not each.endswith("_test.go")}
    return definers if len(definers) == 1 else set()
