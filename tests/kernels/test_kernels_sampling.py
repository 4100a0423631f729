"""Sampling on the device draws the tokens that the CPU core draws from the same logits."""

import numpy as np
import pytest
import torch

from tritwise.engine.sampling import Sampling, sample
from tritwise.kernels.device_sampling import draw_room, on_device, row_settings, sample_rows
from tritwise.kernels.head import head_room, make_head

# numpy warns where the hardware gives an infinity or NaN, which are expected here.
pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")


def drawn(logits, rows, positions, **how):
    m, vocab = logits.shape
    out = torch.full((m,), -7, dtype=torch.int32)
    sample_rows(torch.from_numpy(logits), row_settings(rows, vocab), torch.tensor(positions),
                head_room(make_head(torch.zeros(vocab, 8), "int8"), m), draw_room(m, vocab), out, **how)
    return out.tolist()


def by_the_core(logits, rows, positions):
    names = ("temperature", "top_k", "top_p", "min_p", "seed")
    return [sample(row, Sampling(**dict(zip(names, how, strict=True))), position)
            for row, how, position in zip(logits, rows, positions, strict=True)]


@pytest.mark.parametrize("vocab", [5, 300])
def test_tokens_equal_the_cores_for_every_setting_that_stays_on_the_device(vocab, random):
    settings = [(0.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (5.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.05), (1.3, 3, 1.0, 0.0),
                (1.0, 50, 0.8, 0.0), (3.0, 256, 0.95, 0.01), (0.9, 20, 1.0, 0.2), (1e-300, 0, 1.0, 0.0)]
    rows = [(*how, int(random.integers(0, 2**64, dtype=np.uint64))) for how in settings]
    rows = rows[::2] if vocab == 5 else rows  # one-element operations are slow under the interpreter
    rows = [(temperature, min(top_k, vocab - 1), *rest) for temperature, top_k, *rest in rows]
    logits = (random.normal(size=(len(rows), vocab)) * 3).astype(np.float32)
    logits[::3] = np.round(logits[::3])  # equal ones
    logits[1, 2:] = -np.inf
    positions = random.integers(0, 10_000, len(rows)).tolist()
    expected = by_the_core(logits, rows, positions)
    assert drawn(logits, rows, positions) == expected
    assert len(set(expected)) > 1


def test_a_row_that_is_no_number_gives_minus_one_beside_others(random):
    logits = random.normal(size=(3, 300)).astype(np.float32)
    logits[1, 7] = np.nan
    rows = [(1.0, 0, 1.0, 0.0, 1), (1.0, 0, 1.0, 0.0, 1), (1.0, 5, 1.0, 0.0, 1)]
    found = drawn(logits, rows, [4, 5, 6])
    assert found[1] == -1
    assert [found[0], found[2]] == by_the_core(logits[[0, 2]], [rows[0], rows[2]], [4, 6])


def test_a_graph_without_draws_is_greedy(random):
    logits = random.normal(size=(2, 300)).astype(np.float32)
    assert drawn(logits, [(0.0, 0, 1.0, 0.0, 0)] * 2, [0, 1], draws=False) == logits.argmax(-1).tolist()


@pytest.mark.parametrize(("how", "expected"), [
    ({"temperature": 0.0, "top_k": 0, "top_p": 0.5}, True), ({"temperature": 1.0, "top_k": 0, "top_p": 0.5}, False),
    ({"temperature": 1.0, "top_k": 257, "top_p": 1.0}, False), ({"temperature": 1.0, "top_k": 40, "top_p": 0.5}, True),
    ({"temperature": 0.0, "top_k": 0, "top_p": 1.0, "looks_back": True}, False)])
def test_what_goes_through_the_host_is_said(how, expected):
    assert on_device(**how) is expected


def test_core_masks_are_left_to_the_host():
    assert not on_device(temperature=0.0, top_k=0, top_p=1.0, masked=True)


def test_ties_at_the_end_of_top_k_are_broken_by_the_id(random):
    """All logits are one of three values, so the k-th largest always has equals on both sides of the cut."""
    k = [4, 60]
    logits = random.integers(0, 3, size=(len(k), 700)).astype(np.float32) - 1
    logits[logits == 0] *= np.where(random.random((logits == 0).sum()) < 0.5, 1, -1)  # -0 equals 0
    logits[0, 100:] = -np.inf
    rows = [(2.0, each, 1.0, 0.0, int(random.integers(1 << 62))) for each in k]
    found = drawn(logits, rows, [9] * len(k))
    assert found == by_the_core(logits, rows, [9] * len(k))
    kept = [set(np.lexsort((np.arange(700), -row))[:each]) for row, each in zip(logits, k, strict=True)]
    assert all(token in tokens for token, tokens in zip(found, kept, strict=True))


def test_the_first_tokens_are_those_of_a_stable_sort(random):
    from tritwise.kernels.first_tokens import first_tokens

    logits = (random.normal(size=(4, 333)) * 1e30).astype(np.float32)
    logits[1, 5:300] = -np.inf
    logits[2] = np.abs(logits[2]) * np.float32(1e-38)  # subnormal
    k, size = np.array([7, 256, 33, 40], np.int32), 256
    values, ids, ranks = (torch.full((4, size), -9, dtype=dtype) for dtype in (torch.float32, torch.int32, torch.int32))
    first_tokens[4,](torch.from_numpy(logits), torch.from_numpy(k), torch.tensor([1, 1, 1, 0], dtype=torch.int32),
                     values, ids, ranks, 333, SIZE=size, BLOCK=256)
    for row, count in enumerate(k[:3]):
        order = np.argsort(-logits[row], kind="stable")[:count]
        assert np.array_equal(values[row, :count].numpy(), logits[row, order])
        assert (values[row, count:] == -np.inf).all()
        assert np.array_equal(ids[row, :count].numpy(), np.sort(order))
        assert np.array_equal(order[ranks[row, :count].numpy()], np.sort(order))
        assert sorted(ranks[row].tolist()) == list(range(size))
    assert (values[3] == -9).all()


def test_settings_in_one_batch_are_each_rows_own(random):
    """Greedy, top-k off, top-k beyond the vocabulary (off), written into the tensors as a captured graph's are."""
    rows = [(0.0, 40, 1.0, 0.0, 3), (1.0, 0, 1.0, 0.0, 4), (1.0, 5000, 1.0, 0.0, 5), (0.8, 12, 0.9, 0.0, 6),
            (1.0, 1, 1.0, 0.0, 7)]
    logits = (random.normal(size=(len(rows), 300)) * 2).astype(np.float32)
    how = row_settings(rows, 300)
    how.top_k.copy_(torch.tensor([row[1] for row in rows]))  # 5000 stays 5000
    out = torch.empty(len(rows), dtype=torch.int32)
    head = head_room(make_head(torch.zeros(300, 8)), len(rows))
    args = torch.from_numpy(logits), how, torch.arange(len(rows)), head, draw_room(len(rows), 300), out
    sample_rows(*args)
    assert out.tolist() == by_the_core(logits, rows, list(range(len(rows))))
    # The same tensors with other contents.
    other = [rows[2], rows[3], rows[0], rows[1], rows[0]]
    for name, column in vars(row_settings(other, 300)).items():
        getattr(how, name).copy_(column)
    sample_rows(*args)
    assert out.tolist() == by_the_core(logits, other, list(range(len(rows))))
