"""Where guesses come from: earlier text (n-grams), or a small model with the same tokenizer."""

import time
from collections import deque

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.engine.backend import Backend, Batch
from tritwise.engine.sampling import History, Sampler, Sampling, checked_token
from tritwise.engine.speculation import Drafter, Speculation

# Lengths of the token runs that are looked up, longest first.
NGRAMS = (8, 5, 3)
_LONGEST_MATCH = 32
_KEPT_SEQUENCES, _KEPT_TOKENS = 64, 1 << 16


class NgramIndex:
    """The latest place behind each run of 8, 5 and 3 tokens, over one or many texts. Some microseconds a token."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], tuple[list[int], int]] = {}

    def add(self, text: list[int], begin: int, end: int) -> None:
        """Index the runs that end before `begin`..`end` - 1, so that each has a token behind it."""
        places = self._places
        for at in range(begin, end):
            for n in NGRAMS:
                if at >= n:
                    places[tuple(text[at - n:at])] = (text, at)

    def remove(self, text: list[int]) -> None:
        """Forget the places that lie in `text`."""
        for at in range(len(text)):
            for n in NGRAMS:
                key = tuple(text[at - n:at])
                if at >= n and key in self._places and self._places[key][0] is text:
                    del self._places[key]

    def find(self, ids: list[int]) -> tuple[list[int], int, int] | None:
        """(text, place, length): the end of `ids` stands in `text` before `place`, so many tokens of it, up to 32."""
        for n in NGRAMS:
            found = self._places.get(tuple(ids[-n:])) if len(ids) >= n else None
            if found is not None:
                text, at = found
                length, end = n, len(ids)
                longest = min(_LONGEST_MATCH, at, end)
                while length < longest and text[at - 1 - length] == ids[end - 1 - length]:
                    length += 1
                return text, at, length
        return None


class NgramDrafter(Drafter):
    """What followed the last tokens when they stood in this sequence before, or in an earlier generated text.

    Prompt lookup decoding (Saxena 2023), with the longest match found among the latest places of three run lengths.
    """

    def __init__(self, earlier: NgramIndex | None = None) -> None:
        self._earlier = earlier
        self._own = NgramIndex()
        self._text: list[int] = []
        self._length = 0

    def propose(self, ids: list[int], limit: int) -> list[int]:
        known = len(self._text)
        self._text += ids[known:]
        self._own.add(self._text, max(known, 1), len(self._text))
        found = self._own.find(ids)
        if self._earlier is not None and (found is None or found[2] < NGRAMS[0]):
            other = self._earlier.find(ids)
            if other is not None and (found is None or other[2] > found[2]):
                found = other
        if found is None:
            self._length = 0
            return []
        text, at, self._length = found
        guesses = text[at:at + limit]
        # A place so near that its continuation is the guess itself: the text repeats itself with that period.
        if text is self._text:
            for index in range(len(guesses), limit):
                guesses.append(guesses[index - (len(text) - at)])
        return guesses

    def evidence(self, count: int) -> list[int]:
        """The length of the match, one more with every guess that turns out right."""
        return [min(self._length + index, 32) for index in range(count)]


class NgramSpeculation(Speculation):
    """Guesses from the sequence itself and, with `shared`, from the last texts that the same model generated.

    The shared store keeps the generated tokens (no prompts) of the last 64 sequences, 65 536 tokens at most.
    """

    def __init__(self, *, shared: bool = True, adaptive: bool = True) -> None:
        super().__init__(adaptive=adaptive)
        self._earlier = NgramIndex() if shared else None
        self._texts: deque[list[int]] = deque()
        self._tokens = 0

    def drafter(self, how: Sampling) -> NgramDrafter:
        return NgramDrafter(self._earlier)

    def finished(self, generated: list[int]) -> None:
        if self._earlier is None or len(generated) <= NGRAMS[-1]:
            return
        text = generated[-_KEPT_TOKENS:]
        self._earlier.add(text, 1, len(text))
        self._texts.append(text)
        self._tokens += len(text)
        while len(self._texts) > _KEPT_SEQUENCES or self._tokens > _KEPT_TOKENS:
            old = self._texts.popleft()
            self._tokens -= len(old)
            self._earlier.remove(old)


class ModelDrafter(Drafter):
    """What a small model would draw, with the same settings and the same random number at each position.

    It has one slot of the small model's backend, and feeds it what the sequence has become; guesses that were not
    accepted are rewound by the next call.
    """

    def __init__(self, owner: "DraftModel", slot: int, how: Sampling) -> None:
        self._owner, self._slot, self._how = owner, slot, how
        self._sampler = None if how.is_argmax else Sampler(how)
        self._cached: list[int] = []
        self._agreed = 0            # of what is cached, so much is known to be the sequence
        self._prompt: int | None = None
        self.seconds_to_begin = owner.seconds_to_begin

    @property
    def seconds_per_token(self) -> float:
        return self._owner.seconds_per_token

    def propose(self, ids: list[int], limit: int) -> list[int]:
        if self._prompt is None:
            self._prompt = len(ids)
        limit = min(limit, self._owner.backend.context - len(ids) + 1)
        if limit < 1:
            return []
        # The last id is always fed, again if need be: what follows it is wanted.
        same = min(self._agreed, len(ids) - 1)
        while same < min(len(self._cached), len(ids) - 1) and self._cached[same] == ids[same]:
            same += 1
        self._agreed = same
        history = History(ids, self._prompt) if self._how.looks_back else None
        guesses: list[int] = []
        for _ in range(limit):
            tokens, start = (guesses[-1:], len(ids) + len(guesses) - 1) if guesses else (ids[same:], same)
            token = self._owner.step(self._slot, tokens, start, self._sampler, history)
            guesses.append(token)
            if history is not None:
                history.append(token)
        self._cached = ids + guesses[:-1]
        self._agreed = len(ids)
        return guesses

    def close(self) -> None:
        self._owner.free(self._slot)


class DraftModel(Speculation):
    """Guesses of a small model: a backend of the same vocabulary, with a slot for each sequence at once."""

    def __init__(self, backend: Backend, *, prefill_chunk: int = 256, adaptive: bool = True,
                 owned: bool = True) -> None:
        super().__init__(adaptive=adaptive)
        self.backend, self._chunk, self._owned = backend, prefill_chunk, owned
        self._free = list(range(backend.slots))
        # Until the first step is measured, so small that it is tried once and so large that it counts.
        self.seconds_per_token = 1e-6
        self.seconds_to_begin = 0.0

    def drafter(self, how: Sampling) -> ModelDrafter | None:
        return ModelDrafter(self, self._free.pop(), how) if self._free else None

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def step(self, slot: int, tokens: list[int], start: int, sampler: Sampler | None, history: History | None) -> int:
        """Feed `tokens` from position `start` on and choose what follows them."""
        began = time.perf_counter()
        for low in range(0, len(tokens), self._chunk):
            part = tokens[low:low + self._chunk]
            last = [len(part) - 1] if low + len(part) == len(tokens) else []
            first = start + low
            columns = (part, [slot] * len(part), range(first, first + len(part)), last if sampler else [],
                       [] if sampler else last)
            output = self.backend.forward(Batch(*(np.array(column, dtype=np.int32) for column in columns)))
        position = start + len(tokens)
        token = (checked_token(int(output.best[0]), position) if sampler is None
                 else sampler.draw(output.logits[0], position, history))
        seconds = time.perf_counter() - began
        if len(tokens) <= 2:
            known = self.seconds_per_token > 1e-6
            self.seconds_per_token += (seconds - self.seconds_per_token) * (0.1 if known else 1.0)
        elif len(tokens) > self.backend.slots:
            self.seconds_to_begin = seconds
        return token

    def close(self) -> None:
        if self._owned:
            self.backend.close()


def check_same_tokens(ours: object, theirs: object, vocab: int, draft_vocab: int) -> None:
    """Raise TritwiseError unless a draft model's ids mean what the model's ids mean (tokenizers, or None)."""
    same = vocab == draft_vocab and (ours is None) == (theirs is None)
    if same and ours is not None:
        same = ours.get_vocab(with_added_tokens=True) == theirs.get_vocab(with_added_tokens=True)
    if not same:
        raise TritwiseError("the draft model cannot guess for this model", why="their tokenizers differ",
                            fix="train the draft model with the same tokenizer.json")
