"""Data written as text: base64, hexadecimal bytes, unicode escapes (StarCoder 2, arXiv 2402.19173, section 2.1)."""

import re
import string

import numpy as np

from tritwise.data.native import native

# As published, but for two holes of the published hexadecimal expression: bytes may have white space behind their
# commas ("0x1f, 0x8b"; 32 characters at most, room for an indented line), and the first "\x" of a run counts.
# Base64 is `[a-zA-Z0-9+/\n=]{64,}`, found without the expression.
_MOST_BETWEEN, _FEWEST = 32, 8
_BETWEEN = rb"[\s,]{0,%d}" % _MOST_BETWEEN
_ESCAPED = re.compile(rb"(?:(?:0x|\\x)[0-9a-fA-F]{2}" + _BETWEEN + rb"){8,}")
_BARE = re.compile(rb"(?:\b[0-9a-fA-F]{2}\b" + _BETWEEN + rb"){8,}")
_UNICODE = re.compile(rb"(?:\\u[0-9a-fA-F]{4}){8,}")

_WORD_BYTES = (string.ascii_letters + string.digits + "_").encode()
# Hexadecimal digits, other letters and digits, and the rest: a byte that stands alone is " 00 ".
_DIGIT_CLASS = bytes(ord("0" if chr(byte) in string.hexdigits else "w" if byte in _WORD_BYTES else " ")
                     for byte in range(256))


def encoded_runs(content: bytes) -> tuple[int, float]:
    """(bytes of the longest run, share of `content` that runs make) over base64, hexadecimal and unicode escapes."""
    lengths = native().base64_runs(content)
    for pattern, starts, length in ((_BARE, _lone_pairs(content), 2), (_ESCAPED, _escapes(content), 4)):
        for first, last in _crowds(starts, length + _MOST_BETWEEN):
            # The window ends behind what may follow the last byte, so its end is no border of a word.
            matches = pattern.finditer(content, first, last + length + _MOST_BETWEEN + 1)
            lengths += [match.end() - match.start() for match in matches]
    if content.count(b"\\u") >= _FEWEST:
        lengths += [match.end() - match.start() for match in _UNICODE.finditer(content)]
    return max(lengths, default=0), sum(lengths) / max(len(content), 1)


def _lone_pairs(content: bytes) -> np.ndarray:
    """Where two hexadecimal digits stand that are no part of a longer word."""
    classes = b" " + content.translate(_DIGIT_CLASS) + b" "
    if b" 00 " not in classes:
        return np.empty(0, dtype=np.int64)
    # Every four bytes as one number: a view whose numbers overlap.
    fours = np.ndarray((max(len(classes) - 3, 0),), dtype="<u4", buffer=classes, strides=(1,))
    return np.flatnonzero(fours == int.from_bytes(b" 00 ", "little"))


def _escapes(content: bytes) -> np.ndarray:
    """Where "0x" or "\\x" stands."""
    if content.count(b"0x") + content.count(b"\\x") < _FEWEST:
        return np.empty(0, dtype=np.int64)
    twos = np.ndarray((len(content) - 1,), dtype="<u2", buffer=content, strides=(1,))
    return np.flatnonzero((twos == int.from_bytes(b"0x", "little")) | (twos == int.from_bytes(b"\\x", "little")))


def _crowds(positions: np.ndarray, most_gap: int) -> list[tuple[int, int]]:
    """(first, last) of every eight or more positions of which neighbours are at most `most_gap` apart."""
    if len(positions) < _FEWEST:
        return []
    breaks = np.flatnonzero(np.diff(positions) > most_gap)
    firsts, lasts = np.append(0, breaks + 1), np.append(breaks, len(positions) - 1)
    enough = lasts - firsts >= _FEWEST - 1
    return list(zip(positions[firsts[enough]].tolist(), positions[lasts[enough]].tolist(), strict=True))
