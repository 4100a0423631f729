"""Byte-level BPE with Hugging Face `tokenizers`: trained on code, lossless on any text.

Text is first cut into pieces that merges never cross (`config/pre_tokenizers.py`), then every byte is a token until
merges join them. The special tokens of `tritwise.config.tokens` are the first ids. Their texts inside a document are
plain text: nothing that is read can put a control token into a shard.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tritwise.common.errors import TritwiseError
from tritwise.config.pre_tokenizers import pre_tokenizer
from tritwise.config.tokens import SPECIAL_TOKENS


def empty_tokenizer(pattern: str = "code") -> Tokenizer:
    """An untrained tokenizer with the project's decoder that cuts text in one of the ways of `pre_tokenizers.STEPS`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    return Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | {"pre_tokenizer": pre_tokenizer(pattern)}))


def sample_evenly(texts: Iterable[str], total_bytes: int, max_bytes: int) -> Iterator[str]:
    """Whole texts, evenly spaced through the sequence, of at most `max_bytes` in all; every one when they fit."""
    if total_bytes <= max_bytes:
        yield from texts
        return
    credit = 0  # in bytes times total_bytes, so that it is exact
    for text in texts:
        size = len(text.encode())
        credit += size * max_bytes
        if size * total_bytes <= credit:
            credit -= size * total_bytes
            yield text


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, pattern: str = "code") -> Tokenizer:
    """Learn merges until there are `vocab_size` ids: special tokens, the 256 bytes, then merges by frequency.

    Raises TritwiseError when the texts are too few to fill the vocabulary.
    """
    tokenizer = empty_tokenizer(pattern)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise TritwiseError(f"the training documents give {tokenizer.get_vocab_size()} tokens, not {vocab_size}",
                            why="no pair of tokens is left to merge",
                            fix=f"tokenizer.vocab_size = {tokenizer.get_vocab_size()}, or more documents")
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer.json. Special tokens in a text to encode are taken as plain text.

    Raises TritwiseError when the file is missing or not a tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise TritwiseError(f"{path} does not exist", why="a tokenizer was expected there", fix="tritwise run RECIPE")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for whatever is wrong with a file
        raise TritwiseError(f"{path} is not readable as a tokenizer", why=str(error)) from None
    tokenizer.encode_special_tokens = True
    return tokenizer
