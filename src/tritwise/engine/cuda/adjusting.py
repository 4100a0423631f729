"""Masks, biases and penalties of the slots, kept on the device in step with what the scheduler says of each row."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from tritwise.engine.backend import Draw
from tritwise.engine.sampling import History, Sampling
from tritwise.kernels.adjustments import Adjustments, adjustments, set_mask, set_slot


def adjusts(draw: Draw) -> bool:
    """Whether a row's logits are changed before its token is drawn."""
    return draw.mask is not None or draw.how.looks_back or bool(draw.how.logit_bias)


@dataclass
class _Slot:
    """What the device knows of a slot: the settings, and how many ids of the history it has counted."""

    how: Sampling
    history: History | None
    counted: int
    masked: bool


class Adjusting:
    """The adjustments of `slots` slots; their memory is taken when a row first needs some."""

    def __init__(self, slots: int, vocab: int, device: torch.device) -> None:
        self._sizes = slots, vocab, device
        self._slots: dict[int, _Slot] = {}
        self._of: Adjustments | None = None

    @property
    def tensors(self) -> Adjustments:
        """Made once: captured graphs hold them."""
        if self._of is None:
            self._of = adjustments(*self._sizes)
        return self._of

    def prepare(self, slots: list[int], draws: list[Draw | None]) -> bool:
        """Bring the slots of rows up to date before they are drawn; whether any of them is adjusted."""
        found = False
        for slot, draw in zip(slots, draws, strict=True):
            if draw is not None and adjusts(draw):
                found = True
                self._bring(slot, draw)
            elif self._slots.pop(slot, None) is not None:
                set_slot(self.tensors, slot)
        return found

    def _bring(self, slot: int, draw: Draw) -> None:
        how, history, known = draw.how, draw.history, self._slots.get(slot)
        length = 0 if history is None else len(history.ids)
        if known is None or known.how != how or known.history is not history or known.counted != length:
            set_slot(self.tensors, slot, bias=how.logit_bias, repetition=how.repetition_penalty,
                     frequency=how.frequency_penalty, presence=how.presence_penalty,
                     history=None if history is None else history.ids, prompt=0 if history is None else history.prompt)
            known = self._slots[slot] = _Slot(how, history, length, False)
        if draw.mask is not None:
            set_mask(self.tensors, slot, draw.mask)
        elif known.masked:
            set_mask(self.tensors, slot, np.full(self.tensors.masks.shape[1], 0xFFFFFFFF, np.uint32))
        known.masked = draw.mask is not None

    def drew(self, slots: list[int]) -> None:
        """A token was drawn for a row of each slot, and the device has counted it."""
        for slot in slots:
            if slot in self._slots and self._slots[slot].history is not None:
                self._slots[slot].counted += 1

    def forget(self, slots: Iterable[int]) -> None:
        """The device has counted what was never drawn: histories are counted anew when they are needed."""
        for slot in slots:
            if slot in self._slots and self._slots[slot].history is not None:
                self._slots[slot].counted = -1
