"""The integer product of every kernel against numpy's, exactly."""

import numpy as np
import pytest
from native_models import pack_stripes

from tritwise import _native
from tritwise.ternary import matmul

KERNELS = _native.kernels()


def is_exact(x, w, kernel, threads) -> bool:
    found = _native.ternary_product(x, pack_stripes(w), w.shape[0], kernel, threads)
    return np.array_equal(found, matmul(x, w))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("k", [1, 36, 255, 256, 257, 1000, 3200, 5460])
def test_accumulators_equal_numpys_for_any_shape(kernel, k):
    rng = np.random.default_rng(k)
    for n in (1, 5, 32, 33, 131):
        w = rng.integers(-1, 2, (n, k)).astype(np.int8)
        for m in (*range(1, 18), 25, 36):
            assert is_exact(rng.integers(-128, 128, (m, k)).astype(np.int8), w, kernel, 1 + m % 2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("x_value", [-128, 127])
@pytest.mark.parametrize("w_value", [-1, 0, 1])
def test_accumulators_are_exact_at_the_extremes(kernel, x_value, w_value):
    # 27648 inputs: the widest published layer four times over.
    for m in (1, 3, 14):
        assert is_exact(np.full((m, 27648), x_value, np.int8), np.full((35, 27648), w_value, np.int8), kernel, 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_threads_than_rows_leave_no_row_out(kernel):
    rng = np.random.default_rng(3)
    x, w = rng.integers(-128, 128, (2, 64)).astype(np.int8), rng.integers(-1, 2, (7, 64)).astype(np.int8)
    assert is_exact(x, w, kernel, 5)


def test_an_empty_batch_gives_an_empty_result():
    w = np.ones((6, 16), np.int8)
    assert _native.ternary_product(np.zeros((0, 16), np.int8), pack_stripes(w), 6, KERNELS[0], 1).shape == (0, 6)


def test_a_field_of_three_is_refused():
    with pytest.raises(ValueError, match="2-bit field holds 3"):
        _native.ternary_product(np.zeros((1, 8), np.int8), np.full((1, 8), 3, np.uint8), 4, KERNELS[0], 1)


def test_a_packed_shape_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="packed must be"):
        _native.ternary_product(np.zeros((1, 8), np.int8), np.zeros((2, 8), np.uint8), 4, KERNELS[0], 1)


def test_an_unknown_kernel_is_refused_by_name():
    with pytest.raises(ValueError, match="'sse9' cannot run"):
        _native.ternary_product(np.zeros((1, 8), np.int8), np.zeros((1, 8), np.uint8), 4, "sse9", 1)


def test_the_scalar_kernel_runs_everywhere_and_is_the_last_choice():
    assert KERNELS[-1] == "scalar"
    assert set(KERNELS) <= {"avx512vbmi", "avx512vnni", "avxvnni", "avx2", "neon", "scalar"}


def test_the_processor_describes_itself():
    info = _native.cpu_info()
    assert info["logical_cores"] >= 1
    assert isinstance(info["brand"], str)
    for kernel in ("avx2", "avxvnni", "avx512vnni", "avx512vbmi"):
        assert (kernel in KERNELS) <= (kernel in info["features"])


def test_read_bandwidth_is_a_positive_number_of_bytes_a_second():
    assert _native.measure_read_bandwidth(1, 1 << 22, 2) > 1e6
    with pytest.raises(ValueError, match="threads is 0"):
        _native.measure_read_bandwidth(0, 1 << 22, 1)
