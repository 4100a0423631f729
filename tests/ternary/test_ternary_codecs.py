"""Codecs against integers written out by Python, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tritwise import TritwiseError
from tritwise.ternary import pack_2bit, pack_base3, unpack_2bit, unpack_base3

CODES = hnp.arrays(np.int8, hnp.array_shapes(max_dims=3, max_side=13), elements=st.integers(-1, 1))


@given(CODES)
def test_both_codecs_give_back_what_was_packed(codes):
    length = codes.shape[-1]
    assert np.array_equal(unpack_2bit(pack_2bit(codes), length), codes)
    assert np.array_equal(unpack_base3(pack_base3(codes), length), codes)


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=40))
def test_the_bytes_are_the_numbers_that_python_builds_digit_by_digit(codes):
    def numbers(group, base):
        padded = codes + [0] * (-len(codes) % group)
        return [sum((c + 1) * base**i for i, c in enumerate(padded[k:k + group])) for k in range(0, len(padded), group)]

    array = np.array(codes, np.int8)
    assert pack_2bit(array).tolist() == numbers(4, 4)
    assert pack_base3(array).tolist() == numbers(5, 3)


@given(CODES)
def test_packing_keeps_the_other_axes_and_rounds_the_last_up(codes):
    *others, length = codes.shape
    assert pack_2bit(codes).shape == (*others, -(-length // 4))
    assert pack_base3(codes).shape == (*others, -(-length // 5))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_every_integer_type_packs_alike(dtype):
    codes = np.array([[-1, 0, 1, 1, -1, 0]], dtype)
    assert pack_2bit(codes).tolist() == [[0 + 1 * 4 + 2 * 16 + 2 * 64, 0 + 1 * 4 + 1 * 16 + 1 * 64]]
    assert pack_base3(codes).tolist() == [[0 + 1 * 3 + 2 * 9 + 2 * 27 + 0 * 81, 1 + 3 + 9 + 27 + 81]]


@pytest.mark.parametrize("pack", [pack_2bit, pack_base3])
@pytest.mark.parametrize("bad", [2, -2, 127, -128])
def test_a_code_outside_the_three_is_refused(pack, bad):
    with pytest.raises(TritwiseError, match=r"outside -1\.\.\+1"):
        pack(np.array([0, bad], np.int8))


@pytest.mark.parametrize("pack", [pack_2bit, pack_base3])
def test_a_code_that_only_looks_ternary_in_8_bits_is_refused(pack):
    with pytest.raises(TritwiseError, match=r"holds 1\.\.257"):
        pack(np.array([1, 257]))


@pytest.mark.parametrize("pack", [pack_2bit, pack_base3])
@pytest.mark.parametrize("bad", [np.zeros(4, np.float32), np.int8(1)])
def test_only_integer_arrays_are_packed(pack, bad):
    with pytest.raises(TritwiseError, match="cannot pack"):
        pack(bad)


@pytest.mark.parametrize(("unpack", "most"), [(unpack_2bit, 0b10101010), (unpack_base3, 242)])
def test_bytes_that_no_codes_give_are_refused(unpack, most):
    good = np.array([most], np.uint8)
    assert unpack(good, 4).tolist() == [1, 1, 1, 1]
    with pytest.raises(TritwiseError, match="not"):
        unpack(np.array([243], np.uint8), 4)  # 243 = 0b11110011: a 2-bit field 3, and beyond 3^5 - 1


@pytest.mark.parametrize(("unpack", "group"), [(unpack_2bit, 4), (unpack_base3, 5)])
def test_a_length_that_does_not_fit_is_refused(unpack, group):
    packed = np.zeros((2, 3), np.uint8)
    for length in (2 * group, 3 * group + 1):
        with pytest.raises(TritwiseError, match="do not fit"):
            unpack(packed, length)
    with pytest.raises(TritwiseError, match="do not fit"):
        unpack(packed.astype(np.int8), 3 * group)
