"""Messages to a prompt, by the chat template that a model comes with.

The text is the one that transformers' `apply_chat_template` renders. Control tokens come from the template alone: the
same characters in a message are text, wherever the template puts them and whatever stands beside them.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config.tokens import END_OF_TEXT, KNOWN_FIM_TOKENS
from tritwise.engine.jinja import Template, TemplateRefusal
from tritwise.engine.text import TextCodec
from tritwise.formats import ChatTemplate

Messages = str | Iterable[Mapping[str, Any]]

# A template may put these into a control token ("<|user|>"); any other role is text.
_ROLES = {"role": frozenset({"system", "user", "assistant", "tool", "function", "developer", "ipython", "model"})}
_PROBE = "0x0"


class Chat:
    """The chat template of a model with its tokenizer. `end_ids` end an answer."""

    def __init__(self, template: ChatTemplate, codec: TextCodec) -> None:
        try:
            self._template = Template(template.source)
        except TritwiseError as error:
            raise TritwiseError(f"{template.origin}: {error.what}", why=error.why) from None
        self._tokens, self._origin, self._codec = template.tokens, template.origin, codec
        added = codec.tokenizer.get_added_tokens_decoder()
        names = {END_OF_TEXT, *(name for tokens in KNOWN_FIM_TOKENS for name in tokens)}
        # Tokens that the template spells out control the model too, marked as special or not.
        self._controls = {token.content: (number, token) for number, token in added.items() if token.content.strip()
                          and (token.special or token.content in names or token.content in template.source)}
        self._joint, self._first, self._text = _tokenizers(codec.tokenizer, self._controls)
        self.end_ids = self._ends()

    def render(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """The prompt as text. `messages` are dictionaries with `role` and `content`, or one user's text.

        `variables` are what the template asks for besides (tools, documents, enable_thinking, ...). Raises
        TritwiseError for messages that the template refuses and for a template that is refused.
        """
        return self._rendered(messages, add_generation_prompt, variables)[0]

    def ids(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """The ids of `render`: control tokens where the template wrote them, text everywhere else."""
        text, marks = self._rendered(messages, add_generation_prompt, variables)
        made, written = _occurrences(text, marks, self._controls)
        if not written:
            return self._joint.encode(text, add_special_tokens=False).ids
        return self._apart(text, made, written)

    def _rendered(self, messages: Messages, add_generation_prompt: bool,
                  variables: Mapping[str, Any]) -> tuple[str, list[bool]]:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        messages = [_checked(message) for message in messages]
        if not messages:
            raise TritwiseError("there are no messages", why="a chat begins with one")
        try:
            written = json.loads(json.dumps(dict(variables), allow_nan=False)) | {"messages": messages}
        except (TypeError, ValueError) as error:
            raise TritwiseError("the variables of the chat cannot be used", why=str(error)) from None
        values = {"tools": None, "documents": None, **self._tokens, "add_generation_prompt": add_generation_prompt}
        try:
            return self._template.render(values, written=written, words=_ROLES, controls=self._controls)
        except TemplateRefusal as refusal:
            raise TritwiseError("the model's chat template refuses these messages", why=str(refusal)) from None
        except TritwiseError as error:
            raise TritwiseError(f"{self._origin}: {error.what}", why=error.why) from None

    def _apart(self, text: str, made: list[tuple[int, int]], written: list[tuple[int, int]]) -> list[int]:
        """Ids of a text in which a user wrote what looks like control tokens: stretches with those are text alone."""
        ids: list[int] = []
        at = joined = 0  # `text[joined:at]` has nothing of that kind in it
        for start, stop in [*made, (len(text), len(text))]:
            if any(low < start and high > at for low, high in written):
                if joined < at:
                    ids += self._joint.encode(text[joined:at], add_special_tokens=False).ids
                ids += self._stretch(text, at, start)
                joined = start
            at = stop
        return ids + self._joint.encode(text[joined:], add_special_tokens=False).ids if joined < len(text) else ids

    def _stretch(self, text: str, start: int, stop: int) -> list[int]:
        before = next((token for name, (_, token) in self._controls.items() if text[:start].endswith(name)), None)
        behind = next((token for name, (_, token) in self._controls.items() if text.startswith(name, stop)), None)
        part = text[start:stop]
        part = part.lstrip() if start and before is not None and before.rstrip else part
        part = part.rstrip() if behind is not None and behind.lstrip else part
        ids = (self._text if start else self._first).encode(part, add_special_tokens=False).ids
        if forbidden := {number for number, _ in self._controls.values()} & set(ids):
            name = self._codec.tokenizer.id_to_token(min(forbidden))
            raise TritwiseError(f"a message holds {name!r}", why="this tokenizer makes a control token of that text",
                                fix="take it out of the message")
        return ids

    def _ends(self) -> frozenset[int]:
        """The model's ends, its eos_token, and what the template writes behind the words of the assistant."""
        found = set(self._codec.end_ids)
        if (name := self._tokens.get("eos_token")) is not None:
            number = self._codec.tokenizer.token_to_id(name)
            found |= set() if number is None else {number}
        example = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        try:
            text = self.render(example, add_generation_prompt=False)
        except TritwiseError:  # not every template takes an answer; the other ends are known all the same
            return frozenset(found)
        behind = text[text.rfind(_PROBE) + len(_PROBE):].lstrip()
        matching = [name for name in self._controls if behind.startswith(name)]
        return frozenset(found | ({self._controls[max(matching, key=len)][0]} if matching else set()))


def _checked(message: Any) -> dict[str, Any]:
    """A message as plain data, without keys that hold none."""
    try:
        copy = json.loads(json.dumps(message, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TritwiseError("a message cannot be used", why=str(error)) from None
    if not isinstance(copy, dict) or not isinstance(copy.get("role"), str) or not isinstance(
            copy.get("content"), str | list | None):
        raise TritwiseError("a message cannot be used", why="it is a dictionary with a role and a content, a text or a "
                            "list of parts", fix="{'role': 'user', 'content': 'Hello'}")
    return {key: value for key, value in copy.items() if value is not None}


def _occurrences(text: str, marks: Sequence[bool],
                 controls: Iterable[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where the template wrote control tokens (the first and longest of those that overlap), and where a user's
    characters take part in what looks like one."""
    if not marks:
        return [], []
    made, written = [], []
    for name in controls:
        at = text.find(name)
        while at >= 0:
            (written if any(marks[at:at + len(name)]) else made).append((at, at + len(name)))
            at = text.find(name, at + 1)
    chosen: list[tuple[int, int]] = []
    for start, stop in sorted(made, key=lambda span: (span[0], -span[1])):
        if not chosen or start >= chosen[-1][1]:
            chosen.append((start, stop))
    return chosen, written


def _tokenizers(tokenizer: Tokenizer, controls: Container[str]) -> tuple[Tokenizer, Tokenizer, Tokenizer]:
    """Three that share the vocabulary of `tokenizer`: with control tokens, and for text at the start and elsewhere."""
    joint, first, text = (Tokenizer(tokenizer.model) for _ in range(3))
    added = tokenizer.get_added_tokens_decoder()
    for number in sorted(added):
        joint.add_tokens([added[number]])
        for each in (first, text):  # special tokens are text to them, marked as such or not
            is_control = added[number].content in controls
            each.add_tokens([AddedToken(added[number].content, special=True) if is_control else added[number]])
    first.encode_special_tokens = text.encode_special_tokens = True
    if {number: token.content for number, token in joint.get_added_tokens_decoder().items()} != {
            number: token.content for number, token in added.items()}:
        raise TritwiseError("the tokenizer cannot be used for a chat", why="the ids of its added tokens have gaps")
    for each in (joint, first, text):
        each.normalizer, each.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    if tokenizer.pre_tokenizer is not None:
        state = tokenizer.pre_tokenizer.__getstate__().replace(b'"prepend_scheme":"first"', b'"prepend_scheme":"never"')
        text.pre_tokenizer = _pre_tokenizer(json.loads(state))
    return joint, first, text


def _pre_tokenizer(state: dict[str, Any]) -> Any:
    empty = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "post_processor": None, "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return Tokenizer.from_str(json.dumps(empty | {"pre_tokenizer": state})).pre_tokenizer
