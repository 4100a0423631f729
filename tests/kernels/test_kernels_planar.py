"""The planar layout against numpy, in the words of its definition, and against the package's other packings."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tritwise import TritwiseError
from tritwise.formats.packing import pack_rows
from tritwise.kernels import Planar, codes_of, concatenate, from_codes, from_consecutive, from_stripes, planar
from tritwise.ternary import pack_2bit

CODES = st.tuples(st.integers(1, 9), st.integers(1, 150)).flatmap(
    lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))


def in_numpy(codes):
    """Byte j of a row: codes j, j + K4, j + 2 K4 (each + 1) and j + 3 K4 in two bits each."""
    n, k = codes.shape
    k4 = -(-k // 64) * 16
    wide = np.zeros((n, 4 * k4), np.int64)
    wide[:, :k] = codes
    packed = np.zeros((n, k4), np.uint8)
    for j in range(k4):
        for field in range(4):
            code = wide[:, j + field * k4]
            packed[:, j] |= ((code + (field < 3)) % 4 << 2 * field).astype(np.uint8)
    return packed.view(np.int8)


@given(CODES)
def test_bytes_are_those_of_the_definition_from_every_packing(codes):
    expected = in_numpy(codes)
    n = len(codes)
    for made in (from_codes(torch.from_numpy(codes), 0.5),
                 from_consecutive(torch.from_numpy(pack_2bit(codes)), codes.shape, 0.5),
                 from_stripes(torch.from_numpy(pack_rows(codes)), codes.shape, 0.5)):
        assert np.array_equal(made.packed.numpy(), expected)
        assert made.scales.tolist() == [0.5] * n
        assert np.array_equal(codes_of(made).numpy(), codes)


def test_masks_give_the_multiples_of_the_codes_that_the_kernels_use(random):
    codes = random.integers(-1, 2, (3, 256)).astype(np.int8)
    packed = from_codes(torch.from_numpy(codes), 1.0).packed.numpy()
    for field, mask in enumerate(planar.MASKS):
        part = codes[:, 64 * field:64 * field + 64].astype(int)
        expected = 64 * part if field == 3 else 4 ** field * (part + 1)
        assert np.array_equal((packed & np.int8(mask)).astype(int), expected)


def test_packing_in_chunks_gives_the_same_bytes(random, monkeypatch):
    codes = random.integers(-1, 2, (23, 130)).astype(np.int8)
    whole = from_codes(torch.from_numpy(codes), 1.0).packed
    monkeypatch.setattr(planar, "_CHUNK", 3 * 130)
    assert torch.equal(from_codes(torch.from_numpy(codes), 1.0).packed, whole)
    assert torch.equal(from_consecutive(torch.from_numpy(pack_2bit(codes)), (23, 130), 1.0).packed, whole)
    assert torch.equal(from_stripes(torch.from_numpy(pack_rows(codes)), (23, 130), 1.0).packed, whole)


def test_matrices_with_scales_of_their_own_become_one(random):
    first, second = (random.integers(-1, 2, (rows, 70)).astype(np.int8) for rows in (4, 6))
    both = concatenate([from_codes(torch.from_numpy(first), 2.0),
                        from_codes(torch.from_numpy(second), torch.tensor([3.0, 5.0]))])
    assert both.shape == (10, 70)
    assert both.scales.tolist() == [2.0] * 4 + [3.0] * 3 + [5.0] * 3
    assert np.array_equal(codes_of(both).numpy(), np.concatenate([first, second]))


@pytest.mark.parametrize(("make", "why"), [
    (lambda: from_codes(torch.full((2, 3), 2, dtype=torch.int8), 1.0), r"holds 2\.\.2"),
    (lambda: from_codes(torch.zeros(2, 3), 1.0), "int8"),
    (lambda: from_codes(torch.zeros(3, 3, dtype=torch.int8), torch.ones(2)), "blocks of rows"),
    (lambda: from_consecutive(torch.full((1, 1), 0xC0, dtype=torch.uint8), (1, 4), 1.0), "field holds 3"),
    (lambda: from_consecutive(torch.zeros(1, 2, dtype=torch.uint8), (1, 4), 1.0), "four codes a byte"),
    (lambda: from_stripes(torch.full((1, 4), 3, dtype=torch.uint8), (4, 4), 1.0), "field holds 3"),
    (lambda: Planar(torch.zeros(2, 8, dtype=torch.int8), torch.ones(2), (2, 32)), r"int8 \[2, 16\]"),
    (lambda: Planar(torch.zeros(2, 16, dtype=torch.int8), torch.ones(1), (2, 32)), r"float32 \[2\]"),
    (lambda: concatenate([]), "shapes are"),
])
def test_what_is_no_ternary_matrix_is_refused(make, why):
    with pytest.raises(TritwiseError, match=why):
        make()
