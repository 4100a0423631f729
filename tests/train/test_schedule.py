"""The published schedules, point by point."""

import itertools
import math

import pytest

from tritwise.config import ScheduleRecipe
from tritwise.train import learning_rate, weight_decay

TWO_STAGE = ScheduleRecipe(shape="two_stage", peak=1.5e-3, second_peak=1e-3, floor=3e-5, warmup_steps=375)
COSINE = ScheduleRecipe(shape="cosine", peak=2.5e-4, floor=2.5e-5, warmup_steps=375)
STEPS = 100_000


@pytest.mark.parametrize(("step", "expected"), [
    (0, 0.0),                # linear warm-up starts at zero
    (375, 1.5e-3),           # peak
    (49_999, 7.68e-4),       # just before the switch
    (50_000, 5.16e-4),       # just after it
    (100_000, 3.0e-5),       # the common floor
])
def test_the_two_stage_curve_goes_through_the_five_points_of_the_figure(step, expected):
    # The figure's points were read to three digits: half a unit in the third, and one for the reading itself.
    assert learning_rate(TWO_STAGE, step, STEPS) == pytest.approx(expected, rel=2e-3)


def test_each_stage_is_one_straight_line():
    for begin, end in ((375, 49_999), (50_000, 100_000)):
        points = [learning_rate(TWO_STAGE, step, STEPS) for step in range(begin, end + 1, (end - begin) // 4)]
        steps = [a - b for a, b in itertools.pairwise(points)]
        assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-9)


def test_weight_decay_is_a_step_in_two_stages_and_constant_with_cosine():
    assert [weight_decay(TWO_STAGE, s, STEPS) for s in (1, 49_999, 50_000, 100_000)] == [0.1, 0.1, 0.0, 0.0]
    assert {weight_decay(COSINE, s, STEPS) for s in (1, 49_999, 50_000, 100_000)} == {0.1}


def test_cosine_falls_from_peak_to_floor_through_the_middle():
    assert learning_rate(COSINE, 375, STEPS) == COSINE.peak
    assert learning_rate(COSINE, STEPS, STEPS) == pytest.approx(COSINE.floor)
    middle = 375 + (STEPS - 375) / 2
    assert learning_rate(COSINE, round(middle), STEPS) == pytest.approx((COSINE.peak + COSINE.floor) / 2, rel=1e-4)


def test_no_warm_up_starts_at_the_peak():
    schedule = ScheduleRecipe(shape="cosine", peak=1.0, floor=0.0, warmup_steps=0)
    assert learning_rate(schedule, 0, 10) == 1.0
    assert math.isclose(learning_rate(schedule, 10, 10), 0.0, abs_tol=1e-12)
