"""How far two models' predictions for the same tokens lie apart."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.evaluate.windows import Fed, not_numbers, over_windows

# Token ids [T] to logits float32 [T, vocab].
Logits = Callable[[list[int]], NDArray[np.float32]]

# B's likeliest id is as good as A's when A finds it at most so much less likely, in nats: a factor of 0.82. Where
# predictions are flat, as those of a hardly trained model, any rounding makes ids of nearly the same probability change
# places.
CLOSE = 0.2
# Rows whose distributions exist at once, in float64.
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Agreement:
    """Two models A and B over `tokens` scored tokens.

    `divergence` is the mean of KL(p_A || p_B) in nats a token, `largest_divergence` that of the worst token;
    `agreement` is the share of tokens for which both find the same id most likely, `close_agreement` that for which A
    finds B's likeliest id at most 0.2 nats less likely than its own; `largest_difference` is that of any two logits of
    the same token and id.
    """

    tokens: int
    perplexity_a: float
    perplexity_b: float
    divergence: float
    largest_divergence: float
    agreement: float
    close_agreement: float
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


class _Window(NamedTuple):
    """Sums over the scored tokens of one window, and its largest values."""

    tokens: int
    nats_a: float
    nats_b: float
    divergence: float
    worst: float
    same: int
    close: int
    difference: float


def agree(a: Logits, b: Logits, ids: list[int], *, context: int, stride: int | None = None,
          title: str = "comparing") -> Agreement:
    """Compare the predictions of A and B for one document of ids, in windows as `perplexity` takes them.

    Softmax and sums are float64. Raises TritwiseError when there is nothing to score and for logits that are not
    numbers.
    """
    windows: list[_Window] = []

    def score(feeds: Iterable[Fed]) -> Iterator[_Window]:
        return (_compare(a(fed.ids[:-1])[fed.first - 1:], b(fed.ids[:-1])[fed.first - 1:],
                         np.array(fed.ids[fed.first:])) for fed in feeds)

    def note(done: int) -> str:
        return f"{sum(each.divergence for each in windows) / done:.2e} nats a token"

    for window in over_windows(score, [ids], context=context, stride=stride, title=title, note=note):
        if not np.isfinite(window).all():
            raise not_numbers()
        windows.append(window)
    tokens, nats_a, nats_b, divergence, _, same, close, _ = (sum(column) for column in zip(*windows, strict=True))
    return Agreement(tokens, math.exp(nats_a / tokens), math.exp(nats_b / tokens), divergence / tokens,
                     max(each.worst for each in windows), same / tokens, close / tokens,
                     max(each.difference for each in windows))


def _compare(a: NDArray[np.float32], b: NDArray[np.float32], targets: NDArray[np.int64]) -> _Window:
    """`a` and `b` are logits [T, vocab] of the tokens before `targets` [T]."""
    nats_a = nats_b = divergence = worst = difference = 0.0
    same = close = 0
    for low in range(0, len(targets), _ROWS_AT_ONCE):
        rows_a, rows_b = a[low:low + _ROWS_AT_ONCE], b[low:low + _ROWS_AT_ONCE]
        p, q = _log_softmax(rows_a), _log_softmax(rows_b)
        at = np.arange(len(p)), targets[low:low + _ROWS_AT_ONCE]
        nats_a, nats_b = nats_a - float(p[at].sum()), nats_b - float(q[at].sum())
        each = (np.exp(p) * (p - q)).sum(axis=1)
        divergence, worst = divergence + float(each.sum()), max(worst, float(each.max()))
        best_a, best_b, rows = rows_a.argmax(axis=1), rows_b.argmax(axis=1), np.arange(len(p))
        same += int((best_a == best_b).sum())
        close += int((p[rows, best_a] - p[rows, best_b] <= CLOSE).sum())
        difference = max(difference, float(np.abs(rows_a - rows_b).max()))
    return _Window(len(targets), nats_a, nats_b, divergence, worst, same, close, difference)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
