"""The order of samples: pure, complete, the same stream at any world size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.data import open_shards, write_shard
from tritwise.data.shard_parts import part_path, write_split_index
from tritwise.data.shards import Windows
from tritwise.train import SampleOrder
from tritwise.train.samples import NO_TARGET, permute, sample_order

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


# Windows of 5 ids in two parts: pieces, and padding (0) as a piece of its own.
PARTS = [[[5, 6, 0], [0, 0], [7, 8, 9, 7, 8]], [[9, 9, 9, 0], [0], [5, 0], [6, 6, 0], [3, 0], [0, 0, 0]]]


@pytest.fixture
def windows(tmp_path):
    for number, documents in enumerate(PARTS):
        write_shard(part_path(tmp_path, "train", number), map(np.array, documents), vocab_size=300, tokenizer_hash="t",
                    recipe_hash="r", windows=Windows(5, 0))
    write_split_index(tmp_path, "train", len(PARTS))
    return open_shards(tmp_path, "train")


def test_stored_windows_are_the_samples_and_their_padding_is_no_target(windows):
    order = sample_order(windows, 4, seed=3)
    rows = order.rows(np.arange(2 * order.windows)).tolist()
    expected = [[5, 6, 0, NO_TARGET, NO_TARGET], [7, 8, 9, 7, 8], [9, 9, 9, 0, NO_TARGET], [5, 0, 6, 6, 0],
                [3, 0, NO_TARGET, NO_TARGET, NO_TARGET]]
    for epoch in (rows[:5], rows[5:]):
        assert sorted(epoch) == sorted(expected)
    assert np.array_equal(order.batch(1, 4), np.array(rows[4:8]))


def test_windows_of_another_length_than_the_trainings_are_refused_with_both(windows):
    with pytest.raises(TritwiseError, match="holds windows of 5 tokens, not of 9") as error:
        sample_order(windows, 8, seed=0)
    assert error.value.fix == "train.sequence_length = 4, or data.packing.window = 8 and new shards"


def test_a_stream_without_windows_is_cut_anywhere(tmp_path):
    write_shard(tmp_path / "train.ds", [IDS], vocab_size=10_000, tokenizer_hash="t", recipe_hash="r")
    order = sample_order(open_shards(tmp_path, "train"), 64, seed=7)
    assert np.array_equal(order.batch(3, 4), SampleOrder(IDS, 64, seed=7).batch(3, 4))
