"""Fill-in-the-middle (arXiv 2401.14196, section 3.1.2; arXiv 2207.14255, section 3).

What is turned with probability `rate` is a file, or each of the consecutive pieces of it that have at most so many
characters, before packing; or what a context window has of it (`level`; the last is `context.py`). It is decided by a
hash of (seed, content, number of the piece): a pure function of the data.

A turned piece stands alone: what comes before it is closed with <|end_of_text|> as if the file ended there. So every
training document begins either with text or with <|fim_begin|>, exactly as prompts do, and the only special token that
text or a middle ever leads to is <|end_of_text|>. (Running text straight into <|fim_begin|> would teach the model to
break off a completion with it.) Plain pieces that follow one another are one text with nothing between.

    PSM    begin prefix hole suffix end middle
    SPM    begin hole suffix end prefix middle        the second variant of arXiv 2207.14255; StarCoder's, too

A model's prompts for a gap are in the order that most of its documents were turned to (`ModelConfig.fim_order`).
Cuts lie between characters, and each part is encoded alone, as in prompts; so `restore` gives back every byte.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config import FimSettings
from tritwise.config.tokens import KNOWN_FIM_TOKENS, fim_prompt


class FimIds(NamedTuple):
    """Ids of the three tokens: what opens the document, the suffix, and the text that is asked for."""

    begin: int
    hole: int
    end: int


def known_fim_ids(tokenizer: Tokenizer) -> FimIds | None:
    """Of the first known set of FIM tokens that a tokenizer has; None when it has none."""
    sets = (tuple(map(tokenizer.token_to_id, names)) for names in KNOWN_FIM_TOKENS)
    return next((FimIds(*ids) for ids in sets if None not in ids), None)


class Plain(NamedTuple):
    """Text as it stands; <|end_of_text|> follows."""

    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.text,)


class Turned(NamedTuple):
    """A document in three parts, in PSM or SPM order; <|end_of_text|> follows."""

    prefix: str
    suffix: str
    middle: str
    spm: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.prefix, self.suffix, self.middle)


def document_ids(document: Plain | Turned, encoded: Sequence[NDArray[np.integer]], end_of_text: int,
                 fim: FimIds | None) -> NDArray[np.int64]:
    """Ids int64 [tokens] of a training document, of the ids of its `parts`."""
    if isinstance(document, Plain):
        return np.concatenate([encoded[0], [end_of_text]]).astype(np.int64)
    prefix, suffix, middle = encoded
    prompt = fim_prompt("spm" if document.spm else "psm", *fim, prefix, suffix)
    return np.concatenate([*prompt, middle, [end_of_text]]).astype(np.int64)


def restore(ids: Sequence[int] | NDArray[np.integer], end_of_text: int, fim: FimIds | None,
            decode: Callable[[list[int]], str]) -> str:
    """The text of a training document: the inverse of turning it.

    What stands behind the end token comes before the suffix. In SPM that is prefix and middle, in PSM the middle, and
    the prefix stands between begin and hole. `decode` gives the text of ids and may skip none.
    Raises TritwiseError when the control tokens do not stand as in a training document.
    """
    *body, last = map(int, ids)
    controls = [id_ for id_ in body if id_ == end_of_text or (fim is not None and id_ in fim)]
    if last != end_of_text or (controls and (controls != list(fim or ()) or body[0] != fim.begin)):
        raise TritwiseError("these ids are no training document",
                            why="one ends with its end of text, and has no other control tokens than begin, hole and "
                                "end, in this order, from its start on")
    if not controls:
        return decode(body)
    hole, end = body.index(fim.hole), body.index(fim.end)
    return decode(body[1:hole]) + decode(body[end + 1:]) + decode(body[hole + 1:end])


def cut_at_line_ends(text: str, max_chars: int) -> list[str]:
    """Consecutive pieces of at most `max_chars` characters, as few as fit greedily; they join to `text`.

    A line longer than that is cut where it must be.
    """
    pieces: list[str] = []
    start = 0
    while len(text) - start > max_chars:
        end = text.rfind("\n", start, start + max_chars) + 1 or start + max_chars
        pieces.append(text[start:end])
        start = end
    pieces.append(text[start:])
    return [piece for piece in pieces if piece]


def _uniform(digest: bytes, which: int, count: int) -> int:
    """A uniform integer in [0, count) from the `which`-th 8 bytes of a hash."""
    return int.from_bytes(digest[8 * which:8 * which + 8], "little") * count >> 64


def turn(text: str, recipe: FimSettings, *, seed: int, key: str, header: int = 0) -> list[Plain | Turned]:
    """The training documents of one file.

    Args:
        text: the file, its path comment included; not empty.
        key: what stands for the file in the hash: its content's.
        header: characters at the start (the path comment) that always stay in a prefix. Both cuts are uniform over
            the character positions behind it.

    Returns:
        Documents whose texts (prefix, middle, suffix in this order) join to `text`.
    """
    documents: list[Plain | Turned] = []
    run = ""
    pieces = cut_at_line_ends(text, recipe.max_document_chars) if recipe.level == "piece" else [text]
    for number, piece in enumerate(pieces):
        digest = piece_hash(seed, key, number)
        if not is_turned(digest, recipe):
            run += piece
            continue
        if run:
            documents.append(Plain(run))
            run = ""
        documents.append(turned(piece, digest, recipe, fixed=header if number == 0 else 0))
    if run:
        documents.append(Plain(run))
    return documents


def piece_hash(seed: int, key: str, number: int) -> bytes:
    """What decides about piece `number` of a file."""
    return hashlib.sha256(f"fim\0{seed}\0{key}\0{number}".encode()).digest()


def is_turned(digest: bytes, recipe: FimSettings) -> bool:
    """Whether a piece with this hash is turned."""
    return _uniform(digest, 0, 1 << 53) < recipe.rate * (1 << 53)


def turned(piece: str, digest: bytes, recipe: FimSettings, *, fixed: int = 0) -> Turned:
    """A piece in three parts; its first `fixed` characters stay in the prefix."""
    fixed = min(fixed, len(piece))
    first, second = sorted(fixed + _uniform(digest, which, len(piece) - fixed + 1) for which in (1, 2))
    spm = _uniform(digest, 3, 1 << 53) < recipe.spm_rate * (1 << 53)
    return Turned(piece[:first], piece[second:], piece[first:second], spm)
