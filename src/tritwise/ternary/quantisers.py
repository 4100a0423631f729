"""The three quantisers of the BitNet papers.

Sources: BitNet b1.58 (arXiv 2402.17764, equations 1-3), BitNet b1 (arXiv 2310.11453, equations 1-3) and the
published training notes "The Era of 1-bit LLMs: Training Tips, Code and FAQ", which fix what the papers leave open:
the clamp at 1e-5 from below, the framework's rounding (ties to even) and the range -128..127.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritwise.common.errors import TritwiseError

EPS = np.float32(1e-5)


def _finite(values: ArrayLike, what: str) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TritwiseError(f"cannot quantise {what} of type {array.dtype}", why="real numbers are needed")
    if array.size == 0:
        raise TritwiseError(f"cannot quantise an empty {what}", why=f"its shape is {array.shape}")
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes inf, and is refused below
        array = array.astype(np.float32, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise TritwiseError(
            f"cannot quantise {what}: {int(bad.sum())} of {array.size} values are NaN or infinite",
            why=f"the first is {array[first]} at index {list(first)}; a mean or a maximum over it has no meaning",
            fix="look for the step at which training diverged, or for a damaged file",
        )
    return array


def _mean(array: NDArray[np.float32]) -> np.float32:
    # Summed in float64 and rounded once: the result does not depend on the order of the sum, so torch, numpy
    # and C++ get the same float32 and with it the same codes.
    return np.float32(array.mean(dtype=np.float64))


def absmean(weight: ArrayLike) -> tuple[NDArray[np.int8], np.float32]:
    """Ternary weight quantiser: round(W / mean|W|) clipped to -1..+1, one scale for the whole tensor.

    Returns `(codes, scale)`: int8 codes of the weight's shape and a float32 scale with W ~ codes * scale.
    The mean is clamped from below at 1e-5; ties round to even, so W = mean/2 gives 0.
    Raises TritwiseError for NaN, infinity or an empty array. Source: BitNet b1.58, equations 1-3.
    """
    w = _finite(weight, "weight")
    scale = np.maximum(_mean(np.abs(w)), EPS)
    codes = np.clip(np.rint(w * (np.float32(1) / scale)), -1, 1)
    return codes.astype(np.int8), scale


def sign(weight: ArrayLike) -> tuple[NDArray[np.int8], np.float32]:
    """Binary weight quantiser: the sign of W - mean(W), scaled by mean|W|.

    Returns `(codes, scale)`; codes are -1 or +1, a zero counts as -1 (BitNet b1, equations 1-3). The scale is
    clamped from below at 1e-5, because formats that store its inverse cannot hold a zero.
    """
    w = _finite(weight, "weight")
    scale = np.maximum(_mean(np.abs(w)), EPS)
    codes = np.where(w > _mean(w), 1, -1)
    return codes.astype(np.int8), scale


def absmax(activation: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Activation quantiser: one symmetric 8-bit scale a token (over the last axis).

    `activation` is [..., K]. Returns `(codes, scale)`: int8 [..., K] and float32 [..., 1] with x ~ codes * scale.
    codes = clip(round(x * (127 / max|x|)), -128, 127), scale = max|x| / 127, the maximum clamped from below at
    1e-5, so an all-zero token has codes 0. Source: the training notes' activation_quant. PyTorch computes the
    published `127.0 / maximum` as reciprocal times 127, two roundings instead of one; so does this, or one code in some
    hundred thousand would be rounded the other way.
    """
    x = _finite(activation, "activation")
    largest = np.maximum(np.abs(x).max(axis=-1, keepdims=True), EPS)
    codes = np.clip(np.rint(x * (np.float32(1) / largest * np.float32(127))), -128, 127)
    return codes.astype(np.int8), largest / np.float32(127)
