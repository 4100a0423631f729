"""Settings of near-duplicate removal, and what they promise: the probability that two texts become a pair."""

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from tritwise.config.settings import Count, Settings

Threshold = Annotated[float, Field(gt=0, le=1)]


class CurvePoint(NamedTuple):
    """For two texts whose exact Jaccard similarity is `similarity`."""

    similarity: float
    candidate: float  # P(some band of their signatures is equal)
    pair: float  # P(that, and the estimate reaches the threshold): what is found, or wrongly merged


class DedupRecipe(Settings):
    """Duplicates by MinHash and banded locality-sensitive hashing, of repositories and of files."""

    # Whole repositories whose shingles are nearly those of another: forks, mirrors, old copies (DeepSeek-Coder, arXiv
    # 2401.14196, section 2.3).
    repositories: bool = True
    # Files with exactly the text of another, then files nearly so, among repositories that stay.
    exact: bool = True
    files: bool = True
    # Near-duplicates are compared without the licence at the head of their files, which makes small files of a project
    # look alike, and copies under another licence not. Exact duplicates are by the whole text all the same.
    skip_licence_heads: bool = True
    # Tokens in a shingle.
    shingle: Annotated[int, Field(ge=1, le=64)] = 5
    # Bins of a signature: the estimate's standard deviation is sqrt(s (1 - s) / permutations), 0.03 at most for 256.
    permutations: Annotated[int, Field(ge=1, le=1024)] = 256
    # Two texts are compared when all `rows` bins of one of the `bands` are equal: P = 1 - (1 - s^rows)^bands.
    bands: Count = 32
    rows: Count = 8
    # A pair counts when its estimated Jaccard similarity is at least this.
    repository_threshold: Threshold = 0.7
    file_threshold: Threshold = 0.7
    # Shorter texts have too few shingles to tell; they are exact duplicates or none.
    min_tokens: Count = 20
    # All pairs of a bucket are compared up to this many members. Of larger ones each member is compared with the
    # bucket's leaders only, at most `max_leaders`: the best members that are not near-duplicates of a better leader.
    max_bucket: Annotated[int, Field(ge=2, le=1024)] = 64
    max_leaders: Count = 64
    # Rounds of large-star and small-star that are planned; those after convergence do nothing.
    max_rounds: Annotated[int, Field(ge=1, le=64)] = 16
    # How many of the largest clusters are listed, and how many members of each.
    listed_clusters: Count = 20
    listed_members: Count = 20
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0

    @model_validator(mode="after")
    def _check_bands(self) -> "DedupRecipe":
        if self.bands * self.rows > self.permutations:
            raise ValueError(f"bands * rows is {self.bands * self.rows}, more than permutations = {self.permutations}")
        return self

    def needed(self, threshold: float) -> int:
        """How many bins must be equal for an estimate of at least `threshold`."""
        return int(np.ceil(np.round(threshold * self.permutations, 9)))

    def curve(self, threshold: float | None = None, similarities: tuple[float, ...] | None = None) -> list[CurvePoint]:
        """What the settings promise for pairs of some similarities, 0.30 to 1.00 by 0.05 unless given.

        `threshold` is `file_threshold` unless given. Bins are taken as independent, as Leskovec, Rajaraman and Ullman
        do (Mining of Massive Datasets, section 3.4.2): the count of equal bins is binomial, and the pairs that reach
        the threshold without an equal band are counted out exactly.
        """
        needed = self.needed(self.file_threshold if threshold is None else threshold)
        return [self._point(s, needed) for s in similarities or tuple(np.arange(6, 21) / 20)]

    def _point(self, similarity: float, needed: int) -> CurvePoint:
        one_bin = np.array([1 - similarity, similarity])
        one_band = _power(one_bin, self.rows)
        unequal_band = np.append(one_band[:-1], 0.0)
        rest = self.permutations - self.bands * self.rows
        equal_bins = _power(one_bin, self.permutations)
        without_band = np.convolve(_power(unequal_band, self.bands), _power(one_bin, rest))
        candidate = 1 - (1 - similarity**self.rows) ** self.bands
        pair = equal_bins[needed:].sum() - without_band[needed:].sum()
        return CurvePoint(float(similarity), float(candidate), float(min(max(pair, 0.0), 1.0)))


def _power(polynomial: np.ndarray, exponent: int) -> np.ndarray:
    """The distribution of a sum of `exponent` counts that each have the distribution `polynomial`."""
    result = np.ones(1)
    for _ in range(exponent):
        result = np.convolve(result, polynomial)
    return result
