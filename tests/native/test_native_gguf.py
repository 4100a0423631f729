"""GGUF codes unpacked by the core: the codes that the numpy reader gives, in Hugging Face's row stripes."""

import numpy as np
import pytest

from tritwise import _native
from tritwise.formats.gguf_packing import TYPE_NUMBERS
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes
from tritwise.formats.gguf_values import TERNARY_TYPES, ternary
from tritwise.formats.packing import unpack_rows

RNG = np.random.default_rng(11)
# Where a row, or a block of TQ1_0 and TQ2_0, keeps its scale, and what one looks like there.
SCALES = {"TQ1_0": (54, 52, np.float16), "TQ2_0": (66, 64, np.float16)}


def matrix(name: str, rows: int, inner: int) -> np.ndarray:
    """Random bytes of a type, without fields that hold 3, with the scale 0.5 everywhere."""
    data = RNG.integers(0, 256, tensor_bytes(TYPE_NUMBERS[name], (rows, inner))).astype(np.uint8)
    if name not in ("TQ1_0", "IQ1_BN"):
        data &= ~(data >> 1 & 0x55)
    if name in SCALES:
        size, at, dtype = SCALES[name]
        blocks = data.reshape(-1, size)
        blocks[:, at:at + 2] = np.frombuffer(dtype(0.5).tobytes(), np.uint8)
    elif name == "I2_S":
        data[-32:-28] = np.frombuffer(np.float32(0.5).tobytes(), np.uint8)
    else:
        dtype = np.float16 if name == "IQ1_BN" else np.float32
        together = GGUF_TYPES[TYPE_NUMBERS[name]].rows
        groups = data.reshape(rows // together, -1)
        scale = np.frombuffer(np.full(together, 0.5, dtype).tobytes(), np.uint8)
        groups[:, :len(scale)] = scale
    return data


@pytest.mark.parametrize("name", sorted(TERNARY_TYPES))
@pytest.mark.parametrize(("rows", "inner"), [(4, 256), (52, 768), (1, 256), (7, 512)])
@pytest.mark.parametrize("threads", [1, 3])
def test_codes_are_those_of_the_numpy_reader(name, rows, inner, threads):
    if rows % GGUF_TYPES[TYPE_NUMBERS[name]].rows:
        rows *= 4
    data = matrix(name, rows, inner)
    expected, _ = ternary(TYPE_NUMBERS[name], data, (rows, inner))
    assert np.array_equal(unpack_rows(_native.unpack_gguf(name, data, rows, inner, 0, threads), rows), expected)


@pytest.mark.parametrize("name", sorted(TERNARY_TYPES))
def test_rows_in_pairs_are_put_back_in_order(name):
    data = matrix(name, 64, 256)
    codes, _ = ternary(TYPE_NUMBERS[name], data, (64, 256))
    expected = codes.reshape(4, 8, 2, 256).swapaxes(1, 2).reshape(64, 256)
    assert np.array_equal(unpack_rows(_native.unpack_gguf(name, data, 64, 256, 16, 2), 64), expected)


@pytest.mark.parametrize("name", ["TQ2_0", "I2_S", "IQ2_BN", "IQ2_BN_R4"])
def test_a_field_that_is_no_code_is_refused_wherever_it_is(name):
    good = matrix(name, 12, 256)
    places = [0, 17, len(good) // 2, len(good) - 40] if name == "I2_S" else [20, 31, len(good) // 2 + 7, len(good) - 5]
    for at in places:
        data = good.copy()
        data[at] |= 0x30
        if np.array_equal(data, good):
            continue
        with pytest.raises(ValueError, match="a field holds 3"):
            _native.unpack_gguf(name, data, 12, 256, 0, 2)


@pytest.mark.parametrize(("arguments", "match"), [
    (("Q8_0", 4, 256, 0, 1), "no ternary type"), (("TQ2_0", 4, 255, 0, 1), "length"),
    (("TQ2_0", 5, 256, 0, 1), "length"),
    (("TQ2_0", 4, 256, 3, 1), "head_dim"), (("TQ2_0", 4, 256, -2, 1), "head_dim"),
    (("TQ2_0", 4, 256, 8, 1), "head_dim"),
    (("TQ2_0", 4, 256, 0, 0), "threads"), (("TQ2_0", -4, 256, 0, 1), "length"),
])
def test_arguments_that_do_not_fit_are_refused(arguments, match):
    name, rows, inner, head_dim, threads = arguments
    with pytest.raises(ValueError, match=match):
        _native.unpack_gguf(name, matrix("TQ2_0", 4, 256), rows, inner, head_dim, threads)
