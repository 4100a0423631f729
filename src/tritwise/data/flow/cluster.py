"""The same steps on datatrove's executors: processes of one machine, a Ray cluster, or Slurm.

Every machine sees the work directory at the same path. A task marks itself as it does locally, so another executor can
go on where one was stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tritwise.common.errors import TritwiseError
from tritwise.data.flow.steps import Step, counts_of, prepare, run_task

Executor = Literal["datatrove", "ray", "slurm"]


@dataclass(frozen=True)
class Task:
    """A step as datatrove calls the blocks of a pipeline: `(data, rank, world_size)`."""

    work: Path
    step: Step

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        run_task(self.work, self.step, rank)


def _executors() -> dict[str, Callable[..., Any]]:
    try:
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    except ImportError:
        raise TritwiseError("running the data stages on a cluster needs datatrove",
                            fix="pip install 'tritwise[cluster]'") from None
    return {"datatrove": LocalPipelineExecutor, "ray": RayPipelineExecutor, "slurm": SlurmPipelineExecutor}


def run_steps(work: Path, steps: Sequence[Step], executor: Executor, *, workers: int | None = None,
              options: dict[str, Any] | None = None) -> None:
    """Run steps on an executor of datatrove; returns when they are done, on Slurm when they are submitted.

    `options` go to the executor as they are: partition, time and memory of Slurm, mem_per_cpu_gb of Ray. With Ray,
    `ray.init` has been called. Raises TritwiseError when a step ends with tasks that are not done.
    """
    make = _executors()[executor]
    before = None
    for step in steps:
        # What was submitted to Slurm is not done yet, so there each task finds out for itself.
        if executor != "slurm" and step.needless is not None and step.needless():
            continue
        if not prepare(work, step):
            continue
        # Which tasks are done is ours to know: datatrove's own marks know nothing of settings.
        settings: dict[str, Any] = {
            "pipeline": [Task(work, step)], "tasks": step.tasks, "workers": workers or -1, "skip_completed": False,
            "logging_dir": str(work / "logs" / step.name)} | (options or {})
        if executor == "slurm":
            settings |= {"job_name": step.name, "depends": before}
        job = make(**settings)
        job.run()
        if executor == "slurm":
            before = job
        else:
            counts_of(work, step)
