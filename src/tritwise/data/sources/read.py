"""The files of a repository, whatever kind it is."""

import os
from collections.abc import Iterator
from typing import Literal

from tritwise.common.errors import TritwiseError
from tritwise.data.sources.files import WHOLE_REPOSITORY, RawFile, Repository, Wanted
from tritwise.data.sources.folder import read_folder, read_regular
from tritwise.data.sources.git import BrokenRepositoryError, read_git
from tritwise.data.sources.stdlib import stdlib_files
from tritwise.data.sources.tar import read_tar


def read_files(repository: Repository, *, max_bytes: int, wanted: Wanted | None = None,
               broken: Literal["stop", "skip"] = "stop") -> Iterator[RawFile]:
    """Files of a repository, sorted by path, one content in memory at a time; every skip has a name (`SKIPS`).

    `wanted(path)` is asked before a content is read. A broken repository raises TritwiseError, or with
    `broken="skip"` ends with one entry of the path "." that says so. Parquet files are scattered and gathered instead.
    """
    try:
        yield from _read(repository, max_bytes, wanted)
    except BrokenRepositoryError as error:
        if broken == "skip":
            yield RawFile(WHOLE_REPOSITORY, None, 0, "broken_repository")
            return
        raise TritwiseError(f"the repository {repository.name} cannot be read", why=f"{repository.location}: {error}",
                            fix="broken_repository = 'skip' goes on without it") from None


def _read(repository: Repository, max_bytes: int, wanted: Wanted | None) -> Iterator[RawFile]:
    if repository.kind == "git":
        return read_git(repository, max_bytes=max_bytes, wanted=wanted)
    if repository.kind == "tar":
        return read_tar(repository.location, max_bytes=max_bytes, wanted=wanted)
    if repository.kind == "folder":
        return read_folder(repository.location, max_bytes=max_bytes, wanted=wanted)
    if repository.kind == "stdlib":
        return _read_stdlib(repository, max_bytes, wanted)
    raise TritwiseError(f"{repository.location} is not one repository", why="a Parquet file holds rows of many",
                        fix="scatter and gather bring the rows of each together")


def _read_stdlib(repository: Repository, max_bytes: int, wanted: Wanted | None) -> Iterator[RawFile]:
    for path in stdlib_files(repository.location).get(repository.name, ()):
        location = os.path.join(repository.location, path)
        size = os.path.getsize(location)
        if wanted is not None and not wanted(path):
            yield RawFile(path, None, size, "not_wanted")
        else:
            yield read_regular(location, path, size, max_bytes)
