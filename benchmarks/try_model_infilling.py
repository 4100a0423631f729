"""HumanEval's single-line infilling (arXiv 2207.14255; openai/human-eval-infilling): lines written as they were."""

import gzip
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from tritwise.bundled import fit_gap
from tritwise.common.errors import TritwiseError
from tritwise.common.files import open_regular, sha256_file
from tritwise.common.progress import progress
from tritwise.engine import Model

# The longest of the lines has 53 tokens of a vocabulary of 4 096.
MAX_TOKENS = 64
_MOST_BYTES = 1 << 26
_AT_ONCE = 32


class Line(NamedTuple):
    """A solution with one line taken out."""

    prefix: str
    suffix: str
    line: str


def read_lines(path: Path) -> list[Line]:
    """The tasks of a .jsonl or .jsonl.gz file. Raises TritwiseError for any other file."""
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES)
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                content = stream.read(_MOST_BYTES)
        rows = [json.loads(line) for line in content.decode().split("\n") if line.strip()]
        tasks = [Line(row["prompt"], row["suffix"], row["canonical_solution"]) for row in rows]
        if not tasks or not all(isinstance(text, str) for task in tasks for text in task):
            raise ValueError("no task, or a field that is no text")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise TritwiseError(f"{path} is not readable as infilling tasks", why=repr(error),
                            fix="HumanEval-SingleLineInfilling.jsonl.gz of openai/human-eval-infilling") from None
    return tasks


def line_scores(model: Model, path: Path) -> dict[str, Any]:
    """How many lines a model writes exactly, with the likeliest token at each step and white space around them apart.

    The text ends at the first line end behind the gap's beginning, which may lie inside a token (`heal`). What does not
    fit the context is cut where it is furthest from the gap.
    """
    tasks = read_lines(path)
    exact = cut = 0
    room = model.context - MAX_TOKENS
    with progress("infilling", len(tasks)) as bar:
        for at in range(0, len(tasks), _AT_ONCE):
            part = tasks[at:at + _AT_ONCE]
            fitted = [fit_gap(model.codec, task.prefix, task.suffix, room) for task in part]
            cut += sum(texts != (task.prefix, task.suffix) for texts, task in zip(fitted, part, strict=True))
            streams = [model.stream_infill(*texts, max_tokens=MAX_TOKENS, stop="\n", heal=True) for texts in fitted]
            exact += sum("".join(stream).strip() == task.line.strip()
                         for stream, task in zip(streams, part, strict=True))
            bar.update(at + len(part), f"{exact} exact")
    return {"tasks": len(tasks), "exact": exact, "cut": cut, "max_tokens": MAX_TOKENS, "sha256": sha256_file(path)}
