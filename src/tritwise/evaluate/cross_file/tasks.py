"""Cross-file completion: lines of held-out repositories that use a name which another file defines.

CrossCodeEval's recipe (arXiv 2310.11248, section 2) on repositories that were kept out of training. The cursor stands
right before the first such name of a line; what is asked for is the rest of that line, without a comment at its end.
Of a statement of several lines that is the rest of one of them; lines that end inside a string or with a backslash are
left out. So are lines that stand in another file of the repository, too, and those whose rest can be found in the file
before the cursor.

    tasks = find_tasks(load_documents("runs/quickstart/data", split=None))
    print(score(model, tasks).summary())
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tritwise.config.cross_file import CrossFileSettings
from tritwise.data import Document, document_text, path_comment
from tritwise.data.order import dependency_order
from tritwise.evaluate.cross_file.python import Repository
from tritwise.evaluate.cross_file.uses import CodeLine, Kind, SourceFile, SourceRepository, Use

# Made of the texts by path, every path of the language in the repository, and the repository's name.
LANGUAGES: dict[str, Callable[[Mapping[str, str], Collection[str], str], SourceRepository]] = {"python": Repository}


class ContextFile(NamedTuple):
    """A file as the model saw files in training: its path comment, then its text."""

    path: str
    text: str


@dataclass(frozen=True)
class CrossFileTask:
    """One line to complete.

    `prefix` is the file from its path comment to the cursor, `reference` what follows on the line; it begins with
    `name`, which line `definition_line` (from 1) of the file `definition` gives its meaning. `dependencies` are the
    files that this one imports and the one that defines the name, dependencies first; `others` are as many files of the
    repository that this one does not depend on, chosen at random, and are what a comparison needs.
    """

    repository: str
    path: str
    line: int
    kind: Kind
    name: str
    definition: str
    definition_line: int
    prefix: str
    reference: str
    dependencies: tuple[ContextFile, ...]
    others: tuple[ContextFile, ...]

    @property
    def id(self) -> str:
        return f"{self.repository}/{self.path}:{self.line}"


def find_tasks(documents: Iterable[Document], settings: CrossFileSettings | None = None) -> list[CrossFileTask]:
    """The tasks of held-out repositories, sorted by repository, path and line; a pure function of the arguments.

    `documents` may hold every row of a data stage: repositories of which a file is held out count, whole. Python gives
    tasks today (`LANGUAGES`). A file that depends on all the others gives none, for nothing is left to compare with.
    Dropped documents are only known to exist.
    """
    settings = settings or CrossFileSettings()
    repositories: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        repositories[document.repository].append(document)
    return [task for name in sorted(repositories) if any(d.split == "held_out" for d in repositories[name])
            for task in _repository_tasks(name, repositories[name], settings)]


class _Candidate(NamedTuple):
    line: int
    use: Use
    end: int  # of the reference, in characters of the file


def _repository_tasks(name: str, documents: list[Document], settings: CrossFileSettings) -> list[CrossFileTask]:
    lines = Counter(line for d in documents if d.is_kept for line in {line.strip() for line in d.text.splitlines()})

    def rank(*parts: object) -> bytes:
        return hashlib.sha256("\0".join(map(str, (settings.seed, name, *parts))).encode()).digest()

    tasks = [task for language in sorted(LANGUAGES) for task in _language_tasks(
        name, [d for d in documents if d.language == language], language, lines, rank, settings)]
    tasks.sort(key=lambda task: rank("repository", task.path, task.line))
    return sorted(tasks[:settings.max_per_repository], key=lambda task: (task.path, task.line))


def _language_tasks(name: str, documents: list[Document], language: str, lines: Counter[str],
                    rank: Callable[..., bytes], settings: CrossFileSettings) -> Iterator[CrossFileTask]:
    kept = {d.path: d for d in documents if d.is_kept}
    repository = LANGUAGES[language]({path: d.text for path, d in kept.items()}, [d.path for d in documents], name)
    dependencies = repository.dependencies()
    position = {path: number for number, path in enumerate(dependency_order(dependencies))}
    for path in sorted(repository.files):
        reachable = _reachable(dependencies, path) | {path}
        strangers = sorted(set(position) - reachable)
        found = list(_candidates(repository, path, lines, settings)) if strangers else []
        found.sort(key=lambda candidate: rank(path, candidate.line))
        for candidate in found[:settings.max_per_file]:
            use, needed = candidate.use, dependencies[path] | {candidate.use.definition}
            others = sorted(set(strangers) - needed,
                            key=lambda other: rank("other", path, candidate.line, other))[:len(needed)]
            if others:
                yield CrossFileTask(
                    name, path, candidate.line, use.kind, use.name, use.definition, use.definition_line,
                    prefix=path_comment(kept[path]) + kept[path].text[:use.start],
                    reference=kept[path].text[use.start:candidate.end],
                    dependencies=_context(kept, sorted(needed, key=position.__getitem__)),
                    others=_context(kept, sorted(others, key=position.__getitem__)))


def _context(kept: Mapping[str, Document], paths: Iterable[str]) -> tuple[ContextFile, ...]:
    return tuple(ContextFile(path, document_text(kept[path])) for path in paths)


def _reachable(dependencies: Mapping[str, Collection[str]], start: str) -> set[str]:
    seen: set[str] = set()
    frontier = [start]
    while frontier:
        new = set(dependencies[frontier.pop()]) - seen
        seen |= new
        frontier += sorted(new)
    return seen


def _candidates(repository: SourceRepository, path: str, lines: Counter[str],
                settings: CrossFileSettings) -> Iterator[_Candidate]:
    """The lines of a file that may be asked for, in order, each with the first use that may."""
    file = repository.files[path]
    uses: dict[int, list[Use]] = defaultdict(list)
    for use in repository.uses(path):
        uses[file.line_of(use.start)].append(use)
    code = file.code_lines() if uses else {}
    numbers = sorted(number for number, line in code.items() if not line.is_import)
    code_before = {number: before for before, number in enumerate(numbers)}
    for number in sorted(set(uses) & set(code_before)):
        line = code[number]
        if line.end is None or code_before[number] < settings.min_code_lines:
            continue
        start = file.line_starts[number - 1]
        if lines[file.text[start:line.end].strip()] > 1:
            continue
        use = next((use for use in uses[number] if _may_be_asked(file, use, line, settings)), None)
        if use is not None:
            yield _Candidate(number, use, line.end)


def _may_be_asked(file: SourceFile, use: Use, line: CodeLine, settings: CrossFileSettings) -> bool:
    tokens = sum(start >= use.start for start in line.tokens)
    if (len(use.name) < settings.min_name_chars or line.end < use.end
            or not settings.min_reference_tokens <= tokens <= settings.max_reference_tokens
            or (settings.max_prefix_chars is not None and use.start > settings.max_prefix_chars)):
        return False
    before = file.text[:use.start]
    if file.text[use.start:line.end] in before:
        return False
    if settings.seen == "imports":
        for start, end in file.import_spans:
            before = before[:start] + " " * (min(end, len(before)) - start) + before[end:]
    return settings.seen == "anywhere" or re.search(rf"(?<!\w){re.escape(use.name)}(?!\w)", before) is None
