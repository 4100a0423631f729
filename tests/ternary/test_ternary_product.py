"""The integer product against exact arithmetic, and the whole layer against transformers' BitLinear."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers.integrations.bitnet import BitLinear

from tritwise import TritwiseError
from tritwise.ternary import absmean, bitlinear, matmul

SIDES = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 70))


@given(SIDES.flatmap(lambda s: st.tuples(
    hnp.arrays(np.int8, (s[0], s[2]), elements=st.integers(-128, 127)),
    hnp.arrays(np.int8, (s[1], s[2]), elements=st.integers(-1, 1)))))
def test_the_product_equals_torch_and_python_integers(operands):
    x, w = operands
    product = matmul(x, w)
    assert product.dtype == np.int32
    assert product.tolist() == [[sum(a * b for a, b in zip(row, column, strict=True)) for column in w.tolist()]
                                for row in x.tolist()]
    assert np.array_equal(product, (torch.from_numpy(x).long() @ torch.from_numpy(w).long().T).numpy())


def test_the_largest_sum_of_a_long_row_is_exact():
    k = 1 << 20
    x, w = np.full((1, k), -128, np.int8), np.full((1, k), -1, np.int8)
    assert matmul(x, w).tolist() == [[128 * k]]


@pytest.mark.parametrize(("x", "w"), [
    (np.zeros((2, 3), np.int8), np.zeros((2, 4), np.int8)),
    (np.zeros((2, 3), np.int32), np.zeros((2, 3), np.int8)),
    (np.zeros((2, 3), np.int8), np.zeros((2, 3), np.float32)),
    (np.zeros(3, np.int8), np.zeros((2, 3), np.int8)),
    (np.zeros((0, 1 << 24), np.int8), np.zeros((0, 1 << 24), np.int8)),
])
def test_operands_of_another_type_or_shape_are_refused(x, w):
    with pytest.raises(TritwiseError, match="integer product"):
        matmul(x, w)


def test_the_layer_equals_transformers_bitlinear_to_rounding():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 96)).astype(np.float32)
    codes, scale = absmean(rng.normal(0, 0.02, (64, 96)))
    x_codes, inverse_x_scale = BitLinear.activation_quant._torchdynamo_orig_callable(None, torch.from_numpy(x))
    accumulators = (x_codes.long() @ torch.from_numpy(codes).long().T).float()
    theirs = (accumulators / (inverse_x_scale * (1 / torch.tensor(scale)))).numpy()
    ours = bitlinear(x, codes, scale)
    assert ours.dtype == np.float32
    # Ours: three roundings (max / 127, times scale, times accumulator); theirs: four. Each is 2^-24 relative.
    assert np.all(np.abs(ours - theirs) <= 7.1 * 2.0**-24 * np.abs(theirs))
