"""Sources: which files there are, to which repository each belongs, and their text.

`python-stdlib` is the standard library of the running interpreter, `folders` is directories of repositories. Caches,
installed packages, hidden directories and symbolic links are not part of a source; everything else with a known
extension is, and leaves it only through a rule that is counted.
"""

import io
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tritwise.common.errors import TritwiseError
from tritwise.config import DataRecipe
from tritwise.data.languages import language_of

_NOT_SOURCE = frozenset({"__pycache__", "site-packages", "dist-packages", "lib-dynload", "node_modules"})


class SourceFile(NamedTuple):
    """A file of a repository: `path` as documents name it, `location` on this disk."""

    repository: str
    path: str
    language: str
    location: Path


class UndecodableError(ValueError):
    """The bytes of a file are not text in the encoding that they declare, or in UTF-8."""


def find_files(data: DataRecipe) -> list[SourceFile]:
    """All files of the recipe's source, sorted by (repository, path), whatever order the file system gives.

    Raises TritwiseError when a path is missing or holds no repository, or when the interpreter has no library files.
    """
    if data.source == "python-stdlib":
        files = list(_stdlib_files(Path(sysconfig.get_path("stdlib"))))
    else:
        files = list(_folder_files(data.paths))
    return sorted(files)


def decode(content: bytes, language: str) -> str:
    """The text of a file, line ends untouched. Python declares its encoding (PEP 263); the rest is UTF-8.

    Raises UndecodableError.
    """
    try:
        if language == "python":
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        else:
            encoding = "utf-8-sig"
        text = content.decode(encoding)
        text.encode("utf-8")  # utf-7 and utf-16 cookies can decode to lone surrogates, which no other step can take
    except (SyntaxError, UnicodeError, LookupError, ValueError) as error:
        raise UndecodableError(str(error)) from None
    return text


def stdlib_repository(path: str) -> str:
    """The repository of a standard library file: its top-level package or its group of modules.

    A module joins those it is a companion of: leading underscores, a private module's `py`, and what follows the first
    underscore do not count, so `_pydecimal` and `decimal`, `_collections_abc` and `collections/`, or `sre_parse` and
    `sre_compile` are one repository. `test/` is half of the library, so it is cut the same way one level further down,
    where the words `test` and trailing digits do not count either: `test/test_urllib.py`, `test_urllib2.py`,
    `test_urllib2_localnet.py` are the repository `test/urllib`.
    """
    parts = PurePosixPath(path).parts
    if parts[0] == "test" and len(parts) > 1:
        name = PurePosixPath(parts[1]).stem
        words = [word for word in name.strip("_").split("_") if word not in ("", "test")]
        key = words[0] if words else name
        return f"test/{key.rstrip('0123456789') or key}"
    name = PurePosixPath(parts[0]).stem
    if len(parts) > 1:
        return name
    bare = name.removeprefix("_py") if name.startswith("_py") else name
    words = [word for word in bare.split("_") if word]
    return words[0] if words else name


def may_be_held_out(source: str, repository: str) -> bool:
    """Whether a repository may be scored on, or only trained on.

    The library's own test suite is for training: half of all bytes, in long files of near-equal assertions (`xz -9e`
    needs 1.5 bits a byte for them alone, 2.0 for the modules that they test). Held-out text is what people complete.
    """
    return not (source == "python-stdlib" and repository.startswith("test/"))


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
