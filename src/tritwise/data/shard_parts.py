"""Several shards of one split as one stream of ids.

A split is either `NAME.ds` or parts `NAME-00000.ds`, `NAME-00001.ds`, ... with `NAME.parts.json`, which says how many
parts, documents and ids there are and has the hash of each part's facts. Parts follow one another by number: what a
training sees in which order is decided by the permutation of windows (`train/samples.py`), not here.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, read_json, sha256_file
from tritwise.data.shards import TokenShard, Windows

_FORMAT = "tritwise-token-split-1"


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

    @property
    def windows(self) -> Windows | None:
        return self.shards[0].windows

    def verify(self) -> None:
        """Read every id. Raises TritwiseError when a shard's hash is not the one that was written."""
        for shard in self.shards:
            shard.verify()


def part_path(directory: Path, split: str, number: int) -> Path:
    """Where part `number` of a split lies."""
    return Path(directory) / f"{split}-{number:05}.ds"


def split_index(directory: Path, split: str) -> Path:
    """Where it is said which parts a split has."""
    return Path(directory) / f"{split}.parts.json"


def write_split_index(directory: Path, split: str, count: int) -> None:
    """Say that parts 0 to `count` - 1 of a split are all there; written when they are.

    Raises TritwiseError when one is not.
    """
    facts = [_facts_of(part_path(directory, split, number)) for number in range(count)]
    known = [read_json(path, what="the facts of a token shard") for path in facts]
    atomic_write_json(split_index(directory, split), {
        "format": _FORMAT, "parts": [sha256_file(path) for path in facts],
        "documents": sum(each["documents"] for each in known), "tokens": sum(each["tokens"] for each in known)})


def _facts_of(shard: Path) -> Path:
    """The file of a shard's facts, which name the hashes of its other files."""
    facts = shard.with_name(shard.name + ".json")
    if not facts.is_file():
        raise TritwiseError(f"{facts} does not exist", why="it belongs to a token shard", fix=_again(shard.parent))
    return facts


def _again(directory: Path) -> str:
    return f"move {directory} away and repeat the command that made it (tritwise run, tritwise data build or tokens)"


def _read_index(directory: Path, split: str) -> dict[str, Any]:
    path = split_index(directory, split)
    if not path.is_file():
        raise TritwiseError(f"{path} does not exist",
                            why=f"it says how many parts the split {split} has, and is written when all are there",
                            fix=f"repeat the command that made it; if that had ended, move {directory} away first")
    index = read_json(path, what="the index of a split")
    types = {"format": str, "parts": list, "documents": int, "tokens": int}
    if (not isinstance(index, dict) or index.keys() != types.keys() or index["format"] != _FORMAT
            or not index["parts"] or any(type(index[key]) is not kind for key, kind in types.items())):
        raise TritwiseError(f"{path} does not describe the parts of a split", fix=_again(directory))
    return index


def _part_numbers(directory: Path, split: str) -> list[int]:
    """Of the parts that lie there, in order."""
    return sorted(int(match[1]) for file in directory.glob(f"{split}-*.ds")
                  if (match := re.fullmatch(rf"{re.escape(split)}-(\d{{5,}})\.ds", file.name)))


def shard_paths(directory: Path, split: str) -> list[Path]:
    """The shards of a split, by number; nothing of them is read.

    Raises TritwiseError when there is none, a part is missing, or one lies there that is not of this split.
    """
    directory = Path(directory)
    whole, numbers = directory / f"{split}.ds", _part_numbers(directory, split)
    in_parts = bool(numbers) or split_index(directory, split).exists()
    if whole.exists() and in_parts:
        raise TritwiseError(f"{directory} holds two forms of the split {split}",
                            why=f"{whole.name} and {part_path(directory, split, 0).name}, ...", fix="keep one of them")
    if not in_parts:
        return [whole]  # opening it says what is missing
    count = len(_read_index(directory, split)["parts"])
    missing = sorted(set(range(count)) - set(numbers))
    if missing:
        more = f", and {len(missing) - 1} others do not either" if len(missing) > 1 else ""
        raise TritwiseError(f"{part_path(directory, split, missing[0])} does not exist{more}",
                            why=f"the split {split} has {count} parts, {split_index(directory, split).name} says",
                            fix=_again(directory))
    if len(numbers) > count:
        raise TritwiseError(f"{part_path(directory, split, numbers[count])} is no part of the split {split}",
                            why=f"it has {count} parts, {split_index(directory, split).name} says",
                            fix="move the files of that part away")
    return [part_path(directory, split, number) for number in range(count)]


def open_shards(directory: Path, split: str) -> TokenStream:
    """Open all shards of a split in a data directory. Raises TritwiseError where they do not belong together."""
    paths = shard_paths(directory, split)
    shards = tuple(map(TokenShard.open, paths))
    for shard in shards[1:]:
        if shard.recipe_hash != shards[0].recipe_hash:
            raise TritwiseError(f"{shard.path} was made with another recipe than {shards[0].path.name}",
                                why="the shards of a split are made in one run", fix=_again(Path(directory)))
    stream = join_shards(shards)
    index = split_index(directory, split)
    if index.exists():
        _check_index(_read_index(directory, split), index, shards)
    return stream


def _check_index(stated: dict[str, Any], index: Path, shards: tuple[TokenShard, ...]) -> None:
    for shard, facts in zip(shards, stated["parts"], strict=True):
        if sha256_file(_facts_of(shard.path)) != facts:
            raise TritwiseError(f"{shard.path} is not the part that was written under this name",
                                why=f"{index.name} has another hash of its facts", fix=_again(index.parent))
    for name, count in (("documents", sum(len(shard.ends) for shard in shards)),
                        ("tokens", sum(len(shard.ids) for shard in shards))):
        if stated[name] != count:
            raise TritwiseError(f"{index} is damaged", why=f"it says {stated[name]} {name}, its parts have {count}",
                                fix=_again(index.parent))


def join_shards(shards: tuple[TokenShard, ...]) -> TokenStream:
    """One stream of open shards. Raises TritwiseError when they are not of one tokenizer, or their windows differ."""
    first = shards[0]
    for shard in shards[1:]:
        check_tokenizer(first, shard)
        if shard.windows != first.windows:
            raise TritwiseError(f"{shard.path} has other windows than {first.path}",
                                why=f"{_described(shard.windows)} and {_described(first.windows)}",
                                fix="make both with the same data.packing")
    return TokenStream(shards, first.ids if len(shards) == 1 else JoinedIds([shard.ids for shard in shards]))


def check_tokenizer(first: TokenShard, other: TokenShard) -> None:
    """Raise TritwiseError unless two shards have the ids of one tokenizer."""
    if (other.tokenizer_hash, other.vocab_size) != (first.tokenizer_hash, first.vocab_size):
        raise TritwiseError(f"{other.path} has another tokenizer than {first.path}",
                            why="one id would mean two texts", fix="make both with the same tokenizer.file")


def _described(windows: Windows | None) -> str:
    return "none" if windows is None else f"of {windows.size} ids with padding {windows.padding}"
