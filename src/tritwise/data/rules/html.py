"""What a reader sees of an HTML page.

A scanner of its own rather than the standard library's `html.parser`, which takes time quadratic in the length of
some broken pages, and whose answers on those depend on the version of Python.
"""

import html
import re

# Elements whose text is not shown, and that end at the first end tag of their name, whatever they hold.
_RAW_END = {name: re.compile(f"</{name}(?![a-z0-9])", re.IGNORECASE)
            for name in ("script", "style", "template", "noscript")}
_OPENING = re.compile(r"<(?:!--|[!?]|(/?)([a-zA-Z][^\s/>]*))")
# The rest of a tag: quoted values may hold ">". Everything is possessive: what does not match is read once.
_TAG_END = re.compile(r"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")


def visible_text(page: str) -> str:
    """The text of a page outside tags, comments, scripts, styles and its head; white space runs are one space.

    A tag, a comment or a hidden element that is not closed reaches to the end of the page; so the time is linear.
    """
    parts: list[str] = []
    in_head = False
    position = 0
    while match := _OPENING.search(page, position):
        if not in_head:
            parts.append(page[position:match.start()])
        end = _end_of_markup(page, match)
        if end is None:
            return _shown(parts)
        closing, name = match.group(1), (match.group(2) or "").lower()
        if name in _RAW_END and not closing:
            raw_end = _RAW_END[name].search(page, end)
            if raw_end is None:
                return _shown(parts)
            end = raw_end.start()
        elif name == "head":
            in_head = not closing
        elif name == "body":
            in_head = False  # the head's end tag may be left out
        position = end
    if not in_head:
        parts.append(page[position:])
    return _shown(parts)


def _shown(parts: list[str]) -> str:
    return " ".join(html.unescape("".join(parts)).split())


def _end_of_markup(page: str, opening: re.Match[str]) -> int | None:
    if opening.group() == "<!--":
        end = page.find("-->", opening.end())
        return None if end < 0 else end + len("-->")
    match = _TAG_END.match(page, opening.end())
    return None if match is None else match.end()
