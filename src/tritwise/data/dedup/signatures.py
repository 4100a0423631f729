"""Signatures of the files and repositories of a part, and the band keys that bring similar ones together.

A file's signature is the sketch of its text's shingles (native/src/minhash.hpp), without the licence at its head unless
that is asked for; a repository's is the sketch of the union of its files' shingles: the elementwise minimum of theirs.
So it does not depend on the order of the files, and no shingle crosses from one file to the next, as would be so in a
concatenation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup.decisions import surviving_files
from tritwise.data.dedup.heads import licence_head
from tritwise.data.dedup.job import MOST_VERTICES, Job, Level, text_hash, vertices
from tritwise.data.dedup.tables import Columns, mixed, pack_names, read_columns, write_columns, write_table
from tritwise.data.documents import Document, batches, read_documents
from tritwise.data.native import native

# Texts that go into the native core in one call.
_BATCH_TEXTS, _BATCH_CHARACTERS = 256, 1 << 22


def sketches(texts: Sequence[str | bytes], recipe: DedupRecipe) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sketches uint64 [texts, permutations] and numbers of tokens int64 [texts].

    The minimum of sketches is the sketch of a union; the lower half of each value is the signature.
    """
    return native().minhash(texts, recipe.permutations, recipe.shingle, recipe.seed)


def signatures(texts: Sequence[str | bytes], recipe: DedupRecipe) -> NDArray[np.uint32]:
    """uint32 [texts, permutations]: the share of equal bins of two rows estimates their Jaccard similarity."""
    return sketches(texts, recipe)[0].astype(np.uint32)


def exact_jaccard(a: str | bytes, b: str | bytes, recipe: DedupRecipe) -> float:
    """|A and B| / |A or B| of two texts' sets of shingles (of their 64-bit hashes); 0 when both are empty."""
    one, other = (native().shingles(text, recipe.shingle, recipe.seed) for text in (a, b))
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(len(one) + len(other) - common, 1)


def band_keys(values: NDArray[np.uint32], recipe: DedupRecipe) -> NDArray[np.uint64]:
    """uint64 [signatures, bands]: equal for two signatures when all bins of that band are."""
    bins = values[:, : recipe.bands * recipe.rows].reshape(len(values), recipe.bands, recipe.rows)
    keys = np.broadcast_to(mixed(np.arange(1, recipe.bands + 1, dtype=np.uint64)), bins.shape[:2])
    for row in range(recipe.rows):
        keys = mixed(keys * np.uint64(0x9E3779B97F4A7C15) ^ bins[:, :, row])
    return keys


def signature_task(job: Job, task: int) -> None:
    """Names, sizes, text hashes and signatures of the kept documents of a part.

    Memory: 4 bytes for each permutation and about 100 more for each document, and 8 MiB of texts.
    """
    part = _Part(job.recipe)
    kept = (document for document in read_documents(job.parts[task], facts=False) if document.is_kept)
    for documents in batches(kept, _BATCH_TEXTS, _BATCH_CHARACTERS):
        part.add(documents)
    if len(part.paths) >= MOST_VERTICES:
        raise TritwiseError(f"{job.parts[task]} holds too many documents", why="2^32 - 1 can be told apart",
                            fix="write the corpus in more parts")
    write_columns(job.path("signatures", task), job.made_by, part.columns())


class _Part:
    """What has been seen of a part's documents."""

    def __init__(self, recipe: DedupRecipe) -> None:
        self.recipe = recipe
        self.repositories: list[str] = []
        self.seen: set[str] = set()
        self.repository_sizes: list[list[int]] = []  # bytes, tokens
        self.repository_values: list[NDArray[np.uint32]] = []
        self.union: NDArray[np.uint64] | None = None  # of the files of the repository that is being read
        self.paths: list[str] = []
        self.file_sizes: list[tuple[int, int, int]] = []  # repository, bytes, tokens
        self.hashes: list[bytes] = []
        self.file_values: list[NDArray[np.uint32]] = []

    def add(self, documents: list[Document]) -> None:
        texts = [document.text.encode() for document in documents]
        recipe = self.recipe
        values, tokens = (sketches(self._compared(documents, texts), recipe) if recipe.repositories or recipe.files
                          else (np.empty((len(texts), 0), np.uint64), np.zeros(len(texts), np.int64)))
        for document, text, row, count in zip(documents, texts, values, tokens.tolist(), strict=True):
            if not self.repositories or document.repository != self.repositories[-1]:
                self._begin(document.repository)
            np.minimum(self.union, row, out=self.union)
            self.repository_sizes[-1][0] += len(text)
            self.repository_sizes[-1][1] += count
            self.paths.append(document.path)
            self.file_sizes.append((len(self.repositories) - 1, len(text), count))
            self.hashes.append(text_hash(text))
        if recipe.files:
            self.file_values.append(values.astype(np.uint32))

    def _compared(self, documents: list[Document], texts: list[bytes]) -> list[bytes]:
        """What near-duplicates are told by."""
        if not self.recipe.skip_licence_heads:
            return texts
        return [text[licence_head(text, document.language):] for document, text in zip(documents, texts, strict=True)]

    def _begin(self, repository: str) -> None:
        if repository in self.seen:
            raise TritwiseError(f"the documents of {repository} do not stand together in their part",
                                why="a repository is read as one run of rows", fix="write the corpus again")
        self._end()
        self.seen.add(repository)
        self.repositories.append(repository)
        self.repository_sizes.append([0, 0])
        bins = self.recipe.permutations if self.recipe.repositories or self.recipe.files else 0
        self.union = np.full(bins, np.iinfo(np.uint64).max)

    def _end(self) -> None:
        if self.union is not None and self.recipe.repositories:
            self.repository_values.append(self.union.astype(np.uint32))

    def columns(self) -> Columns:
        self._end()
        bins = self.recipe.permutations
        names, name_ends = pack_names(self.repositories)
        paths, path_ends = pack_names(self.paths)
        of_repositories = np.array(self.repository_sizes, np.int64).reshape(-1, 2)
        of_files = np.array(self.file_sizes, np.int64).reshape(-1, 3)
        return {
            "repository_names": names, "repository_name_ends": name_ends,
            "repository_bytes": of_repositories[:, 0], "repository_tokens": of_repositories[:, 1],
            "repository_values": np.concatenate([np.empty((0, bins), np.uint32), *(v[None] for v in
                                                                                   self.repository_values)]),
            "paths": paths, "path_ends": path_ends, "file_repository": of_files[:, 0],
            "file_bytes": of_files[:, 1], "file_tokens": of_files[:, 2],
            "file_depth": np.array([path.count("/") for path in self.paths], np.int64),
            "file_hashes": np.frombuffer(b"".join(self.hashes), np.uint64).reshape(-1, 2),
            "file_values": np.concatenate([np.empty((0, bins), np.uint32), *self.file_values]),
        }


def ranks(columns: Columns, level: Level, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """uint64 for vertices of a part, given by their places: of near-duplicates the one with the lowest rank stays.

    Repositories: the most bytes. Files: the shortest chain of folders (a vendored copy lies deeper), then the most
    bytes. Among equals the first in the corpus.
    """
    if level == "repositories":
        return ~columns["repository_bytes"][places].astype(np.uint64)
    depth = np.minimum(columns["file_depth"][places], 255).astype(np.uint64)
    size = np.minimum(columns["file_bytes"][places], (1 << 56) - 1).astype(np.uint64)
    return depth << np.uint64(56) | (np.uint64((1 << 56) - 1) - size)


def band_task(job: Job, level: Level, task: int) -> None:
    """A row (band key, vertex) for each band of each repository or file of a part that is still there."""
    columns = read_columns(job.path("signatures", task), job.made_by)
    tokens = columns["repository_tokens" if level == "repositories" else "file_tokens"]
    stays = tokens >= max(job.recipe.min_tokens, job.recipe.shingle)
    if level == "files":
        stays &= surviving_files(job, task, columns, near=False)
    values = columns["repository_values" if level == "repositories" else "file_values"]
    chosen = np.flatnonzero(stays)
    keys = band_keys(values[chosen], job.recipe)
    vertex = np.repeat(vertices(task, len(tokens))[chosen], job.recipe.bands)
    write_table(job.path(f"{level}/bands", task), job.made_by, keys.reshape(-1), {"vertex": vertex})
