"""Words of a text and their hashes, many at once in numpy.

A word is a longest run of ASCII letters, digits, underscores and letters or digits of any other script; ASCII capitals
count as small letters. So `\\w+` of the lower-cased text, but for capitals of other scripts, which stay. White space,
punctuation and operators separate words and are not looked at: another layout of the same code has the same words.
"""

import functools
import re
import string
from dataclasses import dataclass, field

import numpy as np

_WORD = (string.ascii_letters + string.digits + "_").encode()
# Small letters; 0 for what separates words. Bytes of other scripts count as letters: `normalised` has seen to the rest.
_CODES = bytes(ord(chr(byte).lower()) if byte in _WORD else byte if byte > 0x7F else 0 for byte in range(256))
_OTHER_SEPARATORS = re.compile(r"[^\w\x00-\x7f]")

# Odd numbers without a pattern: sums of bytes times powers of the first tell words apart, the second mixes the sum.
_BASE, _MIX, _NEXT = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F
_BLOCK = 1 << 15


@dataclass(frozen=True, slots=True)
class Words:
    """`codes` is a text in UTF-8, small letters, zeros between words; word i is codes[starts[i]:ends[i]]."""

    codes: bytes
    hashes: np.ndarray  # uint64 [words]
    starts: np.ndarray  # int64 [words]
    ends: np.ndarray    # int64 [words]
    _ngrams: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def ngrams(self, n: int) -> np.ndarray:
        """`ngram_hashes` of the words; what it is made of is kept for the next n."""
        self._ngrams.setdefault(1, self.hashes)
        return _ngrams(self._ngrams, n)

    def joined(self, first: int, count: int) -> bytes:
        """`count` words from the one numbered `first` on, with a space between."""
        return b" ".join(self.codes[start:end] for start, end in
                         zip(self.starts[first:first + count].tolist(), self.ends[first:first + count].tolist(),
                             strict=True))

    def character(self, word: int) -> int:
        """Where a word begins in its text, in characters."""
        return len(self.codes[:int(self.starts[word])].decode("utf-8", "surrogatepass"))


def normalised(text: str) -> bytes:
    """A text in UTF-8 with small ASCII letters and zeros for what separates words; a character stays one."""
    if not text.isascii():
        text = _OTHER_SEPARATORS.sub(" ", text)
    return text.encode("utf-8", "surrogatepass").translate(_CODES)


@functools.lru_cache(maxsize=1)  # stages look at one text after the other
def words_of(text: str) -> Words:
    """The words of a text. Equal words have equal hashes; others have other ones, but for one chance in 2^64 or so."""
    codes = normalised(text)
    octets = np.frombuffer(codes, dtype=np.uint8)
    is_word = octets != 0
    edges = np.flatnonzero(np.diff(is_word, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    hashes = np.empty(len(starts), dtype=np.uint64)
    powers, inverses = _powers()
    first = 0
    while first < len(starts):
        # As many words as fit into a block: their arrays stay in the cache.
        origin = int(starts[first])
        last = max(int(np.searchsorted(ends, origin + _BLOCK, side="right")), first + 1)
        here, there = starts[first:last] - origin, ends[first:last] - origin
        if there[-1] > _BLOCK:  # one word longer than a block
            hashes[first] = _long_word(codes[origin:origin + int(there[-1])])
        else:
            sums = np.zeros(int(there[-1]) + 1, dtype=np.uint64)
            np.cumsum(octets[origin:origin + len(sums) - 1] * powers[:len(sums) - 1], out=sums[1:])
            hashes[first:last] = (sums[there] - sums[here]) * inverses[here]
        first = last
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(_MIX)
    hashes ^= hashes >> np.uint64(29)
    return Words(codes, hashes, starts, ends)


def _long_word(word: bytes) -> np.uint64:
    """The same sum for a word of any length."""
    total = 0
    for byte in reversed(word):
        total = (total * _BASE + byte) & 0xFFFF_FFFF_FFFF_FFFF
    return np.uint64(total)


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base modulo 2^64, and their inverses, from the zeroth on."""
    base, inverse = np.uint64(_BASE), np.uint64(pow(_BASE, -1, 1 << 64))
    powers, inverses = (np.cumprod(np.concatenate(([np.uint64(1)], np.full(_BLOCK, factor, dtype=np.uint64))),
                                   dtype=np.uint64) for factor in (base, inverse))
    return powers, inverses


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """Hash of each n words that follow one another: uint64 [words - n + 1], empty for fewer than n words.

    The sum of hash i times the i-th power (from the last one) of an odd number, built up by doubling.
    """
    return _ngrams({1: hashes}, n)


def _ngrams(known: dict[int, np.ndarray], n: int) -> np.ndarray:
    """Hashes of n-grams; `known` has those of some sizes and takes those that are made on the way."""
    if len(known[1]) < n:
        return np.empty(0, dtype=np.uint64)
    if n not in known:
        half = 1 << (n.bit_length() - 1)  # the largest power of two
        if half == n:
            half //= 2
        known[n] = _appended(_ngrams(known, half), _ngrams(known, n - half), half, n - half)
    return known[n]


def _appended(left: np.ndarray, right: np.ndarray, left_words: int, right_words: int) -> np.ndarray:
    """Hashes of n-grams of `left_words`, each followed by one of `right_words`."""
    factor = np.uint64(pow(_NEXT, right_words, 1 << 64))
    tail = right[left_words:]
    return left[:len(tail)] * factor + tail
