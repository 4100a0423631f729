"""The same steps on datatrove's executors: processes of one machine, a Ray cluster, or Slurm.

Every machine sees the work directory at the same path and has this package installed. A task marks itself as it does
locally, so any executor goes on where another one was stopped.
"""

import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tritwise.common.errors import TritwiseError
from tritwise.data.flow.steps import Step, mark, prepare, run_task, sent
from tritwise.data.flow.watch import watched

Executor = Literal["datatrove", "ray", "slurm"]
# To start a process costs an executor seconds, a small task of ours takes milliseconds. So with fewer workers than
# tasks each process is given several, one after the other: all of its worker's share, or a quarter of it where that is
# still enough, for tasks are not all equally long.
_TASKS_A_START, _STARTS_A_WORKER = 8, 4
# Between two looks at a job of Slurm, and how long a mark may take to be seen from another machine (NFS caches for 60).
_POLL_SECONDS, _SEEN_SECONDS = 5.0, 90.0


@dataclass(frozen=True)
class Tasks:
    """Tasks of a step, a group for each rank, called as the blocks of datatrove's pipelines are."""

    work: Path
    step: Step
    groups: tuple[tuple[int, ...], ...]

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        for number in self.groups[rank]:
            run_task(self.work, self.step, number)


def _executors() -> dict[str, Callable[..., Any]]:
    try:
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    except ImportError:
        raise TritwiseError("running the data stages on a cluster needs datatrove",
                            fix="pip install 'tritwise[cluster]'") from None
    return {"datatrove": LocalPipelineExecutor, "ray": RayPipelineExecutor, "slurm": SlurmPipelineExecutor}


def run_steps(work: Path, steps: Sequence[Step], executor: Executor, *, workers: int | None = None,
              options: dict[str, Any] | None = None) -> None:
    """Run steps on an executor of datatrove, one after the other; returns when they are done.

    `workers` is how many processes there are at once; None means one for each task. `options` go to the executor as
    they are: partition, time and mem_per_cpu_gb of Slurm, mem_per_cpu_gb of Ray. Ray is the cluster that `ray.init` or
    RAY_ADDRESS named. With Slurm this process submits an array job a step and waits for it; when it is killed, the same
    command goes on, after `scancel` of what is still queued. Raises TritwiseError when a step ends with tasks that are
    not done, and for options that the executor does not know.
    """
    make = _executors()[executor]
    for step in steps:
        if step.needless is not None and step.needless():
            continue
        ranks = prepare(work, step)
        if not ranks:
            continue
        groups = _groups(ranks, workers)
        logs = Path(work).resolve() / "logs" / step.name
        # Which tasks are done is ours to know: datatrove's own marks know nothing of settings.
        settings: dict[str, Any] = {"pipeline": [Tasks(Path(work).resolve(), sent(step), groups)], "tasks": len(groups),
                                    "workers": workers or -1, "skip_completed": False, "logging_dir": str(logs)}
        if executor == "slurm":
            settings["job_name"] = f"tritwise-{step.name.replace('/', '-')}"
        try:
            job = make(**settings | (options or {}))
        except TypeError as error:
            raise TritwiseError(f"the {executor} executor does not take these options", why=str(error),
                                fix="--option partition=NAME --option time=02:00:00 are what Slurm needs") from None
        with watched(work, step, ranks):
            job.run()
            if executor == "slurm":
                _wait(job.job_id, [mark(work, step, rank) for rank in ranks])
        missing = [rank for rank in ranks if not mark(work, step, rank).exists()]
        if missing:
            raise TritwiseError(f"{step.name}: {len(missing)} of {step.tasks} tasks are not done",
                                why=f"what happened to them stands in the logs below {logs}",
                                fix="run the same command again; finished tasks are kept")


def _groups(ranks: Sequence[int], workers: int | None) -> tuple[tuple[int, ...], ...]:
    """The tasks cut into groups, each for a process: 1 to `_STARTS_A_WORKER` a worker."""
    if workers is None:
        return tuple((rank,) for rank in ranks)
    starts = min(max(len(ranks) // (workers * _TASKS_A_START), 1), _STARTS_A_WORKER)
    count = min(len(ranks), starts * workers)
    return tuple(tuple(ranks[number::count]) for number in range(count))


def _wait(job: str, marks: Iterable[Path]) -> None:
    """Until all marks are there, or the job has ended and they do not appear."""
    missing = list(marks)
    ended = None
    while missing := [path for path in missing if not path.exists()]:
        if ended is None and not _is_queued(job):
            ended = time.monotonic()
        if ended is not None and time.monotonic() - ended > _SEEN_SECONDS:
            return
        time.sleep(_POLL_SECONDS)


def _is_queued(job: str) -> bool:
    """Whether Slurm still has the job, waiting or running. A controller that does not answer says nothing."""
    answer = subprocess.run(["squeue", "--noheader", f"--job={job}"], capture_output=True, text=True, check=False)
    if answer.returncode:
        return "invalid job id" not in answer.stderr.lower()
    return bool(answer.stdout.strip())
