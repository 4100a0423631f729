"""Row stripes against bytes written out by Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tritwise import TritwiseError
from tritwise.formats import TernaryTensor, pack_rows, unpack_rows

CODES = hnp.arrays(np.int8, st.tuples(st.integers(1, 13), st.integers(1, 9)), elements=st.integers(-1, 1))


@given(CODES)
def test_unpacking_gives_back_what_was_packed_for_any_number_of_rows(codes):
    assert np.array_equal(unpack_rows(pack_rows(codes), len(codes)), codes)


@given(CODES)
def test_a_byte_holds_rows_r_and_r_plus_multiples_of_a_quarter(codes):
    out, inner = codes.shape
    quarter = -(-out // 4)
    expected = [[sum((int(codes[i * quarter + r, k]) + 1) << (2 * i) for i in range(4) if i * quarter + r < out)
                 for k in range(inner)] for r in range(quarter)]
    assert pack_rows(codes).tolist() == expected


def test_packed_tensors_joined_are_not_the_packed_join():
    q, k = np.full((4, 3), 1, np.int8), np.full((4, 3), -1, np.int8)
    joined = np.concatenate([q, k])
    packed_join = np.concatenate([pack_rows(q), pack_rows(k)])
    assert packed_join.shape == pack_rows(joined).shape
    assert not np.array_equal(unpack_rows(packed_join, 8), joined)
    assert np.array_equal(np.concatenate([unpack_rows(pack_rows(q), 4), unpack_rows(pack_rows(k), 4)]), joined)


@pytest.mark.parametrize("shift", [0, 2, 4, 6])
def test_the_field_3_is_refused_wherever_it_stands(shift):
    packed = np.full((5, 7), 0b01010101, np.uint8)
    packed[4, 6] |= 3 << shift
    with pytest.raises(TritwiseError, match="holds 3"):
        unpack_rows(packed, 20)


@pytest.mark.parametrize("codes", [
    np.full((4, 2), 2, np.int8), np.full((4, 2), -2, np.int64), np.zeros((4, 2), np.float32), np.zeros(4, np.int8)])
def test_what_is_no_matrix_of_codes_is_not_packed(codes):
    with pytest.raises(TritwiseError, match="cannot pack"):
        pack_rows(codes)


@pytest.mark.parametrize(("packed", "rows"), [
    (np.zeros((2, 3), np.uint8), 9), (np.zeros((2, 3), np.uint8), 4), (np.zeros((2, 3), np.int8), 8)])
def test_rows_that_do_not_fit_the_bytes_are_refused(packed, rows):
    with pytest.raises(TritwiseError, match="do not fit"):
        unpack_rows(packed, rows)


def test_a_ternary_tensor_refuses_parts_that_do_not_belong_together():
    packed, scale = np.zeros((2, 3), np.uint8), np.ones(1, np.float32)
    assert TernaryTensor(packed, scale, (7, 3)).codes().shape == (7, 3)
    for parts in ((packed, scale, (9, 3)), (packed, scale, (8, 2)), (packed.view(np.int8), scale, (8, 3)),
                  (packed, scale.astype(np.float64), (8, 3)), (packed, np.ones(3, np.float32), (8, 3)),
                  (packed, np.ones(0, np.float32), (8, 3)), (packed, np.ones((1, 2), np.float32), (8, 3))):
        with pytest.raises(ValueError, match="is needed"):
            TernaryTensor(*parts)
