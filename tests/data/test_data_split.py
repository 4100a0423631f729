"""Held-out repositories: deterministic, of about the asked share, never everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.data.split import MAX_SHARE, MIN_HELD_OUT_BYTES, choose_held_out, seeded_order

SIZES = st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 1_000_000), min_size=2, max_size=40)


@given(SIZES, st.floats(0.001, 0.5), st.integers(0, 1 << 62))
def test_some_repositories_are_held_out_and_some_are_left(sizes, fraction, seed):
    chosen = choose_held_out(sizes, fraction, seed)
    assert chosen == sorted(set(chosen))
    assert 0 < len(chosen) < len(sizes)
    target = fraction * sum(sizes.values())
    if len(chosen) > 1:
        assert all(MIN_HELD_OUT_BYTES <= sizes[name] <= MAX_SHARE * target for name in chosen)
        assert sum(sizes[name] for name in chosen) < (1 + MAX_SHARE) * target
    assert choose_held_out(dict(reversed(sizes.items())), fraction, seed) == chosen


def test_many_small_repositories_reach_the_asked_share():
    sizes = {f"r{i}": 5000 + 37 * i for i in range(400)}
    for seed in range(5):
        held = sum(sizes[name] for name in choose_held_out(sizes, 0.1, seed))
        assert 0.1 <= held / sum(sizes.values()) <= 0.1 * (1 + MAX_SHARE)
    assert choose_held_out(sizes, 0.1, 0) != choose_held_out(sizes, 0.1, 1)


def test_a_giant_is_passed_over_and_what_may_not_be_chosen_is_not():
    sizes = {"giant": 10_000_000} | {f"r{i}": 20_000 for i in range(50)} | {"tiny": 10}
    chosen = choose_held_out(sizes, 0.03, 0, may_be_held_out=lambda name: name != "r0")
    assert len(chosen) > 4
    assert not {"giant", "tiny", "r0"} & set(chosen)


def test_the_smallest_is_taken_when_all_are_too_large():
    assert choose_held_out({"a": 90_000, "b": 50_000, "c": 60_000}, 0.01, 0) == ["b"]


def test_the_largest_is_taken_when_all_are_trivial():
    assert choose_held_out({"a": 90, "b": 50}, 0.01, 0) == ["a"]


def test_nothing_is_held_out_when_nothing_is_asked_for():
    assert choose_held_out({"a": 1}, 0, 0) == []


@pytest.mark.parametrize("names", [["a"], []])
def test_one_repository_cannot_be_split(names):
    with pytest.raises(TritwiseError, match="nothing can be held out"):
        choose_held_out(dict.fromkeys(names, 10_000), 0.1, 0)


def test_a_seeded_order_is_a_permutation_that_differs_by_seed_and_purpose():
    names = [f"r{i}" for i in range(50)]
    first = seeded_order(names, 0, "x")
    assert sorted(first) == sorted(names)
    assert first == seeded_order(names[::-1], 0, "x")
    assert first not in (names, seeded_order(names, 1, "x"), seeded_order(names, 0, "y"))
