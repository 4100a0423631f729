"""Scoring windows: how a document longer than the context is cut when every token is scored once.

Training and the engine both measure with these, so their perplexities are of the same thing.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tritwise.common.errors import TritwiseError


class Window(NamedTuple):
    """Tokens [start, stop) go through the model together; those from `first_scored` on are scored."""

    start: int
    stop: int
    first_scored: int


def scoring_windows(length: int, context: int, stride: int) -> Iterator[Window]:
    """Overlapping windows of at most `context` tokens over `length` tokens, `stride` apart.

    Every token but the first (which nothing predicts) is scored exactly once. In the first window a token has all that
    stands before it as its left context; in later ones at least `context - stride` tokens.
    Raises TritwiseError unless 1 <= stride < context.
    """
    if not 1 <= stride < context:
        raise TritwiseError(f"windows of {context} tokens cannot be {stride} apart",
                            why="needed: 1 <= stride < context, so that every scored token has a left context")
    first_scored = 1
    for start in range(0, length, stride):
        stop = min(start + context, length)
        if first_scored < stop:
            yield Window(start, stop, first_scored)
        first_scored = stop
        if stop == length:
            return
