"""Heuristics: code that is hard to read or poorly divided, each rule a number and a limit.

`signals(text, language)` measures, `broken(text, language, settings)` judges. No rule needs a parser.
"""

import itertools
import re
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from tritwise.config.data_screening import HeuristicSettings
from tritwise.data.native import native
from tritwise.data.rules.broken import Broken
from tritwise.data.words import words_of

RULES = {
    "repeated_lines": "more of its characters stand in repeated lines than heuristics.max_repeated_lines",
    "repeated_ngrams": "more of its runs of ten words are repeats than heuristics.max_repeated_ngrams",
    "number_words": "a larger share of its words are numbers than heuristics.max_number_words",
    "short_names": "a larger share of its names have one character than heuristics.max_short_names",
    "long_words": "more of its characters stand in very long words than heuristics.max_long_words",
    "name_entropy": "its names say less than heuristics.min_name_entropy bits each",
    "comment_lines": "a larger share of its lines are comments than heuristics.max_comment_lines",
    "lines_without_definition": "more lines without a definition than heuristics.max_lines_without_definition",
}

_DEFAULTS = HeuristicSettings()
_NGRAM, _LONG_WORD, _SHORTEST_LINE = 10, 48, 10


@dataclass(frozen=True, slots=True)
class Signals:
    """Measures of one text; shares are of 1. `lines_without_definition` is None where definitions are not known."""

    words: int
    repeated_lines: float
    repeated_ngrams: float
    number_words: float
    short_names: float
    long_words: float
    name_entropy: float
    comment_lines: float
    lines_without_definition: int | None


def broken(text: str, language: str, settings: HeuristicSettings = _DEFAULTS) -> Broken | None:
    """The first heuristic that a file breaks, or None. Files of fewer than `min_words` words break none."""
    measured = _Measured(text, language)
    if measured.words < settings.min_words:
        return None
    for rule in RULES:
        limit = settings.of(language, "min_name_entropy" if rule == "name_entropy" else f"max_{rule}")
        if rule == "lines_without_definition" and measured.code_lines <= limit:
            continue  # there cannot be more, and looking at each line takes long
        value = getattr(measured, rule)
        if rule == "name_entropy":
            if value < limit:
                return Broken(rule, f"{value:.4f} bits")
        elif value is not None and value > limit:
            return Broken(rule, f"{value} lines" if rule == "lines_without_definition" else f"{value:.4f}")
    return None


def signals(text: str, language: str) -> Signals:
    """All measures of a text."""
    measured = _Measured(text, language)
    return Signals(**{field.name: getattr(measured, field.name) for field in fields(Signals)})


class _Measured:
    """The measures of a text, each computed when it is asked for."""

    def __init__(self, text: str, language: str) -> None:
        self._text, self._language = text, language
        self._words = words_of(text)
        self.words = len(self._words.hashes)

    @cached_property
    def _of_words(self) -> tuple[int, int, int, int, np.ndarray]:
        """Names, those of one byte, bytes of all words, of very long ones, and how often each name occurs."""
        words = self._words
        return native().word_measures(words.codes, words.hashes, words.starts, words.ends, _LONG_WORD)

    @cached_property
    def _of_lines(self) -> tuple[int, int, int, int]:
        """Lines, comments, bytes of lines that are not short, and of the first of equal ones."""
        return native().code_lines(self._content, _comment_starts(self._language), _SHORTEST_LINE)

    @cached_property
    def _content(self) -> bytes:
        return self._text.encode("utf-8", "surrogatepass")

    @property
    def code_lines(self) -> int:
        """How many lines are neither empty nor comments."""
        lines, comments, *_ = self._of_lines
        return lines - comments

    @property
    def repeated_lines(self) -> float:
        """Share of the bytes in lines of ten bytes and more that stand in repeats of an earlier line."""
        *_, total, first = self._of_lines
        return 1 - first / total if total else 0.0

    @property
    def repeated_ngrams(self) -> float:
        count = self.words - _NGRAM + 1
        return 1 - native().distinct_ngrams(self._words.hashes, _NGRAM) / count if count > 0 else 0.0

    @property
    def number_words(self) -> float:
        return (self.words - self._of_words[0]) / max(self.words, 1)

    @property
    def short_names(self) -> float:
        names, short, *_ = self._of_words
        return short / max(names, 1)

    @property
    def long_words(self) -> float:
        _, _, total, long, _ = self._of_words
        return long / max(total, 1)

    @property
    def name_entropy(self) -> float:
        return _entropy(self._of_words[-1])

    @property
    def comment_lines(self) -> float:
        lines, comments, *_ = self._of_lines
        return comments / max(lines, 1)

    @property
    def lines_without_definition(self) -> int | None:
        starts = _comment_starts(self._language)
        lines = (line.strip() for line in self._content.split(b"\n"))
        code = [line for line in lines if line and not line.startswith(starts) and line != b"*"]
        return _lines_without_definition(code, self._language)


def _entropy(counts: np.ndarray) -> float:
    """Shannon entropy (bits) of values that occur so often; 0 for none."""
    if not len(counts):
        return 0.0
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


_HASH_COMMENTS = frozenset({"python", "ruby", "shell", "perl", "r", "elixir", "julia", "makefile", "cmake", "yaml",
                            "powershell", "tcl", "awk", "dockerfile", "coffeescript"})
_DASH_COMMENTS = frozenset({"sql", "lua", "haskell", "ada", "elm", "vhdl"})


def _comment_starts(language: str) -> tuple[bytes, ...]:
    if language in _HASH_COMMENTS:
        return (b"#",)
    return (b"--",) if language in _DASH_COMMENTS else (b"//", b"/*", b"* ", b"*/")


# Lines that begin a function, a class or a type. C and its kin have no word for a function: a line that begins with a
# name, has an opening bracket and no semicolon at its end is one, or looks enough like one.
_C_DEFINITION = re.compile(
    rb"(?:[\w:<>,*&~\[\] ]+\([^;]*"
    rb"|(?:\w+ ){0,6}(?:struct|class|enum|union|namespace|interface|record)\b[^;]*)\Z")
_DEFINITIONS = {
    "python": re.compile(rb"(?:async +)?def |class |lambda "),
    "ruby": re.compile(rb"def |class |module |describe |it |test "),
    "go": re.compile(rb"func |type "),
    "rust": re.compile(rb"(?:pub(?:\([^)]*\))? +)?(?:async +|unsafe +|const +|extern +)*"
                       rb"(?:fn|struct|enum|trait|impl|mod|macro_rules!)(?!\w)"),
    "javascript": re.compile(rb".*(?:\bfunction\b|=>|\bclass\b)|(?:async +)?[\w$]+ *\([^;]*\) *\{"),
    "php": re.compile(rb"(?:(?:abstract|final|public|protected|private|static) +)*"
                      rb"(?:function|class|trait|interface)\b"),
    "kotlin": re.compile(rb".*\b(?:fun|class|object|interface)\b"),
    "scala": re.compile(rb".*\b(?:def|class|object|trait)\b"),
    "swift": re.compile(rb".*\b(?:func|class|struct|enum|protocol|extension|init)\b"),
    "c": _C_DEFINITION, "c++": _C_DEFINITION, "c#": _C_DEFINITION, "java": _C_DEFINITION,
}
_DEFINITIONS["typescript"] = re.compile(
    _DEFINITIONS["javascript"].pattern + rb"|(?:export +)?(?:declare +)?(?:interface|type|enum|namespace|abstract)\b")


def _lines_without_definition(lines: list[bytes], language: str) -> int | None:
    """The most lines between two definitions, or between one and an end of the file."""
    pattern = _DEFINITIONS.get(language)
    if pattern is None:
        return None
    here = [-1, *(number for number, line in enumerate(lines) if pattern.match(line)), len(lines)]
    return max(second - first - 1 for first, second in itertools.pairwise(here))
