"""From logits to a token: the settings, and the calls into the native core that applies them.

    bit mask -> bias -> repetition, frequency, presence penalty -> temperature -> top-k -> top-p -> min-p -> draw

The random draw for a token is a pure function of (seed, position of the token in its sequence), so batch mates,
prefill chunks, speculation and cancellations of others never change what is drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.engine.native import native

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, in the order of the steps.

    `logit_bias`: id -> number added to its logit, -inf forbids it. `repetition_penalty` (Keskar et al. 2019, section
    4.1, as in transformers): logits of all tokens that prompt and continuation hold are divided by it when positive,
    multiplied when negative; 1 is off. `frequency_penalty` and `presence_penalty` (OpenAI's API reference): taken off
    a logit for every time, and once if, the token was generated; 0 is off. `temperature`: 0 is greedy. `top_k`: so many
    likeliest tokens; 0 is off. `top_p` (Holtzman et al. 2020): the likeliest ones of those that hold this share of
    their probability; 1 is off. `min_p` (Nguyen et al. 2024): those with at least this share of the likeliest one's
    probability; 0 is off.

    Raises TritwiseError for values outside: temperature >= 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1,
    repetition_penalty > 0, all finite, 0 <= seed < 2^64; biases below infinity.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] | Iterable[tuple[int, float]] = ()

    def __post_init__(self) -> None:
        bias = self.logit_bias
        pairs = tuple(sorted(bias.items() if isinstance(bias, Mapping) else (tuple(pair) for pair in bias)))
        object.__setattr__(self, "logit_bias", pairs)
        checks = (
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0 (greedy) up"),
            ("top_k", self.top_k >= 0 and int(self.top_k) == self.top_k, "a whole number from 0 (off) up"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("seed", 0 <= self.seed < 1 << 64 and int(self.seed) == self.seed, "a whole number from 0 to 2^64 - 1"),
            ("min_p", 0 <= self.min_p <= 1, "a number from 0 (off) to 1"),
            # In float32, as the logits are.
            ("repetition_penalty", 1e-30 < self.repetition_penalty < 1e30, "a number above 0; 1 is off"),
            ("frequency_penalty", abs(self.frequency_penalty) < 1e30, "a number; 0 is off"),
            ("presence_penalty", abs(self.presence_penalty) < 1e30, "a number; 0 is off"),
            ("logit_bias", all(id_ == int(id_) and 0 <= id_ < 1 << 31 and value < 1e30 for id_, value in pairs),
             "token ids with numbers, or with minus infinity"),
        )
        for name, good, wanted in checks:
            if not good:
                raise TritwiseError(f"{name} is {getattr(self, name)}", why=f"it has to be {wanted}")

    @property
    def looks_back(self) -> bool:
        """Whether a draw depends on the tokens before it beyond what the model makes of them."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def is_argmax(self) -> bool:
        """Whether the token is always the largest of the model's own logits."""
        return self.temperature == 0 and not self.looks_back and not self.logit_bias

    def native(self, kernel: str = "") -> Any:
        """The settings as the native core takes them."""
        return native().SamplingSettings(
            temperature=float(self.temperature), top_k=int(self.top_k), top_p=float(self.top_p),
            min_p=float(self.min_p), repetition_penalty=float(self.repetition_penalty),
            frequency_penalty=float(self.frequency_penalty), presence_penalty=float(self.presence_penalty),
            bias_ids=[int(id_) for id_, _ in self.logit_bias], bias_values=[float(v) for _, v in self.logit_bias],
            seed=int(self.seed), kernel=kernel)


class Constraint(Protocol):
    """What may come next, for example from a grammar library. One object serves one generation.

    A bit mask is an array uint32 or int32 [ceil(vocab / 32)] (or [1, that]), or its bytes: bit `i % 32` of word
    `i // 32` is 1 when token i is allowed. This is what llguidance (`LLMatcher.compute_bitmask`,
    `fill_next_token_bitmask`) and xgrammar (`GrammarMatcher.fill_next_token_bitmask`) fill. As there, tokens behind the
    last word (a head that is padded beyond the tokenizer) are forbidden, and words behind the vocabulary mean nothing.
    """

    def mask(self, ids: Sequence[int]) -> NDArray | bytes | None:
        """The mask for the token after the generated `ids` (without the prompt); None allows all."""
        ...

    def accept(self, token: int) -> None:
        """`token` was generated; called once for each, in order, the one that ends the text included."""
        ...


def mask_words(mask: NDArray | bytes | None, vocab: int) -> Words | None:
    """A constraint's mask as uint32 [ceil(vocab / 32)]. Raises TritwiseError for another kind of array."""
    if mask is None:
        return None
    words = np.frombuffer(mask, dtype="<u4") if isinstance(mask, bytes | bytearray | memoryview) else np.asarray(mask)
    if words.dtype not in (np.uint32, np.int32) or words.size == 0 or words.shape[-1] != words.size:
        raise TritwiseError(f"the constraint's mask is {words.dtype} {list(words.shape)}",
                            why="uint32 or int32 [ceil(vocab / 32)] is needed")
    words = words.reshape(-1).view(np.uint32)
    wanted = -(-vocab // 32)
    if words.size < wanted:
        words = np.concatenate([words, np.zeros(wanted - words.size, dtype=np.uint32)])
    return np.ascontiguousarray(words[:wanted])


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides the token at `position`: 53 bits of Philox-4x64 keyed by both."""
    return native().uniform(seed, position)


def _not_numbers(position: int) -> TritwiseError:
    return TritwiseError(f"the model's logits at position {position} are not numbers",
                         why="the largest of them is NaN or infinite",
                         fix="check the weights with: tritwise inspect MODEL")


def checked_token(token: int, position: int) -> int:
    """The token for `position` as a backend found or drew it. Raises TritwiseError for -1, as `sample` does."""
    if token < 0:
        raise _not_numbers(position)
    return token


class History:
    """Token ids that grow, as an int32 array without copying; the first `prompt` of them were given."""

    def __init__(self, ids: Iterable[int] = (), prompt: int | None = None) -> None:
        self._ids = np.array(list(ids), dtype=np.int32)
        self._length = len(self._ids)
        self.prompt = self._length if prompt is None else prompt

    def append(self, token: int) -> None:
        """One more, generated."""
        if self._length == len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty(max(64, self._length), dtype=np.int32)])
        self._ids[self._length] = token
        self._length += 1

    @property
    def ids(self) -> NDArray[np.int32]:
        return self._ids[:self._length]


class Sampler:
    """Draws the tokens of one sequence; `kernel` (the fastest when empty) never changes one."""

    def __init__(self, how: Sampling, kernel: str = "") -> None:
        self._native, self._settings = native(), how.native(kernel)

    def draw(self, logits: NDArray[np.float32], position: int, history: History | None = None,
             mask: Words | None = None) -> int:
        """The token for `position`, from its logits float32 [vocab].

        Greedy takes the lowest id among equal largest logits. Raises TritwiseError when a logit is NaN or +infinity,
        and when no token is allowed.
        """
        ids, prompt = (None, 0) if history is None else (history.ids, history.prompt)
        try:
            return self._native.sample(self._settings, logits, position, ids, prompt, mask)
        except ValueError as error:
            if "NaN" in str(error):
                raise _not_numbers(position) from None
            raise TritwiseError(f"no token can be drawn at position {position}", why=str(error)) from None


def sample(logits: NDArray[np.float32], how: Sampling, position: int, history: History | None = None,
           mask: Words | None = None) -> int:
    """One `Sampler.draw`."""
    return Sampler(how).draw(logits, position, history, mask)


def distribution(logits: NDArray[np.float32], how: Sampling, history: History | None = None,
                 mask: Words | None = None, kernel: str = "") -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The ids that may be drawn, rising, and their probabilities, for `how.temperature` > 0."""
    ids, prompt = (None, 0) if history is None else (history.ids, history.prompt)
    return native().distribution(how.native(kernel), logits, ids, prompt, mask)


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithms of the model's own probabilities (softmax of its logits before any step of `Sampling`).

    Of the token that was chosen, and of the likeliest ones as (id, logprob), falling.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def log_probability(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """Of `token` and the `top` likeliest, from logits float32 [vocab]."""
    chosen, ids, values = native().log_probabilities(logits, token, top)
    return TokenLogprob(token, chosen, tuple(zip(ids.tolist(), values.tolist(), strict=True)))
