"""Facts of a Scala file, in the form that tritwise.data.imports.jvm describes."""

import re
from typing import TYPE_CHECKING

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import decoded, mentions, texts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

if TYPE_CHECKING:
    from tree_sitter import Node

_QUERY = """
(import_declaration) @import
(package_clause name: (_) @package)
[(class_definition name: (identifier) @own) (object_definition name: (identifier) @own)
    (trait_definition name: (identifier) @own) (enum_definition name: (identifier) @own)
    (function_definition name: (identifier) @own) (function_declaration name: (identifier) @own)
    (type_definition name: (type_identifier) @own) (simple_enum_case name: (identifier) @own)
    (full_enum_case name: (identifier) @own)
    (type_parameters name: (identifier) @own)]
[(val_definition pattern: (identifier) @variable) (var_definition pattern: (identifier) @variable)
    (parameter name: (identifier) @variable) (class_parameter name: (identifier) @variable)
    (case_clause pattern: (identifier) @variable) (binding name: (identifier) @variable)
    (enumerator . (identifier) @variable)]
[(comment) (block_comment) (string) (interpolated_string) (character_literal)] @text
(interpolation) @inside
"""
_NAMED = frozenset({"class_definition", "object_definition", "trait_definition", "enum_definition", "type_definition",
                    "function_definition", "function_declaration", "given_definition", "val_declaration"})
_SELECTORS = re.compile(r"(.*?)\.?\s*\{(.*)\}\s*", re.DOTALL)
_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)


def _joined(node: "Node", content: bytes) -> bytes:
    """A dotted name, whatever white space and back quotes stand in it."""
    return b"".join(content[slice(*node.byte_range)].split()).replace(b"`", b"")


def _top_level(body: "Node", content: bytes, package: bytes, found: set[bytes]) -> None:
    """Names that a file, a package in braces or a package object holds, with a dot behind each package inside."""
    for node in body.named_children:
        if node.type in ("package_clause", "package_object"):
            inner, name = node.child_by_field_name("body"), node.child_by_field_name("name")
            if inner is not None and name is not None:
                _top_level(inner, content, package + _joined(name, content) + b".", found)
        elif node.type in ("val_definition", "var_definition"):
            pattern = node.child_by_field_name("pattern")
            if pattern is not None and pattern.type == "identifier":
                found.add(package + content[slice(*pattern.byte_range)])
        elif node.type == "extension_definition":
            _top_level(node, content, package, found)
        elif node.type in _NAMED:
            name = node.child_by_field_name("name")
            if name is not None:
                found.add(package + content[slice(*name.byte_range)])


def _imports(text: str) -> "list[tuple[str, str]]":
    """(path, local name) of each part of an import declaration."""
    result = []
    for clause in re.split(r",(?![^{]*\})", text.strip().removeprefix("import")):
        match = _SELECTORS.fullmatch(clause)
        path, selectors = (match[1], match[2].split(",")) if match else clause.rstrip().rpartition(".")[::2]
        path = "".join(path.split()).replace("`", "")
        for selector in selectors if match else [selectors]:
            name, *alias = re.split(r"\s*=>\s*|\s+as\s+", selector.strip().replace("`", ""))
            if name in ("_", "*") or name == "given" or name.startswith("given "):
                result.append((path, "*"))
            elif name and (not alias or alias[0] != "_"):
                result.append((f"{path}.{name}" if path else name, alias[0] if alias else name))
    return result


def extract(content: bytes) -> Facts:
    tree = parse("scala", content)
    found = captures("scala", _QUERY, tree)
    clauses, packages = [], []
    for node in tree.root_node.named_children:
        if node.type == "package_clause" and node.child_by_field_name("body") is None:
            for name in node.children_by_field_name("name"):
                clauses.append(_joined(name, content).decode("utf-8", "replace"))
            packages.append(".".join(clauses))
    imports = {(package, "^") for package in packages[:-1]}
    for node in found.get("import", ()):
        text = _COMMENT.sub(b" ", content[slice(*node.byte_range)]).decode("utf-8", "replace")
        imports.update(_imports(text))
    defines: set[bytes] = set()
    _top_level(tree.root_node, content, b"", defines)

    left_out = [node for kind in ("package", "import", "text") for node in found.get(kind, ())]
    used = mentions(content, left_out, call=b"([{", inside=found.get("inside", ()))
    own = texts(found.get("own", ()), content)
    variables = texts(found.get("variable", ()), content)
    plain = {name for name in used.plain - own if name not in variables or name in used.called}
    return Facts("scala", tuple(sorted(imports)), packages[-1] if packages else "", decoded(defines),
                 decoded(plain | used.in_full), wrong_bytes(tree, content))
