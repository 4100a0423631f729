"""Files of a git repository at one commit, out of its objects: nothing is checked out.

`git ls-tree` names the files, one `git cat-file --batch` gives their bytes. A repository from anywhere must not be
believed, so its configuration is not used for that: both run in an empty git directory of our own that is pointed at
the repository's objects. There are no hooks, filters, replacements or remotes then, and an object that a partial clone
left out is missing instead of fetched. Only `rev-parse`, which runs nothing, sees the repository itself.
"""

import itertools
import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from tritwise.common.errors import TritwiseError
from tritwise.data.sources.files import RawFile, Repository, Wanted, checked_path

_HASH = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Requests that may be under way: few enough that they fit a pipe, so that neither side can wait for the other for ever.
_AHEAD = 256
# From so many damaged objects on it is the repository that is broken.
_MOST_DAMAGED = 100
_SYMBOLIC_LINK = b"120000"
_REGULAR = (b"100644", b"100755", b"100664")


class BrokenRepositoryError(Exception):
    """A repository cannot be read, or not to its end."""


class _Entry(NamedTuple):
    path: str
    object: bytes
    size: int
    skipped: str | None


def is_git(path: Path) -> bool:
    """Whether a directory is a bare repository or a work tree."""
    if (path / ".git").exists():
        return True
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def git_directory(path: Path) -> Path:
    """Where a repository's objects and refs are: `.git` of a work tree, the directory itself of a bare one."""
    return path / ".git" if (path / ".git").exists() else path


def resolve(path: Path, revision: str) -> str:
    """The commit that `revision` names in a repository. Raises BrokenRepositoryError."""
    out = _git(["--git-dir", os.fspath(git_directory(path)), "rev-parse", "--verify", "--quiet",
                f"{revision}^{{commit}}"])
    if not _HASH.fullmatch(out.strip()):
        raise BrokenRepositoryError(f"it has no commit {revision}")
    return out.strip().decode()


def objects_directory(path: Path) -> Path:
    """The directory of a repository's objects, which linked work trees share. Raises BrokenRepositoryError."""
    directory = git_directory(path)
    if directory.is_file():
        out = _git(["--git-dir", os.fspath(directory), "rev-parse", "--git-common-dir"])
        directory = (path / os.fsdecode(out.strip())).resolve()
    return directory / "objects"


def stored_size(path: Path) -> int:
    """Bytes of all objects as they are stored. Raises BrokenRepositoryError."""
    total = 0
    for directory, _, names in os.walk(objects_directory(path)):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue  # a pack that is being replaced; this is a size for sharing out work
    return total


def read_git(repository: Repository, *, max_bytes: int, wanted: Wanted | None = None) -> Iterator[RawFile]:
    """Files of `repository` at its commit, sorted by path, one content in memory at a time.

    Raises BrokenRepositoryError when the commit or a tree is missing or damaged.
    """
    if repository.revision is None:
        raise BrokenRepositoryError("it has no such commit")
    with _empty_repository(objects_directory(Path(repository.location)), repository.revision) as environment:
        entries = _list(repository.revision, environment, max_bytes, wanted)
        yield from _contents(entries, environment)


def _list(commit: str, environment: dict[str, str], max_bytes: int, wanted: Wanted | None) -> list[_Entry]:
    out = _git(["ls-tree", "-r", "-z", "-l", "--full-tree", commit], environment)
    entries: list[_Entry] = []
    for line in out.split(b"\0")[:-1]:
        fields, _, name = line.partition(b"\t")
        mode, kind, object_name, length = fields.split()
        path, good = checked_path(name)
        size = int(length) if length.isdigit() else 0
        if kind != b"blob":
            skipped = "submodule"
        elif mode == _SYMBOLIC_LINK:
            skipped = "symbolic_link"
        elif mode not in _REGULAR:
            skipped = "special_file"
        elif not good:
            skipped = "path"
        elif wanted is not None and not wanted(path):
            skipped = "not_wanted"
        elif not length.isdigit():
            skipped = "missing_object"  # git says BAD
        else:
            skipped = "too_large" if size > max_bytes else None
        entries.append(_Entry(path, object_name, size, skipped))
    entries.sort(key=lambda entry: (entry.path, entry.object))
    # A damaged tree can name a path twice.
    return [entry._replace(skipped="duplicate_path") if before and before.path == entry.path else entry
            for before, entry in zip([None, *entries], entries, strict=False)]


def _contents(entries: list[_Entry], environment: dict[str, str]) -> Iterator[RawFile]:
    damaged, start = 0, 0
    while start < len(entries):
        child = subprocess.Popen(["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, env=environment)
        try:
            for file in _ask(child.stdin, child.stdout, entries[start:]):
                yield file
                start += 1
        finally:
            child.stdin.close()
            child.stdout.close()
            child.kill()
            child.wait()
        if start < len(entries):  # git ends at an object that it cannot unpack; the next one may be well
            damaged += 1
            if damaged > _MOST_DAMAGED:
                raise BrokenRepositoryError(f"more than {_MOST_DAMAGED} of its objects are damaged")
            yield RawFile(entries[start].path, None, entries[start].size, "unreadable")
            start += 1


def _ask(questions: IO[bytes], answers: IO[bytes], entries: list[_Entry]) -> Iterator[RawFile]:
    """Files of `entries` in order until git ends; fewer than asked for mean that it ended."""
    to_ask = iter(entry for entry in entries if not entry.skipped)
    waiting: deque[_Entry] = deque()
    for entry in entries:
        if entry.skipped:
            yield RawFile(entry.path, None, entry.size, entry.skipped)
            continue
        # Ask again when half of the answers are in, so that neither side waits.
        if len(waiting) <= _AHEAD // 2:
            new = list(itertools.islice(to_ask, _AHEAD - len(waiting)))
            waiting.extend(new)
            try:
                questions.write(b"".join(question.object + b"\n" for question in new))
                questions.flush()
            except BrokenPipeError:
                pass  # what git answered before it ended is still to be read
        waiting.popleft()
        header = answers.readline().split()
        if len(header) == 2 and header[1] == b"missing":
            yield RawFile(entry.path, None, entry.size, "missing_object")
            continue
        if len(header) != 3 or header[0] != entry.object or not header[2].isdigit() or int(header[2]) != entry.size:
            return
        content = answers.read(entry.size + 1)
        if len(content) != entry.size + 1:
            return
        yield RawFile(entry.path, content[:-1], entry.size)


@contextmanager
def _empty_repository(objects: Path, commit: str) -> Iterator[dict[str, str]]:
    """The environment for commands that see the objects at `objects` and nothing else."""
    with tempfile.TemporaryDirectory(prefix="tritwise-git-") as directory:
        root = Path(directory)
        (root / "refs").mkdir()
        (root / "objects").mkdir()
        (root / "HEAD").write_text("ref: refs/heads/none\n")
        config = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        if len(commit) == 64:
            config = config.replace("= 0", "= 1") + "[extensions]\n\tobjectformat = sha256\n"
        (root / "config").write_text(config)
        yield _environment() | {"GIT_DIR": directory, "GIT_OBJECT_DIRECTORY": os.fspath(objects.resolve())}


def _environment() -> dict[str, str]:
    """No configuration of the user or the machine, no network, no questions, no large allocation."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        "GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none",
        "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOC_LIMIT": "2g", "LC_ALL": "C",
    }


def _git(arguments: list[str], environment: dict[str, str] | None = None) -> bytes:
    try:
        child = subprocess.run(["git", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                               env=environment or _environment())
    except FileNotFoundError:
        raise TritwiseError("git is not installed", why="it reads the objects of repositories",
                            fix="install git, or give archives or plain folders") from None
    if child.returncode:
        message = child.stderr.decode("utf-8", "replace").strip()
        raise BrokenRepositoryError(message or f"git {arguments[0]} ended with {child.returncode}")
    return child.stdout
