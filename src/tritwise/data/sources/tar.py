"""Files of a tar archive, plain or compressed (gzip, bzip2, xz, zstd), in the order of their paths.

An archive is read once from its beginning to its end. The members' places are kept, and of a compressed one the wanted
contents too, in a temporary file; so memory holds the paths and one content. Nothing is ever extracted to where a
member says. What an archive may unpack to is bounded, and so is what a single header may hold.
"""

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from tritwise.common.errors import TritwiseError
from tritwise.common.files import open_regular
from tritwise.data.sources import files
from tritwise.data.sources.files import VERSION_CONTROL, RawFile, Wanted, checked_path
from tritwise.data.sources.git import BrokenRepositoryError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
# tarfile reads headers and long names whole. A path has at most 4096 bytes.
_MOST_AT_ONCE = 1 << 20
_CHUNK = 1 << 18


class _Place(NamedTuple):
    """Where a member's bytes are, in the archive or in the temporary file."""

    path: str
    good: bool
    number: int
    offset: int
    size: int
    skipped: str | None


def archive_name(name: str) -> str | None:
    """The name of the repository in an archive of this file name, None when it is no archive."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[:-len(suffix)]
    return None


def read_tar(location: str | Path, *, max_bytes: int, wanted: Wanted | None = None) -> Iterator[RawFile]:
    """Files of an archive, sorted by path. One directory around everything (`name-1.0/`) is no part of the paths.

    Of several members with one path the last counts, as for tar. Raises BrokenRepositoryError, at the latest when the
    last member has been found, so before the first file is given.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(open_regular(location))
            plain = archive_kind(raw) is None
            spill = None if plain else stack.enter_context(tempfile.TemporaryFile())
            stream = _Forward(raw if plain else stack.enter_context(_decompressed(raw)), seekable=plain)
            places = _find(stream, spill, max_bytes)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError) as error:
            raise BrokenRepositoryError(str(error)) from None
        source = raw if spill is None else spill
        for place in _resolved(places, wanted):
            if place.skipped:
                yield RawFile(place.path, None, place.size, place.skipped)
                continue
            source.seek(place.offset)
            content = source.read(place.size)
            if len(content) != place.size:
                raise BrokenRepositoryError("it ends within a file")
            yield RawFile(place.path, content, place.size)


def archive_kind(file: BinaryIO) -> str | None:
    """The compression that a file's first bytes show, None for none; the position is 0 afterwards."""
    head = file.read(6)
    file.seek(0)
    for kind, magic in (("gzip", b"\x1f\x8b"), ("bzip2", b"BZh"), ("xz", b"\xfd7zXZ\0"), ("zstd", b"\x28\xb5\x2f\xfd")):
        if head.startswith(magic):
            return kind
    return None


def _decompressed(file: BinaryIO) -> IO[bytes]:
    kind = archive_kind(file)
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "bzip2":
        return bz2.BZ2File(file)
    if kind == "xz":
        # A dictionary of up to 64 MiB, that of `xz -9`; a header may ask for 4 GiB.
        return lzma.LZMAFile(file, format=lzma.FORMAT_XZ)
    try:
        import pyarrow
    except ImportError:
        raise TritwiseError("an archive is compressed with zstd", why="pyarrow unpacks it",
                            fix="pip install 'tritwise[data]'") from None
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


class _Forward:
    """What tarfile reads from: a stream that only goes forward, never gives much at once, and ends some day."""

    def __init__(self, stream: IO[bytes], *, seekable: bool) -> None:
        self._stream, self._seekable, self._position = stream, seekable, 0

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise ValueError(f"a header of it has {size} bytes")
        parts = []
        while size and (part := self._stream.read(size)):  # zstd gives less than asked for
            parts.append(part)
            size -= len(part)
            self._moved(len(part))
        return b"".join(parts)

    def seek(self, position: int) -> int:
        if position < self._position:
            raise ValueError("a header of it points backwards")
        if self._seekable:
            self._moved(position - self._position)
            self._stream.seek(position)
            return position
        while self._position < position:
            if not self.read(min(_CHUNK, position - self._position)):
                raise EOFError("it ends within a file")
        return position

    def _moved(self, size: int) -> None:
        self._position += size
        if self._position > files.MAX_ARCHIVE_BYTES:
            raise ValueError(f"it unpacks to more than {files.MAX_ARCHIVE_BYTES} bytes")


def _find(stream: _Forward, spill: BinaryIO | None, max_bytes: int) -> list[_Place]:
    """Places of all members; wanted contents are copied to `spill` where there is one."""
    places: list[_Place] = []
    with tarfile.TarFile(fileobj=stream, errorlevel=2) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # it would keep every header
            if len(places) >= files.MAX_ARCHIVE_FILES:
                raise ValueError(f"it has more than {files.MAX_ARCHIVE_FILES} members")
            if member.isdir():
                continue
            name = member.name
            while name.startswith("./"):
                name = name[2:]
            path, good = checked_path(name)
            if member.size < 0:
                raise ValueError("a member has a negative size")
            if member.issym() or member.islnk():
                skipped = "symbolic_link"
            elif not member.isreg() or member.sparse is not None:
                skipped = "special_file"
            elif not good:
                skipped = "path"
            else:
                skipped = "too_large" if member.size > max_bytes else None
            offset = member.offset_data
            if spill is not None and skipped is None:
                offset = spill.tell()
                _copy(stream, spill, member.size)
            places.append(_Place(path, good, len(places), offset, member.size, skipped))
    return places


def _copy(stream: _Forward, spill: BinaryIO, size: int) -> None:
    while size:
        part = stream.read(min(size, _CHUNK))
        if not part:
            raise EOFError("it ends within a file")
        spill.write(part)
        size -= len(part)


def _resolved(places: list[_Place], wanted: Wanted | None) -> Iterator[_Place]:
    """Sorted by path, the directory around all of them taken off, all but the last of one path skipped."""
    tops = {place.path.partition("/")[0] if "/" in place.path else None for place in places if place.good}
    around = None if len(tops) != 1 else tops.pop()
    if around is not None:
        places = [place._replace(path=place.path[len(around) + 1:]) if place.good else place for place in places]
    places = sorted(places, key=lambda place: (place.path, place.number))
    for place, after in zip(places, [*places[1:], None], strict=True):
        if VERSION_CONTROL & set(place.path.split("/")[:-1]):
            continue
        if after is not None and after.path == place.path:
            yield place._replace(skipped="duplicate_path")
        elif place.skipped is None and wanted is not None and not wanted(place.path):
            yield place._replace(skipped="not_wanted")
        else:
            yield place
