"""Documents: source files with their repository, split and fate, kept as the rows of one Parquet file."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tritwise.common.errors import TritwiseError
from tritwise.data.languages import COMMENT_PREFIX

DOCUMENTS_FILE = "documents.parquet"
Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Document:
    """One source file.

    `path` is relative to the folder that holds the repositories' files, with forward slashes. `text` is the decoded
    file, line ends untouched; a dropped document keeps its row but not its text. `size` is the file's bytes on disk,
    `sha256` the hash of those bytes. `split` and `position` (place in the order of its repository) are None, and
    `dropped_by` names the rule, when the file was dropped.
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

    @property
    def is_kept(self) -> bool:
        return self.dropped_by is None


def path_comment(document: Document) -> str:
    """The line that opens every file: a comment of its language that holds its path."""
    return f"{COMMENT_PREFIX[document.language]} {document.path}\n"


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
                            fix="pip install 'tritwise[train]'") from None
    return pyarrow, pyarrow.parquet


def _schema(pyarrow):
    numbers = {"size": pyarrow.int64(), "position": pyarrow.int64()}
    optional = {"split", "dropped_by", "position"}
    return pyarrow.schema([
        pyarrow.field(f.name, numbers.get(f.name, pyarrow.string()), nullable=f.name in optional)
        for f in fields(Document)
    ])


def save_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write documents, in the order given, as one Parquet file."""
    pyarrow, parquet = _pyarrow()
    documents = list(documents)
    columns = {f.name: [getattr(d, f.name) for d in documents] for f in fields(Document)}
    table = pyarrow.Table.from_pydict(columns, schema=_schema(pyarrow))
    parquet.write_table(table, path, compression="zstd", row_group_size=4096)


def load_documents(path: Path, split: Split | None = "held_out") -> list[Document]:
    """Documents of a split, in the order of the split's Parquet rows: repository by repository, dependencies first.

    `path` is the Parquet file or the data directory that holds it. `split=None` gives every row, the dropped ones too.
    The i-th held-out document here is the i-th document of `held_out.ds`.

    Raises TritwiseError when the file is missing, not Parquet, or has other columns.
    """
    path = Path(path)
    path = path / DOCUMENTS_FILE if path.is_dir() else path
    pyarrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise TritwiseError(f"{path} does not exist", why="the documents of a data stage were expected there",
                            fix="tritwise run RECIPE") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise TritwiseError(f"{path} is not readable as Parquet", why=str(error)) from None
    if not table.schema.equals(_schema(pyarrow)):
        raise TritwiseError(f"{path} does not hold documents of this version",
                            why=f"its columns are {', '.join(table.schema.names)}")
    documents = [Document(**row) for row in table.to_pylist()]
    return documents if split is None else [d for d in documents if d.split == split]
