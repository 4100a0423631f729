"""Rule filters: which files are kept. Every rule has a name, under which its drops are counted."""

import fnmatch
import re
import string

from tritwise.config import FilterRecipe

# What a report says of each rule, in the order in which they are tried.
RULES = {
    "path": "the path is not printable UTF-8",
    "exclude": "its path matches filters.exclude",
    "max_bytes": "more bytes than filters.max_bytes",
    "undecodable": "not text in the encoding it declares",
    "min_bytes": "fewer bytes than filters.min_bytes",
    "xml": "an XML declaration within the first 100 characters",
    "generated": "its first lines say that a program wrote it",
    "max_line_length": "a line longer than filters.max_line_length",
    "mean_line_length": "lines longer than filters.max_mean_line_length on average",
    "alphabetic_fraction": "a smaller share of letters than filters.min_alphabetic_fraction",
    "duplicate": "the same text as an earlier file of any repository",
    "syntax": "does not parse as the running Python's source",
}

_NO_ASCII_LETTERS = {ord(letter): None for letter in string.ascii_letters}
_ASCII_LETTERS = string.ascii_letters.encode()
_GENERATED = re.compile(r"\b(auto-?generated|automatically generated|generated (by|from))\b", re.IGNORECASE)
_GENERATED_WITHIN_LINES = 5
_XML = re.compile(r"<\?xml\s")


def alphabetic_fraction(text: str) -> float:
    """Share of characters that are letters of any script; 0 for an empty text."""
    if not text:
        return 0.0
    if text.isascii():
        letters = len(text) - len(text.encode("ascii").translate(None, _ASCII_LETTERS))
    else:
        rest = text.translate(_NO_ASCII_LETTERS)
        letters = len(text) - len(rest) + sum(map(str.isalpha, rest))
    return letters / len(text)


def is_excluded(path: str, filters: FilterRecipe) -> bool:
    """Whether a path matches one of the shell patterns of `filters.exclude`; case counts."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in filters.exclude)


def broken_rule(text: str, filters: FilterRecipe) -> str | None:
    """The first rule that a file's text breaks, or None (arXiv 2401.14196, section 2.1, after StarCoder).

    Lengths of lines are in characters without the line end. The paper's rules for HTML, JSON and YAML have nothing to
    act on here, for those languages are not read.
    """
    if len(text.encode()) < filters.min_bytes:
        return "min_bytes"
    if _XML.search(text[:100]):
        return "xml"
    lines = text.splitlines()
    if filters.drop_generated and any(map(_GENERATED.search, lines[:_GENERATED_WITHIN_LINES])):
        return "generated"
    lengths = [len(line) for line in lines]
    if max(lengths, default=0) > filters.max_line_length:
        return "max_line_length"
    if sum(lengths) > filters.max_mean_line_length * len(lengths):
        return "mean_line_length"
    if alphabetic_fraction(text) < filters.min_alphabetic_fraction:
        return "alphabetic_fraction"
    return None
