"""How commands print: a table on a terminal, the same columns as plain text in a pipe, or one JSON object."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

# An argument that may be `-` or begin with a hyphen: texts, and files that may be standard input.
Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
Texts = Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)]


def print_json(value: Any) -> None:
    """One JSON object on standard output; NaN and infinity are refused."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print rows of text; columns after the first are aligned to the right when all their cells are numbers.

    Colours and lines only on a terminal, and no colours where NO_COLOR is set (rich honours it).
    """
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        _print_rich(columns, rows, title, right)
        return
    if title:
        print(title)
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        line = "  ".join(cell.rjust(width) if flag else cell.ljust(width)
                         for cell, width, flag in zip(row, widths, right, strict=True))
        print(line.rstrip())


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str,
                right: Sequence[bool]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=SIMPLE, header_style="bold", pad_edge=False)
    for name, flag in zip(columns, right, strict=True):
        table.add_column(Text(name), justify="right" if flag else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])  # Text: a bracket in a cell is no markup
    Console().print(table)


def print_facts(facts: Sequence[tuple[str, str]], *, title: str = "") -> None:
    """Print names and values in two columns without a header line."""
    if title:
        print(title)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"  {name:<{width}}  {value}")


def _is_number(cell: str) -> bool:
    # "1.91", "12.3 MB", "-" and "" all belong into a column of numbers.
    return cell in ("", "-") or cell.lstrip("-+~")[:1].isdigit()


def format_bytes(count: float) -> str:
    """Bytes in decimal units with three digits: 21.4 MB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
