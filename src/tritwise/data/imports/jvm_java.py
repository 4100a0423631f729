"""Facts of a Java file, in the form that tritwise.data.imports.jvm describes."""

import re

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import decoded, mentions, texts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

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
"""
_WORD = re.compile(rb"(?<![.\w])\w+")


def _starts_upper(name: bytes) -> bool:
    return name[:1].isupper() or name[:1] > b"\x7f"


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
    uses = mentions(found.get("use", ()), content)
    values = mentions(found.get("value", ()), content)
    # Of names of values only those that look like a type's; a variable is no other file's.
    own = texts(found.get("own", ()), content)
    # What a class inherits from is named outside of it, where the types inside it cannot be meant.
    own -= {name for node in found.get("head", ()) for name in _WORD.findall(content, *node.byte_range)}
    names = {name.partition(b".")[0] for name in uses.plain} | {name for name in values.plain if _starts_upper(name)}
    return Facts("java", tuple(sorted(imports)), package.decode("utf-8", "replace"),
                 decoded(texts(found.get("define", ()), content)),
                 decoded((names - own) | uses.in_full | values.in_full), wrong_bytes(tree))
