"""A sorted table of hashes in which every n words of a text are looked up."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from tritwise.data.native import native
from tritwise.data.words import Words, words_of

# Bits of the bitmap for each entry: one in so many other hashes passes it and is searched for.
_BITS = 32
# Numbers as words: "1 one 2 two 3 three 4 four 5 five" counts, and says as little as its digits.
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion "
    "first second third fourth fifth sixth seventh eighth ninth tenth")


@dataclass(frozen=True)
class Table:
    """Sorted hashes, the rows they come from, and a bitmap that most others fail at."""

    hashes: np.ndarray  # uint64 [entries], sorted; equal ones may follow one another
    rows: np.ndarray    # int64 [entries]
    bitmap: np.ndarray  # uint8 [2^bits / 8]
    shift: int          # the upper 64 - shift bits of a hash are its place in the bitmap

    @classmethod
    def of(cls, hashes: np.ndarray) -> "Table":
        """The table of hashes in any order; `rows` are their places in it."""
        order = np.argsort(hashes, kind="stable")
        bits = max(int(len(hashes) * _BITS - 1).bit_length(), 10) if len(hashes) else 10
        places = hashes >> np.uint64(64 - bits)
        bitmap = np.zeros(1 << bits, dtype=bool)
        bitmap[places] = True
        return cls(hashes[order], order, np.packbits(bitmap, bitorder="little"), 64 - bits)

    def find(self, words: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(first words, rows of the table) of every n words whose hash it has, by first word, then row.

        `words` uint64 are hashes of words that follow one another.
        """
        return native().find_ngrams(words, n, self.hashes, self.rows, self.bitmap, self.shift)


def distinct_names(words: Words, n: int) -> np.ndarray:
    """How many different names each n words hold: int64 [words - n + 1].

    A name is a word of two bytes and more that begins with no digit and is no number.
    """
    return native().distinct_names(words.codes, words.hashes, words.starts, words.ends, n, _number_hashes())


@cache
def _number_hashes() -> np.ndarray:
    return words_of(_NUMBERS).hashes
