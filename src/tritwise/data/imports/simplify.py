"""A file's text with only its structure left, of the same length: what a grammar may trip over is blanked.

Grammars fail at what stands in comments and strings between the parts of a sound construct, at macros, and at braces
that both branches of a conditional open. The preprocessor removes the latter before a compiler parses; here its work
is guessed: of each conditional the first branch stays, and macros in places where only a macro can stand go.
"""

import re

from tritwise.data.imports.parse import SlowFileError, parse, wrong_bytes

# Languages whose grammars make errors of sound files.
SIMPLIFIED = frozenset({"c", "c++", "c#", "kotlin", "swift"})

# Comments and strings; what is not closed goes to the end of the file, or of the line. Strings may hold expressions
# with strings, one deep: \( ) of Swift, ${ } of Kotlin, { } of C#.
_TEXTS = re.compile(
    rb'//[^\n]*|/\*.*?(?:\*/|\Z)|(?<!\w)(?:u8|[LuU])?R"([^()\\\s]{0,16})\((?:.*?\)\1"|.*\Z)'
    rb'|\$*"{3,}.*?(?:"{3,}|\Z)|(?:@\$?|\$@)"(?:[^"]|"")*+(?:"|\Z)'
    rb'|\$?"(?>\\\((?>[^()"\n]|"[^"\n]*"|\((?>[^()"\n]|"[^"\n]*")*+\))*+\)|\$?\{(?>[^{}"\n]|"[^"\n]*")*+\}'
    rb'|[^"\\\n]|\\.)*+"'
    rb"|(?<![0-9a-fA-F])'(?:[^'\\\n]|\\.)*+'", re.DOTALL)
_DIRECTIVE = re.compile(rb"^[ \t]*#[ \t]*(ifdef|ifndef|if|elifdef|elifndef|elif|else|endif)\b((?:[^\n\\]|\\.|\\\n)*+)",
                        re.MULTILINE)
_NEVER = re.compile(rb"if[ \t]+0[ \t]*|ifdef[ \t]+__cplusplus[ \t]*")
# NAME alone in its line, with or without arguments, or before what it is an attribute of.
_MACRO = re.compile(rb"^[ \t]*[A-Z][A-Z0-9_]{3,}(?:[ \t]*\([^()\n]*\))?(?=[ \t]*$|[ \t]+[A-Za-z_])", re.MULTILINE)
# Kotlin's constructor in a line of its own behind modifiers, and modifiers that are names here: `final = true`.
_CONSTRUCTOR = re.compile(rb"(?<!\s)\s++(?=(?:(?:internal|private|protected|public|actual|expect)[ \t]+)+"
                          rb"constructor\b)")
_SOFT = re.compile(
    rb"\b(?:abstract|actual|annotation|companion|const|crossinline|data|enum|expect|external|final|get|infix|inline|inner|"
    rb"internal|lateinit|noinline|open|operator|out|override|sealed|set|suspend|tailrec|value|vararg)"
    rb"(?=[ \t]*(?:\.|[-+*/]?=)|\([^()\n]*\)\.)")
_VISIBLE = re.compile(rb"[^\n]")


def wrong_bytes_again(language: str, content: bytes) -> int:
    """Wrong bytes of a file without what its grammar may trip over; all of them when that takes too long."""
    content = simplified(language, content)
    try:
        return wrong_bytes(parse(language, content), content)
    except SlowFileError:
        return len(content)


def simplified(language: str, content: bytes) -> bytes:
    """`content` (UTF-8) with comments, the insides of strings and the preprocessor's part blanked, Kotlin's modifiers
    renamed where they are names; the length stays."""
    content = _TEXTS.sub(_without_text, content)
    match language:
        case "c" | "c++":
            return _MACRO.sub(lambda macro: _blank(macro[0]), _first_branches(content))
        case "c#":
            return _first_branches(content)
        case "kotlin":
            content = _CONSTRUCTOR.sub(lambda space: b" " * len(space[0]), content)
            return _SOFT.sub(lambda name: b"x" * len(name[0]), content)
    return content


def _blank(text: bytes) -> bytes:
    return _VISIBLE.sub(b" ", text)


def _without_text(match: re.Match[bytes]) -> bytes:
    text = match[0]
    if text.startswith((b"//", b"/*")):
        return _blank(text)
    return text if text.startswith(b"'") or len(text) < 2 else b'""' + _blank(text[2:])


def _first_branches(content: bytes) -> bytes:
    """Of each conditional the first branch that can be taken; `#if 0` and `#ifdef __cplusplus` cannot."""
    pieces: list[bytes] = []
    outer: list[tuple[bool, bool]] = []  # of each open conditional: whether it is read at all, whether a branch was
    reads, last = True, 0
    for match in _DIRECTIVE.finditer(content):
        between = content[last:match.start()]
        pieces += [between if reads else _blank(between), _blank(match[0])]
        last = match.end()
        if match[1].startswith(b"if"):
            outer.append((reads, reads and not _NEVER.fullmatch(match[1] + match[2])))
            reads = outer[-1][1]
        elif outer and match[1] == b"endif":
            reads = outer.pop()[0]
        elif outer:
            here, taken = outer[-1]
            reads = here and not taken
            outer[-1] = here, taken or reads
    rest = content[last:]
    return b"".join([*pieces, rest if reads else _blank(rest)])
