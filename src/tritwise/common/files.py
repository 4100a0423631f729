"""Files that are whole or absent: atomic writes, atomic directories, content hashes."""

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tritwise.common.errors import TritwiseError

# What is read whole into memory. JSON grows when it is parsed, most where there are many small objects and lists.
MOST_TEXT, MOST_JSON, MOST_CONTAINERS = 1 << 26, 1 << 24, 1 << 17


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fsync_path(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to that becomes `path` when the block ends without an error.

    Readers see the old content or the new one, never a part, even after a kill.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file through `atomic_file`."""
    with atomic_file(path) as f:
        f.write(data.encode() if isinstance(data, str) else data)


def atomic_write_json(path: Path, value: Any) -> None:
    """`atomic_write` of indented JSON; NaN and infinity are refused."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path` when the block ends without an error.

    Every file is synced before the rename. What stood at `path` is replaced in two renames, so a kill leaves
    the old directory, the new one or, for an instant between the renames, none - never a mixture.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)
    try:
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            if entry.is_file():
                entry.chmod(0o666 & ~umask)  # some writers (safetensors) keep their files from everybody else
            fsync_path(entry)
        fsync_path(temporary)
        if path.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, retired / path.name)
            os.replace(temporary, path)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, path)
        fsync_path(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading. Raises OSError for what is none: a device never ends, a pipe may never begin."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError("it is no regular file")


def read_text(path: str | Path, *, what: str, most: int = MOST_TEXT) -> str:
    """Read a UTF-8 file of at most `most` bytes; `what` names it in the error ("a tokenizer", ...)."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise OSError(f"it has more than {most} bytes")
            content = file.read(size + 1)
        if len(content) != size:
            raise OSError("it changes while it is read")
        return content.decode()
    except FileNotFoundError:
        raise TritwiseError(f"{path} does not exist", why=f"{what} was expected there") from None
    except (OSError, ValueError) as error:
        raise TritwiseError(f"{path} is not readable as {what}", why=str(error)) from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`object_pairs_hook` for JSON: readers disagree on which of two values counts. Raises ValueError."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"it names {twice} twice")
    return result


def read_json(path: Path, *, what: str) -> Any:
    """Read a JSON file; `what` names it in the error ("a model configuration", ...)."""
    text = read_text(path, what=what, most=MOST_JSON)
    try:
        if text.count("{") + text.count("[") > MOST_CONTAINERS:
            raise ValueError(f"it has more than {MOST_CONTAINERS} objects and lists")
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise TritwiseError(f"{path} is not readable as {what}", why=str(error)) from None
