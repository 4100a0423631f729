"""The integer reference product: what every kernel's accumulators must equal."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tritwise.common.errors import TritwiseError
from tritwise.ternary.quantisers import absmax


def matmul(x_codes: NDArray[np.int8], w_codes: NDArray[np.int8]) -> NDArray[np.int32]:
    """Integer product x @ w.T: int8 [M, K] by int8 [N, K] to int32 [M, N].

    Exact: |sum| <= 128 K stays inside int32 for K < 2^24, the bound checked here.
    """
    if x_codes.dtype != np.int8 or w_codes.dtype != np.int8 or x_codes.ndim != 2 or w_codes.ndim != 2:
        raise TritwiseError("the integer product takes int8 [M, K] and int8 [N, K]",
                            why=f"got {x_codes.dtype} {x_codes.shape} and {w_codes.dtype} {w_codes.shape}")
    if x_codes.shape[1] != w_codes.shape[1] or x_codes.shape[1] >= 1 << 24:
        raise TritwiseError("the integer product needs one K below 2^24 on both sides",
                            why=f"got K = {x_codes.shape[1]} and {w_codes.shape[1]}")
    return x_codes.astype(np.int32) @ w_codes.astype(np.int32).T


def bitlinear(x: ArrayLike, w_codes: NDArray[np.int8],
              w_scale: np.float32 | NDArray[np.float32]) -> NDArray[np.float32]:
    """The whole layer at inference: absmax int8 activations, integer product, one rescaling.

    `x` is float [M, K], `w_codes` int8 [N, K], `w_scale` one number or [N]; the result is float32 [M, N] =
    accumulator * (x_scale * w_scale), multiplied in that order in float32.
    """
    x_codes, x_scale = absmax(x)
    return matmul(x_codes, w_codes).astype(np.float32) * (x_scale * np.asarray(w_scale, np.float32))
