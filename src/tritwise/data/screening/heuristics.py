"""Heuristics: code that is hard to read or poorly divided, each rule a number and a limit.

`signals(text, language)` measures, `broken(text, language, settings)` judges. No rule needs a parser.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np

from tritwise.config.data_screening import HeuristicSettings
from tritwise.data.rules.broken import Broken
from tritwise.data.words import Words, ngram_hashes, words_of

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
    measured = signals(text, language)
    if measured.words < settings.min_words:
        return None
    for rule in RULES:
        value = getattr(measured, rule)
        if rule == "name_entropy":
            if value < settings.of(language, "min_name_entropy"):
                return Broken(rule, f"{value:.4f} bits")
        elif value is not None and value > settings.of(language, f"max_{rule}"):
            return Broken(rule, f"{value} lines" if rule == "lines_without_definition" else f"{value:.4f}")
    return None


def signals(text: str, language: str) -> Signals:
    """All measures of a text."""
    words = words_of(text)
    lines = [line.strip() for line in text.encode("utf-8", "surrogatepass").split(b"\n")]
    lines = [line for line in lines if line]
    starts = _comment_starts(language)
    code = [line for line in lines if not line.startswith(starts) and line != b"*"]
    first = np.frombuffer(words.codes, dtype=np.uint8)[words.starts]
    lengths = words.ends - words.starts
    is_name = (first < ord("0")) | (first > ord("9"))
    names = int(np.count_nonzero(is_name))
    return Signals(
        words=len(lengths), repeated_lines=_repeated_lines(lines), repeated_ngrams=_repeated_ngrams(words),
        number_words=(len(lengths) - names) / max(len(lengths), 1),
        short_names=int(np.count_nonzero(is_name & (lengths == 1))) / max(names, 1),
        long_words=int(lengths[lengths > _LONG_WORD].sum()) / max(int(lengths.sum()), 1),
        name_entropy=_entropy(words.hashes[is_name]), comment_lines=(len(lines) - len(code)) / max(len(lines), 1),
        lines_without_definition=_lines_without_definition(code, language))


def _repeated_lines(lines: list[bytes]) -> float:
    """Share of the bytes in lines of ten bytes and more that stand in repeats of an earlier line."""
    long = [line for line in lines if len(line) >= _SHORTEST_LINE]
    total = sum(map(len, long))
    return 1 - sum(map(len, set(long))) / total if total else 0.0


def _repeated_ngrams(words: Words) -> float:
    ngrams = ngram_hashes(words.hashes, _NGRAM)
    return 1 - len(_counts(ngrams)) / len(ngrams) if len(ngrams) else 0.0


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
