"""The tokenizer in a GGUF file's metadata, as the tokenizer.json that the tokenizers library reads.

Byte-level BPE (`tokenizer.ggml.model` is gpt2) with the ways to split a text of `config/pre_tokenizers.py`, and
SentencePiece's BPE (llama; `gguf_spm.py`). Others are refused by name. Which tokens a text begins and ends with stands
in the `post_processor`. Keys: gguf specification, "Tokenizer".
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Regex, pre_tokenizers

from tritwise.common.errors import TritwiseError
from tritwise.config.pre_tokenizers import BEGINS, GGUF_STEPS, LLAMA3, WHOLE_WORDS, pre_tokenizer
from tritwise.formats.gguf_file import text_of
from tritwise.formats.gguf_spm import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, sentencepiece_parts

# A whole tokenizer.json, instead of the lists (GGUF specification, "Tokenizer").
WHOLE = "tokenizer.huggingface.json"


def tokenizer_json(metadata: Mapping[str, Any], vocab_size: int) -> str | None:
    """The content of a tokenizer.json with at most `vocab_size` ids; None where the metadata hold no tokenizer.

    Raises TritwiseError for a kind of tokenizer that is not known, and for lists that do not fit each other.
    """
    kind = text_of(metadata, "tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab"):
        return text_of(metadata, WHOLE)
    if kind not in ("gpt2", "llama"):
        raise _error("model", f"it is {kind!r}; gpt2 (byte-level BPE) and llama (SentencePiece's BPE) are read")
    pre = text_of(metadata, "tokenizer.ggml.pre")
    if kind == "gpt2" and pre not in GGUF_STEPS:
        raise _error("pre", f"it is {pre!r}; known are {', '.join(GGUF_STEPS)}")
    tokens = _strings(metadata, "tokens")
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
    space = _flag(metadata, "add_space_prefix", kind == "llama")
    special = {CONTROL} if kind == "gpt2" else {CONTROL, UNKNOWN}
    added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": int(types[number]) in special}
             for number, token in enumerate(tokens) if int(types[number]) in special | {USER_DEFINED}]
    parts = (sentencepiece_parts(metadata, ids, types, space) if kind == "llama"
             else _byte_level_parts(metadata, ids, types, pre, space))
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                       "post_processor": _post_processor(metadata, tokens, kind == "llama", pre in BEGINS)} | parts)


def _byte_level_parts(metadata: Mapping[str, Any], ids: dict[str, int], types: np.ndarray, pre: str,
                      space: bool) -> dict[str, Any]:
    if space:
        raise _error("add_space_prefix", "it is true, and a byte-level tokenizer adds no space")
    pairs = _pairs(_strings(metadata, "merges"), ids, types)
    # The library numbers added tokens that its model does not have behind those that it has. So only what lies behind
    # all others is left out there: ids stay what they are.
    tokens, made = list(ids), {ids["".join(pair)] for pair in pairs}
    behind = len(tokens)
    while behind and types[behind - 1] in (CONTROL, USER_DEFINED) and behind - 1 not in made:
        behind -= 1
    if pre in WHOLE_WORDS:
        _refuse_control_words([token for token in tokens[:behind] if types[ids[token]] == CONTROL])
    return {
        "normalizer": None, "pre_tokenizer": pre_tokenizer(pre),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": pre in WHOLE_WORDS, "vocab": dict(list(ids.items())[:behind]), "merges": pairs},
    }


def _post_processor(metadata: Mapping[str, Any], tokens: list[str], spm: bool, begins: bool) -> dict[str, Any]:
    """Puts the tokens before and behind a text that the file names; none at all when it names none."""
    # What llama.cpp does where the file does not say: ids and additions.
    usual = {"bos": (1 if spm else None, spm or begins), "eos": (2 if spm else None, False)}
    before, behind, special = [], [], {}
    for role, (number, wanted) in usual.items():
        number = metadata.get(f"tokenizer.ggml.{role}_token_id", number)
        stated = f"tokenizer.ggml.add_{role}_token" in metadata
        if not _flag(metadata, f"add_{role}_token", wanted) or (number is None and not stated):
            continue
        if type(number) is not int or not 0 <= number < len(tokens):
            raise _error(f"{role}_token_id", f"it is {number!r}, and every text gets that token")
        name = tokens[number]
        special[name] = {"id": name, "ids": [number], "tokens": [name]}
        (before if role == "bos" else behind).append({"SpecialToken": {"id": name, "type_id": 0}})
    steps = [*before, {"Sequence": {"id": "A", "type_id": 0}}, *behind]
    return {"type": "TemplateProcessing", "single": steps, "pair": [*steps, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special}


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, bool):
        raise _error(key, "it is not true or false")
    return value


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
