"""Words of a text and their hashes, by the native core (native/src/words.hpp).

A word is a longest run of ASCII letters, digits, underscores and letters or digits of any other script; ASCII capitals
count as small letters. So `\\w+` of the lower-cased text, but for capitals of other scripts, which stay. White space,
punctuation and operators separate words and are not looked at: another layout of the same code has the same words.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np

from tritwise.data.native import native

_OTHER_SEPARATORS = re.compile(r"[^\w\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Words:
    """`codes` is a text in UTF-8, small letters, zeros between words; word i is codes[starts[i]:ends[i]]."""

    codes: bytes
    hashes: np.ndarray  # uint64 [words]
    starts: np.ndarray  # int64 [words]
    ends: np.ndarray    # int64 [words]

    def joined(self, first: int, count: int) -> bytes:
        """`count` words from the one numbered `first` on, with a space between."""
        return b" ".join(self.codes[start:end] for start, end in
                         zip(self.starts[first:first + count].tolist(), self.ends[first:first + count].tolist(),
                             strict=True))

    def character(self, word: int) -> int:
        """Where a word begins in its text, in characters."""
        return len(self.codes[:int(self.starts[word])].decode("utf-8", "surrogatepass"))


@functools.lru_cache(maxsize=1)  # stages look at one text after the other
def words_of(text: str) -> Words:
    """The words of a text. Equal words have equal hashes; others have other ones, but for one chance in 2^64 or so.

    The hash of bytes b is the sum of b[i] * 0x9E3779B97F4A7C15^i, then h ^= h >> 32, h *= 0xD6E8FEB86659FD93,
    h ^= h >> 29, all modulo 2^64. A character of the text is one of `codes`.
    """
    if not text.isascii():
        text = _OTHER_SEPARATORS.sub(" ", text)
    return Words(*native().words(text.encode("utf-8", "surrogatepass")))


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """Hash of each n words that follow one another: uint64 [words - n + 1], empty for fewer than n words.

    The sum of hash i times the i-th power (from the last one) of 0xC2B2AE3D27D4EB4F modulo 2^64.
    """
    return native().word_ngrams(hashes, n)
