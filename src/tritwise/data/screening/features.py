"""Hashed features of a text: words, pairs of words, and the shape of every four characters."""

import string

import numpy as np

from tritwise.data.words import ngram_hashes, words_of

# Letters by case, digits, every other ASCII character as itself: how code is laid out and what its operators are.
_SHAPES = bytes(ord("a") if chr(byte) in string.ascii_lowercase else ord("A") if chr(byte) in string.ascii_uppercase
                else ord("0") if chr(byte) in string.digits else min(byte, 128) for byte in range(256))
_SHAPE_MIX = np.uint32(0x9E3779B1)


def feature_ids(text: str, bits: int) -> np.ndarray:
    """The features that a text has, each once, ascending: int64 below 2^bits."""
    present = np.zeros(1 << bits, dtype=bool)
    words = words_of(text).hashes
    shift = np.uint64(64 - bits)
    present[(words >> shift).astype(np.int64)] = True
    present[(ngram_hashes(words, 2) >> shift).astype(np.int64)] = True
    shapes = text.encode("utf-8", "surrogatepass").translate(_SHAPES)
    if len(shapes) >= 4:
        # Every four bytes as one number: a view whose numbers overlap.
        fours = np.ndarray((len(shapes) - 3,), dtype="<u4", buffer=shapes, strides=(1,))
        present[((fours * _SHAPE_MIX) >> np.uint32(32 - bits)).astype(np.int64)] = True
    return np.flatnonzero(present)
