"""Who carries the stages: all cores of this machine, or an engine that stands already."""

from tritwise.data.flow.local import available_cores, run_steps
from tritwise.data.flow.meter import moved
from tritwise.data.flow.steps import Counts, Step, counts_of, each_count, needs_room, seconds_of, sizes_of, total

__all__ = ["Counts", "Step", "available_cores", "counts_of", "each_count", "moved", "needs_room", "run_steps",
           "seconds_of", "sizes_of", "total"]
