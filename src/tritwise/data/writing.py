"""From the documents of a part to a shard: encoded, turned, packed, and counted on the way.

    documents -> turn -> encode ------------------------------------> the stream of a shard
                    |         `-> cut_to_windows -> best_fit -------> windows
                    `-> context_pieces (windows cut first) ---------> windows, in the order of the documents
                                  `------------------> best_fit ----> windows
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tritwise.config import FimSettings, PackingSettings
from tritwise.data.context import Piece, Room, TokenBytes, context_pieces
from tritwise.data.documents import Document, batches, document_text, path_comment
from tritwise.data.encoder import Encoder
from tritwise.data.fim import Plain, Turned, document_ids, known_fim_ids, turn
from tritwise.data.flow import Counts
from tritwise.data.packing import Spool, cut_to_windows
from tritwise.data.shards import Windows, id_dtype, write_shard

# Texts that are encoded in one call.
_BATCH_TEXTS, _BATCH_CHARACTERS = 64, 1 << 24
# What is counted of windows: how many; ids of padding in them; documents that stand in several, and that would if they
# were concatenated.
WINDOW_COUNTS = ("windows", "padding", "cut_documents", "cut_if_concatenated")
# A piece for windows: its repository, its ids, whether its text goes on behind it.
_Packed = tuple[str, NDArray[np.integer], bool]
_COUNTS = ("files", "bytes", "encoded_bytes", "documents", "fim_documents", *WINDOW_COUNTS)


@dataclass(frozen=True)
class Writing:
    """How documents become a shard; `fim` None leaves all of them as they are."""

    encoder: Encoder
    end_of_text: int
    fim: FimSettings | None
    packing: PackingSettings
    seed: int
    tokenizer_hash: str
    recipe_hash: str

    def windows(self) -> Windows | None:
        """One id more than the model reads of them: the last target."""
        window = self.packing.window
        return None if window is None else Windows(window + 1, self.end_of_text)


def write_split_part(path: Path, files: Iterable[Document], writing: Writing) -> Counts:
    """Write documents as the shard `path`; returns what it holds (`SplitCounts` has the meanings)."""
    counts = dict.fromkeys(_COUNTS, 0)
    repositories: set[str] = set()
    vocab_size = writing.encoder.tokenizer.get_vocab_size()
    facts = write_shard(path, _entries(path, files, writing, counts, repositories, vocab_size), vocab_size=vocab_size,
                        tokenizer_hash=writing.tokenizer_hash, recipe_hash=writing.recipe_hash,
                        windows=writing.windows())
    if writing.packing.window is not None:
        counts["windows"] = facts["tokens"] // writing.windows().size
    return counts | {"tokens": facts["tokens"] - counts["padding"], "repositories": len(repositories)}


def add_counts(parts: Iterable[Counts]) -> dict[str, int]:
    """The counts of a split from those of its parts."""
    totals = dict.fromkeys((*_COUNTS, "tokens", "repositories"), 0)
    for part in parts:
        for name in totals:
            totals[name] += part[name]
    return totals


def _entries(path: Path, files: Iterable[Document], writing: Writing, counts: dict[str, int], repositories: set[str],
             vocab_size: int) -> Iterator[NDArray[np.integer]]:
    """The documents of a shard: texts or pieces of them, and padding; adds up what goes in."""
    windows, context = writing.windows(), writing.fim is not None and writing.fim.level == "context"
    files = _counted(files, counts, repositories)
    if windows is None:
        for batch in batches(files, _BATCH_TEXTS, _BATCH_CHARACTERS):
            yield from (ids for _, ids in _documents(batch, writing, counts))
        return
    place = _Place(windows.size, counts)
    pieces = (_context_pieces(files, writing, place, windows.size) if context else
              _cut_documents(files, writing, place, windows.size))
    if writing.packing.method == "concatenate":
        left = 0
        for _, piece, _ in pieces:
            left = (left - len(piece)) % windows.size
            yield piece
        if left:  # of the last window
            counts["padding"] += left
            yield np.full(left, writing.end_of_text)
        return
    with Spool(path.parent, id_dtype(vocab_size)) as spool:
        numbers: dict[str, int] = {}
        for repository, piece, is_open in pieces:
            spool.add(piece, numbers.setdefault(repository, len(numbers)), is_open=is_open)
        for piece in spool.windows(windows.size, writing.end_of_text,
                                   keep_neighbours=writing.packing.keep_neighbours):
            counts["padding"] += len(piece) if piece[0] == writing.end_of_text else 0
            yield piece


def _counted(files: Iterable[Document], counts: dict[str, int], repositories: set[str]) -> Iterator[Document]:
    for file in files:
        repositories.add(file.repository)
        counts["files"] += 1
        counts["bytes"] += len(file.text.encode())
        counts["encoded_bytes"] += len(document_text(file).encode())
        yield file


def _documents(batch: Sequence[Document], writing: Writing,
               counts: dict[str, int]) -> Iterator[tuple[Document, NDArray[np.int64]]]:
    """Each training document of some files, with the file it is of: its ids, turned or not."""
    fim_ids = known_fim_ids(writing.encoder.tokenizer)
    documents: list[tuple[Document, Plain | Turned]] = []
    for file in batch:
        text = document_text(file)
        documents += [(file, document) for document in ([Plain(text)] if writing.fim is None else turn(
            text, writing.fim, seed=writing.seed, key=file.sha256, header=len(path_comment(file))))]
    encoded = writing.encoder.encode_all((text for _, document in documents for text in document.parts), threads=1)
    for file, document in documents:
        counts["documents"] += 1
        counts["fim_documents"] += isinstance(document, Turned)
        yield file, document_ids(document, [next(encoded) for _ in document.parts], writing.end_of_text, fim_ids)


@dataclass
class _Place:
    """Where a document would begin, were all concatenated and cut into windows."""

    window: int
    counts: dict[str, int]
    place: int = 0

    def add(self, length: int) -> None:
        self.counts["cut_if_concatenated"] += self.place % self.window + length > self.window
        self.place += length


def _cut_documents(files: Iterable[Document], writing: Writing, place: _Place,
                   window: int) -> Iterator[_Packed]:
    """Documents, those longer than a window cut."""
    for batch in batches(files, _BATCH_TEXTS, _BATCH_CHARACTERS):
        for file, ids in _documents(batch, writing, place.counts):
            place.add(len(ids))
            lengths = cut_to_windows(len(ids), window)
            place.counts["cut_documents"] += len(lengths) > 1
            pieces = np.split(ids, np.cumsum(lengths)[:-1])
            yield from ((file.repository, piece, piece is not pieces[-1]) for piece in pieces)


def _context_pieces(files: Iterable[Document], writing: Writing, place: _Place,
                    window: int) -> Iterator[_Packed]:
    """What windows have of each file; for best-fit packing each file begins a window."""
    one_stream, counts = writing.packing.method == "concatenate", place.counts
    encoder, fim_ids = writing.encoder, known_fim_ids(writing.encoder.tokenizer)
    token_bytes, room = TokenBytes(encoder.tokenizer), Room.of(window)
    for file in files:
        text, length, pieces = document_text(file), 0, 0
        for piece in context_pieces(text, encoder.encode, token_bytes, room, writing.fim, seed=writing.seed,
                                    key=file.sha256, header=len(path_comment(file)), end_of_text=writing.end_of_text,
                                    fim=fim_ids):
            if isinstance(piece, Piece):
                pieces += 1
                length += len(piece.ids)
                counts["documents"] += 1
                counts["fim_documents"] += piece.is_turned
                yield file.repository, piece.ids, not piece.is_last
            elif one_stream:
                counts["padding"] += piece
                yield file.repository, np.full(piece, writing.end_of_text), False
        if not one_stream:
            room.close()
        counts["cut_documents"] += pieces > 1
        place.add(length)
