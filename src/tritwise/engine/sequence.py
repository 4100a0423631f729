"""What the scheduler runs: a sequence that grows by sampling, or one whose logits are wanted as they are."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritwise.engine.backend import Draw
from tritwise.engine.sampling import (
    Constraint,
    History,
    Sampler,
    Sampling,
    TokenLogprob,
    Words,
    checked_token,
    log_probability,
    mask_words,
)
from tritwise.engine.speculation import Outlook, Speculator
from tritwise.engine.text import Detokenizer, StopStrings


@dataclass(frozen=True)
class Completion:
    """A finished text. Times are in seconds from the moment it was asked for; rates in tokens per second.

    `finish_reason` is "stop" (end of text or a stop string), "length" (`max_tokens` or the context is full) or
    "cancelled". `token_ids` are the sampled tokens without the one that ended the text; the text is cut before a stop
    string, the ids are not. A rate is None when too few tokens came to tell. `logprobs`, when asked for, has an entry
    for each of `token_ids`. `proposed` guesses of speculation went through the model, of which `accepted` were right.
    `shared_tokens` ids at the beginning were found in the cache, left by an earlier or a running sequence that begins
    alike, and were not computed again.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    time_to_first_token: float | None
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    logprobs: tuple[TokenLogprob, ...] | None = None
    proposed: int = 0
    accepted: int = 0
    shared_tokens: int = 0


class Sequence(ABC):
    """Token ids that want to go through the model. `fed` of them are in the cache already.

    `draft` are guesses of what follows `ids`; they go through the model behind them in this step, with logits for each.
    `finished` becomes true once, between steps; then `error` says whether it failed.
    """

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.fed = 0
        self.shared = 0  # ids whose keys and values were found in the cache
        self.draft: list[int] = []
        self.finished = False
        self.cancelled = False
        self.error: BaseException | None = None

    def cancel(self) -> None:
        """Ask for an end; it comes before the next step. May be called from any thread, at any time."""
        self.cancelled = True

    def begin(self) -> None:  # noqa: B027 (a hook that most have no use for)
        """Called when the sequence gets a slot; again when it had to give one up."""

    @abstractmethod
    def first_row(self, start: int, stop: int) -> int:
        """From which of the ids [start, stop) on logits are wanted; `stop` for none."""

    @property
    def only_best(self) -> bool:
        """Whether the most likely ids are enough. A class that says so has `take_tokens`, called instead of `take`."""
        return False

    @property
    def drawn_by(self) -> Sampling | None:
        """The settings, where a backend that draws by them may draw: `take_tokens` is then called instead of `take`."""
        return None

    def draw(self, vocab: int, rows: int) -> Draw | None:
        """How the tokens behind the last `rows` ids and drafts are drawn; None where only the host can tell."""
        return None

    def propose(self, room: int, outlook: Outlook) -> None:  # noqa: B027 (what does not grow has nothing to guess)
        """Set `draft`, at most `room` ids, for a step in which this sequence decodes."""

    def learn(self, seconds: float, outlook: Outlook) -> None:  # noqa: B027
        """A step is over, and the draft has cost so much; called after `take` when the sequence decoded."""

    def take_tokens(self, start: int, tokens: NDArray[np.int32]) -> None:  # noqa: B027
        """Receive the tokens int32 [m] after each of the ids start..start+m; -1 where logits are not numbers."""

    @abstractmethod
    def take(self, start: int, logits: NDArray[np.float32]) -> None:
        """Receive the logits [m, vocab] of the ids start..start+m, the draft behind `ids` included."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to do; looked at after `take`."""

    def end(self) -> None:
        """Called once when the sequence leaves the scheduler without an error."""
        self.finished = True

    def release(self) -> None:  # noqa: B027
        """Called when the sequence leaves its slot, for whatever reason."""


class Generation(Sequence):
    """A prompt that grows token by token until it ends; its text comes out in `pieces`.

    The text is that which the tokens add to the ids `behind`, without its first `hidden` characters.
    """

    def __init__(self, prompt: list[int], *, sampling: Sampling, max_tokens: int, end_ids: frozenset[int],
                 context: int, tokenizer: Tokenizer | None, stops: StopStrings, constraint: Constraint | None = None,
                 logprobs: int | None = None, open_speculator: Callable[[], Speculator | None] | None = None,
                 finished: Callable[[list[int]], None] | None = None, behind: Iterable[int] = (),
                 hidden: int = 0) -> None:
        super().__init__(list(prompt))
        self.prompt_tokens = len(prompt)
        self.pieces: list[str] = []
        self._only_best = sampling.is_argmax and constraint is None and logprobs is None
        self._sampler = Sampler(sampling) if not self._only_best else None
        self._drawn_by = sampling if logprobs is None and not self._only_best else None
        self._history = History(prompt) if sampling.looks_back else None
        self._constraint, self._end_ids = constraint, end_ids
        self._top, self._logprobs = logprobs, None if logprobs is None else []
        self._open_speculator, self._finished = open_speculator, finished
        self._speculator: Speculator | None = None
        self._proposed = self._accepted = 0
        self._came: list[int] = []
        # The last token needs no place in the cache: nothing is asked after it.
        self._limit = min(self.prompt_tokens + max_tokens, context + 1)
        self._detokenizer = None if tokenizer is None else Detokenizer(tokenizer, behind)
        self._stops, self._hidden = stops, hidden
        self._reason: str | None = None
        self._asked = time.perf_counter()
        self._started: float | None = None
        self._first: float | None = None
        self._last: float | None = None

    def begin(self) -> None:
        self._started = self._started or time.perf_counter()
        if self._open_speculator is not None:
            self._speculator = self._open_speculator()

    def first_row(self, start: int, stop: int) -> int:
        return stop - 1 if stop == len(self.ids) else stop

    @property
    def only_best(self) -> bool:
        return self._only_best

    @property
    def drawn_by(self) -> Sampling | None:
        return self._drawn_by

    def draw(self, vocab: int, rows: int) -> Draw | None:
        # What a mask or a penalty makes of a later row depends on the tokens drawn before it.
        if rows > 1 and (self._constraint is not None or self._history is not None):
            return None
        return Draw(self._drawn_by, self._history, self._mask(vocab))

    def propose(self, room: int, outlook: Outlook) -> None:
        if self._speculator is not None:
            # A step draws one token more than there are guesses.
            room = min(room, self._limit - len(self.ids) - 1)
            self.draft = self._speculator.plan(self.ids, room, outlook)

    def learn(self, seconds: float, outlook: Outlook) -> None:
        if self._speculator is not None:
            self._speculator.learn(len(self.draft), self._came, seconds, outlook)

    def take(self, start: int, logits: NDArray[np.float32]) -> None:
        self._grow(self._draw(row) for row in logits)

    def take_tokens(self, start: int, tokens: NDArray[np.int32]) -> None:
        self._grow(checked_token(token, len(self.ids)) for token in tokens.tolist())

    def _mask(self, vocab: int) -> Words | None:
        if self._constraint is None:
            return None
        return mask_words(self._constraint.mask(self.ids[self.prompt_tokens:]), vocab)

    def _draw(self, logits: NDArray[np.float32]) -> int:
        token = self._sampler.draw(logits, len(self.ids), self._history, self._mask(len(logits)))
        if self._logprobs is not None:
            self._logprobs.append(log_probability(logits, token, self._top))
        return token

    def _grow(self, tokens: Iterable[int]) -> None:
        """Append tokens, drawn one after the other, as long as the draft before them was what was drawn."""
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._came = []
        for guess, token in zip_longest(self.draft, tokens):
            self._came.append(token)
            self._append(token)
            if self.done or token != guess:
                return

    def _append(self, token: int) -> None:
        if self._constraint is not None:
            self._constraint.accept(token)
        if token in self._end_ids:
            self._reason = "stop"
            return
        self.ids.append(token)
        if self._history is not None:
            self._history.append(token)
        if self._detokenizer is not None:
            self._show(self._stops.push(self._seen(self._detokenizer.push(token))))
        if self._stops.hit:
            self._reason = "stop"
        elif len(self.ids) >= self._limit:
            self._reason = "length"

    @property
    def done(self) -> bool:
        return self._reason is not None

    def end(self) -> None:
        if self._detokenizer is not None and not self._stops.hit:
            self._show(self._stops.push(self._seen(self._detokenizer.finish())))
            if self._stops.hit:
                self._reason = "stop"
            else:
                self._show(self._stops.finish())
        self._reason = self._reason or "cancelled"
        if self._finished is not None:
            self._finished(self.ids[self.prompt_tokens:])
        super().end()

    def release(self) -> None:
        if self._speculator is not None:
            self._proposed += self._speculator.proposed
            self._accepted += self._speculator.accepted
            self._speculator.close()
            self._speculator = None  # a sequence that gave way gets another one when it goes on

    def completion(self) -> Completion:
        """The result; asked for when `finished` is true."""
        sampled = tuple(self.ids[self.prompt_tokens:])
        # The token that ended the text took a step as well.
        steps = len(sampled) + (self._reason == "stop" and not self._stops.hit) - 1
        decode = steps / (self._last - self._first) if steps > 0 and self._last > self._first else None
        prefill = max(1, self.prompt_tokens - self.shared) / (self._first - self._started) if self._first else None
        return Completion("".join(self.pieces), sampled, self._reason, self.prompt_tokens,
                          self._first - self._asked if self._first else None, prefill, decode,
                          None if self._logprobs is None else tuple(self._logprobs[:len(sampled)]),
                          self._proposed, self._accepted, self.shared)

    def _seen(self, piece: str) -> str:
        left = self._hidden
        self._hidden = max(0, left - len(piece))
        return piece[left:]

    def _show(self, text: str) -> None:
        if text:
            self.pieces.append(text)


class Scoring(Sequence):
    """Ids that pass through once; `receive(start, logits)` gets the logits of all ids from `first` on."""

    def __init__(self, ids: list[int], first: int, receive: Callable[[int, NDArray[np.float32]], None]) -> None:
        super().__init__(ids)
        self._first, self._receive = first, receive

    def first_row(self, start: int, stop: int) -> int:
        return min(max(self._first, start), stop)

    def take(self, start: int, logits: NDArray[np.float32]) -> None:
        self._receive(start, logits)

    @property
    def done(self) -> bool:
        return self.fed == len(self.ids)
