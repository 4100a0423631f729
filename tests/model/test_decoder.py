"""The decoder's names, shapes, loss and gradients. Parity with transformers is in tests/parity."""

import pytest
import torch
from torch.nn import functional as F

from tritwise.config import ModelConfig
from tritwise.model import Decoder, linear_cross_entropy

CONFIGS = [
    {"model_type": "bitnet", "linear_type": "ternary", "tie_word_embeddings": True},
    {"model_type": "bitnet", "linear_type": "binary", "hidden_act": "relu2"},
    {"model_type": "llama", "linear_type": "dense"},
    {"model_type": "llama", "linear_type": "ternary", "tie_word_embeddings": True},
    {"model_type": "qwen3", "linear_type": "ternary", "head_dim": 12},
]


def small(**changes) -> Decoder:
    config = ModelConfig(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, **changes)
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("changes", CONFIGS)
def test_state_dict_has_the_names_and_shapes_of_the_configuration(changes):
    model = small(**changes)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == model.config.tensor_shapes()
    assert sum(p.numel() for p in model.parameters()) == model.config.parameter_count().total


@pytest.mark.parametrize("changes", CONFIGS)
def test_loss_is_the_cross_entropy_of_the_logits(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (3, 12), generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(model(ids[:, :-1]).double().flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(model.loss(ids[:, :-1], ids[:, 1:]).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("changes", CONFIGS)
def test_ids_below_zero_are_left_out_of_the_loss_and_change_no_gradient(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(1))
    padded = ids.clone()
    padded[0, 7:] = -1
    model.loss(padded[:, :-1], padded[:, 1:]).backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    # The mean over 6 and 11 targets, each row by itself.
    loss = (6 * model.loss(ids[:1, :6], ids[:1, 1:7]) + 11 * model.loss(ids[1:, :-1], ids[1:, 1:])) / 17
    torch.testing.assert_close(model.loss(padded[:, :-1], padded[:, 1:]), loss, rtol=1e-6, atol=0)
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changes", CONFIGS)
def test_every_parameter_gets_a_finite_gradient(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (3, 12), generator=torch.Generator().manual_seed(1))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("changes", CONFIGS)
def test_later_tokens_cannot_change_earlier_logits(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (1, 12), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 61
    torch.testing.assert_close(model(ids)[:, :7], model(other)[:, :7], rtol=0, atol=0)
    assert not torch.equal(model(ids)[:, 7:], model(other)[:, 7:])


def test_chunked_head_and_loss_have_the_gradients_of_the_plain_ones():
    tokens, hidden, vocab = 2100, 16, 37  # more than two chunks, the last one short
    generator = torch.Generator().manual_seed(0)
    h, w = (torch.randn(n, hidden, generator=generator) for n in (tokens, vocab))
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    ours = [t.clone().requires_grad_() for t in (h, w)]
    plain = [t.clone().double().requires_grad_() for t in (h, w)]
    loss = linear_cross_entropy(*ours, targets)
    expected = F.cross_entropy(plain[0] @ plain[1].T, targets)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    (3 * loss).backward()
    (3 * expected).backward()
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-8)


def test_one_seed_draws_one_model():
    first, second = small(), small()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
