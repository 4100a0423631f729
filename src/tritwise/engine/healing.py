"""Token healing: a prompt may end inside what the model knows as one token.

A tokenizer that makes one token of a line end and the indentation behind it leaves a line end alone where a text ends
with it, which training has shown the model at the ends of files only; "retu" ends in tokens that never come before
"rn". So the last tokens of a prompt, as long as some token is longer than their text, are taken off and become what the
first tokens written have to spell, alone or as the beginning of a longer one. (The name is the library guidance's.)
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # in the text of a token that holds a part of a character
_MOST_TOKENS = 8


class TokenTexts:
    """The text of every token that has one of its own, in the middle of a text, and which of them begin alike."""

    def __init__(self, tokenizer: Tokenizer, control_ids: Collection[int]) -> None:
        # Some decoders strip the space before a text's first token: one always stands before.
        self.anchor: int = tokenizer.encode("a", add_special_tokens=False).ids[-1]
        start = len(tokenizer.decode([self.anchor]))
        count = max(tokenizer.get_vocab().values()) + 1
        texts = [text[start:] for text in tokenizer.decode_batch([[self.anchor, id_] for id_ in range(count)])]
        known = sorted((text, id_) for id_, text in enumerate(texts)
                       if text and _REPLACEMENT not in text and id_ not in control_ids)
        self._texts = [text for text, _ in known]
        self._ids = np.array([id_ for _, id_ in known], dtype=np.int64)
        self._by_id = {id_: text for text, id_ in known}
        self.vocab_size = count

    def text(self, id_: int) -> str | None:
        """Of a token; None where it has none of its own."""
        return self._by_id.get(id_)

    def spelling(self, text: str) -> NDArray[np.int64]:
        """The ids of this very text."""
        return self._range(text, text + "\0")

    def beginning(self, text: str) -> NDArray[np.int64]:
        """The ids of all texts that begin with this one, itself included."""
        return self._range(text, text + chr(0x10FFFF))

    def split(self, ids: Sequence[int], *, keep: int = 1) -> tuple[list[int], str]:
        """What is left of a prompt's ids, `keep` of them at least, and the text that is to be spelled."""
        taken, text, tail = 0, "", ""
        for count in range(1, min(_MOST_TOKENS, len(ids) - keep) + 1):
            last = self.text(ids[-count])
            if last is None:
                break
            tail = last + tail
            if len(self.beginning(tail)) > len(self.spelling(tail)):
                taken, text = count, tail
        return list(ids[:len(ids) - taken]), text

    def _range(self, low: str, high: str) -> NDArray[np.int64]:
        return self._ids[bisect_left(self._texts, low):bisect_left(self._texts, high)]


class Spelled:
    """The `Constraint` under which the first tokens spell `text`, the last of them perhaps as a beginning."""

    def __init__(self, texts: TokenTexts, text: str) -> None:
        self._texts, self._text, self._at = texts, text, 0
        length = len(text)
        # Where the rest can be spelled to its end.
        self._open = [False] * length + [True]
        for at in range(length - 1, -1, -1):
            self._open[at] = len(texts.beginning(text[at:])) > 0 or any(
                self._open[end] and len(texts.spelling(text[at:end])) for end in range(at + 1, length))

    def mask(self, ids: Sequence[int]) -> NDArray[np.uint32] | None:
        """Of `Constraint`."""
        if self._at >= len(self._text):
            return None
        at = self._at
        allowed = [self._texts.beginning(self._text[at:])]
        allowed += [self._texts.spelling(self._text[at:end]) for end in range(at + 1, len(self._text))
                    if self._open[end]]
        bits = np.zeros(-(-self._texts.vocab_size // 32) * 32, dtype=np.uint8)
        bits[np.concatenate(allowed)] = 1
        return np.packbits(bits, bitorder="little").view("<u4")

    def accept(self, token: int) -> None:
        """Of `Constraint`."""
        if self._at < len(self._text):
            self._at += len(self._texts.text(token))
