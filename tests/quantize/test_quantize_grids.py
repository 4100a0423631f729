"""Rounding to nearest against the formulas written out, and GPTQ against the update it was derived from."""

import numpy as np
import pytest

from tritwise.common.errors import TritwiseError
from tritwise.quantize import GRIDS, gptq, layer_error, round_to_nearest

RNG = np.random.default_rng(0)


def inputs(columns: int, tokens: int = 400) -> np.ndarray:
    """Correlated inputs: a few directions carry most of the variance."""
    mixing = RNG.normal(size=(columns, columns)) * np.geomspace(3, 0.05, columns)[:, None]
    return RNG.normal(size=(tokens, columns)) @ mixing


@pytest.mark.parametrize("to", ["int8", "int4"])
@pytest.mark.parametrize("group", [None, 5, 8])
def test_integers_are_the_nearest_on_the_grid_from_minimum_to_maximum(to, group):
    weight = RNG.normal(size=(6, 16)).astype(np.float32)
    weight[2] = np.abs(weight[2])  # zero stays on the grid
    found = round_to_nearest(weight, GRIDS[to], group)
    largest = {"int8": 255, "int4": 15}[to]
    size = group or 16
    for row in range(6):
        for start in range(0, 16, size):
            part = weight[row, start:start + size].astype(np.float64)
            low, high = min(part.min(), 0), max(part.max(), 0)
            scale = float(np.float16((high - low) / largest))
            zero = round(-low / scale)
            assert found.scales[row, start // size] == np.float32(scale)
            for i, value in enumerate(part, start):
                code = min(max(round(value / scale) + zero, 0), largest)
                assert found.codes[row, i] == code
                assert found.values()[row, i] == np.float32((code - zero) * scale)
    assert np.abs(found.values() - weight).max() <= found.scales.max() * 1.01
    groups = -(-16 // size)
    assert found.bits == 6 * (16 * GRIDS[to].code_bits + groups * (16 + GRIDS[to].code_bits))


@pytest.mark.parametrize("group", [None, 4])
def test_the_ternary_scale_leaves_the_least_squared_error(group):
    weight = RNG.normal(size=(5, 12)).astype(np.float32)
    found = round_to_nearest(weight, GRIDS["ternary"], group)
    assert found.scales.shape == ((1, 1) if group is None else (5, 3))
    assert set(np.unique(found.codes)) == {-1, 0, 1}

    def error(part, scale):
        return ((part - scale * np.clip(np.rint(part / scale), -1, 1)) ** 2).sum()

    parts = [(weight, found.scales[0, 0])] if group is None else [
        (weight[row, 4 * g:4 * g + 4], found.scales[row, g]) for row in range(5) for g in range(3)]
    for part, scale in parts:
        least = min(error(part, s) for s in np.linspace(0.01, 3, 3000))
        assert error(part, scale) <= least * (1 + 1e-3) + 1e-12
    per_scale = 32 if group is None else 16
    assert found.bits == 1.6 * 60 + per_scale * found.scales.size


def test_zeros_and_tiny_weights_stay_finite():
    for to in GRIDS:
        weight = np.zeros((4, 8), np.float32)
        assert (round_to_nearest(weight, GRIDS[to], 4).values() == 0).all()
        weight[0, 0] = 1e-30
        assert np.isfinite(round_to_nearest(weight, GRIDS[to], 4).values()).all()


def optimal_brain_quantisation(weight: np.ndarray, hessian: np.ndarray, scale: float, low: int, high: int,
                               damping: float) -> np.ndarray:
    """Codes by the update that GPTQ makes faster (arXiv 2208.11580), with the inverse made anew for each column."""
    hessian = hessian + damping * hessian.diagonal().mean() * np.eye(len(hessian))
    weight, codes = weight.astype(np.float64).copy(), np.empty(weight.shape, int)
    columns = weight.shape[1]
    for q in range(columns):
        inverse = np.linalg.inv(hessian[q:, q:])
        codes[:, q] = np.clip(np.rint(weight[:, q] / scale), low, high)
        change = (weight[:, q] - codes[:, q] * scale) / inverse[0, 0]
        weight[:, q:] -= change[:, None] * inverse[0]
    return codes


@pytest.mark.parametrize("columns", [7, 130, 300])
def test_gptq_is_the_update_of_optimal_brain_quantisation_in_blocks(columns):
    weight, x = RNG.normal(size=(5, columns)), inputs(columns)
    hessian = x.T @ x
    found = gptq(weight, hessian, GRIDS["ternary"], damping=0.01)
    expected = optimal_brain_quantisation(weight, hessian, float(found.scales[0, 0]), -1, 1, 0.01)
    assert np.array_equal(found.codes, expected)


@pytest.mark.parametrize(("to", "group"), [("int4", None), ("int4", 16), ("int8", 24), ("ternary", None),
                                           ("ternary", 32), ("int4", 200)])
def test_gptq_changes_a_layers_outputs_less_than_rounding(to, group):
    weight, x = RNG.normal(size=(24, 144)), inputs(144)
    hessian = x.T @ x
    rounded = round_to_nearest(weight, GRIDS[to], group)
    found = gptq(weight, hessian, GRIDS[to], group)
    assert found.scales.shape == rounded.scales.shape
    assert found.bits == rounded.bits
    ours, theirs = (layer_error(weight, each.values(), hessian) for each in (found, rounded))
    assert ours < 0.7 * theirs
    outputs = x @ weight.T
    assert ours == pytest.approx(np.square(x @ found.values().T - outputs).sum() / np.square(outputs).sum(), rel=1e-6)


def test_without_correlation_gptq_is_rounding():
    weight = RNG.normal(size=(6, 40))
    for to, group in (("int4", None), ("int8", 16), ("ternary", None)):
        found, rounded = (gptq(weight, np.diag(RNG.uniform(1, 2, 40)), GRIDS[to], group),
                          round_to_nearest(weight, GRIDS[to], group))
        assert np.array_equal(found.codes, rounded.codes)
        assert np.array_equal(found.scales, rounded.scales)


def test_inputs_that_were_always_zero_are_rounded_by_themselves():
    weight, x = RNG.normal(size=(4, 20)), inputs(20)
    x[:, [3, 11]] = 0
    found = gptq(weight, x.T @ x, GRIDS["int8"])
    rounded = round_to_nearest(weight, GRIDS["int8"])
    assert np.array_equal(found.codes[:, [3, 11]], rounded.codes[:, [3, 11]])
    assert np.array_equal(gptq(weight, np.zeros((20, 20)), GRIDS["int8"]).codes, rounded.codes)


def test_what_cannot_be_quantised_is_an_error():
    weight = np.ones((2, 4))
    for call, message in (
        (lambda: round_to_nearest(weight, GRIDS["int8"], 0), "group size is 0"),
        (lambda: round_to_nearest(weight * np.nan, GRIDS["int8"]), "NaN or infinite"),
        (lambda: round_to_nearest(weight * 1e9, GRIDS["int8"]), "beyond float16"),
        (lambda: round_to_nearest(weight[0], GRIDS["int8"]), "no matrix"),
        (lambda: gptq(weight, np.eye(3), GRIDS["int8"]), r"shape \[3, 3\]"),
        (lambda: gptq(weight, np.eye(4), GRIDS["int8"], damping=-1), "damping is -1"),
        (lambda: gptq(weight, np.ones((4, 4)), GRIDS["int8"], damping=0), "cannot be factored"),
    ):
        with pytest.raises(TritwiseError, match=message):
            call()
