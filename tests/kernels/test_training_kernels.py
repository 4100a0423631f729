"""Training kernels in the interpreter against their twins in torch, and the twins against the numpy reference."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from tritwise import ternary
from tritwise.kernels import training, training_products, training_twins
from tritwise.model.bitlinear import quantise_weight

EPSILON = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
QUANTISERS = {"ternary": ternary.absmean, "binary": ternary.sign}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def wide(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values over all of float32's range, with zeros and subnormal numbers."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 0x7F000000, shape, dtype=np.uint32) | (rng.integers(0, 2, shape, dtype=np.uint32) << 31)
    values.ravel()[:3] = 0, 1, 0x80000000
    return torch.from_numpy(values.view(np.float32))


@pytest.mark.parametrize("weight", [normal(48, 97) * 0.02, normal(5, 7) * 1e-8, wide(33, 21), normal(1, 1),
                                    normal(64, 80).bfloat16()], ids=["usual", "tiny", "wide", "one", "bfloat16"])
def test_exact_sums_are_exact_and_add_up_over_shards(weight):
    sums = training.exact_sums(weight)
    torch.testing.assert_close(sums, training_twins.exact_sums(weight), rtol=0, atol=0)
    values = [Fraction(value) for value in weight.double().flatten().tolist()]
    for counts, expected in zip(sums.tolist(), (sum(map(abs, values)), sum(values)), strict=True):
        steps = sum(count << (training_twins.WINDOW * at) for at, count in enumerate(counts))
        assert Fraction(steps, 2**149) == expected
    shards = sum(training_twins.exact_sums(shard) for shard in torch.chunk(weight, 4))
    torch.testing.assert_close(sums, shards, rtol=0, atol=0)


@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (70, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_codes_and_scales_equal_the_reference_exactly(linear_type, shape, dtype):
    weights = [(0.02 * normal(*shape, seed=seed)).to(dtype) for seed in range(2)]
    codes, codes_t, scales = training.quantise_weights(weights, linear_type, torch.float16)
    for got, twin in zip((codes, codes_t, scales), training_twins.quantise_weights(weights, linear_type, torch.float16),
                         strict=True):
        torch.testing.assert_close(got, twin, rtol=0, atol=0)
    for number, weight in enumerate(weights):
        rows = slice(number * shape[0], (number + 1) * shape[0])
        expected, scale = QUANTISERS[linear_type](weight.float().numpy())
        np.testing.assert_array_equal(codes[rows, :shape[1]].numpy(), expected)
        beside = number * training_twins.aligned(shape[0])
        np.testing.assert_array_equal(codes_t[:, beside:beside + shape[0]].numpy(), expected.T)
        np.testing.assert_array_equal(scales[rows].numpy(), np.full(shape[0], scale.astype(np.float16), np.float32))


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, 0.5])
def test_weights_of_one_value_are_quantised_as_the_reference_does(value):
    weight = torch.full((3, 4), value)
    codes, _, scales = training.quantise_weights([weight], "ternary")
    expected, scale = ternary.absmean(weight.numpy())
    np.testing.assert_array_equal(codes[:, :4].numpy(), expected)
    assert (codes[:, 4:] == 0).all()
    assert (scales.numpy() == scale).all()


def test_the_exact_scale_rounds_to_that_of_a_float64_sum():
    """A float64 sum of 2^20 values is off by some 2^-51 of itself; float32 halves its steps at 2^-24."""
    for seed in range(300):
        weight = 0.02 * normal(61, 67, seed=seed)
        means = training_twins.scale_of_sums(training_twins.exact_sums(weight), weight.numel())
        codes, scale = quantise_weight(weight, "ternary")
        assert means[0] == scale
        np.testing.assert_array_equal(training_twins.weight_codes(weight, means, "ternary"), codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_codes_and_scales_equal_the_reference_exactly(dtype):
    x = (normal(33, 129) * torch.logspace(-6, 6, 33)[:, None]).to(dtype)
    x[3] = 0
    codes, scales, rstd = training.quantise_tokens(x, None, None)
    expected, expected_scales = ternary.absmax(x.float().numpy())
    np.testing.assert_array_equal(codes[:, :129].numpy(), expected)
    np.testing.assert_array_equal(scales.numpy(), expected_scales[:, 0])
    assert rstd is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_quantiser_equal_the_twin_given_the_same_rstd(dtype):
    x, gain = normal(9, 200, dtype=dtype) * 3, 1 + 0.1 * normal(200, seed=1)
    codes, scales, rstd = training.quantise_tokens(x, gain, 1e-5)
    twin_codes, twin_scales, _ = training_twins.quantise_tokens(x, gain, 1e-5, rstd)
    torch.testing.assert_close(codes, twin_codes, rtol=0, atol=0)
    torch.testing.assert_close(scales, twin_scales, rtol=0, atol=0)
    exact = (x.double().square().mean(dim=-1) + 1e-5).rsqrt()
    # A sum of 200 positive terms, each rounded at most 8 times on its way (a tree), halved by the root, and 4 more.
    assert ((rstd.double() - exact) / exact).abs().max() <= (8 / 2 + 4) * 2.0**-24


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "rows", "inner"), [(1, 8, 16), (130, 72, 144), (33, 130, 257)])
def test_the_forward_product_is_exact(tokens, rows, inner, dtype):
    x_codes, x_scale, _ = training.quantise_tokens(normal(tokens, inner), None, None)
    w_codes, _, w_scale = training.quantise_weights([normal(rows, inner, seed=1)], "ternary")
    y = training_products.product(x_codes, x_scale, w_codes, w_scale, dtype)
    expected = ternary.product.matmul(x_codes.numpy(), w_codes.numpy())
    expected = torch.from_numpy(expected.astype(np.float32)) * (x_scale[:, None] * w_scale)
    torch.testing.assert_close(y, expected.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(y, training_twins.product(x_codes, x_scale, w_codes, w_scale, dtype), rtol=0, atol=0)


def excess(got: torch.Tensor, expected: torch.Tensor, magnitude: torch.Tensor, terms: int, dtype: torch.dtype) -> float:
    """The largest |got - expected| over the roundings of a float32 sum of `terms` products and of the result."""
    assert got.shape == expected.shape
    bound = magnitude * terms * 2.0**-24 + expected.abs() * EPSILON[dtype]
    error = (got.double() - expected).abs()
    return torch.where(error == 0, 0.0, error / bound).max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [[72], [40, 33], [64, 16, 24]], ids=str)
def test_the_input_gradient_goes_through_codes_and_scales_of_each_part(rows, dtype):
    tokens, inner = 37, 136
    weights = [normal(count, inner, seed=count) * (1 + i) for i, count in enumerate(rows)]
    codes, codes_t, scales = training.quantise_weights(weights, "ternary")
    grad = normal(tokens, sum(rows), seed=9, dtype=dtype)
    got = training_products.input_gradient(grad, codes_t, scales, rows)
    weight = codes[:, :inner].double() * scales[:, None]
    expected, magnitude = grad.double() @ weight, grad.double().abs() @ weight.abs()
    assert excess(got, expected, magnitude, sum(rows) + 3, dtype) <= 1 + 1e-6
    twin = training_twins.input_gradient(grad, codes_t, scales, rows)
    assert excess(twin, expected, magnitude, sum(rows) + 3, dtype) <= 1 + 1e-6


def test_the_input_gradient_with_an_int8_upstream_is_exact():
    rows, inner = [40, 33], 72
    codes, codes_t, scales = training.quantise_weights([normal(n, inner, seed=n) for n in rows], "ternary")
    grad = normal(19, sum(rows), seed=9)
    grad_codes, grad_scale, _ = training.quantise_tokens(grad, scales, None)
    beside = training_twins.without_gaps(codes_t, rows)
    got = training_products.product(grad_codes, grad_scale, beside, torch.ones(inner), torch.float32)
    torch.testing.assert_close(got, training_twins.input_gradient_int8(grad, codes_t, scales, rows), rtol=0, atol=0)
    exact = (grad * scales).double() @ codes[:, :inner].double()
    # Each of 73 codes is off by at most half a step.
    assert ((got.double() - exact).abs() <= 0.51 * grad_scale[:, None] * codes_t.double().abs().sum(1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "rows", "inner"), [(1, 8, 16), (150, 72, 136)])
def test_the_weight_gradient_sees_the_quantised_input(tokens, rows, inner, dtype):
    x_codes, x_scale, _ = training.quantise_tokens(normal(tokens, inner), None, None)
    grad = normal(tokens, rows, seed=2, dtype=dtype)
    x_hat = (x_codes[:, :inner] * x_scale[:, None]).to(dtype).double()
    for gradient in (training_products.weight_gradient, training_twins.weight_gradient):
        got = gradient(grad, x_codes, x_scale, inner)
        assert excess(got, grad.double().T @ x_hat, grad.double().abs().T @ x_hat.abs(), tokens,
                      torch.float32) <= 1 + 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norms_backward_equals_its_twin(dtype):
    x, grad = normal(37, 100, dtype=dtype), normal(37, 100, seed=1, dtype=dtype)
    gain = 1 + 0.1 * normal(100, seed=2)
    _, _, rstd = training.quantise_tokens(x, gain, 1e-5)
    got_x, got_gain = training.norm_backward(grad, x, gain, rstd)
    leaf, weight = x.double().requires_grad_(), gain.double().requires_grad_()
    torch.nn.functional.rms_norm(leaf, (100,), weight, 1e-5).backward(grad.double())
    for gradient in ((got_x, got_gain), training_twins.norm_backward(grad, x, gain, rstd)):
        # Sums of at most 100 terms, and a handful of roundings beside them, of values no larger than the largest.
        assert (gradient[0].double() - leaf.grad).abs().max() <= leaf.grad.abs().max() * (
            EPSILON[dtype] + 110 * 2.0**-24)
        assert (gradient[1].double() - weight.grad).abs().max() <= 110 * 2.0**-24 * 37 * 4


def test_no_tokens_give_empty_products_and_a_gradient_of_zero():
    codes, codes_t, scales = training.quantise_weights([normal(8, 16)], "ternary")
    x_codes, x_scale, rstd = training.quantise_tokens(torch.empty(0, 16), torch.ones(16), 1e-5)
    grad = torch.empty(0, 8)
    assert training_products.product(x_codes, x_scale, codes, scales, torch.float32).shape == (0, 8)
    assert training_products.input_gradient(grad, codes_t, scales, [8]).shape == (0, 16)
    assert training_products.weight_gradient(grad, x_codes, x_scale, 16).eq(0).all()
    grad_x, grad_gain = training.norm_backward(torch.empty(0, 16), torch.empty(0, 16), torch.ones(16), rstd)
    assert grad_x.shape == (0, 16)
    assert grad_gain.eq(0).all()
