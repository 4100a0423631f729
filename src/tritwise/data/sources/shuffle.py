"""Rows of one repository brought together out of many Parquet files, in two phases of independent tasks.

`scatter` is a task an input file: it copies the contents into one file, in runs that are sorted by bucket, and writes
an index. `gather` is a task a bucket: it reads the rows of that bucket from all indexes, sorts them, and reads each
content from where it lies. A repository's bucket is a hash of its name, so it is whole in one bucket. Memory is bounded
by a run (64 MiB) and the paths of an input file when scattering, by the paths of a bucket and one content when
gathering.

    OUT/NAME-0123456789ab/contents.bin, index.parquet      one directory an input file, whole or absent
"""

import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_directory, canonical_json, sha256_bytes
from tritwise.data.sources.files import RawFile, Repository, checked_path
from tritwise.data.sources.rows import rows

CONTENTS, INDEX = "contents.bin", "index.parquet"
_RUN_BYTES = 1 << 26
_GROUP = 1 << 14
_OPEN_FILES = 128


class _Entry(NamedTuple):
    """A row of the index. `digest` decides between two contents of one path, so that no order of inputs does."""

    bucket: int
    repository: str
    path: str
    digest: str
    offset: int
    size: int
    skipped: str | None
    licence: str | None


def bucket_of(repository: str, buckets: int) -> int:
    """The bucket of a repository: the CRC-32 of its name, modulo their number."""
    return zlib.crc32(repository.encode("utf-8", "surrogatepass")) % buckets


def scatter(input_file: str | Path, out_dir: str | Path, buckets: int, *, max_bytes: int) -> Path:
    """Copy the rows of one Parquet file into a directory below `out_dir`, which is returned; what is there is reused.

    Files of more than `max_bytes` are named and not copied. The directory's name holds a hash of the input's path, size
    and time and of the settings, so a changed input gets another one. Raises TritwiseError for files of another kind.
    """
    path = Path(input_file).resolve()
    try:
        status = path.stat()
    except OSError as error:
        raise TritwiseError(f"cannot read {path}", why=error.strerror or str(error)) from None
    key = sha256_bytes(canonical_json([str(path), status.st_size, status.st_mtime_ns, buckets, max_bytes]).encode())
    target = Path(out_dir) / f"{path.stem}-{key[:12]}"
    if not target.is_dir():
        with atomic_directory(target) as directory:
            _scatter(path, directory, buckets, max_bytes)
    return target


def _scatter(path: Path, directory: Path, buckets: int, max_bytes: int) -> None:
    index: list[_Entry] = []
    run: list[tuple[_Entry, bytes]] = []
    held = 0
    with (directory / CONTENTS).open("wb") as contents:
        for row in rows(path):
            name, good = checked_path(row.path.encode("utf-8", "surrogatepass"))
            size = len(row.content or b"")
            skipped = ("no_content" if row.content is None else "path" if not good
                       else "too_large" if size > max_bytes else None)
            entry = _Entry(bucket_of(row.repository, buckets), row.repository, name,
                           sha256_bytes(row.content or b"")[:16], 0, size, skipped, row.licence)
            if skipped:
                index.append(entry)
                continue
            run.append((entry, row.content))
            held += size
            if held >= _RUN_BYTES:
                index += _write_run(run, contents)
                run, held = [], 0
        index += _write_run(run, contents)
    index.sort(key=lambda entry: entry[:5])
    _write_index(directory / INDEX, index)


def _write_run(run: list[tuple[_Entry, bytes]], contents: BinaryIO) -> list[_Entry]:
    """Write the contents of a run, those of a bucket side by side, and give its entries their places."""
    placed = []
    for entry, content in sorted(run, key=lambda item: item[0][:4]):
        placed.append(entry._replace(offset=contents.tell()))
        contents.write(content)
    return placed


def _schema():
    import pyarrow

    numbers = {"bucket": pyarrow.int32(), "offset": pyarrow.int64(), "size": pyarrow.int64()}
    return pyarrow.schema([(name, numbers.get(name, pyarrow.string())) for name in _Entry._fields])


def _write_index(path: Path, index: list[_Entry]) -> None:
    import pyarrow
    import pyarrow.parquet

    # Row groups are small, so that a bucket's rows are found by their statistics and the rest is not read.
    with pyarrow.parquet.ParquetWriter(path, _schema(), compression="zstd") as writer:
        for start in range(0, len(index), _GROUP):
            group = index[start:start + _GROUP]
            columns = {name: [getattr(entry, name) for entry in group] for name in _Entry._fields}
            writer.write_table(pyarrow.Table.from_pydict(columns, schema=_schema()))


def gather(scattered: Iterable[str | Path], bucket: int) -> Iterator[tuple[Repository, Iterator[RawFile]]]:
    """The repositories of a bucket, sorted by name, each with its files sorted by path.

    `scattered` are the directories that `scatter` returned for all input files; their order does not matter. A
    repository's files must be taken before the next repository is asked for. Of several rows of one path the one with
    the smallest hash counts.
    """
    directories = sorted(Path(directory) for directory in scattered)
    entries = [(entry, number) for number, directory in enumerate(directories)
               for entry in _bucket_entries(directory, bucket)]
    entries.sort(key=lambda item: (item[0].repository, item[0].path, item[0].skipped is not None, item[0].digest))
    with _Contents(directories) as contents:
        for name, members in itertools.groupby(entries, key=lambda item: item[0].repository):
            group = list(members)
            size = sum(entry.size for entry, _ in group if not entry.skipped)
            yield Repository(name, "parquet", "", None, size), _files(group, contents)


class _Contents:
    """The contents of all inputs, with a bounded number of open files."""

    def __init__(self, directories: list[Path]) -> None:
        self._paths = [directory / CONTENTS for directory in directories]
        self._open: dict[int, BinaryIO] = {}

    def __enter__(self) -> "_Contents":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def read(self, number: int, entry: _Entry) -> bytes:
        path = self._paths[number]
        try:
            if number not in self._open:
                if len(self._open) == _OPEN_FILES:
                    self._open.pop(next(iter(self._open))).close()
                self._open[number] = path.open("rb")
            self._open[number].seek(entry.offset)
            content = self._open[number].read(entry.size)
        except OSError as error:
            raise TritwiseError(f"{path.parent} was not written by scatter", why=str(error)) from None
        if sha256_bytes(content)[:16] != entry.digest:
            raise TritwiseError(f"{path} is damaged", why=f"{entry.path} has another hash than the index",
                                fix="remove its directory; scatter writes it again")
        return content


def _files(group: list[tuple[_Entry, int]], contents: _Contents) -> Iterator[RawFile]:
    before = None
    for entry, number in group:
        skipped = "duplicate_path" if entry.path == before and not entry.skipped else entry.skipped
        before = entry.path
        if skipped:
            yield RawFile(entry.path, None, entry.size, skipped, entry.licence)
            continue
        yield RawFile(entry.path, contents.read(number, entry), entry.size, None, entry.licence)


def _bucket_entries(directory: Path, bucket: int) -> Iterator[_Entry]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(directory / INDEX, filters=[("bucket", "=", bucket)], partitioning=None)
        if table.schema.names != list(_Entry._fields):
            raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise TritwiseError(f"{directory / INDEX} is not readable as an index of rows", why=str(error),
                            fix="remove its directory; scatter writes it again") from None
    for row in table.to_pylist():
        yield _Entry(**row)
