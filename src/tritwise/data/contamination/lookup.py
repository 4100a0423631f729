"""Many hashes looked up in a sorted table at once."""

from dataclasses import dataclass

import numpy as np

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

    def pairs(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(positions in `hashes`, rows of the table) of all pairs of equal hashes, by position, then row."""
        places = (hashes >> np.uint64(self.shift)).astype(np.int64)
        bits = self.bitmap.take(places >> 3) >> (places & 7).astype(np.uint8)
        positions = np.flatnonzero(bits & 1)
        if not len(positions):
            return positions, positions
        first = np.searchsorted(self.hashes, hashes[positions], side="left")
        count = np.searchsorted(self.hashes, hashes[positions], side="right") - first
        positions, first, count = positions[count > 0], first[count > 0], count[count > 0]
        entries = np.repeat(first, count) + _counting(count)
        return np.repeat(positions, count), self.rows[entries]


def _counting(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each length, one after the other: [2, 3] gives [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def distinct_names(words: Words, n: int) -> np.ndarray:
    """How many different names each n words hold: int64 [words - n + 1], for at least n words.

    A name is a word of two bytes and more that begins with no digit and is no number.
    """
    first = np.frombuffer(words.codes, dtype=np.uint8)[words.starts]
    is_name = (words.ends - words.starts >= 2) & ((first < ord("0")) | (first > ord("9")))
    is_name &= ~np.isin(words.hashes, words_of(_NUMBERS).hashes)
    # Words as numbers in the order of their first appearance anywhere, so that few bits tell them apart.
    _, numbers = np.unique(words.hashes, return_inverse=True)
    windows = np.lib.stride_tricks.sliding_window_view(np.where(is_name, numbers + 1, 0).astype(np.uint32), n)
    ordered = np.sort(windows, axis=1)
    changes = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    # Every change begins another value; the first value counts unless it is the zero of what is no name.
    return changes + (ordered[:, 0] != 0)
