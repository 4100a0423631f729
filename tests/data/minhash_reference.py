"""Sketches of texts in plain Python integers and `re`: the oracle of the native core's MinHash.

Written from arXiv 1704.04370 (algorithm 1) and the statement of tokens and hashes in native/src/minhash.hpp: every
round over every shingle, nothing skipped.
"""

import re

TOKEN = re.compile(rb"[0-9A-Za-z_\x80-\xdf]+|[\xe0-\xff][\x80-\xbf]*")
WORD = (1 << 64) - 1
BASE = 0x9E3779B97F4A7C17


def fold(a: int, b: int) -> int:
    product = a * b
    return (product ^ product >> 64) & WORD


def stream(seed: int):
    """splitmix64."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & WORD
        z = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & WORD
        yield z ^ z >> 31


def token_hash(token: bytes, seed: int) -> int:
    value = seed
    for i in range(0, len(token), 8):
        value = fold(value ^ int.from_bytes(token[i : i + 8], "little"), 0xA0761D6478BD642F)
    return fold(value ^ len(token), 0xE7037ED1A0B428DB)


def shingles(text: bytes, size: int, seed: int) -> set[int]:
    numbers = stream(seed)
    token_seed, shingle_seed = next(numbers), next(numbers)
    tokens = [token_hash(token, token_seed) for token in TOKEN.findall(text)]
    result = set()
    for i in range(len(tokens) - size + 1):
        total = sum(token * pow(BASE, size - 1 - j, 1 << 64) for j, token in enumerate(tokens[i : i + size])) & WORD
        result.add(fold(total ^ shingle_seed, 0x8EBC6AF09C88C6E3))
    return result


def sketch(text: bytes, bins: int, size: int, seed: int) -> list[int]:
    numbers = stream(seed)
    next(numbers), next(numbers)
    rounds = [(next(numbers), next(numbers) | 1) for _ in range(2 * bins)]
    values = [WORD] * bins
    hashes = shingles(text, size, seed)
    for i, (add, times) in enumerate(rounds):
        if not hashes or WORD not in values:
            break
        for value in hashes:
            mixed = value if i == 0 else fold(value ^ add, times)
            where, inside = divmod(mixed * bins, 1 << 64) if i < bins else (i - bins, mixed)
            values[where] = min(values[where], i << 53 | inside >> 11)
    return values
