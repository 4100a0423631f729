"""From logits to a token: greedy, temperature, top-k, top-p, and a seed.

The random draw for a token is a pure function of (seed, position of the token in its sequence), so batch mates,
prefill chunks and cancellations of others never change what is drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError

# How many of the largest logits top-p looks at first; the set grows eightfold until it holds the wanted mass.
_TOP_P_START = 256


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


def distribution(logits: NDArray[np.float32], how: Sampling) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The tokens that may be drawn and their probabilities (summing to 1), for `how.temperature` > 0.

    Applied in the order temperature, top-k, top-p, as in transformers' `LogitsProcessorList`: the probabilities that
    top-p adds up are those after temperature among the top-k; the token that crosses `top_p` is kept.
    `logits` is float32 [vocab]; ids come in falling order of probability, or by id when nothing is cut.
    """
    largest = float(logits.max())

    def weights(of: NDArray[np.float32]) -> NDArray[np.float64]:
        # A temperature near zero makes the quotient overflow to -inf, whose exponential is the right 0.
        with np.errstate(over="ignore"):
            return np.exp((of.astype(np.float64) - largest) / how.temperature)

    if how.top_k == 0 and how.top_p == 1:
        ids, kept = np.arange(len(logits)), weights(logits)
    elif how.top_k:
        ids = _largest(logits, how.top_k)
        kept = weights(logits[ids])
    else:
        total = weights(logits).sum()
        size = _TOP_P_START
        while True:
            ids = _largest(logits, size)
            kept = weights(logits[ids])
            if size >= len(logits) or kept.sum() >= how.top_p * total:
                break
            size *= 8
        kept = _cut(kept, how.top_p * total)
    if how.top_k and how.top_p < 1:
        kept = _cut(kept, how.top_p * kept.sum())
    return ids[: len(kept)], kept / kept.sum()


def _cut(weights: NDArray[np.float64], mass: float) -> NDArray[np.float64]:
    """The shortest head of falling `weights` that holds at least `mass`."""
    return weights[: int(np.searchsorted(np.cumsum(weights), mass)) + 1]


def sample(logits: NDArray[np.float32], how: Sampling, position: int) -> int:
    """The token for `position`, from its logits float32 [vocab].

    Greedy takes the lowest id among equal largest logits. Raises TritwiseError when a logit is NaN or +infinity.
    """
    largest = logits.max()  # NaN wins a maximum, so one look finds it
    if not np.isfinite(largest):
        raise TritwiseError(f"the model's logits at position {position} are not numbers",
                            why=f"the largest of {len(logits)} is {largest}",
                            fix="check the weights with: tritwise inspect MODEL")
    if how.temperature == 0:
        return int(logits.argmax())
    ids, probabilities = distribution(logits, how)
    # Rounding may leave the last cumulative sum just below 1.
    drawn = np.searchsorted(np.cumsum(probabilities), uniform(how.seed, position), side="right")
    return int(ids[min(int(drawn), len(ids) - 1)])
