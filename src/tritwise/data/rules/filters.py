"""Rule filters: which files are kept. Every rule has a name, under which its drops are counted."""

import fnmatch
import re

import numpy as np

from tritwise.config.data_rules import FilterSettings
from tritwise.data.rules.broken import Broken
from tritwise.data.rules.encoded import encoded_runs
from tritwise.data.rules.html import visible_text

# What a report says of each rule, in the order in which they are tried.
RULES = {
    "exclude": "its path matches filters.exclude",
    "min_bytes": "fewer bytes than filters.min_bytes",
    "min_characters": "fewer characters than its language's min_characters",
    "max_characters": "more characters than its language's max_characters",
    "xml": "an XML declaration within the first 100 characters",
    "generated": "its first lines say that a program wrote it",
    "max_lines": "more lines than filters.max_lines",
    "max_line_length": "a line longer than filters.max_line_length",
    "mean_line_length": "lines longer than filters.max_mean_line_length on average",
    "alphabetic_fraction": "a smaller share of letters than filters.min_alphabetic_fraction",
    "encoded_run": "encoded data longer than filters.max_encoded_run",
    "encoded_fraction": "a larger share of encoded data than filters.max_encoded_fraction",
    "visible_text": "less visible text than the language's min_visible_characters or min_visible_fraction",
}

# StarCoder's (appendix of arXiv 2305.06161) and StarCoder 2's words, with who generated it behind "generated".
_GENERATED = re.compile(r"\b(auto-?generated|automatically generated|generated (by|from|automatically)"
                        r"|this file is generated)\b", re.IGNORECASE)
_GENERATED_WITHIN_LINES = 5
_XML = re.compile(r"<\?xml\s")
_XML_WITHIN_CHARACTERS = 100


def alphabetic_fraction(text: str, content: bytes | None = None) -> float:
    """Share of characters that are letters of any script; 0 for an empty text. `content` is the text in UTF-8."""
    if not text:
        return 0.0
    content = text.encode("utf-8", "surrogatepass") if content is None else content
    octets = np.frombuffer(content, dtype=np.uint8)
    # Bit 5 is all that capital and small letters differ in; what is below "a" wraps around.
    letters = int(np.count_nonzero(((octets | np.uint8(0x20)) - np.uint8(ord("a"))) < 26))
    if len(content) != len(text):
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        others = points[points > 0x7F].tobytes().decode("utf-32-le", "surrogatepass")
        letters += sum(map(str.isalpha, others))
    return letters / len(text)


def is_excluded(path: str, filters: FilterSettings) -> bool:
    """Whether a path matches one of the shell patterns of `filters.exclude`; case counts."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in filters.exclude)


def broken_rule(text: str, language: str, settings: FilterSettings) -> Broken | None:
    """The first rule that a file's text breaks, or None (arXiv 2401.14196, section 2.1, after StarCoder).

    `language` is a name of `languages.py`; `settings.languages` may give it thresholds of its own. Lengths of lines
    are in characters without the line end. `max_bytes` and `exclude` are judged before a file is read.
    """
    content = text.encode("utf-8", "surrogatepass")
    return (_wrong_size(text, content, language, settings)
            or _wrong_origin(text, language, settings)
            or _wrong_lines(text, content, language, settings)
            or _wrong_content(text, content, language, settings))


def _wrong_size(text: str, content: bytes, language: str, settings: FilterSettings) -> Broken | None:
    if len(content) < settings.of(language, "min_bytes"):
        return Broken("min_bytes", f"{len(content)} bytes")
    fewest, most = settings.of(language, "min_characters"), settings.of(language, "max_characters")
    if fewest is not None and len(text) < fewest:
        return Broken("min_characters", f"{len(text)} characters")
    if most is not None and len(text) > most:
        return Broken("max_characters", f"{len(text)} characters")
    return None


def _wrong_origin(text: str, language: str, settings: FilterSettings) -> Broken | None:
    if settings.of(language, "drop_xml") and (match := _XML.search(text[:_XML_WITHIN_CHARACTERS])):
        return Broken("xml", f"at character {match.start()}")
    if settings.drop_generated:
        top = "\n".join(text[:1 << 16].split("\n", _GENERATED_WITHIN_LINES)[:_GENERATED_WITHIN_LINES])
        if match := _GENERATED.search(top):
            return Broken("generated", f"{match.group().lower()!r} in line {top.count(chr(10), 0, match.start()) + 1}")
    return None


_OTHER_LINE_ENDS = "\r\v\f\x1c\x1d\x1e"


def line_lengths(text: str, content: bytes) -> np.ndarray:
    """Characters of each line of `str.splitlines`, without its end. `content` is the text in UTF-8."""
    if not text.isascii() or any(end in text for end in _OTHER_LINE_ENDS):
        return np.array(list(map(len, text.splitlines())), dtype=np.int64)
    ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n"))
    if text and not text.endswith("\n"):
        ends = np.append(ends, len(text))
    return np.diff(ends, prepend=-1) - 1


def _wrong_lines(text: str, content: bytes, language: str, settings: FilterSettings) -> Broken | None:
    lengths = line_lengths(text, content)
    if len(lengths) > settings.of(language, "max_lines"):
        return Broken("max_lines", f"{len(lengths)} lines")
    longest, total = int(lengths.max(initial=0)), int(lengths.sum())
    if longest > settings.of(language, "max_line_length"):
        return Broken("max_line_length", f"{longest} characters")
    if total > settings.of(language, "max_mean_line_length") * len(lengths):
        return Broken("mean_line_length", f"{total / len(lengths):.2f} characters")
    return None


def _wrong_content(text: str, content: bytes, language: str, settings: FilterSettings) -> Broken | None:
    letters = alphabetic_fraction(text, content)
    if letters < settings.of(language, "min_alphabetic_fraction"):
        return Broken("alphabetic_fraction", f"{letters:.4f}")
    most_run, most_fraction = settings.of(language, "max_encoded_run"), settings.of(language, "max_encoded_fraction")
    run, fraction = encoded_runs(content)
    if run > most_run:
        return Broken("encoded_run", f"{run} bytes")
    if fraction > most_fraction:
        return Broken("encoded_fraction", f"{fraction:.4f}")
    fewest, least = settings.of(language, "min_visible_characters"), settings.of(language, "min_visible_fraction")
    if fewest is not None or least is not None:
        visible = len(visible_text(text))
        if visible < (fewest or 0) or visible < (least or 0) * len(text):
            return Broken("visible_text", f"{visible} of {len(text)} characters")
    return None
