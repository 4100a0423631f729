"""The three matrix products of BitLinear's training on tensor cores, each with its twin in `training_twins`.

| product | reads | arithmetic | writes |
|---|---|---|---|
| y = x W^T | int8 [M, K'], int8 [N, K'] | int8 x int8 -> int32, rescaled as it is stored | y [M, N] |
| dX = dY W | dY [M, N], int8 [K, N'] | dY's type, codes converted in registers, float32 sums | dX [M, K] |
| dW = dY^T x | dY [M, N], int8 [M, K'] | dY's type, x_hat made in registers, float32 sums | dW float32 [N, K] |

All are bound by tensor cores for M, N, K of thousands. 8-bit wgmma takes both sides with the summed axis contiguous
only, hence W and W^T. Sizes of a model are constants of the compiled kernel; the number of tokens is not.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tritwise.kernels.training import INTERPRETED, rounded
from tritwise.kernels.training_twins import aligned

GROUP = 8  # rows of tiles that share operands
_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def _dot(a, b, accumulator):
    """accumulator + a @ b in float32. The interpreter cannot multiply bfloat16; its products are exact in float32."""
    if _INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, accumulator, input_precision="ieee")


@triton.jit
def _codes_in(codes, DTYPE: tl.constexpr):
    """int8 codes in a floating-point type, exactly. The interpreter knows the way through float32 only."""
    if _INTERPRETED:
        return codes.to(tl.float32).to(DTYPE)
    return codes.to(DTYPE)


@triton.jit
def _tile(rows, cols, GROUP: tl.constexpr):
    """Row and column of this program's tile, so that neighbours share operands in the L2 cache."""
    program = tl.program_id(0)
    in_group = GROUP * cols
    first = program // in_group * GROUP
    height = tl.minimum(rows - first, GROUP)
    inside = program % in_group
    return first + inside % height, inside // height


@triton.jit
def _forward(x, x_scale, w, w_scale, y, M, N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
             BK: tl.constexpr, GROUP: tl.constexpr):
    tile_m, tile_n = _tile(tl.cdiv(M, BM), tl.cdiv(N, BN), GROUP)
    m, n, k = tile_m * BM + tl.arange(0, BM), tile_n * BN + tl.arange(0, BN), tl.arange(0, BK)
    m64 = m.to(tl.int64)
    # Rows beyond the end read the last row's data and are not stored.
    x_row = x + tl.minimum(m64, M - 1)[:, None] * K
    w_row = w + tl.minimum(n, N - 1).to(tl.int64)[None, :] * K
    accumulator = tl.zeros([BM, BN], tl.int32)
    for start in range(0, K, BK):
        if K % BK == 0:
            a = tl.load(x_row + (start + k)[None, :])
            b = tl.load(w_row + (start + k)[:, None])
        else:
            a = tl.load(x_row + (start + k)[None, :], mask=(start + k < K)[None, :], other=0)
            b = tl.load(w_row + (start + k)[:, None], mask=(start + k < K)[:, None], other=0)
        accumulator = tl.dot(a, b, accumulator, out_dtype=tl.int32)
    scale = tl.load(x_scale + m, mask=m < M, other=0.0)[:, None] * tl.load(w_scale + n, mask=n < N, other=0.0)[None, :]
    out = rounded(accumulator.to(tl.float32) * scale, y.dtype.element_ty)
    tl.store(y + m64[:, None] * N + n[None, :], out, mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit
def _input_part(grad_row, codes_row, START: tl.constexpr, COUNT: tl.constexpr, COLUMN: tl.constexpr,
                WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Sum [BK, BM] over one weight's outputs: codes^T from registers, the gradient straight from shared memory."""
    accumulator = tl.zeros([BK, BM], tl.float32)
    n = tl.arange(0, BN)
    for start in range(0, COUNT, BN):
        if COUNT % BN == 0:
            b = tl.load(grad_row + (START + start + n)[:, None])
            a = tl.load(codes_row + (COLUMN + start + n)[None, :])
        else:
            b = tl.load(grad_row + (START + start + n)[:, None], mask=(start + n < COUNT)[:, None], other=0.0)
            a = tl.load(codes_row + (COLUMN + start + n)[None, :], mask=(start + n < WIDTH)[None, :], other=0)
        accumulator = _dot(_codes_in(a, b.dtype), b, accumulator)
    return accumulator


@triton.jit
def _input_gradient(grad, codes_t, scales, grad_x, M, N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr,
                    W0: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, K: tl.constexpr, BM: tl.constexpr,
                    BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr):
    """Up to three weights, each with a scale of its own, which multiplies the float32 sum over that weight's part.

    A weight has N_i outputs and, with the zeros behind them, W_i columns of codes.
    """
    N: tl.constexpr = N0 + N1 + N2
    tile_m, tile_k = _tile(tl.cdiv(M, BM), tl.cdiv(K, BK), GROUP)
    m, k = tile_m * BM + tl.arange(0, BM), tile_k * BK + tl.arange(0, BK)
    m64 = m.to(tl.int64)
    grad_row = grad + tl.minimum(m64, M - 1)[None, :] * N
    codes_row = codes_t + tl.minimum(k, K - 1).to(tl.int64)[:, None] * (W0 + W1 + W2)
    total = _input_part(grad_row, codes_row, 0, N0, 0, W0, BM, BN, BK) * tl.load(scales)
    if N1 > 0:
        total += _input_part(grad_row, codes_row, N0, N1, W0, W1, BM, BN, BK) * tl.load(scales + N0)
    if N2 > 0:
        total += _input_part(grad_row, codes_row, N0 + N1, N2, W0 + W1, W2, BM, BN, BK) * tl.load(scales + N0 + N1)
    out = rounded(tl.trans(total), grad_x.dtype.element_ty)
    tl.store(grad_x + m64[:, None] * K + k[None, :], out, mask=(m < M)[:, None] & (k < K)[None, :])


@triton.jit
def _weight_step(accumulator, step, n, k, grad, x, x_scale, M, N: tl.constexpr, WIDTH: tl.constexpr,
                 BM: tl.constexpr):
    m = step * BM + tl.arange(0, BM)
    m64 = m.to(tl.int64)
    g = tl.load(grad + m64[None, :] * N + n[:, None], mask=(m < M)[None, :] & (n < N)[:, None], other=0.0)
    codes = tl.load(x + m64[:, None] * WIDTH + k[None, :], mask=(m < M)[:, None] & (k < WIDTH)[None, :], other=0)
    scale = tl.load(x_scale + m, mask=m < M, other=0.0)
    x_hat = rounded(codes.to(tl.float32) * scale[:, None], g.dtype)
    return _dot(g, x_hat, accumulator)


@triton.jit
def _weight_gradient(grad, x, x_scale, grad_w, M, N: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
                     STEPS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr):
    """Tile [BN, BK] of dW over all tokens, in their order. STEPS is 0 where the number of tokens is no constant.

    A row of x has WIDTH codes, the zeros behind K with them.
    """
    tile_n, tile_k = _tile(tl.cdiv(N, BN), tl.cdiv(K, BK), GROUP)
    n, k = tile_n * BN + tl.arange(0, BN), tile_k * BK + tl.arange(0, BK)
    accumulator = tl.zeros([BN, BK], tl.float32)
    if STEPS > 0:
        for step in range(STEPS):
            accumulator = _weight_step(accumulator, step, n, k, grad, x, x_scale, M, N, WIDTH, BM)
    else:
        for step in range(tl.cdiv(M, BM)):
            accumulator = _weight_step(accumulator, step, n, k, grad, x, x_scale, M, N, WIDTH, BM)
    tl.store(grad_w + n.to(tl.int64)[:, None] * K + k[None, :], accumulator,
             mask=(n < N)[:, None] & (k < K)[None, :])


# Tiles [tokens, outputs, inputs], warps and stages. Chosen by what compiles without spills (tests), not by timing.
FORWARD = {"BM": 128, "BN": 128, "BK": 128, "num_warps": 8, "num_stages": 3}
INPUT_GRADIENT = {"BM": 128, "BN": 64, "BK": 128, "num_warps": 8, "num_stages": 3}
WEIGHT_GRADIENT = {"BM": 64, "BN": 128, "BK": 128, "num_warps": 8, "num_stages": 3}
MOST_PARTS = 3


def _on(tiles: dict[str, int], dtype: torch.dtype) -> dict[str, int]:
    # float32 operands are twice as large: half the tile of the summed axis and two stages fit in shared memory.
    return tiles if dtype != torch.float32 else tiles | {"num_stages": 2}


def product(x_codes: Tensor, x_scale: Tensor, w_codes: Tensor, w_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """See the twin."""
    (tokens, inner), rows = x_codes.shape, w_codes.shape[0]
    y = torch.empty(tokens, rows, dtype=dtype, device=x_codes.device)
    if tokens:
        grid = (triton.cdiv(tokens, FORWARD["BM"]) * triton.cdiv(rows, FORWARD["BN"]),)
        _forward[grid](x_codes, x_scale, w_codes, w_scale, y, tokens, N=rows, K=inner, GROUP=GROUP,
                       enable_fp_fusion=False, **FORWARD)
    return y


def input_gradient(grad: Tensor, codes_t: Tensor, scales: Tensor, rows: list[int]) -> Tensor:
    """See the twin. `grad` is contiguous."""
    if len(rows) > MOST_PARTS:
        raise ValueError(f"{len(rows)} weights share an input; the kernel takes {MOST_PARTS}")
    tokens, inner = grad.shape[0], codes_t.shape[0]
    grad_x = torch.empty(tokens, inner, dtype=grad.dtype, device=grad.device)
    if tokens:
        counts = [*rows, 0, 0][:MOST_PARTS]
        tiles = INPUT_GRADIENT
        grid = (triton.cdiv(tokens, tiles["BM"]) * triton.cdiv(inner, tiles["BK"]),)
        _input_gradient[grid](grad, codes_t, scales, grad_x, tokens, N0=counts[0], N1=counts[1], N2=counts[2],
                              W0=aligned(counts[0]), W1=aligned(counts[1]), W2=aligned(counts[2]), K=inner,
                              GROUP=GROUP, **_on(tiles, grad.dtype))
    return grad_x


def weight_gradient(grad: Tensor, x_codes: Tensor, x_scale: Tensor, inner: int) -> Tensor:
    """See the twin. `grad` is contiguous. The sum over tokens has one order, so the result is repeatable."""
    tokens, rows = grad.shape
    if not tokens:
        return torch.zeros(rows, inner, dtype=torch.float32, device=grad.device)
    grad_w = torch.empty(rows, inner, dtype=torch.float32, device=grad.device)
    tiles = WEIGHT_GRADIENT
    grid = (triton.cdiv(rows, tiles["BN"]) * triton.cdiv(inner, tiles["BK"]),)
    # The interpreter takes no run-time bound of a loop.
    steps = triton.cdiv(tokens, tiles["BM"]) if INTERPRETED else 0
    _weight_gradient[grid](grad, x_codes, x_scale, grad_w, tokens, N=rows, K=inner, WIDTH=x_codes.shape[1], STEPS=steps,
                           GROUP=GROUP, **_on(tiles, grad.dtype))
    return grad_w
