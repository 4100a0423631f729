"""Who carries the stages: all cores of this machine, or an engine that stands already."""

from tritwise.data.flow.local import available_cores, run_steps
from tritwise.data.flow.steps import Counts, Step, counts_of, each_count, needs_room, seconds_of, total

__all__ = ["Counts", "Step", "available_cores", "counts_of", "each_count", "needs_room", "run_steps",
           "seconds_of", "total"]
