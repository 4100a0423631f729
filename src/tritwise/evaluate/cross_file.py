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
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tritwise.config.cross_file import CrossFileSettings
from tritwise.data import Document, document_text, path_comment
from tritwise.data.order import dependency_order
from tritwise.evaluate.cross_file_python import Kind, PythonFile, Repository, Use


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
    tasks today. Files that nothing in the repository is left to compare with give none: there has to be a file that
    they do not depend on. Dropped documents are only known to exist.
    """
    settings = settings or CrossFileSettings()
    repositories: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        repositories[document.repository].append(document)
    return [task for name in sorted(repositories) if any(d.split == "held_out" for d in repositories[name])
            for task in _repository_tasks(name, repositories[name], settings)]


class _Candidate(NamedTuple):
    path: str
    line: int
    use: Use
    end: int  # of the reference, in characters of the file


def _repository_tasks(name: str, documents: list[Document], settings: CrossFileSettings) -> list[CrossFileTask]:
    kept = {d.path: d for d in documents if d.is_kept and d.language == "python"}
    repository = Repository({path: d.text for path, d in kept.items()},
                            [d.path for d in documents if d.language == "python"], name)
    dependencies = repository.dependencies()
    position = {path: number for number, path in enumerate(dependency_order(dependencies))}
    lines = Counter(line for d in documents if d.is_kept for line in {line.strip() for line in d.text.splitlines()})
    reachable = {path: _reachable(dependencies, path) for path in dependencies}

    def rank(*parts: object) -> bytes:
        return hashlib.sha256("\0".join(map(str, (settings.seed, name, *parts))).encode()).digest()

    chosen: list[_Candidate] = []
    for path in sorted(repository.files):
        found = list(_candidates(repository, path, lines, settings)) if set(kept) - reachable[path] - {path} else []
        found.sort(key=lambda candidate: rank(path, candidate.line))
        chosen += found[:settings.max_per_file]
    chosen.sort(key=lambda candidate: rank("repository", candidate.path, candidate.line))
    tasks = []
    for candidate in sorted(chosen[:settings.max_per_repository]):
        path, use = candidate.path, candidate.use
        needed = dependencies[path] | {use.definition}
        strangers = sorted(set(position) - reachable[path] - needed - {path},
                           key=lambda other: rank("other", path, candidate.line, other))[:len(needed)]
        if strangers:
            tasks.append(CrossFileTask(
                name, path, candidate.line, use.kind, use.name, use.definition, use.definition_line,
                prefix=path_comment(kept[path]) + kept[path].text[:use.start],
                reference=kept[path].text[use.start:candidate.end],
                dependencies=_context(kept, sorted(needed, key=position.__getitem__)),
                others=_context(kept, sorted(strangers, key=position.__getitem__))))
    return tasks


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


def _candidates(repository: Repository, path: str, lines: Counter[str],
                settings: CrossFileSettings) -> Iterator[_Candidate]:
    """The lines of a file that may be asked for, in order, each with the first use that may."""
    file = repository.files[path]
    uses: dict[int, list[Use]] = defaultdict(list)
    for use in repository.uses(path):
        uses[_line_of(file, use.start)].append(use)
    code = _code_lines(file) if uses else {}
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
            yield _Candidate(path, number, use, line.end)


def _may_be_asked(file: PythonFile, use: Use, line: "_CodeLine", settings: CrossFileSettings) -> bool:
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


def _line_of(file: PythonFile, offset: int) -> int:
    """The line, from 1, that holds a character."""
    low, high = 0, len(file.line_starts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if file.line_starts[middle] <= offset else (low, middle)
    return low + 1


class _CodeLine(NamedTuple):
    """A line with code on it: where its tokens start, and where the last ends (None: in a string, or joined by \\)."""

    tokens: tuple[int, ...]
    end: int | None
    is_import: bool


_NO_CODE = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
                      tokenize.ENCODING, tokenize.ENDMARKER})


def _code_lines(file: PythonFile) -> dict[int, _CodeLine]:
    """The lines of a file that hold code, by number; docstrings and other statements that are strings are none."""
    starts: dict[int, list[int]] = defaultdict(list)
    ends: dict[int, int] = {}
    open_strings: list[int] = []  # lines in which f-strings begin: several tokens where the parser is new enough
    in_string: set[int] = set()
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(file.text, newline="").readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    for token in tokens:
        kind = tokenize.tok_name[token.type]
        if token.type in _NO_CODE:
            continue
        first, last = token.start[0], token.end[0]
        if kind in ("FSTRING_START", "TSTRING_START"):
            open_strings.append(first)
        elif kind in ("FSTRING_END", "TSTRING_END"):
            first = open_strings.pop()
        in_string.update(range(first, last))
        starts[token.start[0]].append(file.line_starts[token.start[0] - 1] + token.start[1])
        ends[last] = file.line_starts[last - 1] + token.end[1]
    plain = {line for first, last in file.string_statements for line in range(first, last + 1)}
    imports = {line for start, end in file.import_spans
               for line in range(_line_of(file, start), _line_of(file, max(start, end - 1)) + 1)}
    result = {}
    for number in sorted(set(starts) | set(ends)):
        if number not in plain:
            end = ends.get(number)
            joined = end is not None and file.text[end:end + 80].lstrip(" \t\f").startswith("\\")
            result[number] = _CodeLine(tuple(starts.get(number, ())), None if joined or number in in_string else end,
                                       number in imports)
    return result
