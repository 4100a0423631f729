"""What cross-file completion asks of a language: which names of a file other files define, and where its code stands.

A language is a class that is made of the texts of a repository's files (`LANGUAGES` in `tasks.py` names them).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

Kind = Literal["imported", "attribute", "member"]


class Use(NamedTuple):
    """A cross-file name at characters [start, end) of a file, and the file and line (from 1) that define it.

    `imported`: the name itself is imported, or seen without an import. `attribute`: it is taken of a module or package,
    `member`: of a class or an object, whose own name the file holds.
    """

    start: int
    end: int
    name: str
    kind: Kind
    definition: str
    definition_line: int


class CodeLine(NamedTuple):
    """A line with code on it: where its tokens start, and where the last ends (None: in a string, or joined by \\)."""

    tokens: tuple[int, ...]
    end: int | None
    is_import: bool


class SourceFile(Protocol):
    """A file: its text, where its lines start and which characters are import statements, [start, end) each."""

    text: str
    line_starts: list[int]
    import_spans: list[tuple[int, int]]

    def line_of(self, offset: int) -> int:
        """The line, from 1, that holds a character."""
        ...

    def code_lines(self) -> dict[int, CodeLine]:
        """The lines that hold code, by number; none of a file that cannot be read."""
        ...


class SourceRepository(Protocol):
    """The files of one language of a repository, by path, those left out that cannot be parsed."""

    files: Mapping[str, SourceFile]

    def dependencies(self) -> dict[str, set[str]]:
        """For each file the files that it depends on, as they are ordered for training."""
        ...

    def uses(self, path: str) -> list[Use]:
        """Every use in a file of what another file defines, by place."""
        ...
