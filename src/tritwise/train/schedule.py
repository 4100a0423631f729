"""Learning rate and weight decay as pure functions of the step.

The two-stage shape is read off figure 1(c) of "The Era of 1-bit LLMs: Training Tips, Code and FAQ": two straight
lines, each from its own peak at the end of warm-up down to one common floor at the last step; the run follows the first
line up to the switch and the second from there on. The second stage is the second half of its line, not a restart at
its peak.
"""

import math

from tritwise.config import ScheduleRecipe


def learning_rate(schedule: ScheduleRecipe, step: int, steps: int) -> float:
    """Learning rate of update number `step`, 1..`steps` (0 gives the start of warm-up, which is 0)."""
    if step < schedule.warmup_steps:
        return schedule.peak * step / schedule.warmup_steps
    fraction = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    if schedule.shape == "cosine":
        return schedule.floor + (schedule.peak - schedule.floor) * 0.5 * (1 + math.cos(math.pi * fraction))
    peak = schedule.peak if _first_stage(schedule, step, steps) else schedule.second_peak
    return peak + (schedule.floor - peak) * fraction


def weight_decay(schedule: ScheduleRecipe, step: int, steps: int) -> float:
    """Weight decay of update number `step`: constant, or zero from the switch of `two_stage` on."""
    if schedule.shape == "two_stage" and not _first_stage(schedule, step, steps):
        return 0.0
    return schedule.weight_decay


def _first_stage(schedule: ScheduleRecipe, step: int, steps: int) -> bool:
    return step < schedule.switch * steps
