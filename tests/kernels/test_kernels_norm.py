"""The float norm in Triton's interpreter: the torch twin's values, rounded once."""

import numpy as np
import pytest
import torch

from tritwise import TritwiseError
from tritwise.kernels import twins
from tritwise.kernels.norm import normed


@pytest.mark.parametrize("kind", ["none", "silu", "relu2"])
@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("k", [1, 200])
def test_values_are_the_twins(kind, gained, k, random):
    x = torch.from_numpy((random.standard_normal((3, k if kind == "none" else 2 * k)) * 3).astype(np.float32))
    gain = torch.from_numpy(random.uniform(0.5, 2, k).astype(np.float32)) if gained else None
    expected = twins.activation(x, kind)
    expected = expected if gain is None else twins.rms_norm(expected, gain, 1e-5)
    # The sum of squares may be taken in another order, and exp may differ in its last places.
    bound = (np.log2(k) + 6 + (16 if kind == "silu" else 0)) * 2.0**-24
    assert ((normed(x, gain, 1e-5, activation=kind) - expected).abs() <= bound * expected.abs()).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_read_exactly_and_written_rounded_once(dtype, random):
    x = torch.from_numpy(random.standard_normal((2, 96)).astype(np.float32)).to(dtype)
    gain = torch.ones(96)
    wide = normed(x, gain, 1e-5, dtype=torch.float32)
    assert torch.equal(wide, normed(x.float(), gain, 1e-5))
    found = normed(x, gain, 1e-5)
    if dtype == torch.float16:
        assert torch.equal(found, wide.half())
    else:  # the interpreter cuts bfloat16 off, where a GPU rounds
        assert torch.equal(found, (wide.view(torch.int32) & -65536).view(torch.float32).bfloat16())


@pytest.mark.parametrize(("x", "gain", "activation"), [
    (torch.ones(2, 3, dtype=torch.float64), None, "none"), (torch.ones(2, 3), torch.ones(4), "none"),
    (torch.ones(2, 3), None, "silu"), (torch.ones(2, 4).T, None, "none"), (torch.ones(2, 4), None, "gelu"),
    (torch.ones(1, 1 << 16), None, "none")])
def test_what_cannot_be_normed_is_refused(x, gain, activation):
    with pytest.raises(TritwiseError):
        normed(x, gain, 1e-5, activation=activation)
