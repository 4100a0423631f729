"""What every task of a deduplication is told, and where the files of its steps lie.

A vertex is a repository or a file: its part's number in the upper 32 bits, its place among the part's kept ones below.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tritwise.common.files import canonical_json, sha256_bytes
from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup.tables import Columns, file_name, read_columns

Level = Literal["repositories", "files"]
MOST_VERTICES = 1 << 32  # in a part
_OPEN_FILES = 128


@dataclass(frozen=True)
class Job:
    """A corpus, the folder for what the tasks write, the settings, and how many tasks share a shuffled step."""

    parts: tuple[Path, ...]
    folder: Path
    recipe: DedupRecipe
    partitions: int

    @cached_property
    def made_by(self) -> str:
        """A hash of everything but the texts that the tables depend on."""
        names = [path.name for path in self.parts]
        settings = self.recipe.model_dump(exclude={"max_rounds", "listed_clusters", "listed_members"})
        return sha256_bytes(canonical_json([names, self.partitions, settings]).encode())

    def path(self, step: str, task: int, kind: str = "safetensors") -> Path:
        """The file that a task of a step writes."""
        return self.folder / step / file_name(task, kind)

    def part_paths(self, step: str) -> list[Path]:
        """The files of a step with a task for each part of the corpus."""
        return [self.path(step, task) for task in range(len(self.parts))]

    def partition_paths(self, step: str) -> list[Path]:
        """The files of a step with a task for each range of keys."""
        return [self.path(step, task) for task in range(self.partitions)]

    def threshold(self, level: Level) -> float:
        return self.recipe.repository_threshold if level == "repositories" else self.recipe.file_threshold


class SignatureFiles:
    """The columns of the parts' signatures, memory-mapped, with a bounded number of open files."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open: dict[int, Columns] = {}

    def part(self, number: int) -> Columns:
        if number not in self._open:
            if len(self._open) == _OPEN_FILES:
                self._open.pop(next(iter(self._open)))
            self._open[number] = read_columns(self._job.path("signatures", number), self._job.made_by)
        return self._open[number]


def vertices(part: int, count: int) -> NDArray[np.uint64]:
    """uint64 [count]: the vertices of a part in their order."""
    return np.uint64(part << 32) + np.arange(count, dtype=np.uint64)


def part_of(vertex: int) -> int:
    return int(vertex) >> 32


def place_in_part(vertex: int) -> int:
    return int(vertex) & (MOST_VERTICES - 1)


def part_keys(part: int) -> tuple[int, int]:
    """The first and last vertex that a part can have."""
    return part << 32, (part + 1 << 32) - 1


def text_hash(text: bytes) -> bytes:
    """16 bytes of SHA-256: among 10^12 texts, two different ones are equal with probability 10^-15."""
    return sha256(text).digest()[:16]
