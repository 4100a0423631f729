"""Documents: source files with their repository, split and fate, kept as rows of Parquet files.

A corpus is a directory of numbered parts (`00000.parquet`, ...). The files of a repository stand together in one part,
sorted by path. Parts are read and written a few rows at a time, so memory does not grow with them.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_file
from tritwise.data.flow import moved
from tritwise.data.languages import path_comment as comment_line

# The directory of the parts of a corpus in a data directory.
DOCUMENTS = "documents"
Split = Literal["train", "held_out"]
# A row group is closed when it has this much of either.
_ROWS, _CHARACTERS = 4096, 1 << 24


@dataclass(frozen=True, slots=True)
class Document:
    """One source file.

    `path` is relative to the folder that holds the repositories' files, with forward slashes. `text` is the decoded
    file, line ends untouched; a dropped document keeps its row but not its text. `size` is the file's bytes on disk,
    `sha256` the hash of those bytes. `split` and `position` (place in the order of its repository) are None, and
    `dropped_by` names the rule and `detail` what decided (a number, the document that it repeats), when the file was
    dropped. `licence` is an SPDX identifier or expression, None when nothing was found. `redacted` counts secrets and
    personal data that were replaced in the text. `facts` is what dependencies are found from (`imports.Facts` as JSON);
    a dropped document keeps it, for it still makes a package or names a module.
    """

    repository: str
    path: str
    language: str
    text: str
    size: int
    sha256: str
    split: Split | None = None
    dropped_by: str | None = None
    position: int | None = None
    detail: str | None = None
    licence: str | None = None
    redacted: int = 0
    facts: str | None = None

    @property
    def is_kept(self) -> bool:
        return self.dropped_by is None


def path_comment(document: Document) -> str:
    """The line that opens every file: a comment of its language that holds its path; empty where it has none."""
    return comment_line(document.language, document.path)


def document_text(document: Document) -> str:
    """What shards hold and models are scored on: the path comment, then the file's exact text."""
    return path_comment(document) + document.text


def _pyarrow():
    """pyarrow's core and Parquet modules; the base install does not have them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise TritwiseError("reading and writing documents needs pyarrow",
                            why="the base installation can run models only",
                            fix="pip install 'tritwise[data]'") from None
    return pyarrow, pyarrow.parquet


def _schema(pyarrow):
    numbers = {"size": pyarrow.int64(), "position": pyarrow.int64(), "redacted": pyarrow.int64()}
    optional = {"split", "dropped_by", "position", "detail", "licence", "facts"}
    return pyarrow.schema([
        pyarrow.field(f.name, numbers.get(f.name, pyarrow.string()), nullable=f.name in optional)
        for f in fields(Document)
    ])


def save_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write documents, in the order given, as one Parquet file, which appears whole or not at all.

    Rows are written whenever they hold 4096 documents or 16 MiB of text: memory is bounded, and equal documents give
    equal bytes.
    """
    pyarrow, parquet = _pyarrow()
    schema = _schema(pyarrow)
    with atomic_file(Path(path)) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in batches(documents, _ROWS, _CHARACTERS):
            columns = {f.name: [getattr(d, f.name) for d in group] for f in fields(Document)}
            writer.write_table(pyarrow.Table.from_pydict(columns, schema=schema))


def batches(documents: Iterable[Document], most: int, characters: int) -> Iterator[list[Document]]:
    """Consecutive lists of at most `most` documents, each closed when its texts have so many characters together."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == most or size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_documents(path: Path, split: Split | None = None, *, facts: bool = True) -> Iterator[Document]:
    """The documents of one Parquet file in the order of its rows, one row group in memory at a time.

    Args:
        split: only the documents of it; None gives every row.
        facts: False leaves them out (None) for readers that do not look at them.

    Raises TritwiseError when the file is missing, not Parquet, damaged, or has other columns.
    """
    path = Path(path)
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(_schema(pyarrow)):
                raise TritwiseError(f"{path} does not hold documents of this version",
                                    why=f"its columns are {', '.join(file.schema_arrow.names)}")
            names = [f.name for f in fields(Document) if facts or f.name != "facts"]
            texts = file.schema_arrow.get_field_index("text")
            for number in range(file.num_row_groups):
                rows = None
                if split is not None:  # most row groups have one split only, and the others' need not be read
                    splits = file.read_row_group(number, columns=["split"])["split"].to_pylist()
                    if split not in splits:
                        continue
                    rows = pyarrow.array([each == split for each in splits])
                table = file.read_row_group(number, columns=names)
                table = table if rows is None else table.filter(rows)
                yield from map(Document, *(table[name].to_pylist() for name in names))
                stored = file.metadata.row_group(number)
                columns = [stored.column(index) for index in range(stored.num_columns)]
                moved(sum(column.total_compressed_size for column in columns), columns[texts].total_uncompressed_size)
    except FileNotFoundError:
        raise TritwiseError(f"{path} does not exist", why="the documents of a data stage were expected there",
                            fix="tritwise run RECIPE") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise TritwiseError(f"{path} is not readable as Parquet", why=str(error)) from None


def by_repository(documents: Iterable[Document]) -> Iterator[tuple[str, list[Document]]]:
    """(repository, its documents) one after the other; the documents of a repository must stand together."""
    for name, members in itertools.groupby(documents, key=lambda document: document.repository):
        yield name, list(members)


def part_file(directory: Path, number: int) -> Path:
    """Where part `number` of a corpus lies."""
    return Path(directory) / f"{number:05}.parquet"


def part_files(path: Path) -> list[Path]:
    """The parts of a corpus, in order: of a data directory, of a directory of parts, or the one file that it is.

    Raises TritwiseError when there are none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    home = path / DOCUMENTS if (path / DOCUMENTS).is_dir() else path
    found = sorted(home.glob("*.parquet"), key=lambda part: (len(part.name), part.name))  # 100000 is behind 99999
    if not found:
        raise TritwiseError(f"{path} holds no documents", why="parts such as 00000.parquet were expected there",
                            fix="tritwise run RECIPE")
    return found


def load_documents(path: Path, split: Split | None = "held_out") -> list[Document]:
    """Documents of a split in the order of their rows: repository by repository, dependencies first.

    `path` is as `part_files` takes it. `split=None` gives every row, the dropped ones too. The i-th held-out document
    here is the i-th document of the shards `held_out-*.ds`.

    Raises TritwiseError when a file is missing, not Parquet, or has other columns.
    """
    return [d for part in part_files(path) for d in read_documents(part) if split is None or d.split == split]
