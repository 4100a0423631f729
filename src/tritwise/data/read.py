"""From repositories to documents: read, name the language and the licence, decode. A file that cannot be a document is
a row with the reason.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tritwise.common.files import sha256_bytes
from tritwise.config.data_sources import SourceSettings
from tritwise.data.documents import Document
from tritwise.data.flow import moved
from tritwise.data.imports import extract_manifest
from tritwise.data.languages import detect
from tritwise.data.sources import (
    Licences,
    RawFile,
    Repository,
    UndecodableError,
    bears_licence,
    decode,
    gather,
    is_permissive,
    read_files,
    repository_licences,
    unwanted,
)

# What a report says of the reasons that are given here; those of sources and kinds stand beside them.
RULES = {
    "language": "in none of the languages that are known",
    "undecodable": "not text in the encoding it declares",
    "licence": "under no licence that is known to be permissive",
    "max_repository_bytes": "behind data.max_repository_bytes of its repository",
}


@dataclass(frozen=True)
class Reader:
    """Documents of repositories, those of each sorted by path; one repository is in memory at a time.

    `max_repository_bytes` limits the bytes of its kept files: the first ones by path stay.
    """

    settings: SourceSettings
    max_repository_bytes: int

    def repositories(self, repositories: Iterable[Repository]) -> Iterator[Document]:
        """Documents of repositories that can be read by themselves."""
        for repository in repositories:
            documents = self._documents(repository.name, read_files(
                repository, max_bytes=self.settings.max_bytes, broken=self.settings.broken_repository))
            total = sum(document.size for document in documents)
            for document in documents:
                yield document  # and back when it has gone through the stages behind
                moved(repository.size * document.size // max(total, 1), document.size if document.sha256 else 0)

    def bucket(self, scattered: Iterable[Path], number: int) -> Iterator[Document]:
        """Documents of the repositories whose rows were scattered into a bucket."""
        for repository, files in gather(scattered, number):
            for document in self._documents(repository.name, files):
                yield document
                moved(0, document.size)  # how large a bucket is as it is stored, nobody knows

    def _documents(self, repository: str, files: Iterable[RawFile]) -> list[Document]:
        documents: list[Document] = []
        licence_files: list[RawFile] = []
        kept = 0
        for file in files:
            if file.content is not None and bears_licence(file.path):
                licence_files.append(file)
            document = self._document(repository, file)
            kept += document.size if document.is_kept else 0
            if document.is_kept and kept > self.max_repository_bytes:
                document = drop(document, "max_repository_bytes")
            documents.append(document)
        licences = repository_licences(licence_files)
        return [self._licensed(document, licences) for document in documents]

    def _document(self, repository: str, file: RawFile) -> Document:
        if file.content is None:
            return Document(repository, file.path, detect(file.path) or "", "", file.size, "", dropped_by=file.skipped)
        language = detect(file.path, file.content)
        manifest = extract_manifest(file.path, file.content)
        document = Document(repository, file.path, language or "", "", file.size, sha256_bytes(file.content),
                            licence=file.licence, facts=None if manifest is None else manifest.to_json())
        kind = unwanted(file.path, file.content, language, self.settings.kinds)
        if kind is not None:
            return drop(document, *kind)
        if language is None:
            return drop(document, "language")
        try:
            return replace(document, text=decode(file.content, language))
        except UndecodableError as error:
            return drop(document, "undecodable", str(error))

    def _licensed(self, document: Document, licences: Licences) -> Document:
        """The document with its licence; dropped when only permissive ones are wanted and it has none."""
        if document.licence is None:
            content = document.text.encode() if document.is_kept else None
            document = replace(document, licence=licences.of(document.path, content))
        if (self.settings.permissive_only and document.is_kept
                and not is_permissive(document.licence, self.settings.also_permissive)):
            return drop(document, "licence", document.licence)
        return document


def drop(document: Document, rule: str, detail: str | None = None) -> Document:
    """The row that stays of a dropped document."""
    return replace(document, text="", dropped_by=rule, detail=detail)
