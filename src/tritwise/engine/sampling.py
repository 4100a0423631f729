"""From logits to a token: greedy, temperature, top-k, top-p, and a seed.

The random draw for a token is a pure function of (seed, position of the token in its sequence), so batch mates,
prefill chunks and cancellations of others never change what is drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep the whole vocabulary.

    Raises TritwiseError for values outside: temperature >= 0 and finite, top_k >= 0, 0 < top_p <= 1,
    0 <= seed < 2^64.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("temperature", 0 <= self.temperature < math.inf, "a number from 0 (greedy) up"),
            ("top_k", self.top_k >= 0 and int(self.top_k) == self.top_k, "a whole number from 0 (off) up"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("seed", 0 <= self.seed < 1 << 64 and int(self.seed) == self.seed, "a whole number from 0 to 2^64 - 1"),
        )
        for name, good, wanted in checks:
            if not good:
                raise TritwiseError(f"{name} is {getattr(self, name)}", why=f"it has to be {wanted}")


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides the token at `position`: 53 bits of Philox-4x64 keyed by both."""
    key = np.array([seed, position], dtype=np.uint64)
    return int(np.random.Philox(key=key).random_raw() >> 11) * 2.0**-53


def _largest(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Ids of the `k` largest logits, in falling order; among equal ones the lowest ids win."""
    if k < len(logits):
        bound = np.partition(logits, len(logits) - k)[len(logits) - k]
        above = np.flatnonzero(logits > bound)
        ids = np.concatenate([above, np.flatnonzero(logits == bound)[: k - len(above)]])
    else:
        ids = np.arange(len(logits))
    return ids[np.lexsort((ids, -logits[ids]))]


def _candidates(logits: NDArray[np.float32], how: Sampling) -> tuple[NDArray[np.intp] | None, NDArray[np.float64]]:
    """The tokens that may be drawn (None: all of them) and their weights, in falling order unless nothing is cut."""
    largest = float(logits.max())

    def weights(of: NDArray[np.float32]) -> NDArray[np.float64]:
        # A temperature near zero makes the quotient overflow to -inf, whose exponential is the right 0.
        with np.errstate(over="ignore"):
            return np.exp((of.astype(np.float64) - largest) / how.temperature)

    if how.top_k:
        ids = _largest(logits, how.top_k)
        kept = weights(logits[ids])
        return (ids, kept) if how.top_p == 1 else _head(ids, kept, how.top_p * kept.sum())
    kept = weights(logits)
    if how.top_p == 1:
        return None, kept
    total = kept.sum()
    # All tokens below this weight together hold less than 1 - top_p, so the head never reaches them: most of a
    # vocabulary need not be sorted.
    ids = np.flatnonzero(kept >= (1 - how.top_p) * total / len(kept))
    ids = ids[np.lexsort((ids, -logits[ids]))]
    return _head(ids, kept[ids], how.top_p * total)


def _head(ids: NDArray[np.intp], falling: NDArray[np.float64], mass: float) -> tuple[NDArray, NDArray]:
    """The shortest head of `falling` weights that holds at least `mass`."""
    count = int(np.searchsorted(np.cumsum(falling), mass)) + 1
    return ids[:count], falling[:count]


def distribution(logits: NDArray[np.float32], how: Sampling) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The tokens that may be drawn and their probabilities (summing to 1), for `how.temperature` > 0.

    Applied in the order temperature, top-k, top-p, as in transformers' `LogitsProcessorList`: the probabilities that
    top-p adds up are those after temperature among the top-k; the token that crosses `top_p` is kept.
    `logits` is float32 [vocab]; ids come in falling order of probability, or by id when nothing is cut.
    """
    ids, weights = _candidates(logits, how)
    return np.arange(len(logits)) if ids is None else ids, weights / weights.sum()


def _not_numbers(position: int) -> TritwiseError:
    return TritwiseError(f"the model's logits at position {position} are not numbers",
                         why="the largest of them is NaN or infinite",
                         fix="check the weights with: tritwise inspect MODEL")


def checked_best(token: int, position: int) -> int:
    """The greedy token for `position` as a backend found it. Raises TritwiseError for -1, as `sample` does."""
    if token < 0:
        raise _not_numbers(position)
    return token


def sample(logits: NDArray[np.float32], how: Sampling, position: int) -> int:
    """The token for `position`, from its logits float32 [vocab].

    Greedy takes the lowest id among equal largest logits. Raises TritwiseError when a logit is NaN or +infinity.
    """
    if not np.isfinite(logits.max()):  # NaN wins a maximum, so one look finds it
        raise _not_numbers(position)
    if how.temperature == 0:
        return int(logits.argmax())
    ids, weights = _candidates(logits, how)
    cumulative = np.cumsum(weights)
    # A draw just below 1 may round up to the whole sum.
    drawn = int(np.searchsorted(cumulative, uniform(how.seed, position) * cumulative[-1], side="right"))
    drawn = min(drawn, len(weights) - 1)
    return drawn if ids is None else int(ids[drawn])
