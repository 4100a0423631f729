"""What a setting of the engine costs in quality: the same model opened in two ways, on the same text.

    compare("runs/quickstart/ternary", text, [{"head": "int8"}, {"head": "int4"}], against={"head": "stored"})
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.engine import Model, load
from tritwise.evaluate.agreement import agree


@dataclass(frozen=True)
class Comparison:
    """Two ways of opening a model, over `tokens` scored tokens.

    `divergence` is the mean of KL(p_against || p) in nats a token, `largest_divergence` that of the worst token;
    `agreement` is the share of tokens for which both find the same id most likely.
    """

    setting: dict[str, Any]
    against: dict[str, Any]
    tokens: int
    perplexity: float
    perplexity_against: float
    divergence: float
    largest_divergence: float
    agreement: float

    @property
    def perplexity_change(self) -> float:
        """Relative change of the perplexity: 0.01 is one percent worse."""
        return self.perplexity / self.perplexity_against - 1

    def to_json(self) -> dict[str, Any]:
        """The fields and the change."""
        return asdict(self) | {"perplexity_change": self.perplexity_change}


def compare(path: str | Path, text: str | Iterable[int], settings: Sequence[Mapping[str, Any]], *,
            against: Mapping[str, Any], context: int = 512, stride: int | None = None) -> list[Comparison]:
    """Score `text` with each of `settings` (keyword arguments of `load`) and with `against`.

    The text is one document in windows of at most `context` tokens, `stride` apart (half of it when not given), as in
    `perplexity`; bare ids are taken as they are. Two models are open at a time. Softmax and sums are float64.
    Raises TritwiseError for settings that `load` does not know and when there is nothing to score.
    """
    ids = text if isinstance(text, str) else list(text)
    results = []
    for setting in settings:
        with _open(path, against) as reference, _open(path, setting) as model:
            tokens = reference.codec.scored(ids) if isinstance(ids, str) else ids
            if len(tokens) < 2:
                raise TritwiseError("there is nothing to score", why="the text has less than two tokens")
            results.append(_compare(model, reference, tokens, context, stride, setting, against))
    return results


def _open(path: str | Path, settings: Mapping[str, Any]) -> Model:
    try:
        return load(path, **settings)
    except TypeError as error:
        raise TritwiseError(f"a model cannot be opened with {dict(settings)}", why=str(error)) from None


def _compare(model: Model, reference: Model, ids: list[int], context: int, stride: int | None,
             setting: Mapping[str, Any], against: Mapping[str, Any]) -> Comparison:
    name = ", ".join(f"{key}={value}" for key, value in setting.items()) or "the defaults"
    found = agree(reference.logits, model.logits, ids, context=min(context, model.context, reference.context),
                  stride=stride, title=f"comparing {name}")
    return Comparison(dict(setting), dict(against), found.tokens, found.perplexity_b, found.perplexity_a,
                      found.divergence, found.largest_divergence, found.agreement)
