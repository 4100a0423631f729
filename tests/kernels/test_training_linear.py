"""BitLinear on the kernels, in the interpreter: equal to the CPU's, quantised once a step, clean for torch.compile."""

import gc
from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tritwise.config import ModelConfig
from tritwise.kernels import training_linear, training_twins
from tritwise.kernels.training_linear import weight_cache
from tritwise.model import Decoder, bit_linear
from tritwise.model.bitlinear import kernels_everywhere
from tritwise.model.packed import PackedWeight

CONFIG = ModelConfig(vocab_size=31, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=True)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(leaves: list[torch.Tensor], upstream: list[torch.Tensor], with_norm: bool, linear_type: str):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    x, gain, *weights = leaves
    outputs = bit_linear(x, weights, linear_type, gain=gain if with_norm else None, scale_dtype=torch.float16)
    torch.autograd.backward(outputs, upstream)
    return [y.detach() for y in outputs], [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
@pytest.mark.parametrize("with_norm", [False, True])
def test_outputs_and_gradients_equal_those_of_the_cpu(linear_type, with_norm):
    leaves = [normal(2, 5, 64), 1 + 0.1 * normal(64, seed=3), normal(12, 64, seed=1), normal(8, 64, seed=2)]
    upstream = [normal(2, 5, 12, seed=4), normal(2, 5, 8, seed=5)]
    outputs, grads = gradients(leaves, upstream, with_norm, linear_type)
    with kernels_everywhere():
        kernel_outputs, kernel_grads = gradients(leaves, upstream, with_norm, linear_type)
    for got, expected in zip(kernel_outputs, outputs, strict=True):
        assert (got - expected).abs().max() <= 4 * 2.0**-24 * expected.abs().max()  # another order of two factors
    for got, expected in zip(kernel_grads, grads, strict=True):
        if expected is None:
            assert got is None
        else:  # float32 sums of at most 64 products, taken twice in another order
            assert (got - expected).abs().max() <= 2 * 64 * 2.0**-24 * expected.abs().max()


@pytest.mark.parametrize("kernels", [False, True])
def test_without_tokens_the_gradients_are_zero(kernels):
    leaves = [normal(0, 64), torch.ones(64), normal(12, 64, seed=1), normal(8, 64, seed=2)]
    with kernels_everywhere() if kernels else nullcontext():
        outputs, grads = gradients(leaves, [normal(0, 12), normal(0, 8)], True, "ternary")
    assert [y.shape for y in outputs] == [(0, 12), (0, 8)]
    assert [(grad.shape, int(grad.count_nonzero())) for grad in grads] == [(leaf.shape, 0) for leaf in leaves]


GROUPS = 4  # q k v; o; gate up; down: what shares an input is quantised together


def small_model(recompute: bool = False) -> Decoder:
    model = Decoder(CONFIG, recompute=recompute)
    model.initialise(torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("recompute", [False, True])
def test_weights_are_quantised_once_a_step_and_again_after_it(recompute, monkeypatch):
    model, blocks = small_model(recompute), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    ids = torch.randint(0, 31, (2, 1, 5), generator=torch.Generator().manual_seed(1))
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: blocks.append(1))
    weight_cache.clear()
    before = weight_cache.quantised
    with kernels_everywhere():
        for step in range(1, 3):
            for micro_batch in ids:
                model.loss(micro_batch[:, :-1], micro_batch[:, 1:]).backward()
            assert weight_cache.quantised - before == GROUPS * step
            optimizer.step()
            optimizer.zero_grad()
    assert len(blocks) == 2 * len(ids) * (1 + recompute)
    assert len(weight_cache) == 0


def turned(model: Decoder) -> dict[str, torch.Tensor]:
    """Other weights: the rows of each in the opposite order."""
    return {name: tensor.flip(0) for name, tensor in model.state_dict().items()}


def write_in_place(model: Decoder) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.flip(0))


def put_others_in_their_place(model: Decoder) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.flip(0)


@pytest.mark.parametrize("change", [
    lambda model: model.load_state_dict(turned(model)), lambda model: model.load_state_dict(turned(model), assign=True),
    write_in_place, put_others_in_their_place], ids=["load", "assign", "in place", "data"])
def test_weights_that_something_else_than_an_optimizer_changed_are_quantised_again(change):
    model, changed = small_model(), small_model()
    write_in_place(changed)
    ids = torch.randint(0, 31, (1, 5), generator=torch.Generator().manual_seed(1))
    weight_cache.clear()
    with kernels_everywhere(), torch.no_grad():
        first, before = model(ids), weight_cache.quantised
        assert model(ids).equal(first)
        assert weight_cache.quantised == before
        change(model)
        second = model(ids)
        assert weight_cache.quantised == before + GROUPS
        weight_cache.clear()
        assert second.equal(changed(ids))
    assert not second.equal(first)


def test_a_backward_with_weights_that_changed_after_its_forward_is_refused():
    model = small_model()
    ids = torch.randint(0, 31, (1, 5), generator=torch.Generator().manual_seed(1))
    with kernels_everywhere():
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        write_in_place(model)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_view_that_reads_the_same_memory_otherwise_has_codes_of_its_own():
    weight_cache.clear()
    weight = normal(8, 8)
    codes, _, _ = weight_cache.get([weight], "ternary", torch.float32)
    other, _, _ = weight_cache.get([weight.T], "ternary", torch.float32)
    assert other[:, :8].equal(codes[:, :8].T)
    assert not other.equal(codes)


def test_codes_follow_the_weight_and_are_forgotten_with_it():
    weight_cache.clear()

    def codes(weight):
        return weight_cache.get([weight], "ternary", torch.float32)[0]

    weight = normal(4, 16)
    first, again = codes(weight), codes(weight.detach())
    weight.neg_()
    negated = codes(weight)
    del weight
    gc.collect()  # the interpreter leaves cycles behind that hold what kernels were given
    other = codes(normal(4, 16, seed=1))
    assert again is first
    assert negated.eq(-first).all()
    assert not other.equal(negated)
    assert len(weight_cache) == 1


def test_a_token_keeps_one_byte_an_input_and_its_own_input_where_a_norm_is_in_front():
    saved = []

    def pack(tensor):
        saved.append((tensor.dtype, tensor.numel() * tensor.element_size()))
        return tensor

    weights = [torch.nn.Parameter(normal(8, 64))]
    for gain, expected in ((None, 64 + 4), (torch.nn.Parameter(torch.ones(64)), 64 + 4 + 2 * 64 + 4)):
        saved.clear()
        x = normal(10, 64).bfloat16().requires_grad_()
        with kernels_everywhere(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            bit_linear(x, weights, "ternary", gain=gain)
        constants = 8 * 64 * 4 + (0 if gain is None else 64 * 4)  # the parameters, which are there anyway
        assert sum(size for _, size in saved) == 10 * expected + constants


@pytest.mark.parametrize("with_norm", [False, True])
def test_the_operator_passes_opcheck(with_norm):
    x, weights = normal(3, 20).requires_grad_(), [normal(4, 20, seed=1).requires_grad_()]
    gain = torch.ones(20).requires_grad_() if with_norm else None
    arguments = (x, gain, weights, 1e-5, "ternary", torch.float32, False)
    results = torch.library.opcheck(torch.ops.tritwise.bit_linear.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


# Dynamo makes an instance of an autograd function to trace it, which torch itself warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kernels", [False, True])
def test_a_block_compiles_as_one_graph_with_the_same_numbers(kernels):
    model = Decoder(CONFIG)
    model.initialise(torch.Generator().manual_seed(0))
    block, (cos, sin) = model.model.layers[0], model._rotary(5)
    x, upstream = normal(1, 5, 32), normal(1, 5, 32, seed=1)

    def run(call):
        block.zero_grad()
        leaf = x.clone().requires_grad_()
        y = call(leaf, cos, sin)
        y.backward(upstream)
        return [y.detach(), leaf.grad, *(p.grad for p in block.parameters())]

    with sdpa_kernel(SDPBackend.MATH):  # one way of attention in both
        if kernels:
            with kernels_everywhere():
                eager, compiled = run(block), run(torch.compile(block, fullgraph=True, backend="aot_eager"))
        else:
            eager, compiled = run(block), run(torch.compile(block, fullgraph=True, backend="aot_eager"))
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_packed_weights_give_the_same_outputs_and_gradients():
    gain, weights = 1 + 0.1 * normal(36, seed=3), [normal(12, 36, seed=1), normal(7, 36, seed=2)]
    upstream = [normal(9, 12, seed=4), normal(9, 7, seed=5)]

    def packed(weight):
        means = training_twins.scale_of_sums(training_twins.exact_sums(weight), weight.numel())
        codes = training_twins.weight_codes(weight, means, "ternary")
        return PackedWeight(training_twins.pack_codes(codes), means, weight.shape)

    results = []
    for kind in (lambda weight: weight.clone(), packed):
        leaves = [normal(9, 36).requires_grad_(), gain.clone().requires_grad_(),
                  *(kind(weight).requires_grad_() for weight in weights)]
        outputs = training_linear.bit_linear(leaves[0], leaves[2:], "ternary", gain=leaves[1], eps=1e-5,
                                             scale_dtype=torch.float32)
        torch.autograd.backward(outputs, upstream)
        results.append([*(y.detach() for y in outputs), *(leaf.grad for leaf in leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_int8_gradient_differs_from_the_exact_one_by_its_rounding_alone():
    x, weight, upstream = normal(9, 36), normal(25, 36, seed=1), normal(9, 25, seed=2)
    grads = []
    for int8_gradient in (False, True):
        leaf = x.clone().requires_grad_()
        (y,) = training_linear.bit_linear(leaf, [weight], "ternary", gain=None, eps=1e-5, scale_dtype=torch.float32,
                                          int8_gradient=int8_gradient)
        y.backward(upstream)
        grads.append(leaf.grad)
    codes, _, scales = training_twins.quantise_weights([weight], "ternary")
    half_a_step = (upstream * scales).abs().amax(1, keepdim=True) / 127 / 2
    assert ((grads[0] - grads[1]).abs() <= 1.001 * half_a_step * codes[:, :36].abs().sum(0)).all()
    assert not grads[0].equal(grads[1])
