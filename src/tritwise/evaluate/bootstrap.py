"""Confidence intervals of ratios and means by resampling (Efron 1979), for paired differences above all."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tritwise.common.errors import TritwiseError

DRAWS = 10_000
_AT_ONCE = 256


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(values: ArrayLike, weights: ArrayLike | None = None, groups: Sequence[Hashable] | None = None, *,
             confidence: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile interval of sum(values) / sum(weights): a mean when there are no weights, else a ratio.

    For two systems on the same tasks, `values` are the differences task by task: the tasks are resampled with both
    results of each. With `groups` (the repository of each task) whole groups are resampled, which is what tasks that
    resemble each other need. The same numbers and seed give the same interval. Raises TritwiseError without values.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(values) or values.shape != weights.shape or values.ndim != 1:
        raise TritwiseError("there is nothing to resample", why=f"{values.shape} values with {weights.shape} weights")
    if groups is not None:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        index = np.array([numbers[group] for group in groups])
        values = np.bincount(index, values, len(numbers))
        weights = np.bincount(index, weights, len(numbers))
    rng, count = np.random.default_rng(seed), len(values)
    ratios = []
    for start in range(0, draws, _AT_ONCE):
        chosen = rng.integers(0, count, (min(_AT_ONCE, draws - start), count))
        ratios.append(values[chosen].sum(axis=1) / weights[chosen].sum(axis=1))
    low, high = np.quantile(np.concatenate(ratios), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.sum() / weights.sum()), float(low), float(high))
