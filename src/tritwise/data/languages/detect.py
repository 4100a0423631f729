"""Which language a file is written in: by its name, its first line, and its content where names are ambiguous."""

import re
from functools import cache

from tritwise.data.languages.content import RULES
from tritwise.data.languages.table import LANGUAGES

# Rules look at no more of a file.
_HEAD = 1 << 15
_SHEBANG = re.compile(rb"#!\s*(\S+)([^\r\n]*)")
_EXEC = re.compile(rb'^\s*exec\s+(\w+)[^\r\n]*"?\$0', re.MULTILINE)
_MODE = re.compile(rb"-\*-\s*(?:.*?mode:\s*)?([\w+#-]+)\s*(?:;.*?)?-\*-", re.IGNORECASE)
_MODES = {"c": "c", "c++": "c++", "python": "python", "perl": "perl", "cperl": "perl", "ruby": "ruby", "sh": "shell",
          "shell-script": "shell", "tcl": "tcl", "scheme": "scheme", "lisp": "common lisp", "emacs-lisp": "emacs lisp",
          "makefile": "makefile", "fortran": "fortran", "f90": "fortran", "prolog": "prolog", "octave": "matlab",
          "makefile-gmake": "makefile", "java": "java", "javascript": "javascript", "yaml": "yaml"}
_DOCKER = re.compile(r"(?:Docker|Container)file(?:[._-][\w.-]+)?$|[\w.-]+\.(?:Docker|Container)file$")


@cache
def _by_extension() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for language, entry in LANGUAGES.items():
        for extension in entry.extensions:
            table[extension] = (*table.get(extension, ()), language)
    return table


@cache
def _by_name() -> dict[str, str]:
    return {name: language for language, entry in LANGUAGES.items() for name in entry.names}


@cache
def _by_interpreter() -> dict[str, str]:
    return {name: language for language, entry in LANGUAGES.items() for name in entry.interpreters}


def detect(path: str, content: bytes | None = None) -> str | None:
    """The language of a file (a key of `LANGUAGES`), None when it is none of those that are known.

    With `content=None` the name alone decides: an ambiguous extension gives its most common language then.
    """
    name = path.rpartition("/")[2]
    if language := _by_name().get(name):
        return language
    if _DOCKER.fullmatch(name):
        return "dockerfile"
    extension = _extension(name)
    if extension is None:
        return _first_line(content) if content is not None else None
    rule = RULES.get(extension)
    if rule is None:
        languages = _by_extension()[extension]
        assert len(languages) == 1, extension
        return languages[0]
    usual, choose = rule
    if content is None:
        return usual
    head = content[:_HEAD]
    said = _first_line(head)
    return said if said in _by_extension()[extension] else choose(head)


def _extension(name: str) -> str | None:
    """The longest known extension of a file name; a name that is nothing but one has none."""
    lower = name.lower()
    table = _by_extension()
    dot = lower.find(".", 1)
    while dot > 0:
        if lower[dot:] in table:
            return lower[dot:]
        dot = lower.find(".", dot + 1)
    return None


def _first_line(content: bytes) -> str | None:
    """What a first line `#!` or an Emacs mode says."""
    if content.startswith(b"#!") and (match := _SHEBANG.match(content)):
        program, rest = match.group(1).rpartition(b"/")[2], match.group(2).split()
        if program == b"env":
            words = [word for word in rest if not word.startswith(b"-") and b"=" not in word]
            program = words[0].rpartition(b"/")[2] if words else b""
        interpreter = program.decode("ascii", "replace")
        if interpreter == "sh" and (real := _EXEC.search(content[:1000])):
            interpreter = real.group(1).decode()
        if interpreter == "perl6":
            return None  # Raku
        language = _by_interpreter().get(interpreter) or _by_interpreter().get(interpreter.rstrip("0123456789.-"))
        if language:
            return language
    lines = content[:500].split(b"\n", 2)[:2]
    for line in lines:
        if b"-*-" in line and (mode := _MODE.search(line)):
            return _MODES.get(mode.group(1).decode("ascii", "replace").lower())
    return None
