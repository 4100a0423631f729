"""Test sets as files: which of their fields are looked for, and that they are what they should be."""

import gzip
import io
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import open_regular

_MOST_BYTES = 1 << 28
# What of a directory is a test set, by its name: a licence, a page about the set and a script beside it are none.
_IN_A_DIRECTORY = (".jsonl", ".jsonl.gz", ".parquet")
# File names that do not say which set it is.
_SPLITS = ("test", "train", "valid", "validation", "dev")


@dataclass(frozen=True, slots=True)
class TestItem:
    """One problem of a test set: its name there, and the texts that no training file may hold."""

    __test__ = False  # no test of pytest's

    set: str
    item: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _Format:
    """A layout of rows: it is recognised by its fields, and says what a row is called and which texts it gives."""

    fields: frozenset[str]
    name: Callable[[dict[str, Any]], str]
    texts: Callable[[dict[str, Any]], tuple[str, ...]]


# A solution that continues its prompt is one text with it: alone, `return x + y` says nothing.
# The unit tests are left out: they hold values, and names that every test has.
_FORMATS = (
    # HumanEval's infilling tasks: prefix, middle, suffix.
    _Format(frozenset({"task_id", "prompt", "canonical_solution", "suffix"}), lambda row: row["task_id"],
            lambda row: (row["prompt"] + row["canonical_solution"] + row["suffix"],)),
    # HumanEval and HumanEval-X.
    _Format(frozenset({"task_id", "prompt", "canonical_solution"}), lambda row: row["task_id"],
            lambda row: (row["prompt"] + row["canonical_solution"],)),
    # MultiPL-E: no solutions.
    _Format(frozenset({"name", "language", "prompt", "stop_tokens"}), lambda row: row["name"],
            lambda row: (row["prompt"],)),
    # MBPP; its sanitised rows call the text "prompt".
    _Format(frozenset({"task_id", "text", "code"}), lambda row: str(row["task_id"]),
            lambda row: (row["text"], row["code"])),
    _Format(frozenset({"task_id", "prompt", "code"}), lambda row: str(row["task_id"]),
            lambda row: (row["prompt"], row["code"])),
    # MATH.
    _Format(frozenset({"problem", "solution"}), lambda row: "", lambda row: (row["problem"], row["solution"])),
    # GSM8K.
    _Format(frozenset({"question", "answer"}), lambda row: "", lambda row: (row["question"], row["answer"])),
    # SVAMP: the question is the end of the body.
    _Format(frozenset({"Body", "Question"}), lambda row: "", lambda row: (row["Body"] + " " + row["Question"],)),
    # Other word problems (ASDiv, MAWPS, GSM-Hard).
    _Format(frozenset({"input", "target"}), lambda row: "", lambda row: (row["input"],)),
    # Multiple choice and language-model scoring: the answer is one of a few choices, or the end of the text.
    _Format(frozenset({"query", "choices"}), lambda row: "",
            lambda row: (row["query"], *(c for c in row["choices"] if isinstance(c, str)))),
    _Format(frozenset({"context_options", "continuation"}), lambda row: "",
            lambda row: tuple(option + " " + row["continuation"] for option in row["context_options"])),
    _Format(frozenset({"context", "continuation"}), lambda row: "",
            lambda row: (row["context"] + row["continuation"],)),
)


def files_of_sets(path: str | Path) -> list[Path]:
    """The files of a directory that are test sets (.jsonl, .jsonl.gz, .parquet, at any depth), sorted; a file itself.

    Hidden files and what lies in hidden folders are passed over. Raises TritwiseError for a directory with none.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.name.endswith(_IN_A_DIRECTORY) and not file.is_dir()
                   and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise TritwiseError(f"{path} holds no test set", why="of a directory, files that end in "
                            f"{', '.join(_IN_A_DIRECTORY)} are read", fix="name a file of another ending itself")
    return files


def load_test_sets(paths: Iterable[Path], fields: tuple[str, ...] = ()) -> list[TestItem]:
    """The items of several files, and of all files of directories that are test sets (`files_of_sets`).

    A set has its file's name, and its folder's where two are equal or are a split's. A file that is named twice, by
    itself and by its directory, is read once.
    """
    paths = list(dict.fromkeys(file for path in paths for file in files_of_sets(path)))
    names = [path.name.removesuffix(".gz").rpartition(".")[0] or path.name for path in paths]
    names = [name if names.count(name) == 1 and name not in _SPLITS else f"{path.parent.name}/{name}"
             for name, path in zip(names, paths, strict=True)]
    if len(set(names)) < len(names):
        raise TritwiseError("two of the test sets have the same name", why=", ".join(sorted(names)))
    return [item for path, name in zip(paths, names, strict=True) for item in read_test_set(path, name, fields)]


def read_test_set(path: Path, name: str, fields: tuple[str, ...] = ()) -> list[TestItem]:
    """The items of one file, which may be compressed with gzip.

    A `.txt` file is one item a paragraph (lines up to an empty one). Any other holds a JSON object a line, or one
    array of objects, or is a Parquet file, in a layout of HumanEval, HumanEval-X, HumanEval's infilling tasks,
    MultiPL-E, MBPP, MATH, GSM8K, SVAMP, MAWPS or llm-foundry; or `fields` names the fields whose texts are looked for.

    Raises TritwiseError when the file is missing, too large, no JSON, of no known layout, or has rows of another one.
    """
    path = Path(path)
    content = _read(path)
    if path.name.endswith(".parquet"):
        items = _items(path, name, _parquet_rows(path, content), fields)
    else:
        items = _text_items(path, name, content, fields)
    if not items:
        raise TritwiseError(f"{path} holds no test item", why="a test set was expected there")
    return items


def _text_items(path: Path, name: str, content: bytes, fields: tuple[str, ...]) -> list[TestItem]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise TritwiseError(f"{path} is not readable as a test set", why=str(error)) from None
    if path.name.removesuffix(".gz").endswith(".txt"):
        paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text)]
        return [TestItem(name, str(number), (part,)) for number, part in enumerate(paragraphs) if part]
    return _items(path, name, _rows(path, text), fields)


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                raise OSError(f"it has more than {_MOST_BYTES} bytes")
            content = file.read(_MOST_BYTES + 1)
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                content = stream.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise OSError(f"it unpacks to more than {_MOST_BYTES} bytes")
        return content
    except FileNotFoundError:
        raise TritwiseError(f"{path} does not exist", why="a test set was expected there") from None
    except (OSError, EOFError, ValueError) as error:
        raise TritwiseError(f"{path} is not readable as a test set", why=str(error)) from None


def _rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise TritwiseError(f"{path} is not readable as a test set", why=f"no JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TritwiseError(f"{path} is not readable as a test set", why="its rows are no JSON objects")
    return rows


def _parquet_rows(path: Path, content: bytes) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise TritwiseError(f"reading {path} needs pyarrow", why="the base installation can run models only",
                            fix="pip install 'tritwise[data]'") from None
    try:
        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            if (size := sum(group.total_byte_size for group in groups)) > _MOST_BYTES:
                raise OSError(f"it unpacks to {size} bytes, more than {_MOST_BYTES}")
            return file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise TritwiseError(f"{path} is not readable as a test set", why=str(error)) from None


def _items(path: Path, name: str, rows: list[dict[str, Any]], fields: tuple[str, ...]) -> list[TestItem]:
    if fields:
        layout = _Format(frozenset(fields), lambda row: "", lambda row: tuple(row[field] for field in fields))
    else:
        layout = next((each for each in _FORMATS if rows and each.fields <= rows[0].keys()), None)
    if layout is None:
        raise TritwiseError(f"{path} has no layout of a known test set",
                            why=f"its first row has the fields {', '.join(rows[0]) if rows else '(no rows)'}",
                            fix="name the fields whose texts are looked for")
    items = []
    for number, row in enumerate(rows):
        try:
            texts = layout.texts(row)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a field is no text")
            items.append(TestItem(name, str(layout.name(row)) or str(number), texts))
        except (KeyError, TypeError) as error:
            raise TritwiseError(f"{path} is not readable as a test set",
                                why=f"row {number + 1} is unlike the first: {error!r}") from None
    return items
