"""How near a generated line of code is to the reference: CrossCodeEval's measures (arXiv 2310.11248, section 3)."""

import keyword
import re
from typing import NamedTuple

# A string literal of one line is kept whole, so that a # in it begins no comment.
_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_STRING_OR_COMMENT = re.compile(rf"({_STRING})|#.*")
_IDENTIFIER = re.compile(r"(?<!\w)[^\W\d]\w*")
_KEYWORDS = frozenset(keyword.kwlist)


class LineMatch(NamedTuple):
    """Exact match and edit similarity of the code, and of its identifiers whether all are equal and their F1.

    `edit_similarity` and `identifier_f1` are in [0, 1].
    """

    exact: bool
    edit_similarity: float
    identifiers_exact: bool
    identifier_f1: float


def match(generated: str, reference: str) -> LineMatch:
    """Compare two pieces of a line of Python, without comments and without the white space around them."""
    ours, theirs = code_of(generated), code_of(reference)
    names, wanted = identifiers(ours), identifiers(theirs)
    return LineMatch(ours == theirs, edit_similarity(ours, theirs), names == wanted, _f1(set(names), set(wanted)))


def code_of(line: str) -> str:
    """A line without a comment and without the white space around it."""
    return _STRING_OR_COMMENT.sub(lambda found: found[1] or "", line).strip()


def identifiers(code: str) -> list[str]:
    """Names in the order in which they stand, those of keywords and inside strings left out."""
    plain = _STRING_OR_COMMENT.sub(" ", code)
    return [name for name in _IDENTIFIER.findall(plain) if name not in _KEYWORDS]


def edit_similarity(a: str, b: str) -> float:
    """2 L / (|a| + |b|) with L the length of the longest common subsequence; 1 for two empty texts.

    This is 1 - D / (|a| + |b|) for the edit distance D of insertions and deletions: `fuzz.ratio` of the packages that
    the paper's scores come from, as a share. L by bits of an integer (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited"): O(|b|) operations on integers of |a| bits.
    """
    if not a and not b:
        return 1.0
    places: dict[str, int] = {}
    for number, sign in enumerate(a):
        places[sign] = places.get(sign, 0) | 1 << number
    full = (1 << len(a)) - 1
    row = full
    for sign in b:
        matched = row & places.get(sign, 0)
        row = (row + matched | row - matched) & full
    common = len(a) - row.bit_count()
    return 2 * common / (len(a) + len(b))


def _f1(found: set[str], wanted: set[str]) -> float:
    """F1 of two sets, 1 for two empty ones (0 in the paper's script): a line without names is right without any."""
    if not found and not wanted:
        return 1.0
    return 2 * len(found & wanted) / (len(found) + len(wanted))
