"""A build that is killed with kill -9, all its processes at once, goes on where it was and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from small_library import make_recipe

from tritwise.data import build
from tritwise.data.flow import run_steps

# The build as a user starts it; the marks of finished tasks are listed before the work directory goes.
SCRIPT = """
import json, sys
from pathlib import Path
from tritwise.config import Recipe
from tritwise.data import build
from tritwise.data.flow import run_steps

def run(work, steps):
    run_steps(work, steps, workers=int(sys.argv[3]))
    marks = {str(p): [p.stat().st_mtime_ns, p.read_text()] for p in sorted(work.glob("done/**/*.json"))}
    Path(sys.argv[4]).write_text(json.dumps(marks))

build(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), run=run)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, library):
    """A few repositories in three parts or more."""
    root = tmp_path_factory.mktemp("some")
    for name in ("json", "html", "textwrap", "shlex", "argparse"):
        (root / name).symlink_to(library / name)
    data = {"sources": {"folders": sorted(map(str, root.iterdir()))}, "part_bytes": 60_000, "partitions": 2}
    return make_recipe(**data)


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory):
    """The files of a build that nothing stopped, and how many marks it left."""
    out = tmp_path_factory.mktemp("undisturbed") / "data"
    marks = []

    def run(work, steps):
        run_steps(work, steps, workers=1)
        marks[:] = work.glob("done/**/*.json")

    build(recipe, out, run=run)
    return contents(out), len(marks)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file but the report, which holds seconds."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(directory.rglob("*"))
            if path.is_file() and path.name != "report.json"}


def marks_in(out: Path) -> dict[str, list]:
    found = {}
    for path in out.glob("work/done/**/[0-9]*.json"):
        found[str(path)] = [path.stat().st_mtime_ns, path.read_text()]
    return found


class Build:
    """One directory that is built by one process after another."""

    def __init__(self, recipe, out: Path, workers: int) -> None:
        self.out, self.listed = out, out.with_suffix(".marks")
        self.command = [sys.executable, "-c", SCRIPT, recipe.model_dump_json(), str(out), str(workers),
                        str(self.listed)]

    def killed_at(self, count: int) -> dict[str, list]:
        """The marks that are there when all processes were killed, soon after `count` marks stood."""
        child = subprocess.Popen(self.command, start_new_session=True, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            while sum(1 for _ in self.out.glob("work/done/**/[0-9]*.json")) < count:
                assert child.poll() is None, "it ended before it could be killed"
                time.sleep(0.002)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return marks_in(self.out)

    def finished(self) -> dict[str, list]:
        subprocess.run(self.command, check=True, capture_output=True)
        return json.loads(self.listed.read_text())


def disturbed(recipe, out: Path, workers: int, count: int, points: list[float]) -> tuple[list[dict], dict]:
    """Marks after each kill, at shares of `count` marks, and those of the run that came to the end."""
    each = Build(recipe, out, workers)
    seen = [each.killed_at(max(1, int(count * point))) for point in points]
    # What a killed process leaves beside finished files.
    (out / "documents").mkdir(exist_ok=True)
    (out / "documents" / ".00000.parquet.x.partial").write_bytes(b"half")
    return seen, each.finished()


def goes_on(seen: list[dict], last: dict, count: int) -> bool:
    """Whether nothing that was done was written again or changed, and all was done in the end.

    When it is killed behind the first task of a step that needs no other, those leave no marks.
    """
    rising = [len(earlier) for earlier in seen] == sorted(len(earlier) for earlier in seen)
    return rising and count - 4 <= len(last) <= count and all(earlier.items() <= last.items() for earlier in seen)


@pytest.mark.parametrize(("workers", "points"), [(2, [0.02, 0.8]), (1, [0.3, 0.98])])
def test_a_killed_build_goes_on_without_doing_anything_twice(recipe, undisturbed, tmp_path, workers, points):
    files, count = undisturbed
    seen, last = disturbed(recipe, tmp_path / "data", workers, count, points)
    assert goes_on(seen, last, count)
    assert contents(tmp_path / "data") == files


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_may_be_killed_again_and_again(recipe, undisturbed, tmp_path, workers):
    files, count = undisturbed
    seen, last = disturbed(recipe, tmp_path / "data", workers, count, [number / 24 for number in range(24)])
    assert goes_on(seen, last, count)
    assert contents(tmp_path / "data") == files


def test_parts_that_another_recipe_left_are_gone_when_the_build_is_done(recipe, undisturbed, tmp_path):
    files, _ = undisturbed
    out = tmp_path / "data"
    (out / "documents").mkdir(parents=True)
    for stray in ("documents/00099.parquet", "train-00099.ds", "train-00099.ds.index", "held_out-00099.ds"):
        (out / stray).write_bytes(b"old")
    build(recipe, out, run=partial(run_steps, workers=1))
    assert contents(out) == files
