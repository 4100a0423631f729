"""Products of all kernels, in Triton's interpreter, against the integer reference: exact, at every tile and split."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.kernels import Quantised, Tile, Workspace, codes_of, from_codes, linear, twins
from tritwise.kernels.tiles import choose
from tritwise.ternary import matmul


def activations(codes, scale=None):
    """`Quantised` of codes [M, K], made in numpy."""
    m, k = codes.shape
    kp = -(-k // 64) * 64
    padded = np.zeros((m, kp), np.int8)
    padded[:, :k] = codes
    sums = padded[:, :kp // 4 * 3].sum(axis=1, dtype=np.int32)
    scale = np.ones(m, np.float32) if scale is None else scale.astype(np.float32)
    return Quantised(torch.from_numpy(padded), torch.from_numpy(scale), torch.from_numpy(sums), k)


def operands(random, m, n, k):
    return random.integers(-128, 128, (m, k)).astype(np.int8), random.integers(-1, 2, (n, k)).astype(np.int8)


def product(x, w, tile, scale=1.0, **others):
    """The kernel's result, with the promise that it leaves its workspace as it was."""
    workspace = Workspace(torch.zeros(1 << 16, dtype=torch.int32), torch.zeros(1 << 10, dtype=torch.int32))
    y = linear(activations(x), from_codes(torch.from_numpy(w), scale), tile=tile, workspace=workspace, **others)
    assert not workspace.sums.any()
    assert not workspace.counters.any()
    return y.numpy()


TILES = [
    Tile("gemv", 32, 1, 32, 1, 1, 2), Tile("gemv", 16, 1, 8, 3, 1, 2),
    Tile("small_batch", 32, 16, 32, 1, 4, 3), Tile("small_batch", 16, 16, 16, 3, 4, 3),
    Tile("small_batch", 64, 32, 64, 2, 4, 3), Tile("small_batch", 32, 64, 32, 2, 4, 3),
    Tile("prefill", 32, 64, 32, 1, 4, 3), Tile("prefill", 64, 32, 16, 3, 4, 3), Tile("prefill", 16, 128, 64, 2, 4, 3),
]


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.kernel}-{tile.bn}x{tile.bm}x{tile.bk}-{tile.splits}")
@pytest.mark.parametrize(("n", "k"), [(35, 200), (16, 256)])
def test_sums_equal_the_integer_reference(tile, n, k, random):
    for m in (3,) if tile.kernel == "gemv" else (17, 70):
        x, w = operands(random, m, n, k)
        assert np.array_equal(product(x, w, tile), matmul(x, w))


@pytest.mark.parametrize("m", [1, 4, 5, 33, 64, 65, 130])
def test_the_chosen_kernel_gives_the_twins_bits(m, random):
    x, w = operands(random, m, 35, 140)
    quantised = activations(x, random.uniform(1e-3, 3, m))
    weights = from_codes(torch.from_numpy(w), torch.from_numpy(random.uniform(0.01, 2, 35).astype(np.float32)))
    residual = torch.from_numpy(random.standard_normal((m, 35)).astype(np.float32))
    expected = twins.linear(quantised, weights, residual)
    assert torch.equal(linear(quantised, weights, residual), expected)
    assert torch.equal(linear(quantised, weights, residual, out=residual), expected)  # the residual in its place
    assert torch.equal(residual, expected)


def test_the_twin_is_the_reference(random):
    x, w = operands(random, 3, 5, 90)
    scale, w_scale = random.uniform(0.1, 1, (3, 1)).astype(np.float32), np.float32(0.37)
    expected = matmul(x, w).astype(np.float32) * (scale * w_scale)
    result = twins.linear(activations(x, scale[:, 0]), from_codes(torch.from_numpy(w), float(w_scale)))
    assert np.array_equal(result.numpy(), expected)


def test_a_token_has_the_same_bits_at_any_batch_tile_and_split(random):
    x, w = operands(random, 45, 20, 260)
    quantised = activations(x, random.uniform(1e-3, 3, 45))
    weights = from_codes(torch.from_numpy(w), 0.731)
    whole = linear(quantised, weights)
    for tile in TILES:
        for first, m in ((5, 2), (3, 35)):
            if tile.kernel == "gemv" and m > 4:
                continue
            part = Quantised(quantised.codes[first:first + m], quantised.scale[first:first + m],
                             quantised.sums[first:first + m], quantised.length)
            assert torch.equal(linear(part, weights, tile=tile), whole[first:first + m])


@pytest.mark.parametrize("tile", [TILES[1], TILES[3], TILES[7]], ids=lambda tile: tile.kernel)
def test_extremes_are_exact(tile):
    x = np.repeat(np.array([[-128], [127]], np.int8), 200, axis=1)
    w = np.repeat(np.array([[-1], [0], [1]], np.int8), 200, axis=1)
    assert product(x, w, tile).tolist() == [[200 * 128, 0, -200 * 128], [-200 * 127, 0, 200 * 127]]


def test_the_longest_row_stays_inside_int32(monkeypatch):
    """Every accumulator at its largest: K = 2^19, the most that is allowed; the interpreter checks every sum."""
    from triton.runtime.interpreter import interpreter_builder as builder

    monkeypatch.setattr(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=True))
    k = 1 << 19
    x, w = np.full((1, k), -128, np.int8), np.ones((1, k), np.int8)
    for tile in (Tile("gemv", 1, 1, 1 << 15, 1, 1, 2), Tile("small_batch", 1, 1, 1 << 17, 1, 4, 3),
                 Tile("prefill", 1, 1, 1 << 17, 1, 4, 3)):
        assert product(x, w, tile).item() == -128 * k


@settings(max_examples=10)
@given(st.sampled_from(TILES), st.integers(1, 20), st.integers(1, 40), st.integers(1, 300), st.integers(1, 5),
       st.integers(0, 2**32 - 1))
def test_any_shape_and_number_of_splits_is_exact(tile, m, n, k, splits, seed):
    m = min(m, 4) if tile.kernel == "gemv" else m
    x, w = operands(np.random.default_rng(seed), m, n, k)
    tile = Tile(tile.kernel, tile.bn, tile.bm, tile.bk, splits, tile.warps, tile.stages)
    assert np.array_equal(product(x, w, tile), matmul(x, w))


def test_a_product_whose_partial_sums_do_not_fit_is_not_split(random):
    x, w = operands(random, 3, 40, 300)
    weights = from_codes(torch.from_numpy(w), 1.0)
    small = Workspace(torch.zeros(10, dtype=torch.int32), torch.zeros(10, dtype=torch.int32))
    y = linear(activations(x), weights, tile=TILES[3], workspace=small)
    assert np.array_equal(y.numpy(), matmul(x, w))
    assert not small.sums.any()


def test_operands_that_do_not_fit_are_refused(random):
    x, w = operands(random, 3, 5, 90)
    weights = from_codes(torch.from_numpy(w), 1.0)
    with pytest.raises(TritwiseError, match="do not fit weights"):
        linear(activations(x[:, :80]), weights)
    with pytest.raises(TritwiseError, match="residual is"):
        linear(activations(x), weights, torch.zeros(3, 4))
    with pytest.raises(TritwiseError, match="out is"):
        linear(activations(x), weights, out=torch.zeros(5, 3).T)
    with pytest.raises(TritwiseError, match="takes no 5 tokens"):
        linear(activations(np.zeros((5, 90), np.int8)), weights, tile=TILES[0])
    with pytest.raises(TritwiseError, match="written for CUDA"):
        linear(Quantised(torch.zeros(1, 128, dtype=torch.int8, device="meta"), torch.zeros(1, device="meta"),
                         torch.zeros(1, dtype=torch.int32, device="meta"), 90), weights.to("meta"))


def test_every_shape_of_the_published_models_has_a_tile_without_an_empty_split():
    for n, k in ((3840, 2560), (2560, 6912), (3200, 8640), (22016, 4096), (5120, 13824), (57344, 8192), (8192, 28672)):
        for m in (1, 2, 8, 16, 17, 64, 65, 128, 1000, 5000):
            k4 = -(-k // 64) * 16
            tile = choose(m, n, k4, torch.device("cpu"))
            steps, splits, even = tile.divided(k4)
            length = k4 // 4 if tile.kernel == "gemv" else k4
            assert (splits - 1) * steps * tile.bk < length <= splits * steps * tile.bk
            assert even == (splits * steps * tile.bk == length)


def test_codes_of_the_weights_come_back(random):
    _, w = operands(random, 1, 9, 77)
    assert np.array_equal(codes_of(from_codes(torch.from_numpy(w), 1.0)).numpy(), w)
