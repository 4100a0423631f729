"""Bad input through the whole build: a counted skip with a name or a clear stop, and no good file is lost."""

import errno
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from small_library import STDLIB, build_here, make_recipe

from tritwise.common import files as common_files
from tritwise.common.errors import TritwiseError
from tritwise.data import build, load_documents, open_shards
from tritwise.data.flow import run_steps
from tritwise.data.imports import parse

GOOD = "".join(f"def function_{i}(value):\n    return value + {i}\n" for i in range(300)).encode()
# The parser is quadratic or worse in what is opened and never closed.
SLOW = b"class A {\n" + b"int x = ((((\n" * 40_000


def git(home: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@example.com"}
    return subprocess.run(["git", "-C", str(home), *arguments], check=True, capture_output=True, text=True,
                          env=environment).stdout.strip()


def some_recipe(root: Path, *, broken_repository: str = "stop", max_bytes: int = 1_000_000, **data):
    sources = {"paths": [str(root)], "broken_repository": broken_repository, "max_bytes": max_bytes}
    recipe = make_recipe(sources=sources, partitions=1, dedup={"repositories": False, "files": False}, **data)
    return recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"vocab_size": 300})})


def good(name: str) -> bytes:
    return GOOD.replace(b"value", name.encode())


@pytest.fixture
def bad(tmp_path):
    """Repositories in which everything is wrong that can be, around four good files."""
    root = tmp_path / "repositories"
    folder, broken = root / "folder", root / "broken"
    for home in (folder, broken, root / "other"):
        home.mkdir(parents=True)
    (folder / "good.py").write_bytes(good("folder"))
    (root / "other" / "good.py").write_bytes(good("other"))
    (folder / "loop").symlink_to(".")
    (folder / "self.py").symlink_to("self.py")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.py")
    (folder / "new\nline.py").write_bytes(GOOD)
    (folder / os.fsdecode(b"not-utf8-\xff.py")).write_bytes(GOOD)
    with (folder / "sparse.py").open("wb") as sparse:
        sparse.truncate(4 << 30)
    (folder / "holes.py").write_bytes(bytes(500_000))
    (folder / "latin.py").write_bytes(b"# \xe9t\xe9\n" + GOOD)
    (folder / "utf16.py").write_bytes(GOOD.decode().encode("utf-16"))
    (folder / "lies.py").write_bytes(b"# coding: no-such-code\n" + GOOD)
    (folder / "Slow.java").write_bytes(SLOW)
    git(broken, "init", "--quiet")
    for name in ("good", "damaged", "missing"):
        (broken / f"{name}.py").write_bytes(good(f"broken_{name}"))
    git(broken, "add", ".")
    git(broken, "commit", "--quiet", "-m", "all")
    damaged, missing = (broken / ".git" / "objects" / name[:2] / name[2:] for name in
                        (git(broken, "rev-parse", f"HEAD:{file}.py") for file in ("damaged", "missing")))
    damaged.chmod(0o644)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2:] = bytes(len(content) - len(content) // 2)
    damaged.write_bytes(content)
    missing.unlink()
    return root


def test_each_bad_file_is_a_named_skip_and_each_good_one_is_kept(bad, tmp_path, monkeypatch):
    monkeypatch.setitem(parse.parse.__kwdefaults__, "seconds", 0.05)
    report = build_here(some_recipe(bad), tmp_path / "out")
    rows = load_documents(tmp_path / "out", split=None)
    assert {(d.repository, d.path): d.dropped_by for d in rows} == {
        ("folder", "good.py"): None, ("other", "good.py"): None, ("broken", "good.py"): None,
        ("folder", "loop"): "symbolic_link", ("folder", "self.py"): "symbolic_link", ("folder", "up"): "symbolic_link",
        ("folder", "pipe.py"): "special_file", ("folder", r"new\nline.py"): "path",
        ("folder", r"not-utf8-\xff.py"): "path", ("folder", "sparse.py"): "too_large",
        ("folder", "holes.py"): "binary", ("folder", "latin.py"): "undecodable", ("folder", "utf16.py"): "binary",
        ("folder", "lies.py"): "undecodable", ("folder", "Slow.java"): "slow",
        ("broken", "damaged.py"): "unreadable", ("broken", "missing.py"): "missing_object"}
    counted = {rule["rule"]: rule["files"] for rule in report.rules}
    assert sum(counted.values()) == len(rows) - 3
    assert counted["symbolic_link"] == 3
    assert all(rule["stage"] != "other" for rule in report.rules)
    assert sum(len(open_shards(tmp_path / "out", split).ids) for split in ("train", "held_out")) > 0
    assert report.train.files + report.held_out.files == 3


def test_a_repository_without_a_commit_stops_the_build_or_is_one_skip(bad, tmp_path):
    shutil.rmtree(bad / "broken" / ".git" / "refs")
    (bad / "broken" / ".git" / "refs").mkdir()
    with pytest.raises(TritwiseError, match="broken cannot be read") as caught:
        build_here(some_recipe(bad), tmp_path / "out")
    assert "broken_repository = 'skip'" in caught.value.fix
    report = build_here(some_recipe(bad, broken_repository="skip", max_bytes=100_000), tmp_path / "out")
    assert {rule["rule"]: rule["files"] for rule in report.rules}["broken_repository"] == 1
    assert report.train.files + report.held_out.files == 2


def test_a_repository_may_have_any_name_that_a_directory_may_have(tmp_path):
    root = tmp_path / "repositories"
    for name in ("plain", "new\nline", os.fsdecode(b"not-utf8-\xff")):
        (root / name).mkdir(parents=True)
        (root / name / "good.py").write_bytes(good(f"in_{len(name)}"))
    build_here(some_recipe(root), tmp_path / "out")
    assert sorted(d.repository for d in load_documents(tmp_path / "out", split=None) if d.is_kept) == [
        r"new\nline", r"not-utf8-\xff", "plain"]


@pytest.mark.parametrize(("name", "target"), [("x.tar", "x.tar"), ("x.tar.gz", "nothing")])
def test_an_archive_that_is_a_link_to_nothing_stops_the_build_or_is_one_skip(name, target, tmp_path):
    root = tmp_path / "repositories"
    for home in ("a", "b"):
        (root / home).mkdir(parents=True)
        (root / home / "good.py").write_bytes(good(home))
    (root / name).symlink_to(target)
    with pytest.raises(TritwiseError, match="x cannot be read"):
        build_here(some_recipe(root), tmp_path / "out")
    report = build_here(some_recipe(root, broken_repository="skip"), tmp_path / "out")
    assert {rule["rule"]: rule["files"] for rule in report.rules} == {"broken_repository": 1}
    (root / "x.parquet").symlink_to("nothing")
    with pytest.raises(TritwiseError, match=r"x\.parquet"):
        build_here(some_recipe(root, broken_repository="skip"), tmp_path / "other")


@pytest.fixture
def modules(tmp_path):
    """Four repositories, a part each."""
    root = tmp_path / "modules"
    for name in ("shlex", "textwrap", "argparse", "json"):
        (root / name).mkdir(parents=True)
        source = STDLIB / name
        for file in sorted(source.glob("*.py")) if source.is_dir() else [source.with_suffix(".py")]:
            shutil.copy(file, root / name)
    return some_recipe(root, part_bytes=1000)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(directory.rglob("*"))
            if path.is_file() and path.name != "report.json"}


@pytest.mark.parametrize("written", [1, 9, 40])
def test_a_full_disk_stops_the_build_which_goes_on_when_there_is_room(modules, tmp_path, monkeypatch, written):
    build_here(modules, tmp_path / "wanted")
    out, room, fsync = tmp_path / "out", [written], os.fsync

    def full(descriptor):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(common_files.os, "fsync", full)
    with pytest.raises(TritwiseError, match="there is no room on the disk") as caught:
        build_here(modules, out)
    assert "finished tasks are kept" in caught.value.fix
    monkeypatch.setattr(common_files.os, "fsync", fsync)
    marks = {path: path.stat().st_mtime_ns for path in out.glob("work/done/**/*.json")}
    assert not list(out.rglob("*.partial"))
    again = {}

    def run(work, steps):
        run_steps(work, steps, workers=1)
        again.update({path: path.stat().st_mtime_ns for path in out.glob("work/done/**/*.json")})

    build(modules, out, run=run)
    assert marks.items() <= again.items()
    assert contents(out) == contents(tmp_path / "wanted")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="`make test-slow` as root runs it, CI runs no slow tests")
def test_a_disk_that_is_really_full(modules, tmp_path):
    build_here(modules, tmp_path / "wanted")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], check=True)
    stops = 0
    try:
        for size in range(200, 8000, 100):
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
            try:
                build(modules, disk / "out", run=partial(run_steps, workers=2))
                break
            except TritwiseError as error:
                assert "there is no room on the disk" in error.what  # noqa: PT017
                stops += 1
        assert stops
        assert contents(disk / "out") == contents(tmp_path / "wanted")
    finally:
        subprocess.run(["umount", disk], check=True)
