"""Quantisers of BitLinear's training on a GPU; the products are in `training_products`, what uses both in
`training_linear`. Each function computes what its twin in `training_twins` does.

Codes are equal to the twins' bit for bit: sums that decide them are exact (see the twins), divisions are IEEE
divisions, and nothing is launched with fused multiply-add contraction.

All kernels here are bound by memory. Bytes a value: a float32 weight is read twice, 8, and its codes written twice, 2;
a bfloat16 activation is read, 2, and its codes written, 1; the norm's backward reads two and writes one, 6.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from tritwise.kernels.absmax_kernel import absmax_codes, rms_normed
from tritwise.kernels.training_twins import EPS, MOST_VALUES, WINDOW, WINDOWS, aligned

_EPS = tl.constexpr(EPS)
_WINDOW = tl.constexpr(WINDOW)
_WINDOWS = tl.constexpr(WINDOWS)
_STEP = tl.constexpr(2.0**WINDOW)
_ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds |v| < 2^22 to even

# Decided, as the interpreter itself is, when the kernels are defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_INTERPRETED = tl.constexpr(INTERPRETED)

SUM_BLOCK = 2048
TILE = 64
NORM_ROWS = 16


@triton.jit
def rounded(value, DTYPE: tl.constexpr):
    """float32 `value` in DTYPE, rounded to even. The interpreter's own conversion to bfloat16 cuts off instead."""
    if _INTERPRETED and tl.bfloat16 == DTYPE:
        bits = value.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        value = bits.to(tl.float32, bitcast=True)
    return value.to(DTYPE)


@triton.jit
def _exact_sums(weight, sums, count, BLOCK: tl.constexpr):
    """Add a block's |w| and w to sums int64 [2, WINDOWS], a window of exponents at a time: integers, in any order."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    w = tl.load(weight + index, mask=index < count, other=0.0).to(tl.float32)
    bits = w.to(tl.int32, bitcast=True)
    exponent = (bits >> 23) & 0xFF
    mantissa = (bits & 0x7FFFFF) | tl.where(exponent > 0, 1 << 23, 0)
    place = tl.maximum(exponent, 1) - 1
    window = place // _WINDOW
    value = mantissa.to(tl.int64) << (place - window * _WINDOW).to(tl.int64)
    signed = tl.where(bits < 0, -value, value)
    # Weights of one block lie in two or three windows; the others are not visited.
    highest = tl.max(window, axis=0)
    lowest = tl.min(tl.where(mantissa > 0, window, highest), axis=0)
    at = highest
    while at >= lowest:
        inside = window == at
        tl.atomic_add(sums + at, tl.sum(tl.where(inside, value, 0), axis=0))
        tl.atomic_add(sums + _WINDOWS + at, tl.sum(tl.where(inside, signed, 0), axis=0))
        at -= 1


@triton.jit
def _mean(sums, count):
    total = tl.load(sums).to(tl.float64) * 1.401298464324817e-45  # 2^-149
    factor = tl.full((), 1.401298464324817e-45, tl.float64)
    for window in tl.static_range(1, _WINDOWS):
        factor *= _STEP
        total += tl.load(sums + window).to(tl.float64) * factor
    return (total / count).to(tl.float32)


@triton.jit
def _means(sums, means, count):
    """means float32 [2]: mean |w| clamped at 1e-5, and mean w. One program."""
    tl.store(means, tl.maximum(_mean(sums, count), _EPS))
    tl.store(means + 1, _mean(sums + _WINDOWS, count))


@triton.jit
def _weight_codes(weight, means, codes, codes_t, scales, N, K, WIDTH, ROWS, TOTAL, BINARY: tl.constexpr,
                  SCALE: tl.constexpr, TILE: tl.constexpr):
    """Codes of a tile [TILE, TILE] of weight [N, K] into codes [., WIDTH] and, transposed, codes_t [K, TOTAL].

    WIDTH and ROWS are K and N with the zeros behind them.
    """
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    k = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = (n < N)[:, None] & (k < K)[None, :]
    n64, k64 = n.to(tl.int64), k.to(tl.int64)
    w = tl.load(weight + n64[:, None] * K + k64[None, :], mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(means)
    if BINARY:
        code = tl.where(w > tl.load(means + 1), 1, -1).to(tl.int8)
    else:
        # Clamped first, which rounding does not undo, so that the rounding trick sees small values only.
        ratio = tl.minimum(tl.maximum(w * tl.div_rn(1.0, scale), -1.0), 1.0)
        code = ((ratio + _ROUND) - _ROUND).to(tl.int8)
    code = tl.where(inside, code, 0)
    tl.store(codes + n64[:, None] * WIDTH + k64[None, :], code, mask=(n < N)[:, None] & (k < WIDTH)[None, :])
    tl.store(codes_t + k64[:, None] * TOTAL + n64[None, :], tl.trans(code),
             mask=(k < K)[:, None] & (n < ROWS)[None, :])
    if tl.program_id(1) == 0:
        tl.store(scales + n, rounded(scale + tl.zeros([TILE], tl.float32), SCALE).to(tl.float32), mask=n < N)


@triton.jit
def _quantise_tokens(x, gain, codes, scales, rstds, eps, K: tl.constexpr, WIDTH: tl.constexpr, NORM: tl.constexpr,
                     GAIN: tl.constexpr, BLOCK: tl.constexpr):
    """One token a program: RMSNorm, times gain, absmax, in float32 and in one pass over memory; WIDTH is K'."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    y = tl.load(x + row * K + k, mask=k < K, other=0.0).to(tl.float32)
    if NORM:
        y, rstd = rms_normed(y, K, eps)
        tl.store(rstds + row, rstd)
    if GAIN:
        y = y * tl.load(gain + k, mask=k < K, other=0.0).to(tl.float32)
    code, scale = absmax_codes(y)
    tl.store(codes + row * WIDTH + k, code.to(tl.int8), mask=k < WIDTH)
    tl.store(scales + row, scale)


@triton.jit
def _norm_backward(grad, x, gain, rstds, grad_x, partial, M, K: tl.constexpr, ROWS: tl.constexpr,
                   BLOCK: tl.constexpr):
    """Gradient of x for ROWS tokens a program, and the program's share [K] of the gain's gradient."""
    k = tl.arange(0, BLOCK)
    inside = k < K
    of_gain = tl.zeros([BLOCK], tl.float32)
    for i in range(ROWS):
        row = tl.program_id(0).to(tl.int64) * ROWS + i
        here = inside & (row < M)
        g = tl.load(grad + row * K + k, mask=here, other=0.0).to(tl.float32)
        rstd = tl.load(rstds + row, mask=row < M, other=0.0)
        normed = tl.load(x + row * K + k, mask=here, other=0.0).to(tl.float32) * rstd
        of_gain += g * normed
        # Loaded for each row, from a cache: kept beside the others it would not fit in registers where K is 8640.
        g *= tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)
        mean = tl.sum(g * normed, axis=0) / K
        tl.store(grad_x + row * K + k, rounded((g - normed * mean) * rstd, grad_x.dtype.element_ty), mask=here)
    tl.store(partial + tl.program_id(0).to(tl.int64) * K + k, of_gain, mask=inside)


_SCALE_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def exact_sums(weight: Tensor) -> Tensor:
    """See the twin."""
    if weight.numel() > MOST_VALUES:
        raise ValueError(f"a weight of {weight.numel()} values is too large for exact sums of {MOST_VALUES}")
    sums = torch.zeros(2, WINDOWS, dtype=torch.int64, device=weight.device)
    count = weight.numel()
    if count:
        _exact_sums[(triton.cdiv(count, SUM_BLOCK),)](weight.detach().contiguous(), sums, count, BLOCK=SUM_BLOCK)
    return sums


def means_of_sums(sums: Tensor, count: int) -> Tensor:
    """float32 [2] of exact sums [2, WINDOWS]: the twin `scale_of_sums`, without leaving the device."""
    means = torch.empty(2, dtype=torch.float32, device=sums.device)
    _means[(1,)](sums, means, count)
    return means


def quantise_weights(weights: list[Tensor], linear_type: str,
                     scale_dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """See the twin."""
    inner, total = weights[0].shape[1], sum(w.shape[0] for w in weights)
    width, columns = aligned(inner), sum(aligned(w.shape[0]) for w in weights)
    device = weights[0].device
    codes = torch.empty(total, width, dtype=torch.int8, device=device)
    codes_t = torch.empty(inner, columns, dtype=torch.int8, device=device)
    scales = torch.empty(total, dtype=torch.float32, device=device)
    start = column = 0
    for weight in weights:
        rows = weight.shape[0]
        means = means_of_sums(exact_sums(weight), weight.numel())
        grid = (triton.cdiv(rows, TILE), triton.cdiv(inner, TILE))
        _weight_codes[grid](weight.detach().contiguous(), means, codes[start:], codes_t[:, column:], scales[start:],
                            rows, inner, width, aligned(rows), columns, BINARY=linear_type == "binary",
                            SCALE=_SCALE_TYPES[scale_dtype], TILE=TILE, enable_fp_fusion=False)
        start, column = start + rows, column + aligned(rows)
    return codes, codes_t, scales


def _warps(block: int) -> int:
    # 32 values of a row a thread: what `_norm_backward` keeps of them fits in registers, where 32 warps would spill.
    return min(16, max(1, block // 1024))


def quantise_tokens(x: Tensor, gain: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """See the twin."""
    tokens, inner = x.shape
    width = aligned(inner)
    codes = torch.empty(tokens, width, dtype=torch.int8, device=x.device)
    scales = torch.empty(tokens, dtype=torch.float32, device=x.device)
    rstd = None if eps is None else torch.empty_like(scales)
    if tokens:
        block = triton.next_power_of_2(width)
        _quantise_tokens[(tokens,)](x, x if gain is None else gain, codes, scales, scales if rstd is None else rstd,
                                    eps or 0.0, K=inner, WIDTH=width, NORM=eps is not None, GAIN=gain is not None,
                                    BLOCK=block, num_warps=_warps(block), enable_fp_fusion=False)
    return codes, scales, rstd


def norm_backward(grad: Tensor, x: Tensor, gain: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """See the twin. The shares of the gain's gradient are added in one order, so the result is repeatable."""
    tokens, inner = x.shape
    grad_x = torch.empty_like(x)
    programs = triton.cdiv(tokens, NORM_ROWS)
    partial = torch.empty(programs, inner, dtype=torch.float32, device=x.device)
    if tokens:
        block = triton.next_power_of_2(inner)
        _norm_backward[(programs,)](grad, x, gain, rstd, grad_x, partial, tokens, K=inner, ROWS=NORM_ROWS,
                                    BLOCK=block, num_warps=_warps(block))
    return grad_x, partial.sum(dim=0)
