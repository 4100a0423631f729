"""Activation checkpointing: the same losses and gradients bit for bit, and of each block its input alone is kept."""

import gc

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tritwise.config import ModelConfig
from tritwise.model import Decoder

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
         "max_position_embeddings": 32}
KINDS = {"ternary": {"linear_type": "ternary"}, "dense": {"model_type": "llama", "linear_type": "dense"},
         "experts": {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}}
BATCH, LENGTH = 2, 16


class Live(TorchDispatchMode):
    """Bytes of the storages made inside that are still alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                self._made.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.most = max(self.most, self.now())
        return out

    def now(self) -> int:
        self._made = {key: kept for key, kept in self._made.items() if not kept[0].expired()}
        return sum(size for _, size in self._made.values())


def model_of(recompute: bool, layers: int = 2, **changes) -> tuple[Decoder, torch.Tensor]:
    model = Decoder(ModelConfig(**(SIZES | changes), num_hidden_layers=layers), recompute=recompute)
    model.initialise(torch.Generator().manual_seed(0))
    return model, torch.randint(0, 61, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_losses_and_gradients_are_the_same_bit_for_bit(changes):
    found = []
    for recompute in (False, True):
        model, ids = model_of(recompute, **changes)
        loss = model.loss(ids[:, :-1], ids[:, 1:], balance=0.5)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def kept_and_most(recompute: bool, layers: int) -> tuple[int, int]:
    """Bytes that a forward leaves for its backward, and the most at any time of both."""
    model, ids = model_of(recompute, layers)
    model.hidden(ids[:, :-1])  # makes the rotary tables
    gc.collect()
    with Live() as live:
        states = model.hidden(ids[:, :-1])
        kept = live.now()
        states.square().sum().backward()
    return kept, live.most


def test_a_block_more_keeps_its_input_and_nothing_else():
    (few, _), (many, most), (_, plain) = kept_and_most(True, 2), kept_and_most(True, 6), kept_and_most(False, 6)
    assert many - few == 4 * BATCH * LENGTH * SIZES["hidden_size"] * 4  # float32
    assert most < 0.7 * plain


def test_nothing_is_recomputed_where_there_is_no_gradient(monkeypatch):
    model, ids = model_of(True)
    monkeypatch.setattr("tritwise.model.decoder.checkpoint", None)
    with torch.no_grad():
        assert torch.isfinite(model(ids)).all()
