"""Sources: repositories of every kind, their files as bytes, which of them are source, and under which licence.

    for repository in find_repositories(settings):
        for file in read_files(repository, max_bytes=settings.max_bytes): ...

Rows of Parquet files are brought together first: `scatter` each file, then `gather` each bucket.
"""

from tritwise.data.sources.files import SKIPS, RawFile, Repository
from tritwise.data.sources.find import find_repositories, fingerprint
from tritwise.data.sources.kinds import KINDS, unwanted
from tritwise.data.sources.licences import Licences, bears_licence, repository_licences
from tritwise.data.sources.permissive import PERMISSIVE, is_permissive
from tritwise.data.sources.read import read_files
from tritwise.data.sources.shuffle import bucket_of, gather, scatter
from tritwise.data.sources.stdlib import stdlib_repository, trained_only
from tritwise.data.sources.text import UndecodableError, decode

__all__ = [
    "KINDS", "PERMISSIVE", "SKIPS", "Licences", "RawFile", "Repository", "UndecodableError",
    "bears_licence", "bucket_of", "decode", "find_repositories", "fingerprint", "gather", "is_permissive",
    "read_files", "repository_licences", "scatter", "stdlib_repository", "trained_only", "unwanted",
]
