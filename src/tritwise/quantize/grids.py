"""The values that a quantised weight can have: (code - zero) * scale; a matrix, a row or a group of inputs has a scale.

    int8, int4   codes 0 .. 2^b - 1 over [min, max] of the weights, zero included, as GPTQ has it (arXiv 2210.17323)
    ternary      codes -1, 0, +1 with the scale of least squared error, which arXiv 1605.04711 approximates, exactly

Scales are rounded to float16 before codes are chosen, except the one scale of a whole matrix, which is float32.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError

GridName = Literal["ternary", "int8", "int4"]
# Smallest positive float16: a scale below would be zero.
_TINY = 2.0**-24


@dataclass(frozen=True)
class Grid:
    """Codes from `low` to `high`; `code_bits` that one takes when packed (five ternary codes in a byte)."""

    name: GridName
    low: int
    high: int
    code_bits: float

    def fit(self, weight: NDArray, *, whole: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scales and zeros, float32 [N, 1], for weights [N, K]; [1, 1] for one scale of all with `whole`.

        Raises TritwiseError for weights whose scale is beyond float16.
        """
        rows = np.asarray(weight, np.float64).reshape(1 if whole else len(weight), -1)
        if self.name == "ternary":
            scale, zero = _ternary_scale(rows), np.zeros((len(rows), 1))
        else:
            low, high = np.minimum(rows.min(axis=1, keepdims=True), 0), np.maximum(rows.max(axis=1, keepdims=True), 0)
            scale, zero = (high - low) / (self.high - self.low), -low
        if not whole:
            with np.errstate(over="ignore"):
                scale = scale.astype(np.float16).astype(np.float64)
            if not np.isfinite(scale).all():
                raise TritwiseError("the weights cannot be quantised", why="a scale is beyond float16's 65504")
        scale = np.maximum(scale, _TINY)
        return scale.astype(np.float32), np.clip(np.rint(zero / scale), self.low, self.high).astype(np.float32)

    def codes(self, weight: NDArray, scale: NDArray, zero: NDArray) -> NDArray[np.int16]:
        """The nearest codes; ties round to even."""
        return np.clip(np.rint(weight / scale.astype(np.float64)) + zero, self.low, self.high).astype(np.int16)


GRIDS: dict[str, Grid] = {"ternary": Grid("ternary", -1, 1, 1.6), "int8": Grid("int8", 0, 255, 8),
                          "int4": Grid("int4", 0, 15, 4)}


@dataclass(frozen=True, eq=False)
class Quantised:
    """A quantised matrix [N, K]: codes int16, scales and zeros float32 [N or 1, groups], `group` inputs a scale."""

    grid: Grid
    codes: NDArray[np.int16]
    scales: NDArray[np.float32]
    zeros: NDArray[np.float32]
    group: int

    def values(self) -> NDArray[np.float32]:
        """(code - zero) * scale, exact in float32 where scales are float16."""
        columns = self.codes.shape[1]
        scales, zeros = (np.repeat(each, self.group, axis=1)[:, :columns] for each in (self.scales, self.zeros))
        return (self.codes - zeros) * scales

    @property
    def bits(self) -> float:
        """Bits of codes, scales (16, or 32 for the only one) and zeros (as many as a code's; ternary has none)."""
        one = 32 if self.scales.size == 1 else 16
        zero = 0 if self.grid.name == "ternary" else self.grid.code_bits
        return self.codes.size * self.grid.code_bits + self.scales.size * (one + zero)


def round_to_nearest(weight: NDArray, grid: Grid, group_size: int | None = None) -> Quantised:
    """Each weight of [N, K] to the nearest value of its grid.

    `group_size` inputs of a row share a scale (the last group of a row may be shorter); without it all inputs of a row
    do, and of a ternary matrix all weights. Raises TritwiseError for weights that are not finite.
    """
    weight = checked(weight)
    group, whole = group_of(weight, grid, group_size)
    codes, scales, zeros = [], [], []
    for start in range(0, weight.shape[1], group):
        part = weight[:, start:start + group]
        scale, zero = grid.fit(part, whole=whole)
        codes.append(grid.codes(part, scale, zero))
        scales.append(scale)
        zeros.append(zero)
    return Quantised(grid, *(np.concatenate(each, axis=1) for each in (codes, scales, zeros)), group)


def checked(weight: NDArray) -> NDArray[np.float64]:
    """A matrix as float64. Raises TritwiseError for another shape and for NaN or infinity."""
    if weight.ndim != 2 or not weight.size:
        raise TritwiseError(f"an array of shape {list(weight.shape)} cannot be quantised", why="it is no matrix")
    weight = weight.astype(np.float64)
    if not np.isfinite(weight).all():
        raise TritwiseError("the weights cannot be quantised", why="some are NaN or infinite")
    return weight


def group_of(weight: NDArray, grid: Grid, group_size: int | None) -> tuple[int, bool]:
    """How many inputs share a scale, and whether all rows do. Raises TritwiseError for a size below 1."""
    if group_size is not None and group_size < 1:
        raise TritwiseError(f"the group size is {group_size}", why="it counts the inputs that share a scale")
    columns = weight.shape[1]
    return min(group_size or columns, columns), group_size is None and grid.name == "ternary"


def _ternary_scale(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scale [N, 1] that leaves the least sum of (w - scale * code)^2 in each row.

    If the k largest |w| get the code +-1, the best scale is their mean, and it takes sum^2 / k off the squared error.
    """
    sums = np.sort(np.abs(rows), axis=1)[:, ::-1].cumsum(axis=1)
    gains = sums**2 / np.arange(1, rows.shape[1] + 1)
    best = gains.argmax(axis=1)
    return (sums[np.arange(len(rows)), best] / (best + 1))[:, None]
