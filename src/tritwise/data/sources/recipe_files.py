"""Sources: which files there are, to which repository each belongs, and their text.

`python-stdlib` is the standard library of the running interpreter, `folders` is directories of repositories. Caches,
installed packages, hidden directories and symbolic links are not part of a source; everything else with a known
extension is, and leaves it only through a rule that is counted.
"""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tritwise.common.errors import TritwiseError
from tritwise.config import DataRecipe
from tritwise.data.languages import language_of
from tritwise.data.sources.stdlib import stdlib_repository

_NOT_SOURCE = frozenset({"__pycache__", "site-packages", "dist-packages", "lib-dynload", "node_modules"})


class SourceFile(NamedTuple):
    """A file of a repository: `path` as documents name it, `location` on this disk."""

    repository: str
    path: str
    language: str
    location: Path


def find_files(data: DataRecipe) -> list[SourceFile]:
    """All files of the recipe's source, sorted by (repository, path), whatever order the file system gives.

    Raises TritwiseError when a path is missing or holds no repository, or when the interpreter has no library files.
    """
    if data.source == "python-stdlib":
        files = list(_stdlib_files(Path(sysconfig.get_path("stdlib"))))
    else:
        files = list(_folder_files(data.paths))
    return sorted(files)


def _walk(root: Path, top: Path) -> Iterator[tuple[str, Path]]:
    """Regular files below `top`: (path relative to `root` with forward slashes, location)."""
    def fail(error: OSError) -> None:
        raise TritwiseError(f"cannot read {error.filename}", why=error.strerror or str(error))

    for directory, subdirectories, names in os.walk(top, onerror=fail):
        subdirectories[:] = [d for d in subdirectories if d not in _NOT_SOURCE and not d.startswith(".")]
        for name in names:
            location = Path(directory, name)
            if location.is_file() and not location.is_symlink():
                yield location.relative_to(root).as_posix(), location


def _stdlib_files(root: Path) -> Iterator[SourceFile]:
    found = False
    if root.is_dir():
        for path, location in _walk(root, root):
            top = PurePosixPath(path).parts[0]
            # `config-3.11-x86_64-linux-gnu` and the like hold build files; a package's name is an identifier.
            if location.suffix == ".py" and top.removesuffix(".py").isidentifier():
                found = True
                yield SourceFile(stdlib_repository(path), path, "python", location)
    if not found:
        raise TritwiseError(f"the running interpreter has no library files at {root}",
                            why="source = 'python-stdlib' reads its *.py files; this one is zipped or stripped",
                            fix="use a Python with its library on disk, or source = 'folders'")


def _folder_files(paths: tuple[str, ...]) -> Iterator[SourceFile]:
    if not paths:
        raise TritwiseError("the recipe gives no paths", why="source = 'folders' reads the directories below them",
                            fix="data.paths = ['DIRECTORY_OF_REPOSITORIES']")
    home_of: dict[str, Path] = {}
    for root in map(Path, paths):
        if not root.is_dir():
            raise TritwiseError(f"{root} is not a directory", why="data.paths names directories of repositories")
        for repository in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
            if repository.name in home_of:
                raise TritwiseError(f"two repositories are called {repository.name}",
                                    why=f"they are {home_of[repository.name]} and {repository}",
                                    fix="rename one of the directories")
            home_of[repository.name] = repository
            for path, location in _walk(repository, repository):
                language = language_of(path)
                if language:
                    yield SourceFile(repository.name, path, language, location)
    if not home_of:
        raise TritwiseError(f"{', '.join(paths)} holds no directories",
                            why="each directory below a path is one repository")
