"""Where a text is to be filled in, and how much of what stands around it the model can see."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from tritwise.common.errors import TritwiseError
from tritwise.engine.text import TextCodec

# Characters a token that are looked at: a text of longer tokens (blank lines) is cut to fewer than would fit.
_CHARACTERS_A_TOKEN = 32
_LINE_END = re.compile(r"\r\n|\r|\n")
# Of the room, what the text behind the gap gets at least when there is more text than room.
_BEHIND = 3


def gap_at(text: str, line: int) -> tuple[str, str]:
    """What stands before and behind the end of a line (from 1 on), where an editor's cursor would be at its end.

    A text that ends with a line end has an empty line behind it. Raises TritwiseError for a line that is not there.
    """
    ends = [*(match.start() for match in _LINE_END.finditer(text)), len(text)]
    if not 1 <= line <= len(ends):
        raise TritwiseError(f"there is no line {line}", why=f"the text has the lines 1 to {len(ends)}")
    return text[:ends[line - 1]], text[ends[line - 1]:]


def fit_prompt(codec: TextCodec, prompt: str, room: int) -> str:
    """The end of a prompt that is at most `room` tokens with what stands around every text; whole lines if possible."""
    return _tail(codec, prompt, _positive(room - len(codec.document("")), room))


def fit_gap(codec: TextCodec, before: str, behind: str, room: int) -> tuple[str, str]:
    """What of the texts around a gap is nearest to it and at most `room` tokens as a request to fill it.

    Whole lines, unless not even the line of the gap fits. The text behind gets a third, and what the one before leaves.
    """
    most = _positive(room - len(codec.infill("", "")), room)
    kept = _head(codec, behind, most // _BEHIND)
    before = _tail(codec, before, most - len(codec.encode(kept)))
    return before, _head(codec, behind, most - len(codec.encode(before)))


def _positive(most: int, room: int) -> int:
    if most < 1:
        raise TritwiseError(f"{room} tokens are no room for a text", fix="a smaller --max-tokens")
    return most


def _tail(codec: TextCodec, text: str, most: int) -> str:
    seen = text[max(0, len(text) - _CHARACTERS_A_TOKEN * most):]
    starts = [match.end() for match in _LINE_END.finditer(seen) if match.end() < len(seen)]
    if len(seen) == len(text):
        starts.insert(0, 0)

    def fits(start: int) -> bool:
        return len(codec.encode(seen[start:])) <= most

    found = _first(starts, fits)
    return seen[_first(range(starts[-1] if starts else 0, len(seen) + 1), fits) if found is None else found:]


def _head(codec: TextCodec, text: str, most: int) -> str:
    seen = text[:_CHARACTERS_A_TOKEN * most]
    ends = [match.end() for match in _LINE_END.finditer(seen)][::-1]
    if len(seen) == len(text):
        ends.insert(0, len(seen))

    def fits(end: int) -> bool:
        return len(codec.encode(seen[:end])) <= most

    found = _first(ends, fits)
    return seen[:_first(range(ends[-1] if ends else len(seen), -1, -1), fits) if found is None else found]


def _first(places: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The first of `places` that fits, where less text fits sooner; None when the last one does not.

    Tokens are not quite monotonic in characters, so it may be a later one; what is returned was tried.
    """
    index = bisect_left(range(len(places)), True, key=lambda i: fits(places[i]))
    return places[index] if index < len(places) else None
