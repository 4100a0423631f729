"""Swift: files of one module see each other without an import, those of another after one.

Facts of a file:

    imports   (module,); in a Package.swift its targets instead: (name, path or "", "test" or "")
    defines   top-level names: "C", "f"; ".f C" is what an extension adds to a type C; "#f" is a member of a type
    uses      names mentioned and not defined here: "C" alone, ".f" behind a dot

A module is a target of Package.swift; without one, the folder below Sources or Tests, else the topmost folder. What
the type of a value leads to stays unseen.
"""

import posixpath
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import Extensions, decoded, mentions, nearest, texts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

MANIFESTS: frozenset[str] = frozenset()  # a Package.swift is a Swift file: `extract` takes its targets

_QUERY = """
(import_declaration (identifier) @module)
(source_file [(class_declaration name: (type_identifier) @define) (protocol_declaration name: (type_identifier) @define)
    (typealias_declaration name: (type_identifier) @define) (function_declaration name: (simple_identifier) @define)
    (property_declaration name: (pattern bound_identifier: (simple_identifier) @define))
    (macro_declaration . (simple_identifier) @define)])
[(class_declaration name: (type_identifier) @own) (protocol_declaration name: (type_identifier) @own)
    (typealias_declaration name: (type_identifier) @own) (associatedtype_declaration name: (type_identifier) @own)
    (type_parameter . (type_identifier) @own)]
[(function_declaration name: (simple_identifier) @member)
    (protocol_function_declaration name: (simple_identifier) @member)
    (property_declaration name: (pattern bound_identifier: (simple_identifier) @member))
    (protocol_property_declaration name: (pattern bound_identifier: (simple_identifier) @member))
    (enum_entry name: (simple_identifier) @member)]
(parameter name: (simple_identifier) @variable)
(class_declaration "extension" name: (user_type) @extended body: (class_body) @extension)
(class_declaration "extension" name: (user_type) body: (class_body [
    (function_declaration name: (simple_identifier) @added)
    (property_declaration name: (pattern bound_identifier: (simple_identifier) @added))
    (typealias_declaration name: (type_identifier) @added)
    (class_declaration name: (type_identifier) @added)]))
[(comment) (multiline_comment) (line_str_text) (multi_line_str_text) (raw_str_part) (regex_literal)] @text
(import_declaration) @import
"""
_TARGET = re.compile(r"\.(target|testTarget|executableTarget|macro|plugin|systemLibrary)\s*\(")
_ARGUMENT = re.compile(r'\b(name|path)\s*:\s*"([^"]*)"')
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
# Folders whose folders are modules, as the package manager and most projects have it.
_SOURCES = ("Sources", "Source", "src", "srcs")
_TESTS = ("Tests", "Sources", "Source", "src", "srcs")


def extract(path: str, content: bytes) -> Facts:
    """Facts of a file; SlowFileError as `parse`."""
    tree = parse("swift", content)
    if posixpath.basename(path) == "Package.swift":
        return Facts("swift", _package_targets(content.decode("utf-8", "replace")),
                     wrong_bytes=wrong_bytes(tree, content))
    found = captures("swift", _QUERY, tree)
    modules = {name.partition(b".")[0].strip() for name in texts(found.get("module", ()), content)}
    # The members of an extension lie between its braces, and its type stands before them.
    blocks = sorted(node.byte_range for node in found.get("extension", ()))
    types = sorted(node.byte_range for node in found.get("extended", ()))
    added: set[bytes] = set()
    in_extension: set[int] = set()
    for node in found.get("added", ()):
        start, end = node.byte_range
        in_extension.add(start)
        block = blocks[bisect_right(blocks, (start, 0)) - 1][0]
        extended = content[slice(*types[bisect_right(types, (block, 0)) - 1])]
        added.add(b".%s %s" % (content[start:end], extended.partition(b"<")[0].rpartition(b".")[2].strip()))
    top = {node.start_byte for node in found.get("define", ())}
    members = texts([node for node in found.get("member", ())
                     if node.start_byte not in in_extension and node.start_byte not in top], content)
    defines = {*texts(found.get("define", ()), content), *added, *(b"#" + name for name in members)}

    used = mentions(content, [*found.get("import", ()), *found.get("text", ())])
    own = texts(found.get("own", ()), content) | texts(found.get("define", ()), content)
    variables = members | texts(found.get("variable", ()), content)
    plain = {name for name in used.plain - own if name not in variables or name in used.called}
    return Facts("swift", tuple((name,) for name in decoded(modules)), defines=decoded(defines),
                 uses=decoded(plain | {b"." + name for name in used.members}), wrong_bytes=wrong_bytes(tree, content))


def _package_targets(text: str) -> tuple[tuple[str, ...], ...]:
    """Name, path and kind of each target that a Package.swift declares."""
    text = _COMMENT.sub(" ", text)
    targets: set[tuple[str, ...]] = set()
    for match in _TARGET.finditer(text):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        arguments: dict[str, str] = {}
        for name, value in _ARGUMENT.findall(_without_calls(text[match.end():end - 1])):
            arguments.setdefault(name, value)
        if "name" in arguments:
            targets.add((arguments["name"], arguments.get("path", ""), "test" if match[1] == "testTarget" else ""))
    return tuple(sorted(targets))


def _without_calls(text: str) -> str:
    """The arguments of a call without those of the calls inside: `.product(name: "X")` names no target."""
    while True:
        shorter = re.sub(r"\([^()]*\)", "", text)
        if shorter == text:
            return text
        text = shorter


class _Modules:
    """The module of a file."""

    def __init__(self, files: Mapping[str, Facts]) -> None:
        folders = {posixpath.dirname(path) for path in files}
        above = {folder[:i] for folder in folders for i, sign in enumerate(folder) if sign == "/"} | folders
        self._targets: dict[str, str] = {}  # folder: name
        for path in sorted(path for path in files if posixpath.basename(path) == "Package.swift"):
            base = posixpath.dirname(path)
            for name, place, kind in files[path].imports:
                places = [place] if place else [f"{root}/{name}" for root in (_TESTS if kind else _SOURCES)]
                for each in places:
                    folder = posixpath.normpath(posixpath.join(base, each))
                    if folder in above or folder == ".":
                        self._targets.setdefault("" if folder == "." else folder, name)
                        break

    def of(self, path: str) -> str:
        folder = posixpath.dirname(path)
        while True:
            if folder in self._targets:
                return self._targets[folder]
            if not folder:
                break
            folder = posixpath.dirname(folder)
        parts = path.split("/")[:-1]
        for place, part in enumerate(parts[:-1]):
            if part in ("Sources", "Tests"):
                return parts[place + 1]
        return parts[0] if parts else ""


def _targets(facts: Facts, places: list[str], defined: Mapping[tuple[str, str], list[str]],
             extensions: Extensions) -> Iterator[Collection[str]]:
    """The files that define each name in use."""
    mentioned = frozenset(name for name in (*facts.uses, *facts.defines) if name[0] not in ".#")
    mentioned |= {name.partition(" ")[2] for name in facts.defines if name[0] == "."}  # types that it extends itself
    for name in facts.uses:
        if name[0] == ".":
            yield extensions.find(name[1:], places, mentioned)
        else:
            yield next((defined[place, name] for place in places if (place, name) in defined), ())
            yield extensions.find(name, places, mentioned, None)


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    """For each file, the files of the same repository that define what it mentions."""
    modules = _Modules(files)
    module_of = {path: modules.of(path) for path in files}
    defined: dict[tuple[str, str], list[str]] = {}
    extensions = Extensions()
    for path in sorted(files):
        extensions.add(path, module_of[path], files[path].defines)
        for name in files[path].defines:
            if name[0] not in ".#":
                defined.setdefault((module_of[path], name), []).append(path)
    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        places = list(dict.fromkeys([module_of[path], *(each[0] for each in facts.imports)]))
        candidates = _targets(facts, places, defined, extensions)
        result[path] = {target for each in candidates if each for target in nearest(path, each)} - {path}
    return result
