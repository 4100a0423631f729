"""An arc diagram: files in their order from top to bottom, an arc from each dependency down to what depends on it.

An arc that runs upwards (inside a cycle something has to) has another colour.
"""

from collections.abc import Mapping, Sequence, Set
from html import escape

_ROW, _LABEL, _ARCS = 17, 380, 420  # pixels: height of a row, widths of the two columns
_LONGEST_NAME = 52


def arc_diagram(order: Sequence[str], dependencies: Mapping[str, Set[str]]) -> str:
    """SVG text that takes the page's colours. Targets that do not stand in `order` are left out."""
    place = {path: index for index, path in enumerate(order)}
    pairs = sorted((place[path], place[target]) for path in order for target in dependencies.get(path, ())
                   if target in place and target != path)
    longest = max((abs(a - b) for a, b in pairs), default=1)
    height = _ROW * len(order) + 8
    parts = [f'<svg viewBox="0 0 {_LABEL + _ARCS} {height}" role="img" font-size="12">']
    for path, row in place.items():
        name = path if len(path) <= _LONGEST_NAME else "\u2026" + path[1 - _LONGEST_NAME:]
        parts.append(f'<text x="{_LABEL - 14}" y="{_ROW * row + 16}" text-anchor="end" fill="currentColor">'
                     f'<title>{escape(path)}</title>{escape(name)}</text>')
    for dependent, dependency in pairs:
        top, bottom = sorted((dependent, dependency))
        colour = "var(--series-1)" if dependency < dependent else "var(--series-2)"
        # Long arcs reach further; the square root keeps the short ones apart.
        reach = _LABEL + (_ARCS - 30) * 1.3 * ((bottom - top) / longest) ** 0.5
        y_top, y_bottom = _ROW * top + 12, _ROW * bottom + 12
        parts.append(f'<path d="M{_LABEL} {y_top} C{reach:.0f} {y_top} {reach:.0f} {y_bottom} {_LABEL} {y_bottom}" '
                     f'fill="none" stroke="{colour}" stroke-opacity="0.55" stroke-width="1.2">'
                     f"<title>{escape(order[dependency])} \u2192 {escape(order[dependent])}</title></path>")
    for row in place.values():
        parts.append(f'<circle cx="{_LABEL}" cy="{_ROW * row + 12}" r="2.6" fill="currentColor"/>')
    return "".join([*parts, "</svg>"])
