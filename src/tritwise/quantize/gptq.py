"""GPTQ (Frantar et al. 2022, arXiv 2210.17323, algorithm 1): roundings that make up for each other.

A layer's outputs on the calibration inputs X [T, K] are to change little: minimise ||(W - Q) X^T||^2. Columns are
rounded one after the other; the error of each is spread over those that are still to come, in the proportions that the
inverse of H = X^T X gives. The upper Cholesky factor U of the inverse (U^T U = inverse) holds in row i what is needed
when columns 0 .. i-1 are fixed.
"""

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.quantize.grids import Grid, Quantised, checked, group_of

DAMPING = 0.01
# Columns whose errors reach the rest of the matrix in one product.
_BLOCK = 128


def gptq(weight: NDArray, hessian: NDArray, grid: Grid, group_size: int | None = None, *,
         damping: float = DAMPING) -> Quantised:
    """Quantise [N, K] for inputs with `hessian` = X^T X [K, K], up to a factor.

    Groups as in `round_to_nearest`; a group's scale is chosen when its first column is reached, from what the columns
    before have left there. `damping` times the mean of the diagonal is added to it. An input that was always zero is
    rounded by itself. Raises TritwiseError for a Hessian that does not fit or cannot be factored.
    """
    weight = checked(weight)
    group, whole = group_of(weight, grid, group_size)
    factor = _inverse_factor(hessian, weight.shape[1], damping)
    columns = weight.shape[1]
    # Blocks end where groups end, so that a new group has all earlier errors in it.
    block = group * max(1, _BLOCK // group) if group < columns else _BLOCK
    codes = np.empty(weight.shape, dtype=np.int16)
    scales, zeros = [], []
    if group == columns:
        scale, zero = grid.fit(weight, whole=whole)
        scales, zeros = [scale], [zero]
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors = np.empty((len(weight), stop - start))
        for i in range(start, stop):
            if group < columns and i % group == 0:
                scale, zero = grid.fit(weight[:, i:min(i + group, columns)])
                scales.append(scale)
                zeros.append(zero)
            column = weight[:, i:i + 1]
            codes[:, i:i + 1] = grid.codes(column, scale, zero)
            error = (column - (codes[:, i:i + 1] - zero) * scale.astype(np.float64)) / factor[i, i]
            weight[:, i + 1:stop] -= error * factor[i, i + 1:stop]
            errors[:, i - start:i - start + 1] = error
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return Quantised(grid, codes, np.concatenate(scales, axis=1), np.concatenate(zeros, axis=1), group)


def layer_error(weight: NDArray, values: NDArray, hessian: NDArray) -> float:
    """||(W - Q) X^T||^2 / ||W X^T||^2 of the calibration inputs; 0 where all outputs are zero."""
    weight, hessian = weight.astype(np.float64), hessian.astype(np.float64)
    change = weight - values
    whole = float(((weight @ hessian) * weight).sum())
    return float(((change @ hessian) * change).sum()) / whole if whole > 0 else 0.0


def _inverse_factor(hessian: NDArray, columns: int, damping: float) -> NDArray[np.float64]:
    """The upper Cholesky factor of the inverse of the damped Hessian."""
    if hessian.shape != (columns, columns) or not np.isfinite(hessian).all():
        raise TritwiseError(f"a Hessian of shape {list(hessian.shape)} cannot be used",
                            why=f"finite numbers [{columns}, {columns}] are needed")
    if not damping >= 0:
        raise TritwiseError(f"the damping is {damping}", why="at least 0 is needed")
    damped = hessian.astype(np.float64)
    diagonal = damped.diagonal().copy()
    dead = diagonal <= 0
    diagonal[dead] = 1.0
    damped[dead] = damped[:, dead] = 0.0
    np.fill_diagonal(damped, diagonal + damping * diagonal[~dead].mean() if (~dead).any() else diagonal)
    try:
        lower = np.linalg.cholesky(damped)
        inverse = np.linalg.inv(lower)
        return np.linalg.cholesky(inverse.T @ inverse).T
    except np.linalg.LinAlgError:
        raise TritwiseError("the Hessian of the inputs cannot be factored",
                            why="the calibration inputs are too few or too alike",
                            fix="give more text, or more damping") from None
