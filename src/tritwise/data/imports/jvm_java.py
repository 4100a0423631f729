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
[(method_declaration) (constructor_declaration) (field_declaration) (record_declaration)] @member
[(superclass) (super_interfaces) (extends_interfaces)] @inherits
(type_parameter (type_bound)) @bounded
(method_invocation name: (identifier) @call arguments: (argument_list) @arguments)
(field_access field: (identifier) @call)
(method_reference (identifier) @call .)
(object_creation_expression type: (_) @made arguments: (argument_list) @arguments)
(explicit_constructor_invocation constructor: (super)) @super
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
_FIRST = re.compile(rb"\(\s*(?:final\s+)?(?:[a-z_]\w*\.)*([A-Z]\w*)")
# How an argument begins that is a text, a character or a number: no parameter of another file's type takes it.
_LITERAL = frozenset((b'"', b"'", *(b"%d" % digit for digit in range(10))))


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


def _bounds(nodes: "Iterable[Node]", content: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """Type parameters that extend a type: bytes between which one counts, its name, the type; outer ones first."""
    found = []
    for node in nodes:
        match = _BOUND.match(content, *node.byte_range)
        owner = node.parent and node.parent.parent  # a class or a method, with its list of type parameters
        if match and owner:
            found.append((*owner.byte_range, *match.groups()))
    return sorted(found)


def _members(nodes: "Iterable[Node]", bounded: list[tuple[int, int, bytes, bytes]], content: bytes) -> set[bytes]:
    """Methods, constructors and fields with the types in their signatures, as `jvm` describes them."""
    signatures: dict[tuple[bytes, bytes], set[bytes]] = {}  # by name and first parameter
    for node in nodes:
        kind, parameters = node.child_by_field_name("type"), node.child_by_field_name("parameters")
        if kind is None and parameters is None:
            continue
        bounds = {name: bound for start, end, name, bound in bounded
                  if start <= node.start_byte and node.end_byte <= end} if bounded else {}
        first = b""
        text = b"" if kind is None else _erased(content[slice(*kind.byte_range)])
        if parameters is None:  # a field, or several
            names = [each.child_by_field_name("name") for each in node.children_by_field_name("declarator")]
            count = b""
        else:
            names = [node.child_by_field_name("name")]
            signature = _erased(content[slice(*parameters.byte_range)])
            many = parameters.named_child_count
            count = b"/%d*" % (many - 1) if b"..." in signature else b"/%d" % many
            if match := _FIRST.match(signature):
                first = bounds.get(match[1], match[1]) + b"'"
            text += b" " + signature
        types = {bounds.get(name, name) for name in _TYPE.findall(text)} | ({first} if first else set())
        is_static = kind is not None and b"static" in content[node.start_byte:kind.start_byte].split()
        for name in names:
            if name is not None and name.start_byte < name.end_byte:  # else the parser missed one here
                key = (b"#!" if is_static else b"#") + content[slice(*name.byte_range)] + count
                signatures.setdefault((key, first), set()).update(types)
    return {b" ".join([name, *sorted(types)]) for (name, _), types in signatures.items()}


def _count(arguments: "Node", content: bytes) -> bytes:
    """What a call's fact says of its arguments: how many, and whether the first is a literal."""
    begin = arguments.start_byte + 1  # of a file that is cut here, its end
    return (b"/%d'" if content[begin:begin + 1] in _LITERAL else b"/%d") % arguments.named_child_count


def _constructed(text: bytes) -> bytes:
    """The receiver and the name in the fact of a constructor's call: "C.C" of `C`, "C.D" of `C.D<E>`."""
    if text.isalnum():  # most are
        return text + b"." + text if _starts_upper(text) else b""
    names = _erased(text).strip().split(b".")
    return b"" if not all(map(_starts_upper, names)) else names[0].strip() + b"." + names[-1].strip()


def _constructors(made: "Iterable[Node]", supers: "Iterable[Node]", counts: dict[int, bytes],
                  content: bytes) -> set[bytes]:
    """Constructors that are called, with `new` or as the parent's, as `jvm` describes them."""
    found = {(_constructed(content[slice(*node.byte_range)]), counts.get(node.end_byte, b"")) for node in made}
    for node in supers:
        arguments, parent = node.child_by_field_name("arguments"), node.parent
        while parent is not None and parent.type != "class_declaration":
            parent = parent.parent
        inherits = parent and parent.child_by_field_name("superclass")
        if arguments and inherits:
            text = content[slice(*inherits.byte_range)].partition(b"extends")[2]
            found.add((_constructed(text), _count(arguments, content)))
    return {b"(" + name + count for name, count in found if name and count}


def _calls(names: "Iterable[Node]", counts: dict[int, bytes], content: bytes) -> set[bytes]:
    """Members that are called or read, as `jvm` describes them."""
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
    for node in sorted(found.get("package", ()), key=lambda node: node.start_byte):
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
    members = _members(found.get("member", ()), _bounds(found.get("bounded", ()), content), content)
    inherits = {b"<" + name for node in found.get("inherits", ())
                for name in _TYPE.findall(_erased(content[slice(*node.byte_range)]))}
    counts = {node.start_byte: _count(node, content) for node in found.get("arguments", ())}
    calls = _calls(found.get("call", ()), counts, content)
    calls |= _constructors(found.get("made", ()), found.get("super", ()), counts, content)
    defines = texts(found.get("define", ()), content) | members | inherits
    return Facts("java", tuple(sorted(imports)), package.decode("utf-8", "replace"), decoded(defines),
                 decoded((names - own) | in_full | calls), wrong_bytes(tree, content))
