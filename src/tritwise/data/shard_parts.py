"""Several shards of one split as one stream of ids.

A split is either `NAME.ds` or parts `NAME-00000.ds`, `NAME-00001.ds`, ... without a gap. Parts follow one another by
number: what a training sees in which order is decided by the permutation of windows (`train/samples.py`), not here.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.data.shards import TokenShard


class JoinedIds:
    """One-dimensional arrays one after the other, read through slices; memory-mapped ones stay on the disk."""

    def __init__(self, arrays: list[NDArray[np.unsignedinteger]]) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, part: slice) -> NDArray[np.unsignedinteger]:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("joined ids are read from left to right")
        pieces = []
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            array, begin = self._arrays[number], int(self._starts[number])
            pieces.append(array[start - begin:stop - begin])
            start = begin + len(array)
            number += 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([self._arrays[0][:0], *pieces])


class TokenStream(NamedTuple):
    """The open shards of a split: `ids` [tokens] over all of them, an array or something that slices like one."""

    shards: tuple[TokenShard, ...]
    ids: NDArray[np.unsignedinteger] | JoinedIds

    @property
    def tokenizer_hash(self) -> str:
        return self.shards[0].tokenizer_hash

    @property
    def vocab_size(self) -> int:
        return self.shards[0].vocab_size

    def verify(self) -> None:
        """Read every id. Raises TritwiseError when a shard's hash is not the one that was written."""
        for shard in self.shards:
            shard.verify()


def part_path(directory: Path, split: str, number: int) -> Path:
    """Where part `number` of a split lies."""
    return Path(directory) / f"{split}-{number:05}.ds"


def shard_paths(directory: Path, split: str) -> list[Path]:
    """The shards of a split, by number. Raises TritwiseError when there is none, or a number is missing."""
    directory = Path(directory)
    whole = directory / f"{split}.ds"
    numbers = sorted(int(match[1]) for file in directory.glob(f"{split}-*.ds")
                     if (match := re.fullmatch(rf"{re.escape(split)}-(\d{{5,}})\.ds", file.name)))
    if whole.exists() and numbers:
        raise TritwiseError(f"{directory} holds two forms of the split {split}",
                            why=f"{whole.name} and {part_path(directory, split, numbers[0]).name}",
                            fix="keep one of them")
    if not numbers:
        return [whole]  # opening it says what is missing
    if numbers != list(range(len(numbers))):
        gap = next(i for i, number in enumerate(numbers) if i != number)
        raise TritwiseError(f"{part_path(directory, split, gap)} does not exist",
                            why=f"the split has parts up to {numbers[-1]}", fix="tritwise run RECIPE")
    return [part_path(directory, split, number) for number in numbers]


def open_shards(directory: Path, split: str) -> TokenStream:
    """Open all shards of a split in a data directory. Raises TritwiseError where they do not belong together."""
    shards = tuple(map(TokenShard.open, shard_paths(directory, split)))
    for shard in shards[1:]:
        if shard.recipe_hash != shards[0].recipe_hash:
            raise TritwiseError(f"{shard.path} was made with another recipe than {shards[0].path.name}",
                                why="the shards of a split are made in one run", fix="tritwise run RECIPE")
    return join_shards(shards)


def join_shards(shards: tuple[TokenShard, ...]) -> TokenStream:
    """One stream of open shards. Raises TritwiseError when their ids are not of one tokenizer."""
    first = shards[0]
    for shard in shards[1:]:
        if (shard.tokenizer_hash, shard.vocab_size) != (first.tokenizer_hash, first.vocab_size):
            raise TritwiseError(f"{shard.path} has another tokenizer than {first.path}",
                                why="one id would mean two texts", fix="make both with the same tokenizer.file")
    return TokenStream(shards, first.ids if len(shards) == 1 else JoinedIds([shard.ids for shard in shards]))
