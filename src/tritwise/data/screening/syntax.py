"""Syntax: Python by its own compiler, other languages by how much of a file tree-sitter could not parse."""

import re
import subprocess
import sys

import numpy as np

from tritwise.config.data_screening import SyntaxSettings
from tritwise.data.rules.broken import Broken
from tritwise.data.screening import python_compile
from tritwise.data.screening.python_compile import compile_error

RULES = {"syntax": "does not parse: Python by the running Python's compiler, others by the share of bytes in errors"}

_DEFAULTS = SyntaxSettings()


def broken(language: str, text: str, wrong_bytes: int | None, settings: SyntaxSettings = _DEFAULTS) -> Broken | None:
    """Whether a file is not source code of its language.

    Python is compiled up to its syntax tree, in the grammar of the Python that runs; so a file of Python 2 is broken
    unless it is one of Python 3 as well. For other languages `wrong_bytes` is the number of bytes (of the text in
    UTF-8) that tree-sitter made nothing of; None when nobody parsed the file, which breaks nothing.
    """
    if language == "python":
        wrong = _python_error(text, settings)
        return None if wrong is None else Broken("syntax", wrong)
    if wrong_bytes is None:
        return None
    size = len(text.encode("utf-8", "surrogatepass"))
    fraction = wrong_bytes / max(size, 1)
    if fraction <= settings.languages.get(language, settings.max_wrong_fraction):
        return None
    return Broken("syntax", f"{fraction:.4f} of {size} bytes")


def _python_error(text: str, settings: SyntaxSettings) -> str | None:
    """What keeps a text from being Python: a line number, or what the compiler ran out of."""
    if _nesting(text) <= settings.max_nesting_here:
        error, line = compile_error(text)
    else:
        error, line = _compile_apart(text, settings.max_seconds)
    match error:
        case "":
            return None
        case "SyntaxError":
            return f"line {line}{_python_2(text, line)}"
        case "TimeoutError":
            return f"not parsed within {settings.max_seconds:g} seconds"
        case "ValueError":  # zeros, surrogates, numbers of thousands of digits
            return "characters that are no source code"
        case _:
            return "nested too deeply"


# What Python 2 wrote otherwise: print and exec without brackets, names behind a comma in `except`, `<>`, back quotes,
# octal numbers, long integers.
_PYTHON_2 = re.compile(r"^\s*(?:print\b(?!\s*[(=.])|exec\s+[\"'\w]|except\s+[\w.()\s,]+,\s*\w+\s*:|raise\s+[\w.]+\s*,)"
                       r"|<>|`\w|\b0[0-7]+\b|\b\d+[lL]\b|\bur[\"']")


def _python_2(text: str, line: int) -> str:
    lines = text.splitlines()
    return ", Python 2" if 0 < line <= len(lines) and _PYTHON_2.search(lines[line - 1]) else ""


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"()[]{}")
_DEEPER = np.zeros(256, dtype=np.int8)
_DEEPER[list(b"([{")] = 1
_DEEPER[list(b")]}")] = -1


def _nesting(text: str) -> int:
    """How deep brackets nest at most, those in strings and comments too."""
    content = text.encode("utf-8", "surrogatepass").translate(None, _NO_BRACKETS)
    depths = np.cumsum(_DEEPER[np.frombuffer(content, dtype=np.uint8)], dtype=np.int64)
    # Closing brackets without an opening one (in strings) must not hide what follows them.
    lowest = np.minimum.accumulate(np.minimum(depths, 0)) if len(depths) else depths
    return int((depths - lowest).max(initial=0))



def _compile_apart(text: str, max_seconds: float) -> tuple[str, int]:
    """`compile_error` in a process of its own, which may be slow ("TimeoutError") or die."""
    try:
        done = subprocess.run([sys.executable, "-I", python_compile.__file__], capture_output=True,
                              timeout=max_seconds, input=text.encode("utf-8", "surrogatepass"), check=False)
    except subprocess.TimeoutExpired:
        return "TimeoutError", 0
    if done.returncode < 0:
        return "MemoryError", 0  # the parser's stack ran over
    if done.returncode:
        raise RuntimeError(f"the parser's process failed: {done.stderr.decode('utf-8', 'replace')[-400:]}")
    error, line = done.stdout.decode().split("\n")[:2]
    return error, int(line)
