"""What pages are made of: the frame, tables, numbers. A page is one file that asks the network for nothing."""

from collections.abc import Sequence
from html import escape

from tritwise.measure.report_style import STYLE


def html_page(title: str, parts: Sequence[str]) -> str:
    """A whole page around its parts, which are HTML; empty ones are left out."""
    # A page whose policy forbids every request cannot make one by accident.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", "</head>", "<body><main>",
        *[part for part in parts if part], "</main></body></html>", ""])


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits; whole numbers stay whole, with a thin space between thousands."""
    if value != int(value) and abs(value) < 10 ** (digits - 1):
        return f"{value:.{digits}g}" if abs(value) < 1 else _fixed(value, digits)
    return f"{round(value):,}".replace(",", "\u2009")


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{max(0, digits - len(str(int(abs(value)))))}f}"


def size(count: float) -> str:
    """Bytes in decimal units, three digits; below a thousand they are counted."""
    if count < 1000:
        return f"{round(count)} bytes"
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{_fixed(count / factor, 3)} {unit}"
    return f"{_fixed(count / 1e3, 3)} kB"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, even: bool = False) -> str:
    """Cells are HTML already: callers escape what is not ours. Bars of a row compare only in columns of even width."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="even"' if even else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names with their values, which are HTML already."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in rows)
    return f'<table class="text"><tbody>{body}</tbody></table>'


def section(title: str, *content: str) -> str:
    """A box with a heading; the content is HTML already."""
    return f"<section><h2>{escape(title)}</h2>{''.join(content)}</section>"


def with_bar(text: str, value: float, largest: float, colour: str) -> str:
    """A cell's text with a bar below it, as wide as the value's share of the largest."""
    width = 100 * value / largest if largest else 0
    return f'{text}<div class="bar" style="width:{width:.1f}%;background:{colour}"></div>'
