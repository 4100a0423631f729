"""Perplexity and bits per byte.

A document is scored as [beginning id] + ids of its text, every id after the first; the beginning id is what ends the
text before it in training. Sums are float64.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tritwise.common.errors import TritwiseError
from tritwise.engine import Model
from tritwise.evaluate.windows import over_windows


@dataclass(frozen=True)
class Likelihood:
    """-ln p of `tokens` scored tokens, summed, and how many UTF-8 bytes of text they stand for (None for bare ids)."""

    total_nats: float
    tokens: int
    bytes: int | None

    @property
    def perplexity(self) -> float:
        """exp of the mean over tokens. Depends on the tokenizer."""
        return math.exp(self.total_nats / self.tokens)

    @property
    def bits_per_byte(self) -> float | None:
        """Bits a byte of text, the same measure for every tokenizer; None for bare ids."""
        return None if not self.bytes else self.total_nats / math.log(2) / self.bytes

    def to_json(self) -> dict[str, float | int | None]:
        """The fields and both measures."""
        return asdict(self) | {"perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}


def bits_per_byte(model: Model, documents: Iterable[str], context: int | None = None, stride: int | None = None, *,
                  title: str = "scoring") -> Likelihood:
    """Score documents, each from its own beginning and independent of the others.

    `context`: tokens of a window, the model's when not given; `stride`: how far windows are apart, half the context
    when not given (`tritwise.data.windows`). Empty documents count nothing. Shows progress in tokens.
    Raises TritwiseError when there is nothing to score or the windows do not fit the model.
    """
    texts = [text for text in documents if text]
    if model.codec.start_id is None:
        raise TritwiseError("this model cannot score a document from its beginning",
                            why="neither its configuration nor its tokenizer names a beginning or an end of text")
    total, tokens = _score(model, [model.codec.scored(text) for text in texts], context, stride, title)
    return Likelihood(total, tokens, sum(len(text.encode()) for text in texts))


def perplexity(model: Model, text: str | Iterable[int], context: int | None = None, stride: int | None = None, *,
               title: str = "scoring") -> Likelihood:
    """Score one text, or bare token ids (every id after the first); settings as for `bits_per_byte`."""
    if isinstance(text, str):
        return bits_per_byte(model, [text], context, stride, title=title)
    total, tokens = _score(model, [list(text)], context, stride, title)
    return Likelihood(total, tokens, None)


def _score(model: Model, documents: list[list[int]], context: int | None, stride: int | None,
           title: str) -> tuple[float, int]:
    context = model.context if context is None else context
    if context > model.context:
        raise TritwiseError(f"a window of {context} tokens does not fit", why=f"the context holds {model.context}")
    total, tokens = 0.0, 0

    def note(done: int) -> str:
        return f"{total / done:.3f} nats a token"

    for nats in over_windows(model.score, documents, context=context, stride=stride, title=title, note=note):
        total, tokens = total + float(nats.sum()), tokens + len(nats)
    return total, tokens
