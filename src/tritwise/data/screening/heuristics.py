"""Heuristics: code that is hard to read or poorly divided, each rule a number and a limit.

`signals(text, language)` measures, `broken(text, language, settings)` judges. No rule needs a parser.
"""

import itertools
import re
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from tritwise.config.data_screening import HeuristicSettings
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
        if rule == "lines_without_definition" and len(measured.code) <= limit:
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
        self._lengths = self._words.ends - self._words.starts
        self.words = len(self._lengths)

    @cached_property
    def _lines(self) -> list[bytes]:
        content = self._text.encode("utf-8", "surrogatepass")
        return [stripped for line in content.split(b"\n") if (stripped := line.strip())]

    @cached_property
    def code(self) -> list[bytes]:
        """Lines that are no comments."""
        starts = _comment_starts(self._language)
        return [line for line in self._lines if not line.startswith(starts) and line != b"*"]

    @cached_property
    def _is_name(self) -> np.ndarray:
        first = np.frombuffer(self._words.codes, dtype=np.uint8)[self._words.starts]
        return (first - np.uint8(ord("0"))) > 9  # what is below "0" wraps around

    @cached_property
    def _names(self) -> int:
        return int(np.count_nonzero(self._is_name))

    @property
    def repeated_lines(self) -> float:
        """Share of the bytes in lines of ten bytes and more that stand in repeats of an earlier line."""
        long = [line for line in self._lines if len(line) >= _SHORTEST_LINE]
        total = sum(map(len, long))
        return 1 - sum(map(len, set(long))) / total if total else 0.0

    @property
    def repeated_ngrams(self) -> float:
        ngrams = self._words.ngrams(_NGRAM)
        return 1 - len(_counts(ngrams)) / len(ngrams) if len(ngrams) else 0.0

    @property
    def number_words(self) -> float:
        return (self.words - self._names) / max(self.words, 1)

    @property
    def short_names(self) -> float:
        return int(np.count_nonzero(self._is_name & (self._lengths == 1))) / max(self._names, 1)

    @property
    def long_words(self) -> float:
        return int(self._lengths[self._lengths > _LONG_WORD].sum()) / max(int(self._lengths.sum()), 1)

    @property
    def name_entropy(self) -> float:
        return _entropy(self._words.hashes[self._is_name])

    @property
    def comment_lines(self) -> float:
        return (len(self._lines) - len(self.code)) / max(len(self._lines), 1)

    @property
    def lines_without_definition(self) -> int | None:
        return _lines_without_definition(self.code, self._language)


def _entropy(hashes: np.ndarray) -> float:
    """Shannon entropy (bits) of how often each value occurs; 0 for none."""
    if not len(hashes):
        return 0.0
    shares = _counts(hashes) / len(hashes)
    return float(-(shares * np.log2(shares)).sum())


def _counts(hashes: np.ndarray) -> np.ndarray:
    """How often each different value occurs."""
    ordered = np.sort(hashes)
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    return np.diff(ends, prepend=-1)


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
