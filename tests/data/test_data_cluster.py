"""The whole data stage on datatrove's executors gives the bytes that the local run gives, also where it was stopped."""

import os
import shutil
import stat
import sys
from functools import partial
from pathlib import Path

import flow_tasks
import pytest
from small_library import STDLIB, make_recipe

from tritwise.common.errors import TritwiseError
from tritwise.data import build
from tritwise.data.flow import Step, cluster, run_steps
from tritwise.data.flow.steps import mark


@pytest.fixture(scope="module")
def recipe(library):
    """Several parts, and few enough tasks of deduplication."""
    return make_recipe(sources={"paths": [str(library)]}, part_bytes=150_000, partitions=2)


@pytest.fixture(scope="module")
def local(recipe, tmp_path_factory):
    """What this process alone makes of it."""
    out = tmp_path_factory.mktemp("local") / "data"
    build(recipe, out, run=partial(run_steps, workers=1))
    return contents(out)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file but the report, which holds seconds."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(directory.rglob("*"))
            if path.is_file() and path.name != "report.json"}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Executables before all others on PATH."""
    home = tmp_path / "bin"
    home.mkdir()

    def write(name: str, text: str) -> None:
        (home / name).write_text(text)
        (home / name).chmod(0o755 | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    return write


def test_the_corpus_has_parts_enough_to_share_out(local):
    assert len([name for name in local if name.startswith("documents/")]) >= 3


@pytest.mark.slow
def test_datatroves_processes_make_the_same_bytes_as_this_one(recipe, local, tmp_path):
    build(recipe, tmp_path / "data", run=partial(cluster.run_steps, executor="datatrove", workers=2))
    assert contents(tmp_path / "data") == local


def test_datatrove_makes_the_same_bytes_as_this_process(tmp_path):
    """The least that has parts: a few modules, no near-duplicates looked for."""
    names = ("json", "html", "shlex.py", "textwrap.py")
    for name in names:
        home = tmp_path / "some" / name.removesuffix(".py")
        home.mkdir(parents=True)
        for file in (STDLIB / name).glob("*.py") if (STDLIB / name).is_dir() else [STDLIB / name]:
            shutil.copy(file, home)
    recipe = make_recipe(sources={"paths": [str(tmp_path / "some")]}, part_bytes=60_000,
                         dedup={"repositories": False, "files": False}, partitions=1)
    build(recipe, tmp_path / "local", run=partial(run_steps, workers=1))
    build(recipe, tmp_path / "datatrove", run=partial(cluster.run_steps, executor="datatrove", workers=1))
    assert len(list(tmp_path.glob("local/documents/*"))) >= 2
    assert contents(tmp_path / "datatrove") == contents(tmp_path / "local")


def test_groups_hold_every_task_once_and_start_each_worker_a_few_times():
    for count, workers, wanted in ((1, 2, 1), (5, None, 5), (7, 2, 2), (100, 3, 12), (30, 2, 2), (32, 2, 4)):
        groups = cluster._groups(range(count), workers)
        assert sorted(rank for group in groups for rank in group) == list(range(count))
        assert len(groups) == wanted


# A cluster of one machine: an array job runs its tasks one after the other and ends before sbatch returns.
SBATCH = """#!{python}
import os, re, subprocess, sys
options, script = sys.argv[1:-1], open(sys.argv[-1]).read()
with open(os.environ["FAKE_SLURM"] + "/jobs", "a") as jobs:
    jobs.write(" ".join(options + re.findall(r"#SBATCH (\\S+)", script)) + "\\n")
array = re.search(r"#SBATCH --array=0-(\\d+)", script)
if "merge_stats" not in script:
    for task in range(int(array[1]) + 1):
        subprocess.run(["bash", sys.argv[-1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=os.environ | {{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "localhost"}})
print("Submitted batch job 7")
"""
SRUN = """#!/bin/sh
while [ "$1" != launch_pickled_pipeline ]; do shift; done
shift
exec {python} -c 'from datatrove.tools.launch_pickled_pipeline import main; main()' "$@"
"""


@pytest.fixture
def slurm(programs, tmp_path, monkeypatch):
    """sbatch, srun and squeue; returns the file with a line for each job that was submitted."""
    programs("sbatch", SBATCH.format(python=sys.executable))
    programs("srun", SRUN.format(python=sys.executable))
    programs("scontrol", "#!/bin/sh\necho localhost\n")
    programs("squeue", "#!/bin/sh\nexit 0\n")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setattr(cluster, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "_SEEN_SECONDS", 0.1)
    return tmp_path / "jobs"


OPTIONS = {"partition": "cpu", "time": "02:00:00", "mem_per_cpu_gb": 4}


def test_slurm_gets_an_array_job_a_step_with_the_options_that_were_given(slurm, tmp_path):
    (tmp_path / "out").mkdir()
    step = Step("a/b", 2, partial(flow_tasks.write_square, tmp_path / "out"), "k")
    cluster.run_steps(tmp_path / "work", [step], "slurm", workers=2, options=OPTIONS)
    job, _merging = slurm.read_text().splitlines()
    assert {"--array=0-1%2", "--job-name=tritwise-a-b", "--partition=cpu", "--time=02:00:00",
            "--mem-per-cpu=4G"} <= set(job.split())
    assert all(mark(tmp_path / "work", step, rank).exists() for rank in range(2))


@pytest.mark.slow
def test_a_job_of_slurm_that_fails_names_its_log_and_is_done_again_alone(slurm, tmp_path):
    (tmp_path / "out").mkdir()
    step = Step("squares", 3, partial(flow_tasks.fail, tmp_path / "out"), "k")
    with pytest.raises(TritwiseError, match="1 of 3 tasks are not done") as caught:
        cluster.run_steps(tmp_path / "work", [step], "slurm", options=OPTIONS)
    logs = Path(caught.value.why.split(" below ")[1])
    assert "task 1 cannot be done" in (logs / "logs" / "task_00001.log").read_text()
    step = Step("squares", 3, partial(flow_tasks.write_square, tmp_path / "out"), "k")
    cluster.run_steps(tmp_path / "work", [step], "slurm", options=OPTIONS)
    assert sorted((tmp_path / "out" / "calls").read_text().split()) == ["0", "1", "2"]


def test_options_that_slurm_lacks_or_does_not_know_are_named(tmp_path):
    step = Step("squares", 1, partial(flow_tasks.write_square, tmp_path), "k")
    for options in ({}, OPTIONS | {"colour": "red"}):
        with pytest.raises(TritwiseError, match="does not take these options"):
            cluster.run_steps(tmp_path / "work", [step], "slurm", options=options)


@pytest.mark.slow
def test_slurm_makes_the_same_bytes(slurm, recipe, local, tmp_path):
    build(recipe, tmp_path / "data", run=partial(cluster.run_steps, executor="slurm", workers=2, options=OPTIONS))
    assert contents(tmp_path / "data") == local


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # an error in a thread of datatrove's would leave it waiting for ever
def test_two_workers_of_ray_make_the_same_bytes(recipe, local, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="`make test-cluster` installs Ray and runs this; CI does not, it is 700 MB")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else they stand behind all other work of the machine
    path = os.pathsep.join(path for path in sys.path if path)
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
    try:
        build(recipe, tmp_path / "data", run=partial(cluster.run_steps, executor="ray", workers=2,
                                                     options={"mem_per_cpu_gb": 1}))
    finally:
        ray.shutdown()
    assert contents(tmp_path / "data") == local
