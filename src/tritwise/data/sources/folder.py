"""Files of a plain folder: regular files only, symbolic links are named and not followed."""

import os
from collections.abc import Iterator
from pathlib import Path

from tritwise.data.sources.files import VERSION_CONTROL, RawFile, Wanted, checked_path, skip_of_mode


def walk(root: str, *, without: frozenset[str] = VERSION_CONTROL) -> Iterator[tuple[str, os.stat_result | None]]:
    """(path relative to `root` with forward slashes, status) of everything that is no directory, in no order.

    The status is None for what cannot be looked at. Names that are not UTF-8 hold surrogates, as `os.fsdecode` makes
    them. Directories of the names `without` are left out.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            entries = list(os.scandir(os.path.join(root, below)))
        except OSError:
            yield below or ".", None
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in without:
                        waiting.append(path)
                else:
                    yield path, entry.stat(follow_symlinks=False)
            except OSError:
                yield path, None


def read_folder(root: str | Path, *, max_bytes: int, wanted: Wanted | None = None) -> Iterator[RawFile]:
    """Files below `root`, sorted by path, one content in memory at a time."""
    root = os.fspath(root)
    # A name that had to be escaped can meet one that looks so; the name on the disk decides between them.
    for (path, good), name, status in sorted(
            (checked_path(name), name, status) for name, status in walk(root)):
        size = status.st_size if status else 0
        if status is None:
            skipped = "unreadable"
        elif (skipped := skip_of_mode(status.st_mode)) is None:
            if not good:
                skipped = "path"
            elif wanted is not None and not wanted(path):
                skipped = "not_wanted"
            elif size > max_bytes:
                skipped = "too_large"
        if skipped:
            yield RawFile(path, None, size, skipped)
        else:
            yield read_regular(os.path.join(root, name), path, size, max_bytes)


def read_regular(location: str, path: str, size: int, max_bytes: int) -> RawFile:
    """One file's bytes; a link that took its place since it was listed is not followed."""
    try:
        descriptor = os.open(location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if skipped := skip_of_mode(status.st_mode):
                return RawFile(path, None, status.st_size, skipped)
            if status.st_size > max_bytes:
                return RawFile(path, None, status.st_size, "too_large")
            content = file.read(status.st_size + 1)
    except OSError:
        return RawFile(path, None, size, "unreadable")
    if len(content) != status.st_size:
        return RawFile(path, None, status.st_size, "changed")
    return RawFile(path, content, len(content))
