"""What a setting of the engine costs in quality: the same model opened in two ways, on the same text.

    compare("runs/quickstart/ternary", text, [{"head": "int8"}, {"head": "int4"}], against={"head": "stored"})
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.progress import progress
from tritwise.data.windows import scoring_windows
from tritwise.engine import Model, load

# Rows whose distributions exist at once, in float64.
_ROWS_AT_ONCE = 32


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
    context = min(context, model.context, reference.context)
    nats = np.zeros(2)
    divergence, worst, same, done = 0.0, 0.0, 0, 0
    name = ", ".join(f"{key}={value}" for key, value in setting.items()) or "the defaults"
    with progress(f"comparing {name}", len(ids) - 1) as bar:
        for window in scoring_windows(len(ids), context, max(1, context // 2) if stride is None else stride):
            fed, targets = ids[window.start:window.stop - 1], ids[window.first_scored:window.stop]
            skipped = window.first_scored - window.start - 1
            rows, reference_rows = model.logits(fed)[skipped:], reference.logits(fed)[skipped:]
            for low in range(0, len(targets), _ROWS_AT_ONCE):
                part = slice(low, low + _ROWS_AT_ONCE)
                q, p = _log_softmax(rows[part]), _log_softmax(reference_rows[part])
                at = np.arange(len(q)), np.array(targets[part])
                nats -= q[at].sum(), p[at].sum()
                each = (np.exp(p) * (p - q)).sum(axis=1)
                divergence, worst = divergence + float(each.sum()), max(worst, float(each.max()))
                same += int((rows[part].argmax(axis=1) == reference_rows[part].argmax(axis=1)).sum())
            done += len(targets)
            bar.update(done, f"{divergence / done:.2e} nats a token")
    if not np.isfinite([*nats, divergence]).all():
        raise TritwiseError("the model's logits are not numbers", why="a log-probability is NaN or infinite",
                            fix="check the weights with: tritwise inspect MODEL")
    return Comparison(dict(setting), dict(against), done, math.exp(nats[0] / done), math.exp(nats[1] / done),
                      divergence / done, worst, same / done)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
