"""Rows of Parquet files, in the layouts that code datasets have.

    the-stack-v2 (a row a file)      repo_name, path, content, detected_licenses
    the-stack-v2-train-*-ids         repo_name, files: list of {path, content, detected_licenses, ...}
    the-stack, the-stack-dedup,      max_stars_repo_name, max_stars_repo_path, content, max_stars_repo_licenses
      starcoderdata
    github-code                      repo_name, path, code, license

The published tables of the-stack-v2 have `blob_id` in place of contents, which lie with Software Heritage: they are
refused until the contents have been put in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tritwise.common.errors import TritwiseError

REPOSITORY = ("max_stars_repo_name", "repo_name", "repository_name", "repository", "repo")
PATH = ("max_stars_repo_path", "path", "file_path")
CONTENT = ("content", "text", "code")
LICENCE = ("max_stars_repo_licenses", "detected_licenses", "licenses", "license", "licence")
# Rows decoded at once. Their contents are in memory together, besides one page of the file.
_BATCH = 64


class Row(NamedTuple):
    """One file of a repository, as a row or an item of a row says it."""

    repository: str
    path: str
    content: bytes | None
    licence: str | None


class Layout(NamedTuple):
    """Names of the columns; `nested` is that of a list of files, of which path, content and licence are parts."""

    repository: str
    path: str
    content: str
    licence: str | None
    nested: str | None


def layout_of(schema: Any, name: str) -> Layout:
    """The layout of a file's Arrow schema. Raises TritwiseError that says what is missing."""
    import pyarrow

    columns = {field.name: field.type for field in schema}
    repository = next((column for column in REPOSITORY if column in columns), None)
    nested = None
    inner = set(columns)
    files = columns.get("files")
    if files is not None and (pyarrow.types.is_list(files) or pyarrow.types.is_large_list(files)) and \
            pyarrow.types.is_struct(files.value_type):
        nested, inner = "files", {field.name for field in files.value_type}
    path, content, licence = (next((column for column in names if column in inner), None)
                              for names in (PATH, CONTENT, LICENCE))
    if repository and path and content:
        return Layout(repository, path, content, licence, nested)
    there = f"its columns are {', '.join(sorted(columns))}"
    if repository and path and "blob_id" in inner:
        raise TritwiseError(f"{name} has no contents", why=f"it names files by blob_id, as the-stack-v2 does; {there}",
                            fix="put each blob's text into a column `content`, beside `path`")
    missing = [what for what, column in (("a repository's name", repository), ("a path", path),
                                         ("contents", content)) if not column]
    raise TritwiseError(f"{name} is no table of repositories' files",
                        why=f"it has no column for {' or '.join(missing)}; {there}")


def rows(path: str | Path) -> Iterator[Row]:
    """All rows of a Parquet file, in its order, few in memory at a time.

    A row without repository or path is passed over. Raises TritwiseError when the file is damaged or of another kind.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise TritwiseError("reading Parquet files needs pyarrow", fix="pip install 'tritwise[data]'") from None
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            layout = layout_of(file.schema_arrow, str(path))
            columns = [layout.repository, layout.nested] if layout.nested else [
                column for column in (layout.repository, layout.path, layout.content, layout.licence) if column]
            for batch in file.iter_batches(batch_size=1 if layout.nested else _BATCH, columns=columns):
                for entry in batch.to_pylist():
                    for item in (entry[layout.nested] or ()) if layout.nested else (entry,):
                        repository, name = entry[layout.repository], item and item[layout.path]
                        if isinstance(repository, str) and isinstance(name, str) and repository:
                            yield Row(repository, name, _bytes(item[layout.content]),
                                      _expression(item[layout.licence]) if layout.licence else None)
    except (pyarrow.ArrowException, OSError) as error:
        raise TritwiseError(f"{path} is not readable as Parquet", why=str(error)) from None


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else None


def _expression(value: Any) -> str | None:
    """Licences that hold together: those that a scanner found in one file or repository."""
    names = value if isinstance(value, list) else [value]
    names = [name for name in names if isinstance(name, str) and name]
    return " AND ".join(f"({name})" if " OR " in name and len(names) > 1 else name for name in names) or None
