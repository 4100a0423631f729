"""Text to ids, several times faster than `tokenizers` and equal to it.

tiktoken does the work where it can be shown to give the same ids; elsewhere `tokenizers` does, and `reason` says why.
Three things make them equal:

- The cut into pieces. A tokenizer with one regular expression (`FAST_PATTERNS`) gives both engines the same one. Both
  take the leftmost match and alternatives in their order, and their classes hold the same characters, all of Unicode
  (tests). Tokenizers that cut in several steps are left to `tokenizers`.
- The merges. `tokenizers` merges the pairs of its list, the earliest in the list first; tiktoken merges any two
  neighbours that join to a known token, the lowest rank first. `token_ranks` merges the text of each token alone as
  `tokenizers` does. If the token comes out, from the neighbours u and v, then u and v are the only neighbours that ever
  join to it in any text: what becomes of a stretch that no merge crosses does not depend on what is around it, so two
  neighbours that join to the token are a state of that text alone, and it goes through one state of two parts only.
  With the place of (u, v) in the list as the token's rank, both engines have the same choice at every step. Ids do not
  enter; they are looked up by rank.
- Control tokens. tiktoken is given none to use, `tokenizers` is told to take them as text (`encode_special_tokens`).

tiktoken's regular expressions look back over white space with a stack that a run of about half a million overflows.
Texts with such runs, and what tiktoken gives up on, go to `tokenizers`, which cuts them in linear time.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config.pre_tokenizers import STEPS

# What ByteLevel cuts with when `use_regex` is set; the library has it built in.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LONGEST_SPACE = 1 << 16
# Only where such a run begins, so that the search is linear.
_LONG_SPACE = re.compile(rf"(?<!\s)\s{{{_LONGEST_SPACE}}}")
_BYTES = 256
# Allowed in no text, so text where it is written out. Without any control token `encode_to_numpy`, which makes no
# number of Python's of each id, would look for an empty one at every character.
_NEVER = {"<|tritwise: no token|>": (1 << 32) - 2}
# Texts given to a thread at once: short files cost more to hand over than to encode.
_CHUNK = 16


def byte_of_character() -> dict[str, int]:
    """The byte that each of the 256 characters of a byte-level vocabulary stands for (GPT-2's table).

    Printable Latin-1 stands for itself; the other bytes, in order, are the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(_BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(_BYTES + n): byte for n, byte in enumerate(others)}


def single_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The one regular expression that a `pre_tokenizer` of a tokenizer.json cuts with; None when it is otherwise."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    *cuts, last = steps if steps else [None]
    if not last or last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last["use_regex"]:
        return GPT2 if not cuts else None
    if len(cuts) != 1 or cuts[0]["type"] != "Split" or cuts[0]["behavior"] != "Isolated" or cuts[0]["invert"]:
        return None
    return cuts[0]["pattern"].get("Regex")


# Ways to cut that the tests compare in both engines: one regular expression each.
FAST_PATTERNS = {pattern: name for name, steps in reversed(STEPS.items())
                 if (pattern := single_pattern({"pretokenizers": steps})) is not None}


def token_ranks(merges: Sequence[tuple[str, str]]) -> dict[str, int | None]:
    """For the token that each merge makes: the place in the list of the merge that makes it of its own text.

    None where its text does not become the token at all.
    """
    place = {pair: rank for rank, pair in enumerate(merges)}
    none = len(merges)
    result: dict[str, int | None] = {}
    for token in map("".join, merges):
        if token in result:
            continue
        parts, best = list(token), none
        while len(parts) > 1:
            best = min(place.get(pair, none) for pair in pairwise(parts))
            if best == none:
                break
            at = next(i for i, pair in enumerate(pairwise(parts)) if place.get(pair) == best)
            parts[at:at + 2] = ["".join(parts[at:at + 2])]
        result[token] = best if len(parts) == 1 else None
    return result


def _obstacle(content: dict[str, Any], places: dict[str, int | None]) -> str | None:
    """Why the ids of a tokenizer.json cannot be computed by tiktoken; None when they can.

    `places` is `token_ranks` of its merges.
    """
    model = content["model"]
    if model.get("type") != "BPE":
        return f"its model is {model.get('type')}, not BPE"
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            return f"its model has {key}"
    if content.get("normalizer"):
        return "it changes text before it cuts it (normalizer)"
    if single_pattern(content.get("pre_tokenizer")) not in FAST_PATTERNS:
        return "it does not cut text with one of the regular expressions that were compared"
    if any(not token["special"] for token in content.get("added_tokens") or ()):
        return "it has tokens that are found in text before it is cut (added_tokens that are not special)"
    vocabulary, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    characters = byte_of_character().keys()
    if not characters <= vocabulary.keys():
        return "not every byte is a token"
    if len(set(merges)) != len(merges):
        return "a merge stands in its list twice"
    if not all(characters >= set(token) for token in places):
        return "it merges characters that stand for no byte"
    if (token := next((token for token, rank in places.items() if rank is None), None)) is not None:
        return f"its merges do not make the token {token!r} of that text"
    if model.get("ignore_merges") and not vocabulary.keys() <= places.keys() | characters:
        return "it has words that are tokens without a merge (ignore_merges)"
    return None


class Encoder:
    """Ids of texts, without any special token, as `tokenizers` gives them.

    `reason` is None where tiktoken encodes, else why it does not. Control tokens written out in a text are text.
    An encoder can be sent to other processes.
    """

    def __init__(self, tokenizer: Tokenizer | str, *, engine: str = "auto") -> None:
        """Of a tokenizer or the content of a tokenizer.json; `engine` "tokenizers" leaves all work to that library."""
        if engine not in ("auto", "tokenizers"):
            raise ValueError(f"engine {engine!r} is neither auto nor tokenizers")
        self._content, self._engine = tokenizer if isinstance(tokenizer, str) else tokenizer.to_str(), engine
        self.tokenizer = Tokenizer.from_str(self._content)
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        content = json.loads(self.tokenizer.to_str())
        places = token_ranks([tuple(pair) for pair in content["model"].get("merges", ())])
        self.reason = _obstacle(content, places) if engine == "auto" else "it was asked for"
        self._fast, self._id_of = (None, None) if self.reason else _tiktoken(content, places)

    @classmethod
    def from_file(cls, path: Path) -> "Encoder":
        """Of a tokenizer.json. Raises TritwiseError when it is missing or not a tokenizer."""
        from tritwise.data.tokenizer import load_tokenizer

        return cls(load_tokenizer(path))

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return _again, (self._content, self._engine)

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids uint32 [tokens] of one text. Raises TritwiseError for half a surrogate pair, which is no character."""
        _check(text)
        if self._fast is None or (len(text) > _LONGEST_SPACE and _LONG_SPACE.search(text)):
            return self._slowly([text])[0]
        try:
            ids = self._fast.encode_to_numpy(text, disallowed_special=())
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # pyo3's, which is no Exception
                raise
            return self._slowly([text])[0]
        return ids if self._id_of is None else self._id_of[ids]

    def _slowly(self, texts: list[str]) -> list[NDArray[np.uint32]]:
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def encode_all(self, texts: Iterable[str], *, threads: int | None = None) -> Iterator[NDArray[np.uint32]]:
        """Ids of each text, in order, computed on `threads` threads (None: all cores), a few texts ahead."""
        threads = threads or _cores()
        texts = iter(texts)
        if threads == 1:
            yield from map(self.encode, texts)
            return
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(self._some, chunk) for chunk in _chunks(islice(texts, 2 * threads * _CHUNK))]
            while waiting:
                done = waiting.pop(0).result()
                waiting += [pool.submit(self._some, chunk) for chunk in _chunks(islice(texts, _CHUNK))]
                yield from done

    def _some(self, texts: list[str]) -> list[NDArray[np.uint32]]:
        if self._fast is not None:
            return [self.encode(text) for text in texts]
        for text in texts:
            _check(text)
        return self._slowly(texts)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _again(content: str, engine: str) -> Encoder:
    return Encoder(content, engine=engine)


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(texts, _CHUNK)):
        yield chunk


def _check(text: str) -> None:
    """Raise TritwiseError for half of a surrogate pair, which tiktoken would replace and `tokenizers` does not take."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise TritwiseError("a text cannot be encoded", why=f"character {error.start} is half of a surrogate pair",
                            fix="decode files with UTF-8, which has no such characters") from None


def _tiktoken(content: dict[str, Any], places: dict[str, int]) -> tuple[Any, NDArray[np.uint32] | None]:
    """tiktoken's encoding with ranks in the order of `places`, and the id of each rank (None: the rank itself)."""
    try:
        import tiktoken
    except ImportError:
        raise TritwiseError("encoding text for training needs tiktoken",
                            why="the base installation can run models only",
                            fix="pip install 'tritwise[data]'") from None
    vocabulary, byte = content["model"]["vocab"], byte_of_character()
    tokens = sorted(places, key=places.__getitem__)
    id_of = np.array([vocabulary[token] for token in (*byte, *tokens)], dtype=np.uint32)
    if np.all(np.diff(id_of[_BYTES:].astype(np.int64)) > 0):
        # As a trainer numbers them: the ids are ranks themselves. Those of single bytes rank nothing.
        ranks, id_of = id_of.tolist(), None
    else:
        ranks = range(len(id_of))
    spelt = (bytes(map(byte.__getitem__, token)) for token in (*byte, *tokens))
    return tiktoken.Encoding("tritwise", pat_str=single_pattern(content["pre_tokenizer"]),
                             mergeable_ranks=dict(zip(spelt, ranks, strict=True)), special_tokens=_NEVER), id_of
