"""Sampling on the device: the token that `tritwise.engine.sampling` would draw from the same logits.

    best_of         the likeliest token, which is greedy's, and the largest logit      (head.py)
    weigh_blocks    a double for each token: e^((l - max) / T)                         (draws.py)
    add, narrow     the logit at which top-k and top-p cut, and which of its equals    (cuts.py)
    cut_blocks      what is behind the cut, and below min-p, weighs nothing            (cuts.py)
    draw_rows       the token, by rising id                                            (draws.py)

Every setting of temperature, top-k, top-p, min-p and seed, for any vocabulary; the rows of one batch may differ.
Top-p's masses are whole numbers on both sides, weights and their sums doubles in one order, so the token is the core's.
Penalties, biases and masks come before (adjustments.py); a caller that has them on the host only has to draw there.

`sample_rows` can be captured in a CUDA graph. All settings are read from tensors, so they may change between replays.
Before the capture: call it once with the very tensors of the graph (a kernel is compiled for the alignment of each
pointer, and loading one is not allowed in a capture), with the same `draws`, `top_k` and `top_p`. What it allocates, a
few bytes a row, is the graph's.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tritwise.kernels.head import HeadRoom, best_of

_AT_ONCE = 16
_BLOCK = 256           # weights that are added up together
_DIGIT_BLOCK = 1024    # logits a program of the selection reads


@dataclass(frozen=True)
class RowSettings:
    """The settings of each row; a captured graph keeps the tensors and gets new contents."""

    inverse_temperature: Tensor  # float64 [m]; 0 for greedy
    top_k: Tensor                # int32 [m], 0: off
    top_p: Tensor                # float64 [m]
    min_p: Tensor                # float64 [m]
    seed: Tensor                 # int64 [m], the bits of the unsigned seed


def row_settings(rows: Sequence[tuple[float, int, float, float, int]], vocab: int,
                 device: torch.device | str = "cpu") -> RowSettings:
    """Of (temperature, top_k, top_p, min_p, seed) a row, each as `tritwise.engine.Sampling` allows."""
    temperature, top_k, top_p, min_p, seed = (list(column) for column in zip(*rows, strict=True))
    # A temperature so small that its inverse overflows: as in the core.
    inverse = [min(1 / t, sys.float_info.max) if t > sys.float_info.min / 4 else sys.float_info.max * (t > 0)
               for t in temperature]
    doubles = (torch.tensor(column, dtype=torch.float64, device=device) for column in (inverse, top_p, min_p))
    inverse_temperature, top_p, min_p = doubles
    return RowSettings(inverse_temperature,
                       torch.tensor([k if k < vocab else 0 for k in top_k], dtype=torch.int32, device=device), top_p,
                       min_p, torch.tensor([each - (1 << 64) * (each >> 63) for each in seed], device=device))


@dataclass(frozen=True)
class DrawRoom:
    """What a call works in; made once and kept by captured graphs. 8.1 bytes a token and 160 KiB a row."""

    weights: Tensor  # float64 [m, vocab]
    sums: Tensor     # float64 [m, blocks], of 256 weights each
    cuts: Tensor     # int64 [m, 4], of cuts.py
    bins: Tensor     # int64 [m, stages, 2, bins], of cuts.py


def draw_room(rows: int, vocab: int, device: torch.device | str = "cpu") -> DrawRoom:
    """Room for `rows` rows."""
    from tritwise.kernels.cuts import BINS, STAGES

    double, whole = {"dtype": torch.float64, "device": device}, {"dtype": torch.int64, "device": device}
    return DrawRoom(torch.empty(rows, vocab, **double), torch.empty(rows, -(-vocab // _BLOCK), **double),
                    torch.empty(rows, 4, **whole), torch.empty(rows, STAGES, 2, BINS, **whole))


def mass_scale(vocab: int) -> float:
    """Units of mass in a weight of 1: 2^44, less beyond 2^18 tokens, so that the sum of all is at most 2^62."""
    return 2.0 ** min(44, 62 - (vocab - 1).bit_length())


def sample_rows(logits: Tensor, how: RowSettings, positions: Tensor, head: HeadRoom, room: DrawRoom, drawn: Tensor, *,
                draws: bool = True, top_k: bool = True, top_p: bool = True) -> None:
    """Tokens int32 [m] into `drawn` from logits float32 [m, vocab]; -1 where the largest is NaN or infinite.

    `positions` int64 [m] are those of the tokens to draw. What a captured graph leaves out, so that its rows must not
    have it: `draws` any temperature above 0, `top_k` and `top_p` these cuts.
    """
    from tritwise.kernels import draws as kernels

    m, vocab = logits.shape
    best_of(logits, head, drawn)
    if not draws:
        return
    blocks = room.sums.shape[1]
    random = (how.inverse_temperature > 0) & (drawn >= 0)
    listed = (random & (how.top_k > 0) & (how.top_k < vocab)).to(torch.int32)
    nucleus = (random & (how.top_p < 1)).to(torch.int32)
    cut, random = listed | nucleus, random.to(torch.int32)
    programs = m, -(-blocks // kernels.GROUP)
    sizes = {"BLOCK": kernels.BLOCK, "LANES": kernels.LANES, "GROUP": kernels.GROUP}
    kernels.weigh_blocks[programs](logits, head.largest, how.inverse_temperature, how.min_p, room.weights, room.sums,
                                   random, cut, vocab, blocks, num_warps=4, enable_fp_fusion=False, **sizes)
    if top_k or top_p:
        _cut_rows(logits, how, room, listed, nucleus, cut, top_k=top_k, top_p=top_p)
    kernels.draw_rows[m,](room.weights, room.sums, how.seed, positions, drawn, random, vocab, blocks,
                          BLOCK=kernels.BLOCK, AT_ONCE=_AT_ONCE, num_warps=1, enable_fp_fusion=False)


def _cut_rows(logits: Tensor, how: RowSettings, room: DrawRoom, listed: Tensor, nucleus: Tensor, cut: Tensor, *,
              top_k: bool, top_p: bool) -> None:
    """Weights behind the cut become 0: top-k of the `listed` rows, top-p of those in `nucleus`, min-p of both."""
    from tritwise.kernels import cuts as kernels
    from tritwise.kernels import draws

    m, vocab = logits.shape
    blocks, bits = room.sums.shape[1], [each for _, each in kernels.DIGITS]
    sizes = {"STAGES": kernels.STAGES, "BINS": kernels.BINS}
    room.bins.zero_()

    def add(wanted: Tensor, digit: int, stage: int, *, counts: bool) -> None:
        shift, width = kernels.DIGITS[digit]
        kernels.add_digits[m, -(-vocab // _DIGIT_BLOCK)](
            logits, room.weights, room.cuts, wanted, room.bins, vocab, SHIFT=shift, BITS=width, STAGE=stage,
            COUNTS=counts, MASSES=top_p, SCALE=mass_scale(vocab), BLOCK=_DIGIT_BLOCK, num_warps=4,
            enable_fp_fusion=False, **sizes)

    add(cut, 0, 0, counts=top_k)
    if top_k:
        for digit in range(3):
            if digit:
                add(listed, digit, digit, counts=True)
            kernels.narrow_top_k[m,](how.top_k, room.cuts, listed, room.bins, STAGE=digit, BITS=bits[digit],
                                     num_warps=4, **sizes)
    if top_p:
        for digit in range(3):
            stage = digit + 2 if digit else 0
            if digit:
                add(nucleus, digit, stage, counts=digit == 2)
            kernels.narrow_top_p[m,](how.top_p, room.cuts, nucleus, listed, room.bins, STAGE=stage, FIRST=digit == 0,
                                     BITS=bits[digit], num_warps=4, enable_fp_fusion=False, **sizes)
    kernels.cut_blocks[m, -(-blocks // draws.GROUP)](
        logits, room.weights, room.sums, how.min_p, room.cuts, cut, vocab, blocks, BLOCK=draws.BLOCK, LANES=draws.LANES,
        GROUP=draws.GROUP, num_warps=4, enable_fp_fusion=False)
