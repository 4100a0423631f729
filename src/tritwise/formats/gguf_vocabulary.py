"""A tokenizer.json as GGUF metadata: the inverse of gguf_tokenizer.py.

Programs that open GGUF files know the ways to cut text into words by name only, so a tokenizer whose pattern has no
name there cannot be handed to them; its tokenizer.json can go along whole (`whole_tokenizer`) for those that read it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.config.pre_tokenizers import GGUF_STEPS, WHOLE_WORDS
from tritwise.formats.gguf_spm import CONTROL, NORMAL, UNUSED, USER_DEFINED
from tritwise.formats.gguf_tokenizer import WHOLE
from tritwise.formats.tokenizer_files import around_texts, parse_tokenizer

_SOURCE = Path("tokenizer.json")
IDS_ONLY = "tritwise export MODEL OUT --to gguf --ids-only, for programs that are given token ids"


def tokenizer_metadata(content: str, vocab_size: int) -> dict[str, Any]:
    """`tokenizer.ggml.*` for the content of a tokenizer.json, filled up to `vocab_size` with tokens that are not used.

    Raises TritwiseError for a tokenizer that is not byte-level BPE cut by one of the known patterns.
    """
    tokenizer = parse_tokenizer(content, _SOURCE)
    parsed = json.loads(tokenizer.to_str())  # with every key that a file may leave out
    model = parsed["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or tokenizer.decoder is None:
        raise _error(f"its model is {model.get('type')}, not byte-level BPE")
    pre = _pre(parsed)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if (largest := max(vocabulary.values(), default=-1)) >= vocab_size:
        raise TritwiseError("the tokenizer does not fit the model",
                            why=f"it has ids up to {largest}, and the model's vocab_size is {vocab_size}")
    tokens = [f"[UNUSED{number}]" for number in range(vocab_size)]
    types = np.full(vocab_size, UNUSED, np.int32)
    for token, number in vocabulary.items():
        tokens[number], types[number] = token, NORMAL
    for added in parsed["added_tokens"]:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise _error(f"{added['content']!r} takes white space beside it, or stands for whole words only")
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if bool(model.get("ignore_merges")) != (pre in WHOLE_WORDS):
        _check_words(tokenizer, [token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges}


def whole_tokenizer(content: str) -> dict[str, Any]:
    """Metadata that hold the tokenizer.json as it is, and none that other programs would cut text with."""
    return {"tokenizer.ggml.model": "no_vocab", WHOLE: content}


def control_tokens(config: ModelConfig, content: str | None) -> dict[str, Any]:
    """Ids of the control tokens, and which of them stand around a text (`around_texts`).

    Raises TritwiseError for a tokenizer that puts more around a text than one token before and one behind it.
    """
    before, behind = ([], []) if content is None else around_texts(parse_tokenizer(content, _SOURCE), config)
    ends = list(config.eos_token_ids[:1])
    if len(before) > 1 or len(behind) > 1 or (behind and behind != ends):
        raise _error(f"it puts the tokens {before} and {behind} around a text")
    ids = {"bos": before[0] if before else config.bos_token_id, "eos": ends[0] if ends else None,
           "padding": config.pad_token_id}
    return {f"tokenizer.ggml.{role}_token_id": value for role, value in ids.items() if value is not None} | {
        "tokenizer.ggml.add_bos_token": bool(before), "tokenizer.ggml.add_eos_token": bool(behind)}


def _pre(parsed: dict[str, Any]) -> str:
    """The name of the way in which text is cut."""
    pre, normalizer = parsed.get("pre_tokenizer") or {}, parsed.get("normalizer")
    steps = [_of_ids(step) for step in pre.get("pretokenizers", [pre])]
    name = next((name for name, known in GGUF_STEPS.items() if list(map(_of_ids, known)) == steps), None)
    if name is None:
        raise _error("the way in which it cuts text is none of theirs")
    if normalizer is not None and not (name == "qwen2" and normalizer.get("type") == "NFC"):
        raise _error(f"it changes text before it cuts it ({normalizer.get('type')})")
    return name


def _of_ids(step: dict[str, Any]) -> dict[str, Any]:
    """What decides about ids; `trim_offsets` is about places in the text."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


def _check_words(tokenizer: Tokenizer, tokens: list[str]) -> None:
    """Whether words that are tokens are looked up or merged is the pattern's there. Both are the same where every
    token's merges lead to it.
    """
    model = tokenizer.model
    for token in tokens:
        if [piece.value for piece in model.tokenize(token)] != [token]:
            raise _error(f"the merges do not make its token {token!r}, which the programs would look up or would not")


def _error(why: str) -> TritwiseError:
    return TritwiseError("programs that open GGUF files do not have this tokenizer", why=why, fix=IDS_ONLY)
