"""Intervals by resampling against what theory says of simple cases."""

import math

import numpy as np
import pytest

from tritwise import TritwiseError
from tritwise.evaluate.bootstrap import interval


def test_the_interval_of_a_mean_is_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    found = interval(values)
    half = 1.96 * values.std() / math.sqrt(4000)
    assert found.estimate == values.mean()
    # The ends of 10 000 draws are known to about two percent of the width.
    assert abs(found.low - (values.mean() - half)) < 0.1 * half
    assert abs(found.high - (values.mean() + half)) < 0.1 * half
    assert found.excludes_zero


def test_a_ratio_weighs_each_value_by_its_size():
    assert interval([2, 30], [1, 10]).estimate == 32 / 11
    exact = interval([2, 4, 6], [1, 2, 3])
    assert (exact.low, exact.high) == (2, 2)


def test_whole_groups_are_resampled():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 50)
    values = rng.normal(0, 1, 20)[groups] + rng.normal(0, 0.01, 1000)
    alone, grouped = interval(values), interval(values, groups=groups.tolist())
    assert alone.estimate == pytest.approx(grouped.estimate, abs=1e-12)
    assert 5 < (grouped.high - grouped.low) / (alone.high - alone.low) < 9  # the square root of 50


def test_the_same_numbers_and_seed_give_the_same_interval():
    values = np.arange(50.0) - 20
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1) != interval(values, seed=2)
    assert not interval([-1.0, 1.0] * 20).excludes_zero


def test_nothing_to_resample_is_an_error():
    for values, weights in (([], None), ([1.0], [1.0, 2.0])):
        with pytest.raises(TritwiseError, match="nothing to resample"):
            interval(values, weights)
