"""Facts of a Kotlin file, in the form that tritwise.data.imports.jvm describes."""

import posixpath
import re

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import decoded, mentions, texts
from tritwise.data.imports.parse import captures, parse, wrong_bytes

_QUERY = """
(package_header) @package
(import) @import
(source_file [(class_declaration name: (identifier) @type) (object_declaration name: (identifier) @type)
    (type_alias type: (identifier) @type)
    (function_declaration name: (identifier) @function)
    (property_declaration (variable_declaration . (identifier) @value))])
(class_body [(function_declaration name: (identifier) @member)
    (property_declaration (variable_declaration . (identifier) @member))])
(class_parameter ["val" "var"] (identifier) @member)
[(class_declaration name: (identifier) @own) (object_declaration name: (identifier) @own)
    (type_alias type: (identifier) @own) (type_parameter (identifier) @own)
    (function_declaration name: (identifier) @own) (enum_entry . (identifier) @own)]
[(variable_declaration . (identifier) @variable) (parameter . (identifier) @variable)
    (class_parameter (identifier) @variable)]
[(line_comment) (block_comment) (string_content) (character_literal)] @text
"""
_IMPORT = re.compile(r"import\s+([\w.`\s]*?)(\.\s*\*|\s+as\s+`?(\w+)`?)?\s*;?", re.DOTALL)
_JVM_NAME = re.compile(rb"@file:(?:kotlin\.jvm\.)?JvmName\(\s*(?:name\s*=\s*)?\"(\w+)\"")
_RECEIVER = re.compile(rb"(\w+)(?:<[^()]*>)?\??\.\Z")


def extract(path: str, content: bytes) -> Facts:
    tree = parse("kotlin", content)
    found = captures("kotlin", _QUERY, tree)
    package = ""
    for node in sorted(found.get("package", ()), key=lambda node: node.start_byte):
        text = content[node.start_byte:node.end_byte].decode("utf-8", "replace")
        package = "".join(text.partition("package")[2].split()).strip(";`").replace("`", "")
    imports: set[tuple[str, str]] = set()
    for node in found.get("import", ()):
        match = _IMPORT.fullmatch(content[node.start_byte:node.end_byte].decode("utf-8", "replace").strip())
        if match:
            name = "".join(match[1].split()).replace("`", "")
            star = bool(match[2]) and not match[3]
            imports.add((name, "*" if star else match[3] or name.rpartition(".")[2]))

    # What other files can name. An extension's name stands behind the dot of its receiver.
    defines = texts(found.get("type", ()), content)
    functions = [*found.get("function", ()), *found.get("value", ())]
    for node in functions:
        start, end = node.byte_range
        if content[start - 1:start] == b".":
            receiver = _RECEIVER.search(content, max(0, start - 200), start)
            defines.add(b".%s %s" % (content[start:end], receiver[1] if receiver else b""))
        else:
            defines.add(content[start:end])
    # Extensions are not asked where a class has a member of that name.
    defines |= {b"#" + name for name in texts(found.get("member", ()), content)}
    if functions:  # Java names them by a class that is called after the file
        file_class = _JVM_NAME.search(content)
        stem = posixpath.splitext(posixpath.basename(path))[0].replace("-", "_")
        defines.add(file_class[1] if file_class else (stem[:1].upper() + stem[1:] + "Kt").encode())

    used = mentions(content, [node for kind in ("package", "import", "text") for node in found.get(kind, ())])
    own = texts(found.get("own", ()), content)
    variables = texts(found.get("variable", ()), content)
    # A variable hides a value of its name but not a function that is called.
    plain = {name for name in used.plain - own if name not in variables or name in used.called}
    members = {b"." + name for name in used.members}
    return Facts("kotlin", tuple(sorted(imports)), package, decoded(defines),
                 decoded(plain | members | used.in_full), wrong_bytes(tree, content))
