"""Fill-in-the-middle at document level, before packing: prefix, suffix, middle (arXiv 2401.14196, section 3.1.2).

A file is cut at line ends into consecutive pieces that fit a context window. Each piece is turned with probability
`rate`, which is decided by a hash of (seed, content, number of the piece): a pure function of the data.

A turned piece stands alone: what comes before it is closed with <|end_of_text|> as if the file ended there. So every
training document begins either with text or with <|fim_begin|>, exactly as prompts do, and the only special token that
text or a middle ever leads to is <|end_of_text|>. (Running text straight into <|fim_begin|> would teach the model to
break off a completion with it.) Plain pieces that follow one another are one text with nothing between.
"""

import hashlib
from typing import NamedTuple

from tritwise.config import FimRecipe


class Plain(NamedTuple):
    """Text as it stands; <|end_of_text|> follows."""

    text: str


class Turned(NamedTuple):
    """<|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> middle <|end_of_text|>."""

    prefix: str
    suffix: str
    middle: str


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


def turn(text: str, recipe: FimRecipe, *, seed: int, key: str, header: int = 0) -> list[Plain | Turned]:
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
    for number, piece in enumerate(cut_at_line_ends(text, recipe.max_document_chars)):
        digest = hashlib.sha256(f"fim\0{seed}\0{key}\0{number}".encode()).digest()
        if _uniform(digest, 0, 1 << 53) >= recipe.rate * (1 << 53):
            run += piece
            continue
        if run:
            documents.append(Plain(run))
            run = ""
        fixed = min(header, len(piece)) if number == 0 else 0
        first, second = sorted(fixed + _uniform(digest, which, len(piece) - fixed + 1) for which in (1, 2))
        documents.append(Turned(piece[:first], piece[second:], piece[first:second]))
    if run:
        documents.append(Plain(run))
    return documents
