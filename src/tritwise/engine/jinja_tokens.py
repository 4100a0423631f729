"""Jinja templates to texts and the tokens of their tags.

Blocks lose the newline behind them and the blanks before them on their line, as transformers sets it (`trim_blocks`,
`lstrip_blocks`). Source: Jinja's "Template Designer Documentation" and the behaviour of jinja2 3.1, which the tests
compare with.
"""

import re
from typing import Any, NoReturn

from tritwise.common.errors import TritwiseError

MOST_TOKENS = 8000

_OPEN = re.compile(r"\{\{|\{%|\{#")
_ENDS = {"{{": re.compile(r"-\}\}\s*|\}\}"), "{%": re.compile(r"\+%\}|-%\}\s*|%\}\n?")}
_COMMENT_END = re.compile(r"\+#\}|-#\}\s*|#\}\n?")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*(?:\+%\}|-%\}\s*|%\}\n?)(.*?)\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)", re.S)
_TOKEN = re.compile(r"""
    (?P<float>\d[\d_]*(?:\.\d[\d_]*(?:[eE][+-]?\d+)?|[eE][+-]?\d+)) | (?P<int>\d[\d_]*) | (?P<name>[^\W\d]\w*)
    | (?P<str>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*") | (?P<op>//|\*\*|==|!=|<=|>=|[-+*/%~<>=()\[\]{}.,:|])
    """, re.X | re.S)
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00[01][0-9a-fA-F]{5}|.)", re.S)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "\n": "",
            "\\": "\\", "'": "'", '"': '"'}

Token = tuple[str, Any]


def refuse(why: str) -> NoReturn:
    """The error of a template that cannot be used."""
    raise TritwiseError("the chat template cannot be used", why=why)


def string_constants(source: str) -> set[str]:
    """The quoted texts inside a template's tags."""
    return {value for kind, part in parts(source) if kind != "text" for name, value in part if name == "str"}


def parts(source: str) -> list[tuple[str, Any]]:
    """Texts, and the tokens of each expression and block, in order."""
    source = source.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    found: list[tuple[str, Any]] = []
    at, tokens, starts_line = 0, 0, True
    while (opening := _OPEN.search(source, at)) is not None:
        mark, begin = opening[0], opening.end()
        sign = source[begin:begin + 1]
        text = source[at:opening.start()]
        if sign == "-":
            text = text.rstrip()
        elif mark != "{{" and sign != "+":
            text = _without_indent(text, starts_line)
        found.append(("text", text))
        if mark == "{#":
            closing = _COMMENT_END.search(source, begin)
            if closing is None:
                refuse("a comment does not end")
            at = closing.end()
        elif mark == "{%" and (raw := _RAW.match(source, opening.start())) is not None:
            found.append(("text", raw[1].rstrip() if raw[2] == "-" else _without_indent(raw[1], False)))
            at = raw.end()
        else:
            inside, at = _tokens(source, begin + (sign in ("-", "+") and sign != ""), _ENDS[mark])
            tokens += len(inside)
            if tokens > MOST_TOKENS:
                refuse(f"it has more than {MOST_TOKENS} words and signs")
            found.append(("print" if mark == "{{" else "block", inside))
        starts_line = source[at - 1:at] == "\n"
    return [*found, ("text", source[at:])]


def _without_indent(text: str, starts_line: bool) -> str:
    start = text.rfind("\n") + 1
    return text[:start] if (start or starts_line) and not text[start:].strip() else text


def _tokens(source: str, at: int, end: re.Pattern[str]) -> tuple[list[Token], int]:
    tokens: list[Token] = []
    depth = 0
    while True:
        at = _SPACE.match(source, at).end()
        if depth == 0 and (closing := end.match(source, at)) is not None:
            return tokens, closing.end()
        match = _TOKEN.match(source, at)
        if match is None or len(tokens) > MOST_TOKENS:
            refuse("a tag does not end" if match is None and at == len(source) else
                   f"{source[at:at + 20]!r} is not understood")
        kind, text, at = match.lastgroup, match[0], match.end()
        if kind == "op":
            depth += (text in "([{") - (text in ")]}")
        if kind == "str":
            tokens.append(("str", _ESCAPE.sub(_unescaped, text[1:-1])))
        elif kind in ("int", "float"):
            if len(text) > 30:
                refuse(f"the number {text[:30]}... is too long")
            number = text.replace("_", "")
            tokens.append((kind, int(number) if kind == "int" else float(number)))
        else:
            tokens.append((kind, text))


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "xuU" and len(code) > 1:
        return chr(int(code[1:], 16))
    return _ESCAPED.get(code, match[0])
