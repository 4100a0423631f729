"""The values of GGUF tensors: against the gguf package, and against the forks' layouts written out weight by weight."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from tritwise import TritwiseError
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes
from tritwise.formats.gguf_values import floats, ternary

NUMBERS = {kind.name: number for number, kind in GGUF_TYPES.items()}
RNG = np.random.default_rng(3)
SCALE = np.float32(0.03125)  # a float16 too


def codes(out: int = 8, inner: int = 512) -> np.ndarray:
    return RNG.integers(-1, 2, (out, inner)).astype(np.int8)


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "F16", "BF16", "F32"])
def test_floats_are_those_of_the_gguf_package(name):
    shape = (5, 512)
    if name in ("Q4_K", "Q6_K"):  # the package cannot write them: any bytes with finite scales are a tensor
        data = RNG.integers(0, 256, tensor_bytes(NUMBERS[name], shape)).astype(np.uint8)
        blocks = data.reshape(-1, GGUF_TYPES[NUMBERS[name]].block_bytes)
        halves = (slice(0, 2), slice(2, 4)) if name == "Q4_K" else (slice(208, 210),)
        for at in halves:
            blocks[:, at] = RNG.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
    else:
        data = gguf.quants.quantize(RNG.normal(size=shape).astype(np.float32), Type[name]).view(np.uint8).reshape(-1)
    found = floats(NUMBERS[name], data, shape)
    expected = gguf.quants.dequantize(data.reshape(5, -1), Type[name]).reshape(shape)
    assert found.shape == shape
    assert np.array_equal(found.astype(np.float32), expected)


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
def test_codes_that_the_gguf_package_wrote(name):
    expected = codes()
    data = gguf.quants.quantize(expected * SCALE, Type[name]).reshape(-1)
    found, scale = ternary(NUMBERS[name], data, expected.shape)
    assert np.array_equal(found, expected)
    assert scale == SCALE


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
def test_a_block_of_zeros_has_no_scale(name):
    expected = codes()
    expected[3, :256] = 0
    data = gguf.quants.quantize(expected * SCALE, Type[name]).reshape(-1)
    found, scale = ternary(NUMBERS[name], data, expected.shape)
    assert np.array_equal(found, expected)
    assert scale == SCALE


def base3_byte(digits) -> int:
    """ceil(number * 256 / 243), the number with its first digit most significant."""
    number = 0
    for digit in (*digits, *[0] * (5 - len(digits))):
        number = number * 3 + int(digit)
    return -(-number * 256 // 243)


def written(name: str, fields: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The bytes of a fork's type, weight by weight. `scales`: one a row; I2_S takes the first."""
    out, inner = fields.shape
    result = bytearray()
    if name == "I2_S":
        flat = fields.reshape(-1)
        for block in range(0, flat.size, 128):
            for j in range(32):
                result.append(sum(int(flat[block + 32 * f + j]) << 6 - 2 * f for f in range(4)))
        result += scales[:1].astype("<f4").tobytes() + bytes(28)
    elif name == "IQ1_BN":
        for row, scale in zip(fields, scales, strict=True):
            result += scale.astype("<f2").tobytes()
            for block in range(0, inner, 64):
                for i in range(4):
                    for k in range(3):
                        five = row[block + 16 * i + 5 * k:][:5]
                        result.append(base3_byte(five[::-1]))
                result.append(base3_byte([0, *[row[block + 16 * i + 15] for i in (3, 2, 1, 0)]]))
    elif name == "IQ2_BN":
        for row, scale in zip(fields, scales, strict=True):
            result += scale.astype("<f4").tobytes()
            for block in range(0, inner, 64):
                for j in range(16):
                    result.append(sum(int(row[block + 16 * f + j]) << 2 * f for f in range(4)))
    else:
        for first in range(0, out, 4):
            result += scales[first:first + 4].astype("<f4").tobytes()
            for block in range(0, inner, 64):
                for part in range(4):
                    for row in range(first, first + 4):
                        for i in range(4):
                            column = block + 16 * part + i
                            result.append(sum(int(fields[row, column + 4 * f]) << 2 * f for f in range(4)))
    return np.frombuffer(bytes(result), np.uint8)


FORKS = ["I2_S", "IQ1_BN", "IQ2_BN", "IQ2_BN_R4"]


@pytest.mark.parametrize("name", FORKS)
def test_the_layouts_of_the_forks(name):
    expected = codes(8, 384)
    data = written(name, expected + 1, np.full(8, SCALE))
    assert data.size == tensor_bytes(NUMBERS[name], expected.shape)
    found, scale = ternary(NUMBERS[name], data, expected.shape)
    assert np.array_equal(found, expected)
    assert scale == SCALE


@pytest.mark.parametrize("name", FORKS[1:])
def test_rows_of_several_scales_are_refused(name):
    scales = np.full(8, SCALE)
    scales[5] *= 2
    with pytest.raises(TritwiseError, match="2 different"):
        ternary(NUMBERS[name], written(name, codes() + 1, scales), (8, 512))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", FORKS)
def test_a_scale_has_to_be_positive(name, scale):
    with pytest.raises(TritwiseError, match="no scale"):
        ternary(NUMBERS[name], written(name, codes() + 1, np.full(8, scale, np.float32)), (8, 512))


@pytest.mark.parametrize("name", ["TQ2_0", "I2_S", "IQ2_BN", "IQ2_BN_R4"])
def test_the_field_3_is_no_code(name):
    data = np.full(tensor_bytes(NUMBERS[name], (4, 256)), 0xFF, np.uint8)
    with pytest.raises(TritwiseError, match="holds 3"):
        ternary(NUMBERS[name], data, (4, 256))


def test_bytes_of_another_length_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="which takes"):
        floats(0, np.zeros(12, np.uint8), (4,))
    with pytest.raises(ValueError, match="which takes"):
        ternary(36, np.zeros(32, np.uint8), (1, 128))
    with pytest.raises(KeyError):
        floats(36, np.zeros(64, np.uint8), (1, 128))
