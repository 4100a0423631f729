"""The order of samples: pure, complete, the same stream at any world size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.train import SampleOrder
from tritwise.train.samples import permute

IDS = np.arange(10_000, dtype=np.uint16)


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection_for_every_size_and_key(size, key):
    assert sorted(permute(np.arange(size, dtype=np.uint64), size, key).tolist()) == list(range(size))


def test_one_epoch_visits_every_window_once():
    order = SampleOrder(IDS, 64, seed=7)
    starts = order.starts(np.arange(order.windows))
    assert len(set(starts.tolist())) == order.windows
    assert len({start % 64 for start in starts.tolist()}) == 1
    assert starts.max() + 65 <= len(IDS)


def test_epochs_differ_in_order_and_offset():
    order = SampleOrder(IDS, 64, seed=7)
    epochs = [order.starts(np.arange(e * order.windows, (e + 1) * order.windows)) for e in range(8)]
    assert len({int(starts[0]) % 64 for starts in epochs}) > 1
    assert len({tuple((starts // 64).tolist()) for starts in epochs}) == 8


@given(step=st.integers(0, 10**6), world=st.sampled_from([1, 2, 4, 8]))
def test_the_union_over_ranks_is_the_global_batch_at_any_world_size(step, world):
    order = SampleOrder(IDS, 32, seed=1)
    whole = order.batch(step, 8)
    parts = [order.batch(step, 8, rank=rank, world=world) for rank in range(world)]
    assert np.array_equal(np.stack(parts, axis=1).reshape(whole.shape), whole)


def test_a_batch_depends_on_nothing_but_its_arguments():
    steps = [5, 3, 900, 5]
    one = SampleOrder(IDS, 32, seed=1)
    batches = [one.batch(step, 4) for step in steps]
    assert np.array_equal(batches[0], batches[3])
    for step, batch in zip(steps, batches, strict=True):
        assert np.array_equal(SampleOrder(IDS, 32, seed=1).batch(step, 4), batch)
    assert not np.array_equal(SampleOrder(IDS, 32, seed=2).batch(5, 4), batches[0])


def test_a_sample_is_a_contiguous_piece_of_the_stream():
    for row in SampleOrder(IDS, 32, seed=1).batch(11, 4):
        assert np.array_equal(np.diff(row), np.ones(32))


def test_a_shard_too_small_for_one_sample_is_refused_with_the_numbers():
    with pytest.raises(TritwiseError, match=r"holds 100 tokens, too few for sequences of 64"):
        SampleOrder(IDS[:100], 64, seed=0)


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(TritwiseError, match="cannot be shared by 3 ranks"):
        SampleOrder(IDS, 32, seed=0).batch(0, 8, rank=0, world=3)
