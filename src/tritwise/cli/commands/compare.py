"""`tritwise compare`: what a setting of the engine costs in quality."""

from pathlib import Path
from typing import Any

from tritwise.cli.commands.perplexity import read_text
from tritwise.cli.output import Text, print_json, print_table
from tritwise.common.errors import TritwiseError
from tritwise.evaluate import compare as measure


def compare(model: Path, file: Text, /, *, setting: tuple[str, ...] = ("head=f16", "head=int8", "head=int4"),
            against: str = "head=stored", context: int = 512, threads: int | None = None, json: bool = False) -> None:
    """Score a text with a model opened in several ways: perplexity, divergence and agreement against one of them.

    Parameters
    ----------
    model
        The model directory.
    file
        A UTF-8 text file; - reads standard input.
    setting
        What `tritwise.load` is given, as key=value, several with commas between; may be repeated.
    against
        The same for the model that the others are compared with.
    context
        Tokens of a window.
    threads
        Threads; the physical cores when not given.
    json
        Print one JSON object.
    """
    common = {} if threads is None else {"threads": threads}
    rows = measure(model, read_text(file), [common | _settings(each) for each in setting],
                   against=common | _settings(against), context=context)
    if json:
        print_json({"model": str(model), "comparisons": [row.to_json() for row in rows]})
        return
    print_table(["setting", "perplexity", "change %", "divergence, nats", "largest", "same top token %"],
                [[text, f"{row.perplexity:.4f}", f"{100 * row.perplexity_change:+.4f}", f"{row.divergence:.3e}",
                  f"{row.largest_divergence:.3e}", f"{100 * row.agreement:.2f}"]
                 for text, row in zip(setting, rows, strict=True)],
                title=f"{model}: {rows[0].tokens:,} tokens, against {against} "
                      f"with a perplexity of {rows[0].perplexity_against:.4f}")


def _settings(text: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise TritwiseError(f"{part!r} is not a setting", why="settings are key=value with commas between them",
                                fix="for example --setting head=int4,context=1024")
        result[key] = int(value) if value.isdigit() else value
    return result
