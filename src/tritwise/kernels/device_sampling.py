"""Sampling on the device: the token that `tritwise.engine.sampling` would draw from the same logits.

On the device: greedy; temperature, with min-p; temperature with top-k up to 256, and then top-p and min-p behind it.
Through the host, because their sums depend on an order that a row of logits does not have: top-p without top-k, larger
top-k. Penalties, biases and bit masks are on the device where the caller has them there (adjustments.py). `on_device`
says which; the rows of one batch may differ.

`sample_rows` can be captured in a CUDA graph. All settings are read from tensors, so they may change between replays.
Before the capture: call it once with the very tensors of the graph (a kernel is compiled for the alignment of each
pointer, and loading one is not allowed in a capture), with the same `draws` and `lists`. What it allocates, 1 KB a
listed row and a few bytes else, is the graph's.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tritwise.kernels.head import HeadRoom, best_of

MOST_TOP_K = 256
_AT_ONCE = 16
_READ_AT_ONCE = 4096  # logits a program of the selection reads at once


def on_device(*, temperature: float, top_k: int, top_p: float, looks_back: bool = False, biased: bool = False,
              masked: bool = False, adjusts: bool = False) -> bool:
    """Whether these settings (of `tritwise.engine.Sampling`) can be followed without the host.

    `adjusts`: the caller has penalties, biases and masks on the device (adjustments.py).
    """
    if (looks_back or biased or masked) and not adjusts:
        return False
    return temperature == 0 or (top_k == 0 and top_p == 1) or 0 < top_k <= MOST_TOP_K


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
    """Of (temperature, top_k, top_p, min_p, seed) a row, each as `on_device` allows."""
    temperature, top_k, top_p, min_p, seed = (list(column) for column in zip(*rows, strict=True))
    for values in zip(temperature, top_k, top_p, strict=True):
        assert on_device(temperature=values[0], top_k=values[1] if values[1] < vocab else 0, top_p=values[2]), values
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
    """Weights float64 [m, vocab] and their sums [m, blocks] of 256; the same of the first 256 tokens."""

    weights: Tensor
    sums: Tensor
    first: Tensor
    first_sums: Tensor


def draw_room(rows: int, vocab: int, device: torch.device | str = "cpu") -> DrawRoom:
    """Room for `rows` rows."""
    double = {"dtype": torch.float64, "device": device}
    return DrawRoom(torch.empty(rows, vocab, **double), torch.empty(rows, -(-vocab // 256), **double),
                    torch.empty(rows, MOST_TOP_K, **double), torch.empty(rows, **double))


def sample_rows(logits: Tensor, how: RowSettings, positions: Tensor, head: HeadRoom, room: DrawRoom, drawn: Tensor, *,
                draws: bool = True, lists: bool = True) -> None:
    """Tokens int32 [m] into `drawn` from logits float32 [m, vocab]; -1 where the largest is NaN or infinite.

    `positions` int64 [m] are those of the tokens to draw. What a captured graph leaves out: `draws` any temperature
    above 0, `lists` any top-k.
    """
    from tritwise.kernels import draws as kernels

    m, vocab = logits.shape
    best_of(logits, head, drawn)
    if not draws:
        return
    blocks = room.sums.shape[1]
    random = (how.inverse_temperature > 0) & (drawn >= 0)
    listing = (how.top_k > 0) & (how.top_k < vocab)
    plain = (random & ~listing).to(torch.int32)
    once = {"BLOCK": kernels.BLOCK, "LANES": kernels.LANES}
    ends = {"BLOCK": kernels.BLOCK, "AT_ONCE": _AT_ONCE, "num_warps": 1, "enable_fp_fusion": False}
    kernels.weigh_blocks[m, blocks](logits, head.largest, how.inverse_temperature, how.min_p, room.weights, room.sums,
                                    plain, vocab, blocks, **once, num_warps=1, enable_fp_fusion=False)
    kernels.draw_rows[m,](room.weights, drawn, drawn, room.sums, how.seed, positions, drawn, plain, vocab, blocks,
                          LISTED=False, **ends)
    if not lists:
        return
    from tritwise.kernels.first_tokens import first_tokens

    listed = (random & listing).to(torch.int32)
    values = torch.empty(m, MOST_TOP_K, dtype=torch.float32, device=logits.device)
    ids, ranks = (torch.empty(m, MOST_TOP_K, dtype=torch.int32, device=logits.device) for _ in range(2))
    first_tokens[m,](logits, how.top_k, listed, values, ids, ranks, vocab, SIZE=MOST_TOP_K, BLOCK=_READ_AT_ONCE,
                     num_warps=_READ_AT_ONCE // 256)
    # min-p comes behind top-p here: cut_first's.
    kernels.weigh_blocks[m, 1](values, head.largest, how.inverse_temperature, torch.zeros_like(how.min_p), room.first,
                               room.first_sums, listed, MOST_TOP_K, 1, **once, num_warps=1, enable_fp_fusion=False)
    kernels.cut_first[m,](room.first, room.first_sums, how.top_p, how.min_p, listed, SIZE=MOST_TOP_K, AT_ONCE=_AT_ONCE,
                          num_warps=1, enable_fp_fusion=False)
    kernels.draw_rows[m,](room.first, ids, ranks, room.sums, how.seed, positions, drawn, listed, MOST_TOP_K, 1,
                          LISTED=True, **ends)
