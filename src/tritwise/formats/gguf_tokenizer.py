"""The tokenizer in a GGUF file's metadata, as the tokenizer.json that the tokenizers library reads.

Byte-level BPE (`tokenizer.ggml.model` is gpt2) with the ways to split a text that llama.cpp calls llama-bpe, gpt-2 and
qwen2. Others are refused by name. Keys: gguf specification, "Tokenizer".
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Regex, pre_tokenizers

from tritwise.common.errors import TritwiseError
from tritwise.config.split_patterns import GGUF_PATTERNS, LLAMA3
from tritwise.formats.gguf_file import text_of

# Of `tokenizer.ggml.token_type`.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# A whole tokenizer.json, beside or instead of the lists (GGUF specification, "Tokenizer").
WHOLE = "tokenizer.huggingface.json"


def whole_words(pre: str) -> bool:
    """Whether llama.cpp takes a word that is a token for that token, whatever the merges would make of it."""
    return GGUF_PATTERNS[pre] is LLAMA3


def tokenizer_json(metadata: Mapping[str, Any], vocab_size: int) -> str | None:
    """The content of a tokenizer.json with at most `vocab_size` ids; None where the metadata hold no tokenizer.

    Raises TritwiseError for a kind of tokenizer that is not known, and for lists that do not fit each other.
    """
    kind = text_of(metadata, "tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab"):
        return text_of(metadata, WHOLE)
    if kind != "gpt2":
        raise _error("model", f"it is {kind!r}; gpt2 (byte-level BPE) is read")
    pre = text_of(metadata, "tokenizer.ggml.pre")
    if pre not in GGUF_PATTERNS:
        raise _error("pre", f"it is {pre!r}; known are {', '.join(GGUF_PATTERNS)}")
    tokens, merges = (_strings(metadata, key) for key in ("tokens", "merges"))
    if len(tokens) > vocab_size:
        raise _error("tokens", f"there are {len(tokens)}, and the model has embeddings for {vocab_size}")
    types = metadata.get("tokenizer.ggml.token_type")
    if types is None:
        types = np.full(len(tokens), NORMAL)
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(tokens):
        raise _error("token_type", f"it does not hold one number for each of the {len(tokens)} tokens")
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for number, token in enumerate(tokens) if ids[token] != number)
        raise _error("tokens", f"{twice!r} is there twice")
    pairs = _pairs(merges, ids, types)
    added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": bool(types[number] == CONTROL)}
             for number, token in enumerate(tokens) if types[number] in (CONTROL, USER_DEFINED)]
    # The library numbers added tokens that its model does not have behind those that it has. So only what lies behind
    # all others is left out there: ids stay what they are.
    made = {ids["".join(pair)] for pair in pairs}
    behind = len(tokens)
    while behind and types[behind - 1] in (CONTROL, USER_DEFINED) and behind - 1 not in made:
        behind -= 1
    pattern = GGUF_PATTERNS[pre]
    if whole_words(pre):
        _refuse_control_words([token for token in tokens[:behind] if types[ids[token]] == CONTROL])
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": bytes_only if pattern is None else {"type": "Sequence", "pretokenizers": [split, bytes_only]},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                            "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": whole_words(pre), "vocab": dict(list(ids.items())[:behind]), "merges": pairs},
    })


def _pairs(merges: list[str], ids: dict[str, int], types: np.ndarray) -> list[list[str]]:
    pairs = [merge.split(" ") for merge in merges]
    for merge, pair in zip(merges, pairs, strict=True):
        if len(pair) != 2 or pair[0] not in ids or pair[1] not in ids or "".join(pair) not in ids:
            raise _error("merges", f"{merge!r} does not join two tokens to a third one")
        if types[ids["".join(pair)]] == CONTROL:
            raise _error("merges", f"{merge!r} makes a control token of text")
    return pairs


def _refuse_control_words(tokens: list[str]) -> None:
    """Where a word that is a token becomes that token, a control token that is one word could be written as text."""
    splitter = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    for token in tokens:
        if len(splitter.pre_tokenize_str(token)) == 1:
            raise _error("token_type", f"{token!r} is a control token, and text could become it as a whole word")


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise _error(key, "it is not a list of strings")
    for text in value:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _error(key, f"{text!r} is not UTF-8") from None
    return value


def _error(key: str, why: str) -> TritwiseError:
    return TritwiseError(f"the tokenizer cannot be read: tokenizer.ggml.{key}", why=why)
