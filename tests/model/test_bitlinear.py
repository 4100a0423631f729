"""BitLinear in torch against `tritwise.ternary` (forward) and a hand-derived gradient (backward)."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tritwise import ternary
from tritwise.model import RMSNorm, bit_linear, dense_linear
from tritwise.model.bitlinear import quantise_activation, quantise_weight

QUANTISERS = {"ternary": ternary.absmean, "binary": ternary.sign}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (96, 257)])
def test_weight_codes_and_scale_equal_the_reference_exactly(linear_type, shape):
    weight = random(*shape) * 0.02
    codes, scale = quantise_weight(weight, linear_type)
    expected_codes, expected_scale = QUANTISERS[linear_type](weight.numpy())
    np.testing.assert_array_equal(codes.numpy(), expected_codes)
    assert scale.numpy() == expected_scale


def test_activation_codes_and_scales_equal_the_reference_exactly():
    x = random(33, 129) * torch.logspace(-6, 6, 33)[:, None]
    x[3] = 0
    x[4] = 0
    x[4, 7] = 1e30
    codes, scale = quantise_activation(x)
    expected_codes, expected_scale = ternary.absmax(x.numpy())
    np.testing.assert_array_equal(codes.numpy(), expected_codes)
    np.testing.assert_array_equal(scale.numpy(), expected_scale)


@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
def test_the_forward_product_is_the_integer_product_rescaled(linear_type):
    x, weights = random(9, 64), [random(12, 64, seed=1), random(8, 64, seed=2)]
    outputs = bit_linear(x, weights, linear_type)
    for output, weight in zip(outputs, weights, strict=True):
        codes, scale = QUANTISERS[linear_type](weight.numpy())
        # Two float32 multiplications in another order: one unit in the last place each.
        np.testing.assert_allclose(output.numpy(), ternary.bitlinear(x.numpy(), codes, scale), rtol=3e-7)


@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
@pytest.mark.parametrize("with_norm", [False, True])
def test_gradients_equal_the_straight_through_estimator_written_with_detach(linear_type, with_norm):
    """The reference is the published form: x + (quantised(x) - x).detach(), differentiated by autograd."""
    gain = 1 + 0.1 * random(64, seed=3)
    leaves = [random(3, 5, 64), gain, random(12, 64, seed=1), random(8, 64, seed=2)]
    upstream = [random(3, 5, 12, seed=4), random(3, 5, 8, seed=5)]

    def gradients(forward):
        inputs = [leaf.double().clone().requires_grad_() if forward is reference else leaf.clone().requires_grad_()
                  for leaf in leaves]
        outputs = forward(*inputs)
        sum((y * g.to(y.dtype)).sum() for y, g in zip(outputs, upstream, strict=True)).backward()
        return [leaf.grad for leaf in inputs]

    def ours(x, g, *weights):
        return bit_linear(x, list(weights), linear_type, gain=g if with_norm else None, eps=1e-5)

    def reference(x, g, *weights):
        if with_norm:
            x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * g
        codes, scale = quantise_activation(x.detach().float())
        x = x + (codes.double() * scale.double() - x).detach()
        quantised = []
        for w in weights:
            codes, scale = quantise_weight(w.detach(), linear_type)
            quantised.append(w + (codes.double() * scale.double() - w).detach())
        return [F.linear(x, w) for w in quantised]

    for name, got, expected in zip(["x", "gain", "w1", "w2"], gradients(ours), gradients(reference), strict=True):
        if name == "gain" and not with_norm:
            assert got is None
            continue
        # float32 sums of at most 64 products against float64: 64 roundings of 2^-24.
        bound = 64 * 2**-24 * expected.abs().max().item()
        assert (got.double() - expected).abs().max() <= bound, name


def test_the_input_gradient_sees_the_quantised_weight_and_the_weight_gradient_the_quantised_input():
    x, weight = random(4, 16), random(6, 16, seed=1)
    x.requires_grad_()
    weight.requires_grad_()
    (output,) = bit_linear(x, [weight], "ternary")
    upstream = random(4, 6, seed=2)
    output.backward(upstream)
    codes, scale = quantise_weight(weight.detach(), "ternary")
    x_codes, x_scale = quantise_activation(x.detach())
    torch.testing.assert_close(x.grad, upstream @ (codes * scale))
    torch.testing.assert_close(weight.grad, upstream.T @ (x_codes * x_scale))


def test_dense_linear_and_its_gradients_equal_torch():
    x, weights = random(3, 5, 16), [random(6, 16, seed=1), random(4, 16, seed=2)]
    leaves = [t.clone().requires_grad_() for t in (x, *weights)]
    twins = [t.clone().requires_grad_() for t in (x, *weights)]
    ours = dense_linear(leaves[0], leaves[1:])
    theirs = [F.linear(twins[0], w) for w in twins[1:]]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    sum(y.square().sum() for y in ours).backward()
    sum(y.square().sum() for y in theirs).backward()
    for a, b in zip(leaves, twins, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_rms_norm_and_its_gradients_equal_torch():
    norm, x = RMSNorm(48, 1e-5), random(2, 7, 48).requires_grad_()
    with torch.no_grad():
        norm.weight.add_(0.1 * random(48, seed=1))
    twin, gain = x.detach().clone().requires_grad_(), norm.weight.detach().clone().requires_grad_()
    ours, theirs = norm(x), F.rms_norm(twin, (48,), gain, 1e-5)
    torch.testing.assert_close(ours, theirs)
    upstream = random(2, 7, 48, seed=2)
    ours.backward(upstream)
    theirs.backward(upstream)
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.weight.grad, gain.grad, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_within_its_rounding_of_float32():
    x, weight = random(32, 256), random(64, 256, seed=1)
    (exact,) = bit_linear(x, [weight], "ternary")
    (rounded,) = bit_linear(x.bfloat16(), [weight], "ternary")
    # Two codes may differ where bfloat16 input crosses a rounding tie, besides 2^-8 a product and a result.
    scale = exact.abs().max()
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() <= 0.02 * scale
