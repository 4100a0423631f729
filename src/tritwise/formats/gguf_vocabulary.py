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
from tritwise.config.split_patterns import GGUF_PATTERNS
from tritwise.formats.gguf_tokenizer import CONTROL, NORMAL, UNUSED, USER_DEFINED, WHOLE, whole_words
from tritwise.formats.tokenizer_files import parse_tokenizer

IDS_ONLY = "tritwise export MODEL OUT --to gguf --ids-only, for programs that are given token ids"


def tokenizer_metadata(content: str, vocab_size: int) -> dict[str, Any]:
    """`tokenizer.ggml.*` for the content of a tokenizer.json, filled up to `vocab_size` with tokens that are not used.

    Raises TritwiseError for a tokenizer that is not byte-level BPE cut by one of the known patterns.
    """
    tokenizer = parse_tokenizer(content, Path("tokenizer.json"))
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
    if bool(model.get("ignore_merges")) != whole_words(pre):
        _check_words(tokenizer, [token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges}


def whole_tokenizer(content: str) -> dict[str, Any]:
    """Metadata that hold the tokenizer.json as it is, and none that other programs would cut text with."""
    return {"tokenizer.ggml.model": "no_vocab", WHOLE: content}


def _pre(parsed: dict[str, Any]) -> str:
    """The name of the pattern that cuts text into words."""
    pre, normalizer = parsed.get("pre_tokenizer") or {}, parsed.get("normalizer")
    steps = pre.get("pretokenizers", [pre])
    byte_level = steps[-1]
    if byte_level.get("type") != "ByteLevel" or byte_level.get("add_prefix_space"):
        raise _error("text does not become bytes in it, or gets a space before it")
    pattern = None
    if not byte_level.get("use_regex", True):
        splits = [step for step in steps[:-1]
                  if step.get("type") == "Split" and step["behavior"] == "Isolated" and not step["invert"]]
        if len(splits) != 1 or len(steps) != 2:
            raise _error("it cuts text in more than one step")
        pattern = splits[0]["pattern"].get("Regex")
        if pattern is None:
            raise _error("it cuts text at a fixed string")
    elif len(steps) != 1:
        raise _error("it cuts text in more than one step")
    name = next((name for name, known in GGUF_PATTERNS.items() if known == pattern), None)
    if name is None:
        raise _error("its pattern is none of theirs")
    if normalizer is not None and not (name == "qwen2" and normalizer.get("type") == "NFC"):
        raise _error(f"it changes text before it cuts it ({normalizer.get('type')})")
    return name


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
