"""Sampling on the device keeps and draws the tokens that the CPU core does from the same logits."""

import numpy as np
import pytest
import torch

from tritwise.engine.sampling import Sampling, distribution, sample
from tritwise.kernels.device_sampling import draw_room, mass_scale, row_settings, sample_rows
from tritwise.kernels.head import head_room, make_head

# numpy warns where the hardware gives an infinity or NaN, which are expected here.
pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
NAMES = ("temperature", "top_k", "top_p", "min_p", "seed")


def sampling(values):
    return Sampling(**dict(zip(NAMES, values, strict=True)))


def by_the_core(logits, rows, positions):
    return [sample(of, sampling(values), position)
            for of, values, position in zip(logits, rows, positions, strict=True)]


def drawn(logits, rows, positions, **steps):
    """Tokens, and the ids of each row that have a weight."""
    m, vocab = logits.shape
    out, room = torch.full((m,), -7, dtype=torch.int32), draw_room(m, vocab)
    sample_rows(torch.from_numpy(logits), row_settings(rows, vocab), torch.tensor(positions),
                head_room(make_head(torch.zeros(vocab, 8), "int8"), m), room, out, **steps)
    return out.tolist(), [np.flatnonzero(weights).tolist() for weights in room.weights.numpy()]


def check_rows(logits, rows, positions, **steps):
    """Tokens are the core's, and what else could have been drawn is the same; returns both."""
    tokens, kept = drawn(logits, rows, positions, **steps)
    assert tokens == by_the_core(logits, rows, positions)
    for of, values, ids in zip(logits, rows, kept, strict=True):
        how = sampling(values)
        assert how.temperature == 0 or ids == distribution(of, how)[0].tolist(), how
    return tokens, kept


def seeds(random, rows):
    return [(*how, int(random.integers(0, 2**64, dtype=np.uint64))) for how in rows]


@pytest.mark.parametrize("vocab", [5, 300])
def test_tokens_equal_the_cores_for_every_setting_in_one_batch(vocab, random):
    settings = [(0.0, 0, 1.0, 0.0), (0.7, 0, 0.9, 0.0), (5.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.05), (1.3, 3, 1.0, 0.0),
                (1.0, 50, 0.8, 0.0), (3.0, 290, 0.95, 0.01), (0.9, 20, 1.0, 0.2), (1e-300, 0, 0.5, 0.0),
                (30.0, 0, 1 - 2.0**-53, 0.0), (0.0, 7, 0.3, 0.0), (2.0, 0, 0.6, 0.5), (1.0, 257, 1.0, 0.0)]
    rows = [(temperature, min(top_k, vocab - 1), *rest) for temperature, top_k, *rest in settings]
    rows = seeds(random, rows[1::4] if vocab == 5 else rows)
    logits = (random.normal(size=(len(rows), vocab)) * 3).astype(np.float32)
    logits[::3] = np.round(logits[::3])  # equal ones
    logits[1, 2:] = -np.inf
    tokens, _ = check_rows(logits, rows, random.integers(0, 10_000, len(rows)).tolist())
    assert len(set(tokens)) > 1


def test_a_vocabulary_of_many_blocks(random):
    rows = seeds(random, [(0.7, 0, 0.9, 0.0), (4.0, 2000, 0.7, 0.0)])
    logits = (random.normal(size=(len(rows), 5000)) * 3).astype(np.float32)
    logits[0, 1000:4500] = -np.inf  # as a mask leaves it
    check_rows(logits, rows, [3, 1 << 40])


def test_among_equal_logits_at_the_cut_the_lowest_ids_are_kept(random):
    """All logits are one of three values, so the cut has equals on both sides, in several programs of the kernel."""
    rows = seeds(random, [(2.0, 1100, 1.0, 0.0), (1.0, 0, 0.8, 0.0), (1.0, 2000, 0.5, 0.0)])
    logits = random.integers(0, 3, size=(len(rows), 2500)).astype(np.float32) - 1
    logits[logits == 0] *= np.where(random.random((logits == 0).sum()) < 0.5, 1, -1)  # -0 equals 0
    logits[0, 2100:] = -np.inf
    logits[1] = 0.0
    _, kept = check_rows(logits, rows, [9, 10, 11])
    assert len(kept[0]) == 1100
    assert kept[1] == list(range(2000))


@pytest.mark.parametrize("top_p", [5e-324, 1e-9, 0.3, 0.97, 1 - 1e-9])
def test_top_p_of_any_size_behind_top_k_and_before_min_p(top_p, random):
    rows = seeds(random, [(1.0, 0, top_p, 0.0), (2.0, 40, top_p, 0.1)])
    logits = (random.normal(size=(len(rows), 130)) * 4).astype(np.float32)
    check_rows(logits, rows, [1, 2])


def test_more_tokens_asked_for_than_are_allowed(random):
    rows = seeds(random, [(1.0, 200, 1.0, 0.0), (1.0, 200, 0.9, 0.0)])
    logits = random.normal(size=(2, 300)).astype(np.float32)
    logits[:, 3:] = -np.inf
    check_rows(logits, rows, [1, 2])


def test_a_row_that_is_no_number_gives_minus_one_beside_others(random):
    logits = random.normal(size=(4, 300)).astype(np.float32)
    logits[1, 7], logits[3] = np.nan, -np.inf
    rows = [(1.0, 0, 0.9, 0.0, 1), (1.0, 9, 0.9, 0.0, 1), (1.0, 5, 1.0, 0.0, 1), (1.0, 0, 0.5, 0.0, 1)]
    found, _ = drawn(logits, rows, [4, 5, 6, 7])
    assert [found[1], found[3]] == [-1, -1]
    assert [found[0], found[2]] == by_the_core(logits[[0, 2]], [rows[0], rows[2]], [4, 6])


def test_a_graph_may_leave_out_what_its_rows_do_not_need(random):
    logits = random.normal(size=(2, 300)).astype(np.float32)
    assert drawn(logits, [(0.0, 0, 1.0, 0.0, 0)] * 2, [0, 1], draws=False)[0] == logits.argmax(-1).tolist()
    check_rows(logits, [(1.0, 0, 1.0, 0.1, 5), (1.0, 0, 1.0, 0.0, 6)], [0, 1], top_k=False, top_p=False)
    check_rows(logits, [(1.0, 0, 0.7, 0.0, 5), (1.0, 0, 1.0, 0.0, 6)], [0, 1], top_k=False)
    check_rows(logits, [(1.0, 9, 1.0, 0.0, 5), (1.0, 0, 1.0, 0.0, 6)], [0, 1], top_p=False)


def test_settings_in_one_batch_are_each_rows_own(random):
    """Greedy, cuts off, top-k beyond the vocabulary (off), written into the tensors as a captured graph's are."""
    rows = [(0.0, 40, 1.0, 0.0, 3), (1.0, 0, 0.4, 0.0, 4), (1.0, 5000, 1.0, 0.0, 5), (0.8, 12, 0.9, 0.0, 6)]
    logits = (random.normal(size=(len(rows), 300)) * 2).astype(np.float32)
    how, positions = row_settings(rows, 300), list(range(len(rows)))
    how.top_k.copy_(torch.tensor([row[1] for row in rows]))  # 5000 stays 5000
    out = torch.empty(len(rows), dtype=torch.int32)
    head = head_room(make_head(torch.zeros(300, 8)), len(rows))
    args = torch.from_numpy(logits), how, torch.arange(len(rows)), head, draw_room(len(rows), 300), out
    sample_rows(*args)
    assert out.tolist() == by_the_core(logits, rows, positions)
    # The same tensors with other contents.
    other = [rows[2], rows[3], rows[0], rows[1]]
    for name, column in vars(row_settings(other, 300)).items():
        getattr(how, name).copy_(column)
    sample_rows(*args)
    assert out.tolist() == by_the_core(logits, other, positions)


@pytest.mark.parametrize("vocab", [1, 2, 32_000, 1 << 18, (1 << 18) + 1, 1 << 24])
def test_all_masses_together_stay_below_two_to_the_62(vocab):
    assert mass_scale(vocab) * vocab <= 2**62
    assert vocab > 1 << 18 or mass_scale(vocab) == 2**44
