"""Best-fit packing: the bins of a plain search, nothing lost, nothing cut that fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.data.packing import Spool, best_fit, cut_to_windows, neighbours

CAPACITIES = st.integers(1, 40)


def plain_best_fit(lengths, capacity):
    """Best-fit decreasing as it is defined: look at every bin."""
    bins, rooms = [], []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [number for number, room in enumerate(rooms) if room >= lengths[item]]
        if fitting:
            number = min(fitting, key=lambda n: (rooms[n], n))
        else:
            number = len(bins)
            bins.append([])
            rooms.append(capacity)
        bins[number].append(item)
        rooms[number] -= lengths[item]
    return sorted(map(sorted, bins))


@given(CAPACITIES.flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=60))))
@settings(max_examples=300, deadline=None)
def test_bins_are_those_of_a_search_through_all_of_them(case):
    capacity, lengths = case
    bins = best_fit(lengths, capacity)
    assert bins == plain_best_fit(lengths, capacity)
    assert sorted(item for members in bins for item in members) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in members) <= capacity for members in bins)
    # Two bins that are half empty would have been one; so at most twice as many as ids need, and one.
    assert len(bins) <= 2 * sum(lengths) / capacity + 1


def test_many_items_are_packed_as_by_search():
    lengths = np.random.default_rng(0).integers(1, 513, 3000).tolist()
    assert best_fit(lengths, 512) == plain_best_fit(lengths, 512)


def test_no_items_are_no_bins_and_wrong_lengths_are_refused():
    assert best_fit([], 8) == []
    for lengths in ([0], [9], [3, -1]):
        with pytest.raises(ValueError, match=r"in 1\.\.8"):
            best_fit(lengths, 8)


@given(st.integers(1, 500), st.integers(3, 50))
def test_only_what_is_longer_than_a_window_is_cut_and_never_before_the_last_id_alone(length, window):
    pieces = cut_to_windows(length, window)
    assert sum(pieces) == length
    assert len(pieces) == -(-length // window)
    assert all(0 < piece <= window for piece in pieces)
    assert length == 1 or pieces[-1] > 1
    assert all(piece >= window - 1 for piece in pieces[:-1])


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(0, 2)), max_size=40))
def test_neighbours_are_as_many_files_of_a_repository_as_a_window_holds(items):
    lengths, groups = [length for length, _ in items], sorted(group for _, group in items)
    counts = neighbours(lengths, groups, 10)
    assert sum(counts) == len(items)
    assert all(counts)
    at = 0
    for count in counts:
        assert len(set(groups[at:at + count])) == 1
        assert sum(lengths[at:at + count]) <= 10
        following = at + count
        if following < len(items) and groups[following] == groups[at]:
            assert sum(lengths[at:following + 1]) > 10
        at = following


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(0, 2), st.booleans()), max_size=30), st.booleans())
@settings(deadline=None)
def test_windows_hold_every_piece_once_and_are_filled_up_with_padding(tmp_path_factory, items, keep):
    pieces = [np.full(length, number + 1) for number, (length, _, _) in enumerate(items)]
    groups = sorted(group for _, group, _ in items)
    with Spool(tmp_path_factory.getbasetemp(), np.dtype("<u2")) as spool:
        for piece, group, (_, _, is_open) in zip(pieces, groups, items, strict=True):
            spool.add(piece, group, is_open=is_open)
        entries = [entry.tolist() for entry in spool.windows(10, 0, keep_neighbours=keep)]
    stream = [id_ for entry in entries for id_ in entry]
    window_of = {entry[0] - 1: place // 10 for entry, place in zip(
        entries, np.cumsum([0, *map(len, entries)]).tolist(), strict=False) if entry[0]}
    assert len(stream) % 10 == 0
    assert sorted(entry for entry in entries if entry[0]) == sorted(piece.tolist() for piece in pieces)
    for start in range(0, len(stream), 10):
        window = stream[start:start + 10]
        filled = window.index(0) if 0 in window else 10
        assert not any(window[filled:])
        members = sorted(set(window[:filled]), key=window.index)
        assert members == sorted(members)  # as they came
        assert all(not items[number - 1][2] for number in members) or len(members) == 1
    if keep:  # a unit stays together
        sizes = [10 if is_open else length for length, _, is_open in items]
        at = 0
        for count in neighbours(sizes, groups, 10):
            assert len({window_of[number] for number in range(at, at + count)}) == 1
            at += count
