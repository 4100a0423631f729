"""Facts of a Java file, in the form that tritwise.data.imports.jvm describes."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import decoded, texts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

if TYPE_CHECKING:
    from tree_sitter import Node

_QUERY = """
(package_declaration) @package
(import_declaration) @import
(program [(class_declaration name: (identifier) @define) (interface_declaration name: (identifier) @define)
    (enum_declaration name: (identifier) @define) (record_declaration name: (identifier) @define)
    (annotation_type_declaration name: (identifier) @define)])
(class_declaration name: (identifier) @own)
(interface_declaration name: (identifier) @own)
(enum_declaration name: (identifier) @own)
(record_declaration name: (identifier) @own)
(annotation_type_declaration name: (identifier) @own)
(type_parameter . (type_identifier) @own)
(program (class_declaration [(superclass) (super_interfaces)] @head))
(program (interface_declaration (extends_interfaces) @head))
(program (enum_declaration (super_interfaces) @head))
(program (record_declaration (super_interfaces) @head))
(type_identifier) @use
(method_invocation object: (identifier) @value)
(field_access object: (identifier) @value)
(method_reference . (identifier) @value)
(marker_annotation name: (_) @use)
(annotation name: (_) @use)
(record_pattern . (identifier) @use)
[(method_declaration) (constructor_declaration) (field_declaration)] @member
[(superclass) (super_interfaces) (extends_interfaces)] @inherits
(type_parameter (type_bound)) @bounded
(method_invocation name: (identifier) @call arguments: (argument_list) @arguments)
(field_access field: (identifier) @call)
(method_reference (identifier) @call .)
"""
# A name in full, up to its first part with a capital: `java.util.Map` of `java.util.Map.Entry`.
_IN_FULL = re.compile(rb"[a-z_]\w*(?:\.[a-z_]\w*)*\.[A-Z]\w*")
_DOT = ord(".")
_ARGUMENTS = re.compile(rb"<[^<>]*>|@\w[\w.]*(?:\([^()]*\))?")
# A type in front of the dot or the colons before a member.
_RECEIVER = re.compile(rb"(?<![\w.)\]])([A-Z]\w*)(?:\.|::)\Z")
_BOUND = re.compile(rb"(\w+)\s+extends\s+(?:\w+\.)*(\w+)")
_TYPE = re.compile(rb"(?<![.\w])[A-Z]\w*")
_WORD = re.compile(rb"(?<![.\w])\w+")


def _starts_upper(name: bytes) -> bool:
    return name[:1].isupper() or name[:1] > b"\x7f"


def _names_at(nodes: "Iterable[Node]", content: bytes) -> set[bytes]:
    """The names at these nodes that stand behind no dot, and those of them that are in full: `a.b.C` of `a.b.C.d`."""
    found: set[bytes] = set()
    for node in nodes:
        start = node.start_byte
        if start and content[start - 1] == _DOT:
            continue
        end = node.end_byte
        name = content[start:end].partition(b".")[0]
        found.add(name)
        if content[start + len(name):start + len(name) + 1] == b"." and (match := _IN_FULL.match(content, start)):
            found.add(match[0])
    return found - {b""}


def _erased(text: bytes) -> bytes:
    """A signature as the compiled class has it: without what stands in angle brackets."""
    while True:
        shorter = _ARGUMENTS.sub(b" ", text)
        if shorter == text:
            return text
        text = shorter


def _members(nodes: "Iterable[Node]", bounds: dict[bytes, bytes], content: bytes) -> set[bytes]:
    """Methods and fields with the types in their signatures, as `jvm` describes them."""
    signatures: dict[bytes, set[bytes]] = {}
    for node in nodes:
        kind, parameters = node.child_by_field_name("type"), node.child_by_field_name("parameters")
        if kind is None:
            continue
        text = content[slice(*kind.byte_range)]
        if parameters is None:  # a field, or several
            names = [each.child_by_field_name("name") for each in node.children_by_field_name("declarator")]
            count = b""
        else:
            names = [node.child_by_field_name("name")]
            signature = content[slice(*parameters.byte_range)]
            count = b"/*" if b"..." in signature else b"/%d" % parameters.named_child_count
            text += b" " + signature
        types = {bounds.get(name, name) for name in _TYPE.findall(_erased(text))}
        is_static = b"static" in content[node.start_byte:kind.start_byte].split()
        for name in names:
            if name is not None and name.start_byte < name.end_byte:  # else the parser missed one here
                key = (b"#!" if is_static else b"#") + content[slice(*name.byte_range)] + count
                signatures.setdefault(key, set()).update(types)
    return {b" ".join([name, *sorted(types)]) for name, types in signatures.items()}


def _calls(names: "Iterable[Node]", arguments: "Iterable[Node]", content: bytes) -> set[bytes]:
    """Members that are called or read, as `jvm` describes them."""
    counts = {node.start_byte: b"/%d" % node.named_child_count for node in arguments}
    found: set[bytes] = set()
    for node in names:
        start, end = node.byte_range
        receiver = b""
        if content[start - 1] == _DOT or content[start - 1:start] == b":":
            before = _RECEIVER.search(content, max(0, start - 80), start)
            receiver = before[1] + b"." if before else b"."
        found.add(b"(" + receiver + content[start:end] + counts.get(end, b""))
    return found


def extract(content: bytes) -> Facts:
    tree = parse("java", content)
    found = captures("java", _QUERY, tree)
    package = b""
    for node in found.get("package", ()):
        package = b"".join(content[node.start_byte:node.end_byte].rpartition(b"package")[2].rstrip(b"; \t").split())
    imports: set[tuple[str, str]] = set()
    for node in found.get("import", ()):
        words = content[node.start_byte:node.end_byte].rstrip(b"; \t\r\n").split()
        is_static = words[1:2] == [b"static"]
        name = b"".join(words[2:] if is_static else words[1:]).decode("utf-8", "replace")
        outer, _, local = name.rpartition(".")
        # A member that is imported means its class, whatever becomes of it.
        imports.add((outer, "*") if is_static or local == "*" else (name, local))
    uses = _names_at(found.get("use", ()), content)
    values = _names_at(found.get("value", ()), content)
    own = texts(found.get("own", ()), content)
    # What a class inherits from is named outside of it, where the types inside it cannot be meant.
    own -= {name for node in found.get("head", ()) for name in _WORD.findall(content, *node.byte_range)}
    # Of names of values only those that look like a type's; a variable is no other file's.
    names = {name for name in uses if b"." not in name} | {name for name in values if _starts_upper(name)}
    in_full = {name for name in uses | values if b"." in name}
    # In the order of the text, for of two methods' variables of one name the last one counts.
    bounds = dict(match.groups() for node in sorted(found.get("bounded", ()), key=lambda node: node.start_byte)
                  if (match := _BOUND.match(content, *node.byte_range)))
    members = _members(found.get("member", ()), bounds, content)
    inherits = {b"<" + name for node in found.get("inherits", ())
                for name in _TYPE.findall(_erased(content[slice(*node.byte_range)]))}
    calls = _calls(found.get("call", ()), found.get("arguments", ()), content)
    defines = texts(found.get("define", ()), content) | members | inherits
    return Facts("java", tuple(sorted(imports)), package.decode("utf-8", "replace"), decoded(defines),
                 decoded((names - own) | in_full | calls), wrong_bytes(tree))
