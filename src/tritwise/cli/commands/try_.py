"""`tritwise try`: the small model that comes with the package, offline."""

import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from tritwise.bundled import EXAMPLES, Example, Facts, gap_at, limits, model_path, read_facts
from tritwise.bundled import write as write_text
from tritwise.bundled.show import Written, middle_rate
from tritwise.cli.options import NO_SAMPLING, SamplingOptions
from tritwise.cli.output import Text, format_bytes, print_facts, print_json
from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_text
from tritwise.engine import Model, load

_MAX_TOKENS = 64
# Lines of a file that are shown before and behind a gap.
_AROUND = 8


def try_(*, prompt: Text | None = None, suffix: Text | None = None, file: Path | None = None, line: int | None = None,
         max_tokens: int | None = None, sampling: SamplingOptions = NO_SAMPLING, threads: int | None = None,
         kernel: str | None = None, path: bool = False, json: bool = False) -> None:
    """Let the small Python model in this package write: a short show, or your own text.

    Without options: fixed examples, whatever comes of them, what was measured, and what the model cannot do.

    Parameters
    ----------
    prompt
        Text to continue; - is standard input.
    suffix
        Text behind the gap that is to be filled.
    file
        A text file to fill in at the end of --line.
    line
        Its number, from 1 on.
    max_tokens
        The most tokens to write; 64 when not given.
    threads
        Threads; the physical cores when not given.
    kernel
        Of `tritwise doctor`; else the fastest.
    path
        Print where the model lies: tritwise generate $(tritwise try --path) ...
    json
        Print one JSON object.
    """
    own = _check(prompt, suffix, file, line, path, max_tokens, json)
    if path:
        print(model_path())
        return
    facts, most = read_facts(), _MAX_TOKENS if max_tokens is None else max_tokens
    if file is not None:
        before, behind = gap_at(_source(file), line)
        # Behind the last text there is no gap, only an end.
        own = Example(f"{file}, line {line}", before, behind if behind.strip() else None, most)
    elif own:
        text = sys.stdin.read() if prompt == "-" else prompt
        own = Example("", text, suffix, most)
    began = time.perf_counter()
    with load(model_path(), threads=threads, kernel=kernel, slots=1) as model:
        loaded = time.perf_counter() - began
        if own:
            _one(model, own, sampling.settings(), as_json=json, lines=_AROUND if file else None)
        else:
            _show(model, facts, loaded, sampling.settings(), as_json=json)


def _check(prompt: str | None, suffix: str | None, file: Path | None, line: int | None, path: bool,
           max_tokens: int | None, json: bool) -> bool:
    """Whether a text of the user's own is asked for. Raises TritwiseError for options that do not go together."""
    if path and (prompt, suffix, file, line, max_tokens, json) != (None, None, None, None, None, False):
        raise TritwiseError("--path goes alone", why="it prints where the model lies and writes nothing")
    if file is not None and (prompt is not None or suffix is not None):
        raise TritwiseError("--file needs neither --prompt nor --suffix", why="the file is the text around the gap",
                            fix="tritwise try --file FILE --line N")
    if (file is None) != (line is None):
        raise TritwiseError("--file and --line belong together", why="the gap is at the end of a line of the file",
                            fix="tritwise try --file FILE --line N")
    if suffix is not None and prompt is None:
        raise TritwiseError("--suffix needs --prompt", why="a gap stands between two texts")
    own = file is not None or prompt is not None
    if max_tokens is not None and not own:
        raise TritwiseError("--max-tokens needs --prompt or --file", why="the examples of the show are fixed")
    return own


def _source(file: Path) -> str:
    text = read_text(file, what="a text to fill in")
    if "\0" in text:
        raise TritwiseError(f"{file} is not readable as a text to fill in", why="it has zero bytes")
    return text


def _one(model: Model, example: Example, sampling: dict[str, Any], *, as_json: bool, lines: int | None) -> None:
    result = write_text(model, example, **sampling)
    if as_json:
        print_json(result.to_json())
        return
    if sys.stdout.isatty():
        _print(result, lines=lines)
    else:
        print(result.text)  # alone, as `tritwise generate` prints it
    parts = [f"{result.prompt_tokens} + {result.tokens} tokens ({result.finish_reason})"]
    if result.left_out:
        parts.append(f"{result.left_out:,} characters further away did not fit the {model.context} tokens of context")
    if result.decode_tokens_per_second:
        parts.append(f"{result.decode_tokens_per_second:,.0f} tokens/s")
    print(" | ".join(parts), file=sys.stderr)


def _show(model: Model, facts: Facts, loaded: float, sampling: dict[str, Any], *, as_json: bool) -> None:
    from tritwise.measure.memory import peak_rss_bytes

    written = [write_text(model, example, **sampling) for example in EXAMPLES]
    rate = middle_rate(written)
    if as_json:
        print_json({"facts": facts.model_dump(mode="json"), "bytes": facts.bytes, "path": str(model_path()),
                    "examples": [each.to_json() for each in written], "decode_tokens_per_second": rate,
                    "load_seconds": loaded, "peak_rss_bytes": peak_rss_bytes(), "kernel": model.info.kernel,
                    "threads": model.info.threads, "limits": limits(facts)})
        return
    mark = "in colour" if sys.stdout.isatty() else "in [[ ]]"
    print(f"{facts.name}: a {facts.parameters / 1e6:.1f}-million-parameter ternary model of Python, on this "
          f"processor.\nThe examples are fixed, and what comes is shown as it comes; {mark}: what the model wrote.")
    for each in written:
        print(f"\n--- {each.title}")
        _print(each)
    trained, held_out = facts.training, facts.held_out
    print()
    print_facts([
        ("speed", "too short to time" if rate is None else
         f"{rate:,.0f} tokens/s ({model.info.kernel}, {model.info.threads} threads)"),
        ("load", f"{1000 * loaded:.0f} ms"),
        ("memory", f"{format_bytes(peak_rss_bytes())} at most, the interpreter's own included"),
        ("size on disk", f"{format_bytes(facts.bytes)}, {facts.bits_per_quantised_weight:.2f} bits a ternary weight"),
        ("bits a byte", f"{held_out.bits_per_byte:.3f} on {format_bytes(held_out.bytes)} of Python that it was not "
                        f"trained on; xz -9e {held_out.xz_bits_per_byte:.3f}"),
        ("trained on", f"{trained.tokens / 1e6:.1f} million tokens of {trained.packages} packages and Python "
                       f"{trained.python}'s library"),
        *([] if trained.step == trained.steps else
          [("unfinished", f"step {trained.step:,} of {trained.steps:,} of its training")]),
    ])
    print()
    _paragraph(limits(facts))
    print("""
next:
  tritwise try --prompt 'def add(a, b):'                             # go on with a text
  tritwise try --prompt 'def add(a, b):' --suffix '    return c'     # fill the gap
  tritwise try --file FILE.py --line 12                              # fill in at the end of line 12
  tritwise try --temperature 0.6 --seed 1                            # the show again, less predictable
  tritwise generate $(tritwise try --path) --prompt 'import ' --heal # any command, with this model
  tritwise run recipes/quickstart.toml                               # train one of your own""")


def _print(written: Written, lines: int | None = None) -> None:
    """The text with what the model wrote in it: in colour on a terminal, between [[ and ]] elsewhere."""
    before, behind = written.prompt, written.suffix or ""
    if lines is not None:
        before = "".join(before.splitlines(keepends=True)[-lines:])
        behind = "".join(behind.splitlines(keepends=True)[:lines])
    broken_off = " ..." if written.finish_reason == "length" else ""
    if not sys.stdout.isatty():
        print(f"{before}[[{written.text}]]{broken_off}{behind}".rstrip("\n"))
        return
    from rich.console import Console
    from rich.text import Text as RichText

    shown = RichText.assemble((before, "dim"), (written.text, "bold green"), (broken_off, "dim"), (behind, "dim"))
    shown.rstrip()
    Console(highlight=False).print(shown, soft_wrap=True)


def _paragraph(text: str) -> None:
    print(textwrap.fill(text, min(100, shutil.get_terminal_size((100, 24)).columns)))


