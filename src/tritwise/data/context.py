"""Fill-in-the-middle at context level (arXiv 2207.14255, section 4.4; SantaCoder, StarCoder): first windows.

Texts are cut where windows end. What a window has of a text is turned on its own, or stays as it is, decided by
`fim.is_turned`; so begin, hole and end of a turned text always stand in one window. The three control tokens and the
end make a turned piece longer than its text. Others trim the text for them; here what does not fit begins the next
window, so nothing is lost and `restore_window` gives back every byte.

A piece behind which its text goes on in the next window has no <|end_of_text|> when it is plain: the text does not end
there. A turned one has it, for it says where a middle ends. Few ids are left at the end of a window (a turned piece is
encoded in three parts, and no character is cut): they are padding, a piece of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config import FimSettings
from tritwise.data.encoder import byte_of_character
from tritwise.data.fim import FimIds, document_ids, is_turned, piece_hash, restore, turned

Ids = NDArray[np.integer]


class Piece(NamedTuple):
    """What a window has of a text: `ids`, whether it is turned, and whether the text ends with it."""

    ids: Ids
    is_turned: bool
    is_last: bool


@dataclass
class Room:
    """The open window: `left` ids of `size` fit in."""

    size: int
    left: int

    @classmethod
    def of(cls, size: int) -> "Room":
        return cls(size, size)

    def close(self) -> int:
        """Begin the next window; returns how many ids of padding the last one needs."""
        left, self.left = self.left % self.size, self.size
        return left


class TokenBytes:
    """The bytes that each id of a byte-level tokenizer stands for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        byte = byte_of_character()
        self._bytes: dict[int, bytes] = {
            id_: bytes(map(byte.__getitem__, token)) for token, id_ in tokenizer.get_vocab().items()
            if all(character in byte for character in token)}

    def ends(self, text: bytes, ids: Ids) -> NDArray[np.int64]:
        """Where in `text` each token ends, in bytes. Raises TritwiseError when the tokens do not spell the text."""
        tokens = [self._bytes.get(id_, b"") for id_ in ids.tolist()]
        if b"".join(tokens) != text:
            raise TritwiseError("the tokenizer cannot be used for turning at context level",
                                why="its tokens do not spell the bytes of a text, so where windows cut it is unknown",
                                fix='data.fim.level = "document", or a byte-level tokenizer without a normalizer')
        return np.cumsum([len(token) for token in tokens], dtype=np.int64)


def context_pieces(text: str, encode: Callable[[str], Ids], token_bytes: TokenBytes, room: Room, recipe: FimSettings, *,
                   seed: int, key: str, header: int, end_of_text: int, fim: FimIds | None) -> Iterator[Piece | int]:
    """The pieces of one text for the open window and those behind it; a number is so much padding, which ends a window.

    `key` and `header` are as `fim.turn` takes them. `room` is what was left when the text before ended.
    """
    data = text.encode()
    ids = encode(text)
    ends = token_bytes.ends(data, ids)
    begin = number = 0
    while begin < len(ids):
        start = int(ends[begin - 1]) if begin else 0
        digest = piece_hash(seed, key, number)
        piece, stop = None, begin
        if is_turned(digest, recipe):
            limit = room.left
            stop = min(len(ids), begin + limit - 4)
            while (stop := _whole_characters(data, ends, begin, stop)) > begin:
                document = turned(data[start:ends[stop - 1]].decode(), digest, recipe,
                                  fixed=header if number == 0 else 0)
                found = document_ids(document, [encode(part) for part in document.parts], end_of_text, fim)
                if len(found) <= limit:
                    piece = Piece(found, True, stop == len(ids))
                    break
                stop -= len(found) - limit
            if piece is None and room.left < room.size:
                yield from _padding(room)
                continue
        if piece is None:  # not to be turned, or no window holds it in three parts
            last = len(ids) - begin < room.left
            # An end alone is no piece: when all but the end fits, a token more is left for the next window.
            stop = len(ids) if last else _whole_characters(
                data, ends, begin, begin + room.left - (len(ids) - begin == room.left))
            if stop == begin:
                yield from _padding(room)
                continue
            piece = Piece(np.append(ids[begin:stop].astype(np.int64), [end_of_text]) if last else ids[begin:stop],
                          False, last)
        yield piece
        room.left -= len(piece.ids)
        begin, number = stop, number + 1
        if not piece.is_last or not room.left:
            yield from _padding(room)


def _padding(room: Room) -> Iterator[int]:
    if left := room.close():
        yield left


def _whole_characters(data: bytes, ends: NDArray[np.int64], begin: int, stop: int) -> int:
    """The last number of tokens, `stop` at most and `begin` at least, that ends between two characters."""
    while stop > begin and ends[stop - 1] < len(data) and data[ends[stop - 1]] & 0xC0 == 0x80:
        stop -= 1
    return max(begin, stop)


def window_pieces(window: Sequence[int] | Ids, end_of_text: int) -> list[list[int]]:
    """The pieces that a window holds, padding left out; each but possibly the last ends with its end of text."""
    pieces: list[list[int]] = [[]]
    for id_ in map(int, window):
        pieces[-1].append(id_)
        if id_ == end_of_text:
            pieces.append([])
    return [piece for piece in pieces if piece and piece != [end_of_text]]


def restore_window(window: Sequence[int] | Ids, end_of_text: int, fim: FimIds | None,
                   decode: Callable[[list[int]], str]) -> list[str]:
    """The texts, or pieces of texts, that a window of context level holds: the inverse of `context_pieces`.

    Raises TritwiseError where a piece is none that could have been written.
    """
    return [restore(piece if piece[-1] == end_of_text else [*piece, end_of_text], end_of_text, fim, decode)
            for piece in window_pieces(window, end_of_text)]
