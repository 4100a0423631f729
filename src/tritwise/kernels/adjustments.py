"""Mask, bias and penalties on the device, in the order and to the bit of `tritwise.engine.sampling`.

    adjust_rows(logits, slots, adjustments, changed)      # in the graph, before
    sample_rows(changed, ...)                             # the draw, and behind it
    count_drawn(drawn, slots, adjustments)                # the draw's own effect on the next one

A sequence's adjustments lie in a slot, so a captured graph follows it whatever row it is in, and new contents need no
new capture. `set_slot` writes them from the host, outside the graph; `set_mask` a mask alone, before each step of a
constrained sequence. A slot is in one row at most where something is counted. The log probabilities of a token are
those of `logits`, which stay as they were.

Before the capture: call both functions once with the very tensors of the graph. Nothing is allocated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritwise.common.errors import TritwiseError

_BLOCK = 1024
_SEEN = np.int32(-(1 << 31))


@dataclass(frozen=True)
class Adjustments:
    """Of each slot; 8.1 bytes for each of them and token of the vocabulary."""

    on: Tensor         # int32 [slots]; 0: the logits are taken as they are
    masks: Tensor      # int32 [slots, ceil(vocab / 32)], a bit for each allowed token
    biases: Tensor     # float32 [slots, vocab]
    counts: Tensor     # int32 [slots, vocab]: times drawn; bit 31 where prompt or continuation holds the token
    penalties: Tensor  # float32 [slots, 3]: repetition, frequency, presence


def adjustments(slots: int, vocab: int, device: torch.device | str = "cpu") -> Adjustments:
    """For `slots` slots, all of them off."""
    whole = {"dtype": torch.int32, "device": device}
    return Adjustments(torch.zeros(slots, **whole), torch.full((slots, -(-vocab // 32)), -1, **whole),
                       torch.zeros(slots, vocab, device=device), torch.zeros(slots, vocab, **whole),
                       torch.tensor([[1.0, 0.0, 0.0]], device=device).repeat(slots, 1))


def set_slot(of: Adjustments, slot: int, *, bias: Sequence[tuple[int, float]] = (), repetition: float = 1.0,
             frequency: float = 0.0, presence: float = 0.0, history: NDArray[np.int32] | None = None,
             prompt: int = 0) -> None:
    """The adjustments of a slot whose sequence holds the ids `history`, the first `prompt` of them given; no mask.

    Not for captures. Without any of them the slot is off until `set_mask`. Raises TritwiseError for an id outside the
    vocabulary, and for two biases of one id, whose sums the core rounds one after the other.
    """
    vocab = of.biases.shape[1]
    history = np.empty(0, np.int32) if history is None else np.asarray(history, np.int32)
    ids = np.array([id for id, _ in bias], np.int64)
    for name, values in (("logit_bias", ids), ("history", history)):
        outside = values[(values < 0) | (values >= vocab)]
        if len(outside):
            raise TritwiseError(f"{name}: id {outside[0]} is outside the vocabulary")
    if len(np.unique(ids)) < len(ids):
        raise TritwiseError("logit_bias names an id twice", fix="give their sum, or sample through the host")
    counts = np.bincount(history[prompt:], minlength=vocab).astype(np.int32)
    counts[history] |= _SEEN
    biases = np.zeros(vocab, np.float32)
    biases[ids] = [value for _, value in bias]
    of.counts[slot].copy_(torch.from_numpy(counts))
    of.biases[slot].copy_(torch.from_numpy(biases))
    of.masks[slot].fill_(-1)
    of.penalties[slot].copy_(torch.tensor([repetition, frequency, presence]))
    of.on[slot].fill_(int(len(ids) > 0 or (repetition, frequency, presence) != (1.0, 0.0, 0.0)))


def set_mask(of: Adjustments, slot: int, words: NDArray[np.uint32]) -> None:
    """The mask of the next draw in a slot: uint32 [ceil(vocab / 32)] of `tritwise.engine.sampling.mask_words`."""
    of.masks[slot].copy_(torch.from_numpy(words.view(np.int32)))
    of.on[slot].fill_(1)


def adjust_rows(logits: Tensor, slots: Tensor, of: Adjustments, out: Tensor) -> None:
    """Logits float32 [m, vocab] of the rows of `slots` (int32 [m], -1: none) into `out`, which may be `logits`."""
    from tritwise.kernels.adjustment_kernels import adjust_block

    m, vocab = logits.shape
    assert logits.dtype == out.dtype == torch.float32, (logits.dtype, out.dtype)
    assert (out.shape, slots.shape, slots.dtype) == (logits.shape, (m,), torch.int32), (out.shape, slots.shape)
    assert of.biases.shape[1] == vocab, (of.biases.shape, vocab)
    assert all(each.is_contiguous() for each in (logits, slots, out))
    adjust_block[m, -(-vocab // _BLOCK)](logits, out, slots, of.on, of.masks, of.biases, of.counts, of.penalties, vocab,
                                         of.masks.shape[1], BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False)


def count_drawn(drawn: Tensor, slots: Tensor, of: Adjustments) -> None:
    """Counts the tokens int32 [m] that were drawn for the rows of `slots`; -1 in either is nothing."""
    from tritwise.kernels.adjustment_kernels import count_token

    assert drawn.shape == slots.shape, (drawn.shape, slots.shape)
    count_token[len(drawn),](drawn, slots, of.on, of.counts, of.counts.shape[1], num_warps=1)
