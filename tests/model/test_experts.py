"""Experts in PyTorch: the sparse feed-forward against transformers' Qwen2-MoE block, choice, balance and gradients."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import Qwen2MoeConfig
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

from tritwise.config import ModelConfig
from tritwise.model import Decoder, RMSNorm, SparseFeedForward, choose_experts, load_balancing_loss

SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
KINDS = [
    {"model_type": "bitnet", "linear_type": "ternary", "shared_expert_intermediate_size": 40},
    {"model_type": "bitnet", "linear_type": "binary", "hidden_act": "relu2", "norm_topk_prob": True},
    {"model_type": "llama", "linear_type": "dense", "shared_expert_intermediate_size": 16},
    {"model_type": "llama", "linear_type": "ternary", "norm_topk_prob": True},
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(**changes) -> Decoder:
    model = Decoder(ModelConfig(**(SIZES | changes)))
    model.initialise(generator())
    return model


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("experts", "k"), [(6, 2), (5, 5), (1, 1), (8, 1)])
def test_the_dense_block_is_that_of_transformers(experts, k, normalise):
    settings = {"hidden_size": 32, "num_experts": experts, "num_experts_per_tok": k, "moe_intermediate_size": 24,
                "shared_expert_intermediate_size": 40, "norm_topk_prob": normalise}
    theirs = Qwen2MoeSparseMoeBlock(Qwen2MoeConfig(num_attention_heads=4, **settings))
    ours = SparseFeedForward(ModelConfig(**(SIZES | settings), model_type="llama", linear_type="dense"))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3, generator=generator(parameter.numel()))
        state = dict(theirs.state_dict())
        gate_up, down = state.pop("experts.gate_up_proj"), state.pop("experts.down_proj")
        for expert in range(experts):
            gate, up = gate_up[expert].chunk(2)
            state |= {f"experts.{expert}.gate_proj.weight": gate, f"experts.{expert}.up_proj.weight": up,
                      f"experts.{expert}.down_proj.weight": down[expert]}
        ours.load_state_dict(state)
        x = torch.randn(3, 11, 32, generator=generator(5))
        norm = RMSNorm(32, 1e-6)
        expected = theirs(norm(x))
        torch.testing.assert_close(ours(x, norm)[0], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_among_equal_logits_the_lowest_ids_are_chosen():
    ids, weights = choose_experts(torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0]]), 4, False)
    assert ids.tolist() == [[1, 2, 3, 0]]
    torch.testing.assert_close(weights, torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0]]).softmax(-1)[:, [1, 2, 3, 0]])
    assert float(choose_experts(torch.randn(9, 5, generator=generator()), 3, True)[1].sum()) == pytest.approx(9)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_balancing_loss_is_that_of_transformers(k):
    logits = [torch.randn(40, 5, generator=generator(seed)) * 3 for seed in range(3)]
    theirs = load_balancing_loss_func(tuple(logits), num_experts=5, top_k=k)
    torch.testing.assert_close(load_balancing_loss(logits, k), theirs)


def test_the_balancing_loss_is_k_when_even_and_k_times_experts_when_all_go_to_the_same():
    even = torch.eye(4).repeat(5, 1) * 50
    assert float(load_balancing_loss([even], 1)) == pytest.approx(1)
    assert float(load_balancing_loss([torch.tensor([[50.0, 0, 0, 0]]).repeat(9, 1)], 1)) == pytest.approx(4)


@pytest.mark.parametrize("changes", KINDS)
def test_state_dict_has_the_names_and_shapes_of_the_configuration(changes):
    model = small(**changes)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == model.config.tensor_shapes()
    assert sum(p.numel() for p in model.parameters()) == model.config.parameter_count().total


@pytest.mark.parametrize("changes", KINDS)
def test_what_was_used_gets_a_finite_gradient_and_the_router_with_it_and_the_others_get_zero(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (4, 24), generator=generator(1))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    logits: list[torch.Tensor] = []
    model.hidden(ids[:, :-1], logits)
    used = [set(choose_experts(each, 2, False)[0].flatten().tolist()) for each in logits]
    assert len(used) == 2
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            layer, expert = int(name.split(".")[2]), int(name.split(".")[5])
            unused = expert not in used[layer]
        else:
            unused = False
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad.abs().max() == 0) == unused, name


@pytest.mark.parametrize("changes", KINDS)
def test_experts_that_no_token_chose_change_no_output(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (1, 2), generator=generator(1))  # at most 4 of 6 experts
    with torch.no_grad():
        without = model(ids)
    np.testing.assert_array_equal(model(ids).detach(), without)


def test_the_balance_of_the_whole_batch_is_the_mean_of_its_shares_that_add_up_their_counts():
    whole = torch.randn(40, 5, generator=generator(1)) * 3
    shares = whole.split(20)
    counts = [torch.bincount(choose_experts(share, 2, False)[0].flatten(), minlength=5) for share in shares]
    apart = [load_balancing_loss([share], 2, lambda own, i=i: own + counts[1 - i]) for i, share in enumerate(shares)]
    torch.testing.assert_close(sum(apart) / 2, load_balancing_loss([whole], 2))
    alone = [load_balancing_loss([share], 2) for share in shares]
    assert abs(float(sum(alone) / 2 - load_balancing_loss([whole], 2))) > 1e-3


def test_the_balancing_loss_is_added_on_request_and_moves_the_router_only_through_it():
    model = small(**KINDS[2])
    ids = torch.randint(0, 61, (4, 24), generator=generator(1))
    logits: list[torch.Tensor] = []
    model.hidden(ids[:, :-1], logits)
    plain = model.loss(ids[:, :-1], ids[:, 1:])
    both = model.loss(ids[:, :-1], ids[:, 1:], balance=0.25)
    torch.testing.assert_close(both - plain, 0.25 * load_balancing_loss(logits, 2), rtol=1e-4, atol=1e-6)
    for layer in model.model.layers:
        layer.mlp.gate.weight.data.normal_(std=0.5, generator=generator(2))  # far from even
    balances = []
    for _ in range(60):  # steps on the balance alone spread the tokens
        logits = []
        model.hidden(ids[:, :-1], logits)
        loss = load_balancing_loss(logits, 2)
        balances.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.gate.weight -= 0.5 * layer.mlp.gate.weight.grad
    assert balances[0] > 2.2
    assert 1.99 <= balances[-1] < 2.1


@pytest.mark.parametrize("changes", KINDS)
def test_later_tokens_and_batch_mates_cannot_change_earlier_logits(changes):
    model = small(**changes)
    ids = torch.randint(0, 61, (2, 12), generator=generator(1))
    other = ids.clone()
    other[0, 7:] = (other[0, 7:] + 1) % 61
    with torch.no_grad():
        # A row of a float32 product may be summed in another order among other rows, so not to the bit.
        torch.testing.assert_close(model(ids)[0, :7], model(other)[0, :7], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(ids)[1], model(ids[1:])[0], rtol=1e-4, atol=1e-5)


def test_training_a_tiny_model_with_experts_lowers_the_loss():
    model = small(**KINDS[0])
    ids = torch.arange(61).repeat(4)[:160].view(4, 40)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(30):
        loss = model.loss(ids[:, :-1], ids[:, 1:], balance=0.01)
        first = loss.item() if first is None else first
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    assert F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item() < first / 2
