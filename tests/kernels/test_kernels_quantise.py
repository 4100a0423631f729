"""The fused quantisation in Triton's interpreter: codes of `ternary.absmax`, norms and gates of the torch twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tritwise import TritwiseError
from tritwise.kernels import quantise, twins
from tritwise.ternary import absmax

FLOATS = st.floats(-2.0**100, 2.0**100, width=32, allow_subnormal=False)


def differing(quantised, codes, scale):
    """What is not as numpy's codes [M, K] and scale [M, 1] are, or as the sums of the codes themselves."""
    k = codes.shape[1]
    own = quantised.codes.numpy().astype(np.int64)
    same = {"codes": np.array_equal(own[:, :k], codes), "padding": not own[:, k:].any(),
            "scale": np.array_equal(quantised.scale.numpy(), scale[:, 0]),
            "sums": quantised.sums.tolist() == own[:, :own.shape[1] // 4 * 3].sum(axis=1).tolist()}
    return [name for name, is_same in same.items() if not is_same]


@settings(max_examples=15)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 140)), elements=FLOATS))
def test_codes_scales_and_sums_are_the_references(x):
    assert differing(quantise(torch.from_numpy(x)), *absmax(x)) == []
    assert differing(twins.quantise(torch.from_numpy(x)), *absmax(x)) == []


def test_ties_round_to_even_and_a_token_of_zeros_has_the_least_scale():
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5], [0] * 7, [-127, 126.5, 125.5, 0, 0, 0, 0],
                  [1e-6, -1e-6, 5e-6, 0, 0, 0, 0]], np.float32)
    quantised = quantise(torch.from_numpy(x))
    assert differing(quantised, *absmax(x)) == []
    assert quantised.codes[0, :7].tolist() == [127, 0, 2, 2, 0, -2, -126]
    assert quantised.scale[1] == np.float32(1e-5) / np.float32(127)


@pytest.mark.parametrize("kind", ["none", "silu", "relu2"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("k", [64, 200])
def test_gates_and_norms_give_the_twins_codes(kind, normed, k, random):
    width = k if kind == "none" else 2 * k
    x = torch.from_numpy((random.standard_normal((3, width)) * 3).astype(np.float32))
    gain = torch.from_numpy(random.uniform(0.5, 2, k).astype(np.float32)) if normed else None
    found, expected = quantise(x, gain, 1e-5, kind), twins.quantise(x, gain, 1e-5, kind)
    if kind == "relu2" and not normed:
        assert torch.equal(found.scale, expected.scale)  # products alone: every operation is rounded once
        assert torch.equal(found.codes, expected.codes)
    # Sums of squares and exp are rounded in another order: the bound of quantise's docstring, and silu's exp.
    bound = (np.log2(k) + 6 + (16 if kind == "silu" else 0)) * 2.0**-24
    assert (found.scale / expected.scale - 1).abs().max() <= 2 * bound
    differ = found.codes != expected.codes
    value = twins.activation(x, kind)
    value = value if gain is None else twins.rms_norm(value, gain, 1e-5)
    exact = torch.nn.functional.pad(value.double() / expected.scale.double()[:, None], (0, found.codes.shape[1] - k))
    near_half = ((exact - exact.floor() - 0.5).abs() <= 127 * 4 * bound)
    assert not (differ & ~near_half).any()
    assert (found.codes.int() - expected.codes.int()).abs().max() <= 1


def test_the_twins_norm_is_torchs(random):
    x, gain = torch.randn(4, 96), torch.rand(96)
    expected = torch.nn.functional.rms_norm(x, (96,), gain, 1e-5)
    torch.testing.assert_close(twins.rms_norm(x, gain, 1e-5), expected, rtol=1e-6, atol=1e-6)
    gate, up = torch.randn(4, 96), torch.randn(4, 96)
    torch.testing.assert_close(twins.activation(torch.cat([gate, up], 1), "silu"), torch.nn.functional.silu(gate) * up)
    torch.testing.assert_close(twins.activation(torch.cat([gate, up], 1), "relu2"), torch.relu(gate) ** 2 * up)


@pytest.mark.parametrize(("make", "why"), [
    (lambda: quantise(torch.zeros(2, 3), activation="gelu"), "no activation"),
    (lambda: quantise(torch.zeros(2, 3), activation="silu"), r"\[M, 2 K\]"),
    (lambda: quantise(torch.zeros(2, 3, dtype=torch.float64)), "float32"),
    (lambda: quantise(torch.zeros(3, 4).T), "contiguous"),
    (lambda: quantise(torch.zeros(2, 4), torch.ones(3)), "gain is"),
    (lambda: quantise(torch.zeros(0, 4)), "shape"),
    (lambda: quantise(torch.zeros(1, 40000)), "at most 32768"),
])
def test_what_cannot_be_quantised_is_refused(make, why):
    with pytest.raises(TritwiseError, match=why):
        make()
