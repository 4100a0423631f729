"""The chat template that a model comes with, and the special tokens that it may name.

A Hugging Face directory has it in `chat_template.jinja` or under `chat_template` in `tokenizer_config.json`
(transformers, tokenization_utils_base.py); a GGUF file under `tokenizer.chat_template` in its metadata (gguf
specification, "Special tokens").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_json
from tritwise.formats.gguf_file import text_of
from tritwise.formats.gguf_model import GGUFModel
from tritwise.formats.reader import ModelDirectory

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# "seperator" is the specification's spelling.
_GGUF_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "sep_token": "seperator",
               "pad_token": "padding", "cls_token": "cls", "mask_token": "mask"}


@dataclass(frozen=True)
class ChatTemplate:
    """`source` is Jinja; `tokens` are the special tokens by their role ("bos_token", ...); `origin` names the file."""

    source: str
    tokens: Mapping[str, str]
    origin: str


def chat_template(model: ModelDirectory | GGUFModel) -> ChatTemplate | None:
    """The template of an opened model; None when it has none. Raises TritwiseError when it is not readable."""
    return _of_gguf(model) if isinstance(model, GGUFModel) else _of_directory(model.path)


def _of_directory(path: Path) -> ChatTemplate | None:
    settings, found = _object(path / "tokenizer_config.json"), _object(path / "special_tokens_map.json")
    tokens = {}
    for role in _ROLES:
        value = settings.get(role, found.get(role))
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[role] = value
    file = path / "chat_template.jinja"
    if file.is_file():
        try:
            return ChatTemplate(file.read_text(encoding="utf-8"), tokens, str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise TritwiseError(f"{file} is not readable as a chat template", why=str(error)) from None
    origin = str(path / "tokenizer_config.json")
    source = settings.get("chat_template")
    if isinstance(source, list):  # several of them, by name
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        if "default" not in named:
            raise TritwiseError(f"{origin} has no chat template that is the default",
                                why=f"it has {', '.join(map(str, named)) or 'none'}")
        source = named["default"]
    if source is None:
        return None
    if not isinstance(source, str):
        raise TritwiseError(f"{origin} is not readable as a chat template", why="chat_template is not a text")
    return ChatTemplate(source, tokens, origin)


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path, what="settings of a tokenizer")
    if not isinstance(value, dict):
        raise TritwiseError(f"{path} is not readable as settings of a tokenizer", why="it holds no JSON object")
    return value


def _of_gguf(model: GGUFModel) -> ChatTemplate | None:
    metadata = model.metadata
    source = text_of(metadata, "tokenizer.chat_template")
    if source is None:
        return None
    names = metadata.get("tokenizer.ggml.tokens")
    tokens = {}
    for role, theirs in _GGUF_NAMES.items():
        number = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if isinstance(names, list) and type(number) is int and 0 <= number < len(names) and isinstance(
                names[number], str):
            tokens[role] = names[number]
    return ChatTemplate(source, tokens, str(model.path))
