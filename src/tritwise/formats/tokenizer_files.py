"""tokenizer.json, and what stands beside it so that transformers' AutoTokenizer opens it as it is."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_text
from tritwise.config import ModelConfig
from tritwise.config.tokens import END_OF_TEXT, KNOWN_FIM_TOKENS


def parse_tokenizer(content: str, source: Path) -> Tokenizer:
    """From the content of a tokenizer.json that `source` holds. Raises TritwiseError."""
    try:
        return Tokenizer.from_str(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain Exception for most of what the library cannot read; a panic is not even one
        raise TritwiseError(f"{source} is not readable as a tokenizer", why=str(error)) from None


def around_texts(tokenizer: Tokenizer, config: ModelConfig) -> tuple[list[int], list[int]]:
    """The ids before and behind every text: those that the tokenizer.json's `post_processor` puts there.

    Without a post-processor, and with an end-of-text token as the tokenizers that we train have, a text begins with the
    id that the model calls its beginning, or else with that end: documents follow each other so in training.
    """
    end = tokenizer.token_to_id(END_OF_TEXT)
    if tokenizer.post_processor is None and end is not None:
        return [end if config.bos_token_id is None else config.bos_token_id], []
    bare, whole = (tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
    at = next((at for at in range(len(whole)) if whole[at:at + len(bare)] == bare), 0)
    return whole[:at], whole[at + len(bare):]


def tokenizer_config(tokenizer_file: Path, config: ModelConfig) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a tokenizer.json and the content of the tokenizer_config.json that belongs to it.

    The class is named, because for some model types AutoTokenizer would else rebuild the tokenizer from its parts.
    Special roles come from the ids in `config` and from the fill-in-the-middle names that the tokenizer knows.
    Raises TritwiseError when the file is unreadable, or has more ids than the model has embeddings.
    """
    text = read_text(tokenizer_file, what="a tokenizer")
    tokenizer = parse_tokenizer(text, tokenizer_file)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config.vocab_size:
        raise TritwiseError(f"{tokenizer_file} does not fit the model",
                            why=f"it has ids up to {largest}, the model's vocab_size is {config.vocab_size}")
    content: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    roles = {"bos_token": config.bos_token_id, "pad_token": config.pad_token_id,
             "eos_token": config.eos_token_ids[0] if config.eos_token_ids else None}
    for role, token_id in roles.items():
        if token_id is None:
            continue
        token = tokenizer.id_to_token(token_id)
        if token is None:
            raise TritwiseError(f"{tokenizer_file} does not fit the model",
                                why=f"{role}_id is {token_id}, and the tokenizer has no such id")
        content[role] = token
    for fim in KNOWN_FIM_TOKENS:
        if all(tokenizer.token_to_id(token) is not None for token in fim):
            content["additional_special_tokens"] = list(fim)
            break
    return text.encode(), content | {"model_max_length": config.max_position_embeddings,
                            "clean_up_tokenization_spaces": False}
