"""Which repositories there are below the given paths, and a key that changes when one of them does."""

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import canonical_json, sha256_file
from tritwise.config.data_sources import SourceSettings
from tritwise.data.sources.files import Repository, checked_path
from tritwise.data.sources.folder import walk
from tritwise.data.sources.git import BrokenRepositoryError, is_git, resolve, stored_size
from tritwise.data.sources.stdlib import stdlib_files
from tritwise.data.sources.tar import archive_name

# Owner directories in owner directories: `host/owner/name`.
_DEEPEST = 3


def find_repositories(settings: SourceSettings) -> list[Repository]:
    """All repositories of `settings`, sorted by name.

    A git repository without the wanted commit has no revision when `broken_repository` is "skip". Raises TritwiseError
    for a missing path, two repositories of one name, a broken git repository, and when nothing is found.
    """
    found: list[Repository] = []
    for text in settings.paths:
        path = Path(text)
        if not path.exists():
            raise TritwiseError(f"{path} does not exist", why="paths name repositories and directories of them")
        single = _single(path, settings)
        below = [single] if single else list(_in_directory(path, "", settings, _DEEPEST)) if path.is_dir() else []
        if not below:
            raise TritwiseError(f"{path} holds no repositories",
                                why="it is no git repository, archive or Parquet file, nor a directory of them",
                                fix="a plain folder that is one repository belongs into `folders`")
        found += below
    for text in settings.folders:
        if not Path(text).is_dir():
            raise TritwiseError(f"{text} is not a directory", why="folders name plain folders")
        found.append(_folder(Path(text), Path(text).resolve().name))
    if settings.python_stdlib:
        found += _stdlib()
    if not found:
        raise TritwiseError("no sources are given", fix="paths = ['DIRECTORY_OF_REPOSITORIES']")
    home_of: dict[str, Repository] = {}
    for repository in found:
        repository = repository._replace(name=checked_path(repository.name)[0])  # a directory's name may be any bytes
        other = home_of.setdefault(repository.name, repository)
        if other is not repository:
            raise TritwiseError(f"two repositories are called {repository.name}",
                                why=f"they are {other.location} and {repository.location}", fix="rename one of them")
    return [home_of[name] for name in sorted(home_of)]


def fingerprint(repositories: Iterable[Repository]) -> str:
    """A hash that changes with what is read: commits of git, size and time of archives and of the files of folders,
    contents of the standard library. Where a repository lies does not matter.
    """
    digest = hashlib.sha256()  # over one digest a repository: a list of all their files would not fit into memory
    for repository in repositories:
        digest.update(hashlib.sha256(canonical_json(_key(repository)).encode()).digest())
    return digest.hexdigest()


def _key(repository: Repository) -> list[Any]:
    key: list[Any] = [repository.name, repository.kind]
    if repository.kind == "git":
        return [*key, repository.revision]
    if repository.kind == "stdlib":
        return [*key, sorted([path, sha256_file(Path(repository.location, path))]
                             for path in stdlib_files(repository.location)[repository.name])]
    if repository.kind == "folder":
        return [*key, sorted([os.fsencode(name).hex(), status and [status.st_size, status.st_mtime_ns, status.st_mode]]
                             for name, status in walk(repository.location))]
    try:
        status = os.stat(repository.location)
    except OSError:  # a link to nothing; reading it says so
        return key
    return [*key, status.st_size, status.st_mtime_ns]


def _in_directory(path: Path, prefix: str, settings: SourceSettings, depth: int) -> Iterator[Repository]:
    for child in _visible(path):
        single = _single(child, settings, prefix)
        if single is not None:
            yield single
        elif child.is_dir() and not child.is_symlink():
            if depth and _is_owner(child, depth - 1):
                yield from _in_directory(child, f"{prefix}{child.name}/", settings, depth - 1)
            else:
                yield _folder(child, prefix + child.name)


def _visible(path: Path) -> list[Path]:
    try:
        return sorted(child for child in path.iterdir() if not child.name.startswith("."))
    except OSError as error:
        raise TritwiseError(f"cannot read {path}", why=error.strerror or str(error)) from None


def _is_owner(path: Path, depth: int) -> bool:
    """Whether a directory holds repositories and nothing else; a plain folder is not one of them here."""
    children = _visible(path)
    return bool(children) and all(
        _kind(child) is not None or (depth > 0 and child.is_dir() and not child.is_symlink()
                                     and _is_owner(child, depth - 1)) for child in children)


def _kind(path: Path) -> str | None:
    if path.is_dir():
        return "git" if is_git(path) else None
    if path.name.lower().endswith(".parquet"):
        return "parquet"
    return "tar" if archive_name(path.name) else None


def _single(path: Path, settings: SourceSettings, prefix: str = "") -> Repository | None:
    """The repository that a path is by itself, None for directories of them and plain folders."""
    kind = _kind(path)
    path = Path(os.path.abspath(path))
    if kind == "git":
        name = prefix + path.name.removesuffix(".git")
        try:
            return Repository(name, kind, str(path), resolve(path, settings.revision), stored_size(path))
        except BrokenRepositoryError as error:
            if settings.broken_repository == "skip":
                return Repository(name, kind, str(path), None, 0)
            raise TritwiseError(f"the git repository {path} cannot be read", why=str(error),
                                fix="another revision, or broken_repository = 'skip'") from None
    if kind == "tar":
        return Repository(prefix + archive_name(path.name), kind, str(path), None, _size(path))
    if kind == "parquet":
        return Repository(prefix + path.name[:-len(".parquet")], kind, str(path), None, _size(path))
    return None


def _size(path: Path) -> int:
    """Bytes of an archive; 0 of one that cannot be looked at, which is found out when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _folder(path: Path, name: str) -> Repository:
    size = sum(status.st_size for _, status in walk(str(path)) if status)
    return Repository(name, "folder", os.path.abspath(path), None, size)


def _stdlib() -> Iterator[Repository]:
    root = sysconfig.get_path("stdlib")
    members = stdlib_files(root)
    if not members:
        raise TritwiseError(f"the running interpreter has no library files at {root}",
                            why="python_stdlib reads its *.py files; this one is zipped or stripped",
                            fix="use a Python with its library on disk")
    for name, paths in members.items():
        yield Repository(name, "stdlib", root, None, sum(os.path.getsize(os.path.join(root, path)) for path in paths))
