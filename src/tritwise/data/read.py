"""From a source to documents: read, decode, filter, drop duplicates, parse. Every drop has the name of a rule."""

import ast
import os
import warnings
from dataclasses import replace

from tritwise.common.errors import TritwiseError
from tritwise.common.files import sha256_bytes, sha256_file
from tritwise.common.progress import progress
from tritwise.config import DataRecipe
from tritwise.config.data_rules import FilterSettings
from tritwise.data.documents import Document
from tritwise.data.imports import Facts, extract
from tritwise.data.imports.parse import SlowFileError
from tritwise.data.rules import broken_rule, is_excluded
from tritwise.data.sources import SourceFile, UndecodableError, decode, find_files

# Facts of each kept Python document, by (repository, path).
FactsOf = dict[tuple[str, str], Facts]


def read_source(recipe: DataRecipe) -> tuple[list[Document], FactsOf]:
    """All documents of a source, sorted by (repository, path), the dropped ones marked and without text.

    Of equal texts the first in that order is kept, so no text is in two repositories, and none in two splits.
    """
    files = find_files(recipe)
    filters = FilterSettings.model_validate(recipe.filters.model_dump())
    documents: list[Document] = []
    facts: FactsOf = {}
    seen: set[str] = set()
    with progress("read", len(files)) as bar:
        for file in files:
            document = _read_file(file, filters)
            if document.is_kept:
                text_hash = sha256_bytes(document.text.encode())
                if text_hash in seen:
                    document = replace(document, dropped_by="duplicate", text="")
                else:
                    seen.add(text_hash)
            if document.is_kept and document.language == "python":
                found = _python_facts(document)
                if found is None:
                    document = replace(document, dropped_by="syntax", text="")
                else:
                    facts[document.repository, document.path] = found
            documents.append(document)
            bar.update(len(documents), file.repository)
    return documents, facts


def _python_facts(document: Document) -> Facts | None:
    """Facts of a Python document, or None when neither this interpreter nor the parser can make sense of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are the file's business
            ast.parse(document.text)
        return extract("python", document.path, document.text.encode())
    except (SyntaxError, ValueError, RecursionError, MemoryError, SlowFileError):
        return None  # ValueError: null bytes; RecursionError, MemoryError: nesting deeper than the interpreter goes


def _read_file(file: SourceFile, filters: FilterSettings) -> Document:
    path = file.path
    dropped_by, detail, text = None, None, ""
    try:
        size = file.location.stat().st_size
        if not path.isprintable():
            # Such a name cannot stand in a comment of one line; surrogates cannot be stored at all.
            path = os.fsencode(path).decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
            dropped_by = "path"
        elif is_excluded(path, filters):
            dropped_by = "exclude"
        if dropped_by or size > filters.max_bytes:
            return Document(file.repository, path, file.language, "", size, sha256_file(file.location),
                            dropped_by=dropped_by or "max_bytes")
        content = file.location.read_bytes()
    except OSError as error:
        raise TritwiseError(f"cannot read {file.location}", why=error.strerror or str(error)) from None
    try:
        text = decode(content, file.language)
        if broken := broken_rule(text, file.language, filters):
            dropped_by, detail = broken.rule, broken.detail
    except UndecodableError:
        dropped_by = "undecodable"
    return Document(file.repository, path, file.language, "" if dropped_by else text, len(content),
                    sha256_bytes(content), dropped_by=dropped_by, detail=detail)
