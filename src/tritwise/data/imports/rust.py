"""Rust: `mod` declarations, `use`, and paths in expressions, followed through re-exports to the file that is meant.

Items are read by a scanner, not from the syntax tree: macros such as `cfg_rt! { mod a; }` hide them from the parser.
All of `#[cfg]` counts.

Forms, where `scope` names the modules written inside the file ("a::b", "" for the file itself):

    imports  ("mod", scope, name, path attribute); ("macro", "name!", module, path attribute) for a module that is
             declared where the macro is used; ("use", scope, path, name here, "pub" | "" | "local");
             ("path", scope, path); ("include", file)
    defines  "scope::name" of items, "name!" of macros, "crate!name" of exported ones
    uses     "name!" of macros
"""

import posixpath
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import parse, wrong_bytes
from tritwise.data.imports.rust_modules import Crates

MANIFESTS = frozenset(("Cargo.toml",))

_NAME = rb"(?:r#)?[A-Za-z_]\w*"
_KEYWORDS = rb"(?:mod|pub|use|extern|macro_rules|fn|struct|enum|union|trait|type|const|static|macro)\b"
_TOKENS = re.compile(
    # A run of names that are neither a keyword nor part of a path: most of the text, in one match.
    rb"(?:\b(?!" + _KEYWORDS + rb")[A-Za-z_]\w*+(?!\s*(?:::|!)|[\"'#])[\s\d.,;()\[\]=<>&*+|?@-]*+)++|"
    rb"//[^\n]*|/\*.*?(?:\*/|\Z)|"
    rb'b?r(?P<hashes>#*)"(?:.*?"(?P=hashes)|.*\Z)|'
    rb'b?"(?:[^"\\]|\\.)*"|'
    rb"b?'(?:[^'\\\n]|\\(?:u\{[^}]*\}|x..|.))'|'\w+|"
    rb'#!?\[\s*path\s*=\s*"(?P<attribute>[^"\n]*)"\s*\]|'
    rb"(?P<export>#\[\s*macro_export)|"
    rb"(?P<open>\{)|(?P<close>\})|"
    rb"\bmod\s+(?P<mod>" + _NAME + rb")\s*(?P<inline>[;{])|"
    rb"(?P<visibility>\bpub\b\s*(?:\([^)\n]{0,80}\)\s*)?)?\buse\s(?P<use>[^;]{0,4096});|"
    rb"\bextern\s+crate\s+(?P<crate>" + _NAME + rb")(?:\s+as\s+(?P<alias>" + _NAME + rb"))?|"
    rb"\bmacro_rules!\s*(?P<rules>" + _NAME + rb")|"
    rb'\binclude(?:_str|_bytes)?!\s*\(\s*"(?P<include>[^"\n]*)"|'
    rb"\b(?:fn|struct|enum|union|trait|type|const|static|macro)\s+(?:mut\s+)?(?P<define>" + _NAME + rb")|"
    rb"(?P<path>(?:\$?" + _NAME + rb"|(?<![\w>]))(?:\s*::\s*" + _NAME + rb")+)(?P<bang>!\s*\{?)?|"
    rb"\b(?P<macro>" + _NAME + rb")!\s*(?P<body>\{)?|"
    rb"\b" + _NAME, re.DOTALL)
_DEEPEST = 64  # braces within which modules are told apart
_OTHER_CRATES = frozenset(("Self", "std", "core", "alloc", "proc_macro"))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").replace("r#", "")


def _use_tree(text: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, name here) of a use declaration; a name is "*" for all of a module's."""
    depth, start = 0, 0
    for i, character in enumerate(text + ","):
        depth += (character == "{") - (character == "}")
        if character != "," or depth:
            continue
        part, start = text[start:i].strip(), i + 1
        head, brace, rest = part.partition("{")
        if brace:
            yield from _use_tree(rest.rpartition("}")[0], prefix + head)
        elif part:
            path, _, alias = part.partition(" as ")
            path = prefix + path.strip()
            name = path.rpartition("::")[2]
            if name == "self" and path != "self":
                path = path.removesuffix("::self")
                name = path.rpartition("::")[2]
            yield path, alias.strip() or name


class _Scanner:
    """Reads the items of a file; keeps which braces are open and what they belong to."""

    def __init__(self) -> None:
        self.imports: set[tuple[str, ...]] = set()
        self.defines: set[str] = set()
        self.uses: set[str] = set()
        # A module's name; "" for a macro that wraps items; None for everything else.
        self._open: list[str | None] = []
        self._rules = ("", -1)  # the macro whose rules are being read, and how many braces are open around it
        self._branches = False  # inside cfg_if!, whose branches wrap items

    def _scope(self) -> str:
        return "::".join(name for name in self._open[:_DEEPEST] if name)

    def _is_local(self) -> bool:
        return None in self._open

    def read(self, content: bytes) -> None:
        attribute, export = "", False
        for match in _TOKENS.finditer(content):
            kind = match.lastgroup
            if kind is None or kind == "hashes":
                continue
            group = match.group
            if kind == "open":
                self._open.append("" if self._open and self._open[-1] == "" and self._branches else None)
            elif kind == "close":
                if self._open:
                    self._open.pop()
                self._branches = self._branches and "" in self._open
                if len(self._open) <= self._rules[1]:
                    self._rules = ("", -1)
            elif kind == "attribute":
                attribute = _text(group("attribute"))
            elif kind == "export":
                export = True
            elif kind == "inline":
                name = _text(group("mod"))
                if group("inline") == b"{":
                    self.defines.add(self._in_scope(name))
                    self._open.append(name if len(self._open) < _DEEPEST else None)
                elif self._rules[0]:
                    self.imports.add(("macro", self._rules[0], name, attribute))
                else:
                    self.imports.add(("mod", self._scope(), name, attribute))
                attribute = ""
            elif kind == "use":
                visibility = "local" if self._is_local() else "pub" if group("visibility") else ""
                if group("use").count(b"{") > 256:  # nested deeper than any source
                    continue
                text = re.sub(r"\s+", " ", re.sub(r"//[^\n]*|/\*.*?\*/", "", _text(group("use"))))
                for path, name in _use_tree(re.sub(r"\s*::\s*", "::", text)):
                    self._add_path("use", path, name, visibility)
            elif kind in ("crate", "alias"):
                name = _text(group("crate"))
                if name != "self":
                    self.imports.add(("use", self._scope(), f"::{name}", _text(group("alias") or group("crate")), ""))
            elif kind == "rules":
                name = f"{_text(group('rules'))}!"
                self._rules = self._rules if self._rules[0] else (name, len(self._open))
                self.defines.add(name)
                if export:
                    self.defines.add(f"crate!{_text(group('rules'))}")
                export = False
            elif kind == "include":
                self.imports.add(("include", _text(group("include"))))
            elif kind == "define":
                if not self._is_local():
                    self.defines.add(self._in_scope(_text(group("define"))))
            elif kind in ("path", "bang"):
                self._add_path("path", re.sub(r"\s", "", _text(group("path"))))
                if (group("bang") or b"").endswith(b"{"):
                    self._enter_macro(group("path"))
            elif kind in ("macro", "body"):
                self.uses.add(f"{_text(group('macro'))}!")
                if group("body"):
                    self._enter_macro(group("macro"))

    def _enter_macro(self, name: bytes) -> None:
        self._branches = self._branches or name.endswith(b"cfg_if")
        self._open.append(None if self._is_local() else "")

    def _in_scope(self, name: str) -> str:
        scope = self._scope()
        return f"{scope}::{name}" if scope else name

    def _add_path(self, kind: str, path: str, *more: str) -> None:
        path = path.replace("$crate", "crate")
        first = path.removeprefix("::").partition("::")[0]
        if first not in _OTHER_CRATES and (kind == "use" or not first[:1].isupper()) and "$" not in path:
            self.imports.add((kind, self._scope(), path, *more))


def extract(path: str, content: bytes) -> Facts:
    scanner = _Scanner()
    scanner.read(content)
    return Facts("rust", tuple(sorted(scanner.imports)), "", tuple(sorted(scanner.defines)),
                 tuple(sorted(scanner.uses)), wrong_bytes(parse("rust", content), content))


def manifest(path: str, content: bytes) -> Facts:
    """Cargo.toml: ("root", crate name, file), ("library", file) and ("dependency", name here, package name)."""
    try:
        value: dict[str, Any] = tomllib.loads(content.decode("utf-8", "replace"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return Facts("Cargo.toml", wrong_bytes=len(content))

    def table(where: Any, name: str) -> dict[str, Any]:
        found = where.get(name) if isinstance(where, dict) else None
        return found if isinstance(found, dict) else {}

    found: set[tuple[str, ...]] = set()
    package = str(table(value, "package").get("name", ""))
    library = table(value, "lib")
    if isinstance(library.get("path"), str):
        found.add(("library", library["path"]))
    if isinstance(library.get("name"), str):
        found.add(("name", library["name"]))
    for kind in ("bin", "test", "example", "bench"):
        targets = value.get(kind)
        found |= {("root", each["path"]) for each in (targets if isinstance(targets, list) else ())
                  if isinstance(each, dict) and isinstance(each.get("path"), str)}
    places = [value, table(value, "workspace"), *table(value, "target").values()]
    for place in places:
        for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
            for name, each in table(place, kind).items():
                if isinstance(each, dict) and isinstance(each.get("package"), str):
                    found.add(("dependency", name.replace("-", "_"), each["package"].replace("-", "_")))
    return Facts("Cargo.toml", tuple(sorted(found)), package.replace("-", "_"))


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    crates = Crates(files, {path: facts for path, facts in manifests.items() if facts.language == "Cargo.toml"})
    result = {}
    for path, facts in files.items():
        found = set(crates.children(path))
        for each in facts.imports:
            if each[0] == "include":
                found.add(posixpath.normpath(posixpath.join(posixpath.dirname(path), each[1])))
            elif each[0] in ("use", "path"):
                found |= crates.find(path, each[1], each[2])
        for use in facts.uses:
            found |= crates.macro(path, use)
        result[path] = {target for target in found if target in files and target != path}
    return result
