"""Bytes of GGUF tensors: those that the gguf package writes, and what the reader takes back."""

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.formats.gguf_packing import TYPE_NUMBERS, pack_floats, pack_ternary
from tritwise.formats.gguf_values import floats, ternary

RNG = np.random.default_rng(7)


def codes(out: int, inner: int) -> np.ndarray:
    made = RNG.integers(-1, 2, (out, inner)).astype(np.int8)
    made[:, 0] = 1  # the package takes a block's scale from its largest weight
    made.reshape(-1, 256)[:, 0] = -1
    return made


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_bytes_are_those_of_the_gguf_package(kind):
    made, scale = codes(6, 1024), np.float32(0.03125)
    expected = gguf.quants.quantize(made * scale, Type[kind]).reshape(-1)
    assert np.array_equal(pack_ternary(kind, made, scale), expected)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "I2_S"])
@given(st.integers(1, 5), st.integers(1, 3), st.floats(2**-13, 2**13, width=32), st.integers(0, 2**32))
def test_codes_and_the_scale_come_back(kind, out, blocks, scale, seed):
    made = np.random.default_rng(seed).integers(-1, 2, (out, blocks * 256)).astype(np.int8)
    data = pack_ternary(kind, made, np.float32(scale))
    found, stored = ternary(TYPE_NUMBERS[kind], data, made.shape)
    assert np.array_equal(found, made)
    assert stored == (np.float32(scale) if kind == "I2_S" else np.float32(np.float16(scale)))


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_a_scale_that_a_half_cannot_hold_is_refused(scale):
    with pytest.raises(TritwiseError, match="cannot be written\nwhy: TQ2_0 keeps it as float16\ntry: use I2_S"):
        pack_ternary("TQ2_0", codes(1, 256), np.float32(scale))
    assert ternary(36, pack_ternary("I2_S", codes(1, 256), np.float32(scale)), (1, 256))[1] == np.float32(scale)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_float_bytes_are_those_of_the_gguf_package(kind, dtype):
    values = RNG.normal(0, 3, (7, 96)).astype(dtype)
    values[2, 32:64] = 0
    expected = gguf.quants.quantize(values.astype(np.float32), Type[kind]).view(np.uint8).reshape(-1)
    data = pack_floats(kind, values)
    assert np.array_equal(data, expected)
    assert floats(TYPE_NUMBERS[kind], data, values.shape).shape == values.shape


@pytest.mark.parametrize(("kind", "value"), [("F16", 1e6), ("Q8_0", 1e8)])
def test_a_value_that_a_type_cannot_hold_is_refused(kind, value):
    values = np.zeros((1, 32), np.float32)
    values[0, 3] = value
    with pytest.raises(TritwiseError, match=f"cannot be written as {kind}"):
        pack_floats(kind, values)
