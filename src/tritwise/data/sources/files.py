"""What every kind of repository gives: files with a path, and a reason where one was not read."""

import stat
from collections.abc import Callable
from typing import NamedTuple

# Directories of version control: what they hold is not part of a repository's tree.
VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", "CVS"})
# A small archive can unpack for ever.
MAX_ARCHIVE_BYTES, MAX_ARCHIVE_FILES = 1 << 36, 5_000_000
# The path of the one entry that stands for a repository that cannot be read.
WHOLE_REPOSITORY = "."

SKIPS = {
    "too_large": "more bytes than max_bytes",
    "not_wanted": "the caller has no use for a file of this path",
    "path": "the path is not printable UTF-8, leaves the repository, or has empty parts",
    "duplicate_path": "another entry of the same path takes its place",
    "symbolic_link": "a symbolic or hard link, which is not followed",
    "submodule": "a commit of another repository",
    "special_file": "a device, pipe or socket, or a file with holes in an archive",
    "unreadable": "the disk, the permissions or a damaged object forbid reading it",
    "missing_object": "the object is not in this clone",
    "changed": "the file changed while it was read",
    "no_content": "the row has no content",
    "broken_repository": "the repository cannot be read, or not to its end",
}


class Repository(NamedTuple):
    """One repository, or one Parquet file of rows of many (kind "parquet", for `scatter`).

    `location` is a path; `revision` the commit that is read of a git repository, None for other kinds and for a broken
    one. `size` is in bytes, of what is stored (packed, compressed), for sharing out work.
    """

    name: str
    kind: str
    location: str
    revision: str | None
    size: int


class RawFile(NamedTuple):
    """One file: `path` in its repository with forward slashes, and its bytes or the name of a skip (`SKIPS`).

    Exactly one of `content` and `skipped` is None. `size` is the file's bytes where they are known, else 0. `licence`
    is what the source itself says of the file (columns of Parquet files), an SPDX expression.
    """

    path: str
    content: bytes | None
    size: int
    skipped: str | None = None
    licence: str | None = None


# Called with the path before a file's content is read; a file that is not wanted is named and not read.
Wanted = Callable[[str], bool]


def checked_path(name: bytes | str) -> tuple[str, bool]:
    """A path as documents can hold it, and whether it may be used as it stands.

    One that is not UTF-8, not printable, absolute, or has `.`, `..` or empty parts comes back escaped, for the report.
    """
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    try:
        path = raw.decode("utf-8")
        good = path.isprintable() and not any(part in ("", ".", "..") for part in path.split("/"))
    except UnicodeDecodeError:
        path, good = raw.decode("utf-8", "backslashreplace"), False
    if not path.isprintable():
        path = path.encode("unicode_escape").decode()
    return path, good


def skip_of_mode(mode: int) -> str | None:
    """Why a file of this `st_mode` is not read, or None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return "symbolic_link" if stat.S_ISLNK(mode) else "special_file"

