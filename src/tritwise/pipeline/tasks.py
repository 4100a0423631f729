"""What the models are asked to write in a report: a function of a held-out file, and a line taken out of another.

The choice is a hash of where the function stands, so it depends on the data alone and nobody picks a pretty one.
"""

import ast
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tritwise.common.errors import TritwiseError
from tritwise.data import Document, document_text
from tritwise.data.documents import path_comment

# How much of the file before a function the model sees, at most, and how much of it is completed.
CONTEXT_CHARS, ORIGINAL_CHARS = 600, 600
# A line worth taking out: not `pass`, not a paragraph.
MIN_LINE, MAX_LINE = 12, 80


@dataclass(frozen=True)
class Task:
    """`kind` is "completion" (an empty suffix) or "infill"; `original` is what the file itself says there."""

    kind: str
    source: str
    prefix: str
    suffix: str
    original: str
    max_tokens: int


@dataclass(frozen=True)
class _Gap:
    """Character positions in a file: `before` begins what must be seen, [start, stop) is asked for, `after` ends it."""

    document: Document
    name: str
    before: int
    start: int
    stop: int
    after: int

    @property
    def rank(self) -> bytes:
        key = f"{self.document.repository}\0{self.document.path}\0{self.name}\0{self.start}"
        return hashlib.sha256(key.encode()).digest()


def choose_tasks(documents: Sequence[Document], count_tokens: Callable[[str], int], context: int) -> list[Task]:
    """A completion and an infill from the held-out documents that fit a window of `context` tokens.

    Python files give functions; where there are none, any file gives its lines. `count_tokens` counts a text's
    tokens. Raises TritwiseError when no document has anything of that size.
    """
    tasks = []
    for kind, wanted, find, find_plain in (("completion", 96, _function_bodies, _second_halves),
                                           ("infill", 48, _function_lines, _plain_lines)):
        max_tokens = max(1, min(wanted, context // 4))
        room = context - max_tokens - 8  # begin, hole, end and the like
        task = _first_that_fits(kind, [gap for d in documents for gap in find(d)], count_tokens, room, max_tokens)
        task = task or _first_that_fits(kind, [gap for d in documents for gap in find_plain(d)], count_tokens, room,
                                        max_tokens)
        if task is None:
            raise TritwiseError(f"no held-out document has a part to ask a {kind} for",
                                why=f"the model sees {context} tokens at once",
                                fix="a longer train.sequence_length, or more data")
        tasks.append(task)
    return tasks


def _first_that_fits(kind: str, gaps: list[_Gap], count_tokens: Callable[[str], int], room: int,
                     max_tokens: int) -> Task | None:
    for gap in sorted(gaps, key=lambda gap: gap.rank):
        text = gap.document.text
        header = path_comment(gap.document)
        suffix = text[gap.stop:gap.after] if kind == "infill" else ""
        needed = count_tokens(header + text[gap.before:gap.start]) + count_tokens(suffix)
        if needed > room:
            continue
        # Whole lines of what stands before, as many as fit.
        begin = gap.before
        while begin > 0:
            earlier = text.rfind("\n", 0, begin - 1) + 1
            if gap.before - earlier > CONTEXT_CHARS or count_tokens(
                    header + text[earlier:gap.start]) + count_tokens(suffix) > room:
                break
            begin = earlier
        original = text[gap.start:gap.stop][:ORIGINAL_CHARS]
        source = f"{gap.document.repository}, {gap.document.path}" + (f": {gap.name}" if gap.name else "")
        return Task(kind, source, header + text[begin:gap.start], suffix, original, max_tokens)
    return None


def _functions(document: Document) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, list[int]]]:
    """Qualified name, node and line starts (in characters) of each function of a Python file."""
    if document.language != "python":
        return
    try:
        tree = ast.parse(document.text)
    except (SyntaxError, ValueError, RecursionError):  # kept files parse; another interpreter's may not
        return
    # Lines as the parser counts them; str.splitlines knows more line ends.
    starts = [0, *[match.end() for match in re.finditer(r"\r\n?|\n", document.text)]]
    starts.append(len(document.text))

    def walk(node: ast.AST, prefix: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}", child, starts
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")

    yield from walk(tree, "")


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *[decorator.lineno for decorator in node.decorator_list]])


def _function_bodies(document: Document) -> Iterator[_Gap]:
    """Functions with a docstring and at least two statements after it: everything after the docstring is asked for."""
    for name, node, starts in _functions(document):
        has_docstring = ast.get_docstring(node, clean=False) is not None and len(node.body) >= 3
        if has_docstring and node.body[1].lineno > node.body[0].end_lineno:
            # The line end is asked for too: with the indentation after it it is one token of the tokenizer, and a text
            # that breaks off behind a bare line end looks like the end of a file.
            begin = len(document.text[:starts[node.body[0].end_lineno]].rstrip("\r\n"))
            end = starts[node.end_lineno]
            yield _Gap(document, name, starts[_first_line(node) - 1], begin, end, end)


def _function_lines(document: Document) -> Iterator[_Gap]:
    """Statements of one line inside functions, not the first and not the last of them."""
    for name, node, starts in _functions(document):
        lines = {s.lineno for s in ast.walk(node)
                 if isinstance(s, ast.Assign | ast.AugAssign | ast.Expr | ast.Return | ast.Raise)
                 and s.lineno == s.end_lineno and node.body[0].end_lineno < s.lineno < node.end_lineno}
        for line in lines:
            text = document.text[starts[line - 1]:starts[line]]
            indent = len(text) - len(text.lstrip())
            if MIN_LINE <= len(text.strip()) <= MAX_LINE:
                begin = starts[line - 1] + indent
                yield _Gap(document, name, starts[_first_line(node) - 1], begin, begin + len(text.strip()),
                           starts[node.end_lineno])


def _second_halves(document: Document) -> Iterator[_Gap]:
    lines = document.text.splitlines(keepends=True)
    if len(lines) >= 4:
        middle = len("".join(lines[:len(lines) // 2]))
        yield _Gap(document, "", middle - len(lines[len(lines) // 2 - 1]), middle, len(document.text),
                   len(document.text))


def _plain_lines(document: Document) -> Iterator[_Gap]:
    lines = document.text.splitlines(keepends=True)
    position = 0
    for number, line in enumerate(lines):
        if 0 < number < len(lines) - 1 and len(line.strip()) >= 1:
            begin = position + len(line) - len(line.lstrip())
            yield _Gap(document, "", position - len(lines[number - 1]), begin, begin + len(line.strip()),
                       position + len(line) + len(lines[number + 1]))
        position += len(line)


def scored_texts(documents: Sequence[Document]) -> tuple[list[str], int]:
    """What models are scored on, and the bytes it is divided by: the files' own, without the path comments."""
    return [document_text(d) for d in documents], sum(len(d.text.encode()) for d in documents)
