"""SentencePiece's BPE in GGUF metadata (`tokenizer.ggml.model` is llama) as a tokenizer.json.

SentencePiece joins, again and again, the two neighbours whose joined piece has the highest score, the leftmost of equal
ones. The tokenizers library joins the neighbours that stand first in a list. So the list has every way to cut each
piece into two, the pieces in falling order of their scores: a pair's rank is its piece's score. That needs scores that
differ between pieces, and every character of a piece to be one itself; files where that is not so are refused.
Of the ways to cut one piece those with the longer left part come first; the tests look for a text where that
order matters, and there is none.

A text gets a space before it (`tokenizer.ggml.add_space_prefix`), as does every stretch of it behind a token that is
not text; spaces are U+2581, and characters that are no piece are tokens of their bytes, as in llama.cpp
(src/llama-vocab.cpp, `llm_tokenizer_spm`).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def sentencepiece_parts(metadata: Mapping[str, Any], ids: Mapping[str, int], types: np.ndarray,
                        space_prefix: bool) -> dict[str, Any]:
    """`normalizer`, `pre_tokenizer`, `decoder` and `model` of the tokenizer.json for `ids` by token, in their order.

    Raises TritwiseError for scores that do not rank the pieces and for pieces that merges cannot make.
    """
    if metadata.get("tokenizer.ggml.remove_extra_whitespaces") or metadata.get("tokenizer.ggml.precompiled_charsmap"):
        raise _error("precompiled_charsmap", "it changes the text before it is cut, which is not implemented")
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f" or len(scores) != len(ids):
        raise _error("scores", f"it does not hold one number for each of the {len(ids)} tokens")
    bytes_of = {f"<0x{byte:02X}>" for byte in range(256)}
    for token, number in ids.items():
        if (types[number] == BYTE) != (token in bytes_of) or not NORMAL <= types[number] <= BYTE:
            raise _error("token_type", f"{token!r} is of type {types[number]}; a byte is <0x00> to <0xFF>")
    unknown = [token for token, number in ids.items() if types[number] == UNKNOWN]
    has_bytes = all(byte in ids for byte in bytes_of)
    if len(unknown) > 1 or not (unknown or has_bytes):
        raise _error("token_type", f"there are {len(unknown)} unknown tokens; one is needed, or tokens of all bytes")
    for token, number in ids.items():
        if len(token) == 1 and types[number] in (CONTROL, UNKNOWN, UNUSED):
            raise _error("token_type", f"{token!r} is of type {types[number]}, and text could become it")
    before = [{"type": "Prepend", "prepend": _SPACE}] if space_prefix else []
    behind = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if space_prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [
            *before, {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, *behind]},
        "model": {"type": "BPE", "dropout": None, "unk_token": unknown[0] if unknown else None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": has_bytes, "ignore_merges": False, "vocab": dict(ids),
                  "merges": _merges(ids, types, scores)},
    }


def _merges(ids: Mapping[str, int], types: np.ndarray, scores: np.ndarray) -> list[tuple[str, str]]:
    parts = {token for token, number in ids.items() if types[number] in (NORMAL, UNUSED)}
    made: list[tuple[float, int, list[tuple[str, str]]]] = []
    for token in parts:
        number = ids[token]
        cuts = [(token[:at], token[at:]) for at in range(len(token) - 1, 0, -1)
                if token[:at] in parts and token[at:] in parts]
        if missing := next((each for each in token if len(token) > 1 and each not in parts), None):
            raise _error("tokens", f"{token!r} is one, and its character {missing!r} is none")
        if cuts and types[number] == UNUSED:  # SentencePiece would cut it again
            raise _error("token_type", f"{token!r} is unused, and its parts are not")
        if cuts:
            made.append((float(scores[number]), number, cuts))
    made.sort(key=lambda each: (-each[0], each[1]))
    for (one, number, _), (other, after, _) in pairwise(made):
        if not one > other:
            raise _error("scores", f"tokens {number} and {after} have the scores {one} and {other}, and no order")
    return [cut for _, _, cuts in made for cut in cuts]


def _error(key: str, why: str) -> TritwiseError:
    return TritwiseError(f"the tokenizer cannot be read: tokenizer.ggml.{key}", why=why)
