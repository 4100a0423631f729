"""The training kernels at the widths of BitNet b1.58's models (arXiv 2402.17764) and at odd ones, against their twins.

1.3B has 5460 intermediate channels, a multiple of 4 only; 3B has 3200 hidden ones, in 32 heads of 100.
"""

import pytest
import torch

from tritwise.kernels import training, training_linear, training_products, training_twins
from tritwise.model.bitlinear import bit_linear

# Outputs of the linears that share an input, and inputs: few outputs for many inputs and the other way round, so that
# every odd width of the models is both, and the interpreter is done in seconds.
SHAPES = {"1.3B down": ([20], 5460), "1.3B up": ([5460, 12], 20), "3B": ([100], 3200), "3B up": ([3200, 20, 20], 20),
          "odd": ([17, 1, 33], 131)}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "inner"), SHAPES.values(), ids=SHAPES)
def test_every_kernel_equals_its_twin(rows, inner):
    tokens, total = 5, sum(rows)
    weights = [0.02 * normal(count, inner, seed=i) for i, count in enumerate(rows)]
    x, gain = normal(tokens, inner, seed=7), 1 + 0.1 * normal(inner, seed=8)
    grad = normal(tokens, total, seed=9)
    quantised = training.quantise_weights(weights, "ternary", torch.float16)
    for got, twin in zip(quantised, training_twins.quantise_weights(weights, "ternary", torch.float16), strict=True):
        torch.testing.assert_close(got, twin, rtol=0, atol=0)
    codes, codes_t, scales = quantised
    x_codes, x_scale, rstd = training.quantise_tokens(x, gain, 1e-5)
    twin_codes, twin_scale, _ = training_twins.quantise_tokens(x, gain, 1e-5, rstd)
    torch.testing.assert_close(x_codes, twin_codes, rtol=0, atol=0)
    torch.testing.assert_close(x_scale, twin_scale, rtol=0, atol=0)
    y = training_products.product(x_codes, x_scale, codes, scales, torch.float32)
    twin = training_twins.product(x_codes, x_scale, codes, scales, torch.float32)
    torch.testing.assert_close(y, twin, rtol=0, atol=0)
    # Sums of as many products as there are outputs, tokens or inputs, in float32 and in another order each time, and a
    # handful of roundings beside them. A norm's gradient is a difference: its terms are larger than what is left.
    for got, expected, terms in (
            (training_products.input_gradient(grad, codes_t, scales, rows),
             training_twins.input_gradient(grad, codes_t, scales, rows), total),
            (training_products.weight_gradient(grad, x_codes, x_scale, inner),
             training_twins.weight_gradient(grad, x_codes, x_scale, inner), tokens),
            *((a, b, inner) for a, b in zip(training.norm_backward(y[:, :1] * x, x, gain, rstd),
                                            training_twins.norm_backward(y[:, :1] * x, x, gain, rstd), strict=True))):
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 2 * (terms + 32) * 2.0**-24 * expected.abs().max()


@pytest.mark.parametrize("name", ["1.3B up", "3B", "odd"])
def test_a_linear_has_the_outputs_and_gradients_of_the_cpu(name):
    rows, inner = SHAPES[name]
    leaves = [normal(1, 3, inner), 1 + 0.1 * normal(inner, seed=3),
              *(normal(count, inner, seed=10 + i) for i, count in enumerate(rows))]
    upstream = [normal(1, 3, count, seed=20 + i) for i, count in enumerate(rows)]
    results = []
    for call in (training_linear.bit_linear, bit_linear):
        x, gain, *weights = (leaf.clone().requires_grad_() for leaf in leaves)
        outputs = call(x, weights, "ternary", gain=gain, eps=1e-5, scale_dtype=torch.float32)
        torch.autograd.backward(outputs, upstream)
        results.append([*(y.detach() for y in outputs), x.grad, gain.grad, *(weight.grad for weight in weights)])
    for got, expected in zip(*results, strict=True):
        assert got.shape == expected.shape
        # The widest sum, through the product and the norm.
        assert (got - expected).abs().max() <= 4 * max(inner, sum(rows)) * 2.0**-24 * expected.abs().max()
