"""The standard library of the running interpreter, cut into repositories."""

import os
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath

from tritwise.data.sources.files import Repository
from tritwise.data.sources.folder import walk

_NOT_LIBRARY = frozenset({"__pycache__", "site-packages", "dist-packages", "lib-dynload", "node_modules"})


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


def trained_only(repositories: Iterable[Repository]) -> frozenset[str]:
    """Names of the repositories that are never scored on.

    The library's own test suite is for training: half of all bytes, in long files of near-equal assertions (`xz -9e`
    needs 1.5 bits a byte for them alone, 2.0 for the modules that they test). Held-out text is what people complete.
    """
    return frozenset(each.name for each in repositories if each.kind == "stdlib" and each.name.startswith("test/"))


@lru_cache(maxsize=4)
def stdlib_files(root: str) -> dict[str, tuple[str, ...]]:
    """Paths of the library's modules below `root` by repository, both sorted; empty where there is no library."""
    members: dict[str, list[str]] = {}
    for path, status in walk(root, without=_NOT_LIBRARY) if os.path.isdir(root) else ():
        parts = path.split("/")
        # `config-3.11-x86_64-linux-gnu` and the like hold build files; a package's name is an identifier.
        if (status is not None and stat.S_ISREG(status.st_mode) and path.endswith(".py")
                and parts[0].removesuffix(".py").isidentifier()
                and not any(part.startswith(".") for part in parts[:-1])):
            members.setdefault(stdlib_repository(path), []).append(path)
    return {name: tuple(sorted(members[name])) for name in sorted(members)}
