"""Text in and out: user text to ids without control tokens, ids to text piece by piece, stop strings."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.config.tokens import END_OF_TEXT, KNOWN_FIM_TOKENS, fim_prompt
from tritwise.formats.tokenizer_files import around_texts, parse_tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def load_tokenizer(content: str, source: Path) -> Tokenizer:
    """From the content of a tokenizer.json that `source` holds; user text never becomes a special token."""
    tokenizer = parse_tokenizer(content, source)
    tokenizer.encode_special_tokens = True
    return tokenizer


class TextCodec:
    """A tokenizer with the model's control tokens, which are placed by id and never come from user text.

    `before` and `behind` are the ids around every text (`around_texts`), `control_ids` those of its control tokens.
    `start_id` is what a text begins with, or the id that can stand there; None when the model has none.
    """

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self.tokenizer = tokenizer
        end = tokenizer.token_to_id(END_OF_TEXT)
        self.end_ids = frozenset(config.eos_token_ids) | (frozenset() if end is None else {end})
        self.before, self.behind = around_texts(tokenizer, config)
        starts = [*self.before, config.bos_token_id, end, *config.eos_token_ids]
        self.start_id: int | None = next((id_ for id_ in starts if id_ is not None), None)
        self._fim: tuple[int, int, int] | None = None
        self._fim_order = config.fim_order
        controls = {END_OF_TEXT} if end is not None else set()
        for names in KNOWN_FIM_TOKENS:
            ids = [tokenizer.token_to_id(name) for name in names]
            controls |= {name for name, id_ in zip(names, ids, strict=True) if id_ is not None}
            if self._fim is None and None not in ids:
                self._fim = tuple(ids)
        self.control_ids = {tokenizer.token_to_id(name) for name in controls}
        self._control_pattern = re.compile("|".join(map(re.escape, sorted(controls))) or r"(?!)")

    def encode(self, text: str) -> list[int]:
        """Ids of user text alone, without a beginning; a control token spelled out in it stays text."""
        ids = self._ids(text)
        if self.control_ids.isdisjoint(ids):
            return ids
        # Some tokenizers do not mark their control tokens as special; cut inside each, and none can be recognised.
        cuts = [0, *(match.start() + 1 for match in self._control_pattern.finditer(text)), len(text)]
        parts = [text[a:b] for a, b in pairwise(cuts)]
        return [id_ for part in parts for id_ in self._ids(part)]

    def _ids(self, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a vocabulary without its unknown token; a panic is no Exception
            raise TritwiseError("this model's tokenizer cannot take the text apart", why=str(error)) from None

    def document(self, text: str) -> list[int]:
        """Ids of a whole text, with those that the tokenizer puts before and behind each."""
        return [*self.before, *self.encode(text), *self.behind]

    def scored(self, text: str) -> list[int]:
        """Ids of a text whose first token is to be predicted, too.

        Where the tokenizer puts nothing before a text, the model's beginning or end of text stands there.
        """
        start = [] if self.start_id is None else [self.start_id]
        return [*(self.before or start), *self.encode(text)]

    def infill(self, prefix: str | Sequence[int], suffix: str) -> list[int]:
        """Ids that ask for the text between, in the order of the model's configuration (`fim_prompt`).

        `prefix` may be its ids.

        Raises TritwiseError when the tokenizer has none of the known sets of fill-in-the-middle tokens.
        """
        if self._fim is None:
            known = "; ".join(" ".join(names) for names in KNOWN_FIM_TOKENS)
            raise TritwiseError("this model cannot fill in the middle",
                                why=f"its tokenizer has none of these token sets: {known}",
                                fix="give a prompt alone, or use a model trained with fill-in-the-middle")
        parts = fim_prompt(self._fim_order, *self._fim, self.encode(prefix) if isinstance(prefix, str) else prefix,
                           self.encode(suffix))
        return [*self.before, *chain.from_iterable(parts)]


class Detokenizer:
    """Turns ids into text as they come: the pieces joined are `tokenizer.decode` of all ids, or of what they add to ids
    that stand before.

    A byte-level token may hold a part of a UTF-8 character; such a tail decodes to U+FFFD and is held back until
    the rest comes or `finish` says that none will. Only a short window of ids is decoded for each token.
    """

    def __init__(self, tokenizer: Tokenizer, behind: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window = list(behind)        # ids from one emitted piece back: decoders may look at what stood before
        self._known = len(self._window)    # ids of the window whose text is out
        self._known_text = tokenizer.decode(self._window) if self._window else ""

    def push(self, token: int) -> str:
        """The text that this token completes, possibly none."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._known_text):
            return ""
        return self._emit(text)

    def finish(self) -> str:
        """What was held back; bytes that never became a character are U+FFFD."""
        return self._emit(self._tokenizer.decode(self._window))

    def _emit(self, text: str) -> str:
        piece = text[len(self._known_text):]
        self._window = self._window[self._known:]
        self._known = len(self._window)
        self._known_text = self._tokenizer.decode(self._window)
        return piece


class StopStrings:
    """Cuts a growing text before the stop string that is complete first, and never lets a part of one out.

    How the text is split into pieces does not change the result.
    """

    def __init__(self, stops: str | Iterable[str]) -> None:
        self._stops: Sequence[str] = (stops,) if isinstance(stops, str) else tuple(stops)
        for stop in self._stops:
            if not isinstance(stop, str) or not stop:
                raise TritwiseError(f"{stop!r} cannot be a stop string", why="it has to be a text that is not empty")
        self._held = ""
        self.hit = False

    def __bool__(self) -> bool:
        return bool(self._stops)

    def push(self, piece: str) -> str:
        """The text that is safe to show after `piece`; sets `hit` when a stop string is complete."""
        text = self._held + piece
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.hit, self._held = True, ""
            return text[: min(ends)[1]]
        keep = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep:]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back as a possible beginning of a stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of `text` that is a proper beginning of `stop`."""
        return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
