"""Git repositories: files out of objects, at any commit, and what hostile or broken ones give."""

import os
import subprocess
import zlib
from pathlib import Path

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config.data_sources import SourceSettings
from tritwise.data.sources import RawFile, find_repositories, fingerprint, read_files

WHO = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "A"), ("EMAIL", "a@example.org"), ("DATE", "2020-01-01T00:00:00Z"))}


def git(directory: Path, *arguments: str, stdin: bytes = b"") -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | WHO | {
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    child = subprocess.run(["git", "-C", str(directory), *arguments], input=stdin, capture_output=True, check=True,
                           env=environment)
    return child.stdout.decode().strip()


def commit(bare: Path, files: dict[bytes, bytes], *, modes: dict[bytes, str] | None = None, branch: str = "main",
           missing: bool = False) -> str:
    """A commit of `files` on a branch of a bare repository, without a work tree. Paths may not hold a slash."""
    if not bare.exists():
        bare.mkdir(parents=True)
        git(bare, "init", "-q", "--bare", "-b", "main", ".")
    lines = []
    for name, content in files.items():
        mode = (modes or {}).get(name, "100644")
        if mode == "160000":
            lines.append(b"160000 commit %s\t%s" % (content, name))
        else:
            blob = git(bare, "hash-object", "-w", "--stdin", stdin=content).encode()
            lines.append(f"{mode} blob ".encode() + blob + b"\t" + name)
    tree = git(bare, "mktree", "-z", *(["--missing"] if missing else []), stdin=b"\0".join(lines) + b"\0")
    new = git(bare, "commit-tree", "-m", "x", tree)
    git(bare, "update-ref", f"refs/heads/{branch}", new)
    return new


def only(path: Path, **settings) -> list[RawFile]:
    (repository,) = find_repositories(SourceSettings(paths=(str(path),), **settings))
    return list(read_files(repository, max_bytes=1000, broken=settings.get("broken_repository", "stop")))


def object_file(bare: Path, name: str) -> Path:
    return bare / "objects" / name[:2] / name[2:]


def test_files_come_sorted_by_path_with_their_bytes(tmp_path):
    bare = tmp_path / "r.git"
    commit(bare, {b"b.py": b"x\r\n", b"a.py": b"", b"B.py": b"\xff\0"})
    assert only(bare) == [RawFile("B.py", b"\xff\0", 2), RawFile("a.py", b"", 0), RawFile("b.py", b"x\r\n", 3)]


def test_more_files_than_are_asked_for_at_once_all_come(tmp_path):
    contents = {f"{i:04}.py".encode(): f"x = {i}\n".encode() * (i % 50) for i in range(1000)}
    bare = tmp_path / "r.git"
    bare.mkdir()
    git(bare, "init", "-q", "--bare", ".")
    stream = b"commit refs/heads/master\ncommitter A <a@example.org> 0 +0000\ndata 1\nx\n" + b"".join(
        b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(content), content) for name, content in contents.items())
    git(bare, "fast-import", "--quiet", stdin=stream)
    assert {f.path.encode(): f.content for f in only(bare, revision="master")} == contents


def test_a_work_tree_is_read_as_committed_and_at_any_revision(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "-q", ".")
    (tree / "src").mkdir()
    (tree / "src" / "a.py").write_text("old\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "1")
    git(tree, "tag", "v1")
    (tree / "src" / "a.py").write_text("new\n")
    git(tree, "commit", "-q", "-a", "-m", "2")
    (tree / "src" / "a.py").write_text("not committed\n")
    assert only(tree) == [RawFile("src/a.py", b"new\n", 4)]
    assert only(tree, revision="v1") == only(tree, revision="HEAD~1") == [RawFile("src/a.py", b"old\n", 4)]
    git(tree, "worktree", "add", "-q", str(tmp_path / "linked"), "v1")
    assert only(tmp_path / "linked") == [RawFile("src/a.py", b"old\n", 4)]
    assert only(tree, revision=git(tree, "rev-parse", "v1")) == only(tmp_path / "linked")


def test_what_is_not_a_readable_file_is_named(tmp_path):
    bare = tmp_path / "r.git"
    names = {b"link": b"/etc/passwd", b"module": b"1" * 40, b"new\nline.py": b"x", b"\xff.py": b"x",
             b"large.py": b"x" * 1001, b"fits.py": b"x" * 1000}
    commit(bare, names, modes={b"link": "120000", b"module": "160000"}, missing=True)
    found = {f.path: f for f in only(bare)}
    assert {path: f.skipped for path, f in found.items()} == {
        "link": "symbolic_link", "module": "submodule", "new\\nline.py": "path", "\\xff.py": "path",
        "large.py": "too_large", "fits.py": None}
    assert all((f.content is None) == (f.skipped is not None) for f in found.values())
    assert found["large.py"].size == 1001


def test_an_object_that_is_missing_or_damaged_is_skipped_and_the_rest_is_read(tmp_path):
    bare = tmp_path / "r.git"
    contents = {f"{i}.py".encode(): b"x = %d\n" % i for i in range(6)}
    commit(bare, contents)
    missing, cut, other = (git(bare, "hash-object", "--stdin", stdin=contents[name])
                           for name in (b"1.py", b"3.py", b"4.py"))
    for name in (missing, cut, other):
        object_file(bare, name).chmod(0o644)
    object_file(bare, missing).unlink()
    # Its header can be read, its content cannot.
    packed = zlib.compress(b"blob 7\0x = 3\n" + b"y" * 7)
    object_file(bare, cut).write_bytes(packed[:-6])
    object_file(bare, other).write_bytes(b"no object at all")
    found = {f.path: f.skipped for f in only(bare)}
    assert found.pop("3.py") in ("unreadable", "missing_object")
    assert found == {"0.py": None, "1.py": "missing_object", "2.py": None, "4.py": "missing_object", "5.py": None}


def test_a_partial_clone_is_read_without_fetching_what_it_left_out(tmp_path):
    bare, clone, canary = tmp_path / "r.git", tmp_path / "clone.git", tmp_path / "fetched"
    commit(bare, {b"a.py": b"a\n", b"b.py": b"b\n"})
    git(bare, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", f"file://{bare}", str(clone))
    git(clone, "config", "remote.origin.uploadpack", f"touch {canary}; git-upload-pack")
    assert [(f.path, f.skipped) for f in only(clone)] == [("a.py", "missing_object"), ("b.py", "missing_object")]
    assert not canary.exists()


def test_nothing_that_a_repository_configures_is_run(tmp_path):
    tree, canary = tmp_path / "tree", tmp_path / "canary"
    tree.mkdir()
    git(tree, "init", "-q", ".")
    (tree / "a.py").write_text("a\n")
    (tree / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "1")
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "core.editor", "filter.evil.smudge",
                "filter.evil.clean", "diff.evil.textconv", "core.alternateRefsCommand", "alias.ls-tree",
                "alias.cat-file", "credential.helper"):
        git(tree, "config", key, f"!touch {canary}" if key.startswith("alias") else f"touch {canary}")
    hooks = tree / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (hooks / name).chmod(0o755)
    assert [f.path for f in only(tree)] == [".gitattributes", "a.py"]
    assert not canary.exists()


def test_a_replacement_does_not_change_what_is_read(tmp_path):
    bare = tmp_path / "r.git"
    commit(bare, {b"a.py": b"true\n"})
    old = git(bare, "hash-object", "--stdin", stdin=b"true\n")
    git(bare, "replace", old, git(bare, "hash-object", "-w", "--stdin", stdin=b"fake\n"))
    assert only(bare) == [RawFile("a.py", b"true\n", 5)]


def test_a_repository_with_longer_hashes_is_read(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "-q", "--object-format=sha256", ".")
    (tree / "a.py").write_text("a\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "1")
    assert only(tree) == [RawFile("a.py", b"a\n", 2)]


@pytest.mark.parametrize("damage", ["empty", "revision", "tree", "objects"])
def test_a_broken_repository_stops_the_work_or_is_one_skip(damage, tmp_path):
    bare, settings = tmp_path / "r.git", {}
    new = commit(bare, {b"a.py": b"a\n"})
    if damage == "empty":
        git(bare, "update-ref", "-d", "refs/heads/main")
    elif damage == "revision":
        settings = {"revision": "v9"}
    else:
        name = git(bare, "rev-parse", f"{new}^{{tree}}") if damage == "tree" else new
        object_file(bare, name).unlink()
    with pytest.raises(TritwiseError, match="cannot be read"):
        only(bare, **settings)
    assert only(bare, broken_repository="skip", **settings) == [RawFile(".", None, 0, "broken_repository")]


@pytest.mark.parametrize("revision", ["--upload-pack=x", "-h", "a b", "a:b", ""])
def test_a_revision_cannot_be_an_option(revision):
    with pytest.raises(ValueError, match="revision"):
        SourceSettings(revision=revision)


def test_the_fingerprint_is_that_of_the_commits(tmp_path):
    commit(tmp_path / "a" / "r.git", {b"a.py": b"a\n"})
    commit(tmp_path / "b" / "r.git", {b"a.py": b"a\n"})
    keys = [fingerprint(find_repositories(SourceSettings(paths=(str(tmp_path / place),)))) for place in "ab"]
    assert keys[0] == keys[1]
    commit(tmp_path / "b" / "r.git", {b"a.py": b"b\n"})
    assert fingerprint(find_repositories(SourceSettings(paths=(str(tmp_path / "b"),)))) != keys[0]
