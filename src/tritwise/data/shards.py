"""Token shards: a memory-mapped array of ids with document ends and a JSON of facts beside it.

Layout (datatrove's):

    NAME.ds            raw little-endian ids, uint16 when vocab_size <= 65536, else uint32
    NAME.ds.index      uint64 little-endian, the end of each document (cumulative count of ids)
    NAME.ds.metadata   datatrove's text: tokenizer|bytes an id, count of ids, the same for people; not read here
    NAME.ds.json       ours: counts, hashes of the first two, of the tokenizer and of the recipe

The JSON is written last and holds its own hash, so a half-written or mixed-up shard is refused.

A shard may hold windows (`packing.py`, `context.py`): each `window` ids are one, and where documents do not fill it the
rest is a document made of the id `padding` alone. The layout stays the same, so any reader of sequences of `window` ids
reads windows; the two numbers stand in the JSON.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.files import (
    atomic_file,
    atomic_write,
    atomic_write_json,
    canonical_json,
    read_json,
    sha256_bytes,
    sha256_file,
)

_FORMAT = "tritwise-token-shard-2"
_TYPES = {"dtype": str, "format": str, "ids_sha256": str, "index_sha256": str, "documents": int, "tokens": int,
          "recipe_hash": str, "tokenizer_hash": str, "vocab_size": int}
# Of shards that hold windows, both.
_WINDOW_TYPES = {"window": int, "padding": int}


class Windows(NamedTuple):
    """That each `size` ids of a shard are a window, with `padding` behind what does not fill it."""

    size: int
    padding: int


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def id_dtype(vocab_size: int) -> np.dtype:
    """The smallest of the two types of ids that holds `vocab_size` of them, little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_shard(path: Path, documents: Iterable[NDArray[np.integer]], *, vocab_size: int,
                tokenizer_hash: str, recipe_hash: str, windows: Windows | None = None) -> dict[str, Any]:
    """Write documents (each a one-dimensional integer array, not empty) as the shard `path`, and return its facts.

    `recipe_hash` names what the documents were made with. One document is in memory at a time, and 8 bytes of each.
    Raises ValueError for an empty document, an id outside 0..vocab_size - 1, or a document over the end of a window.
    """
    path = Path(path)
    dtype = id_dtype(vocab_size)
    _beside(path, ".json").unlink(missing_ok=True)  # no moment at which old facts stand beside new ids
    ends: list[int] = []
    total = 0
    hasher = hashlib.sha256()
    with atomic_file(path) as f:
        for document in documents:
            document = np.asarray(document)
            if document.ndim != 1 or document.size == 0 or document.dtype.kind not in "iu":
                raise ValueError(f"document {len(ends)} is no filled list of ids: "
                                 f"{document.dtype} {document.shape}")
            if document.min() < 0 or document.max() >= vocab_size:
                raise ValueError(f"document {len(ends)} holds ids outside 0..{vocab_size - 1}")
            if windows is not None and total % windows.size + document.size > windows.size:
                raise ValueError(f"document {len(ends)} goes over the end of a window of {windows.size}")
            payload = document.astype(dtype).tobytes()
            f.write(payload)
            hasher.update(payload)
            total += document.size
            ends.append(total)
        if windows is not None and total % windows.size:
            raise ValueError(f"{total} ids are not a whole number of windows of {windows.size}")
    index = np.array(ends, dtype="<u8").tobytes()
    atomic_write(_beside(path, ".index"), index)
    atomic_write(_beside(path, ".metadata"), f"{tokenizer_hash}|{dtype.itemsize}\n{total}\n{_for_people(total)}")
    facts = {"format": _FORMAT, "dtype": dtype.name, "tokens": total, "documents": len(ends),
             "vocab_size": vocab_size, "tokenizer_hash": tokenizer_hash, "recipe_hash": recipe_hash,
             "ids_sha256": hasher.hexdigest(), "index_sha256": sha256_bytes(index)}
    if windows is not None:
        facts |= {"window": windows.size, "padding": windows.padding}
    atomic_write_json(_beside(path, ".json"), facts | {"facts_sha256": sha256_bytes(canonical_json(facts).encode())})
    return facts


def _for_people(count: int) -> str:
    """A count of tokens with three digits and a prefix, as humanize's `metric` writes it: 1.23 MT."""
    for power, prefix in enumerate(" kMGTPE"):
        value = count / 1000**power
        for digits in (2, 1, 0):
            if round(value, digits) < 10**(3 - digits):
                return f"{value:.{digits}f} {prefix.strip()}T"
    raise ValueError(f"{count} tokens are more than a shard can hold")


class TokenShard(NamedTuple):
    """An open shard: `ids` [tokens] (memory-mapped), `ends` [documents] uint64, strictly increasing."""

    path: Path
    ids: NDArray[np.unsignedinteger]
    ends: NDArray[np.uint64]
    vocab_size: int
    tokenizer_hash: str
    recipe_hash: str
    ids_sha256: str
    windows: Windows | None = None

    @classmethod
    def open(cls, path: Path) -> "TokenShard":
        """Map the shard `path` (NAME.ds), after checking facts, sizes, types, and the document ends.

        The ids themselves are not read; `verify` does that. Raises TritwiseError with the file and what is wrong.
        """
        path = Path(path)
        facts = _read_facts(_beside(path, ".json"))
        dtype = id_dtype(facts["vocab_size"])
        if facts["dtype"] != dtype.name:
            raise TritwiseError(f"{_beside(path, '.json')} contradicts itself",
                                why=f"{facts['vocab_size']} ids are stored as {dtype.name}, not {facts['dtype']}")
        index = _beside(path, ".index")
        _check_size(path, facts["tokens"] * dtype.itemsize)
        _check_size(index, facts["documents"] * 8)
        if sha256_file(index) != facts["index_sha256"]:
            raise TritwiseError(f"{index} is damaged", why="its hash is not the one written beside it")
        ends = np.fromfile(index, dtype="<u8")
        if np.any(ends[1:] <= ends[:-1]) or (ends[-1] if ends.size else 0) != facts["tokens"] or 0 in ends[:1]:
            raise TritwiseError(f"{index} is damaged",
                                why=f"document ends must rise to the number of ids, {facts['tokens']}")
        windows = Windows(facts["window"], facts["padding"]) if "window" in facts else None
        if windows is not None and not _ends_at_windows(ends, facts["tokens"], windows.size):
            raise TritwiseError(f"{index} is damaged", why=f"a document stands in two windows of {windows.size}")
        # An empty file cannot be mapped.
        ids = np.memmap(path, dtype=dtype, mode="r") if facts["tokens"] else np.empty(0, dtype=dtype)
        return cls(path, ids, ends, facts["vocab_size"], facts["tokenizer_hash"], facts["recipe_hash"],
                   facts["ids_sha256"], windows)

    def verify(self) -> None:
        """Read every id: their hash must be the one that was written. Raises TritwiseError."""
        if sha256_file(self.path) != self.ids_sha256:
            raise TritwiseError(f"{self.path} is damaged", why="its hash is not the one written beside it")

    def document(self, number: int) -> NDArray[np.unsignedinteger]:
        """The ids of one document, its <|end_of_text|> included."""
        return self.ids[int(self.ends[number - 1]) if number else 0:int(self.ends[number])]


def _ends_at_windows(ends: NDArray[np.uint64], tokens: int, size: int) -> bool:
    """Whether a document ends where each window does."""
    wanted = np.arange(size, tokens + 1, size, dtype=np.uint64) if size > 0 else ends[:0]
    return size > 1 and tokens % size == 0 and bool(np.all(np.isin(wanted, ends, assume_unique=True)))


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise TritwiseError(f"{path} does not exist", why="it belongs to a token shard", fix="tritwise run RECIPE")
    size = path.stat().st_size
    if size != expected:
        raise TritwiseError(f"{path} is {'truncated' if size < expected else 'damaged'}",
                            why=f"it has {size} bytes, {expected} were written")


def _read_facts(path: Path) -> dict[str, Any]:
    facts = read_json(path, what="the facts of a token shard")
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise TritwiseError(f"{path} does not describe a token shard", why=f"its format is not {_FORMAT}")
    stated = facts.pop("facts_sha256", None)
    types = _TYPES | (_WINDOW_TYPES if facts.keys() & _WINDOW_TYPES else {})
    wrong = sorted(set(facts) ^ set(types)) or sorted(k for k, t in types.items() if type(facts[k]) is not t)
    if wrong:
        raise TritwiseError(f"{path} is damaged", why=f"{wrong[0]} is missing, unknown or of the wrong type")
    if stated != sha256_bytes(canonical_json(facts).encode()):
        raise TritwiseError(f"{path} is damaged", why="it does not have the hash that it states")
    return facts
