"""A quality model: logistic regression on hashed n-grams, trained on good and bad files, in numpy.

    model = train(good_texts, bad_texts, QualitySettings())
    model.report.auc                  how well it tells held-out files apart
    model.score(text)                 0 to 1: the probability of the good class, were both equal in number
    model.save(path); QualityModel.load(path)
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write, canonical_json, open_regular, sha256_bytes, unique_keys
from tritwise.config.data_screening import QualitySettings
from tritwise.data.screening.features import feature_ids

_FORMAT = "tritwise-quality-model"
_BINS = 10


@dataclass(frozen=True)
class QualityReport:
    """How a model does on documents that neither trained nor calibrated it; both classes count equally.

    `auc` is the chance that a good file scores above a bad one. `calibration_error` is the mean distance, over tenths
    of the score, between score and share of good files; `bins` holds (mean score, share of good files, documents).
    """

    trained_on: int
    tested_on: int
    auc: float
    brier: float
    calibration_error: float
    bins: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class QualityModel:
    """Weights of hashed features. The score of a text with n features is
    sigmoid(scale * (bias + sum of their weights / sqrt(n)) + offset); scale and offset calibrate it."""

    settings: QualitySettings
    weights: np.ndarray  # float32 [2^bits]
    bias: float
    scale: float
    offset: float
    report: QualityReport

    def score(self, text: str) -> float:
        """0 to 1; the mean of both classes' features, 0.5 or so, for an empty text."""
        ids = feature_ids(text[:self.settings.max_characters], self.settings.bits)
        return float(_sigmoid(self.scale * (self.bias + _logit(self.weights, ids)) + self.offset))

    def save(self, path: Path) -> None:
        """Write the weights and all settings as safetensors."""
        from safetensors.numpy import save
        values = {"format": _FORMAT, "settings": self.settings.model_dump(), "bias": self.bias, "scale": self.scale,
                  "offset": self.offset, "report": asdict(self.report)}
        # JSON as an array of bytes: what stands in a header's metadata has no order that is sure.
        text = np.frombuffer(canonical_json(values).encode(), dtype=np.uint8)
        atomic_write(Path(path), save({"settings": text, "weights": self.weights}))

    @classmethod
    def load(cls, path: Path) -> "QualityModel":
        """Read what `save` wrote. Raises TritwiseError when the file is missing, damaged or something else."""
        from safetensors import SafetensorError
        from safetensors.numpy import load
        path = Path(path)
        try:
            with open_regular(path) as file:
                content = file.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES} bytes")
            arrays = load(content)
            if arrays.keys() != {"settings", "weights"} or arrays["settings"].dtype != np.uint8:
                raise ValueError("it holds no quality model")
            values = json.loads(arrays["settings"].tobytes(), object_pairs_hook=unique_keys)
            if values["format"] != _FORMAT:
                raise ValueError("it holds no quality model")
            settings = QualitySettings.model_validate(values["settings"])
            weights = arrays["weights"]
            if weights.dtype != np.float32 or weights.shape != (1 << settings.bits,):
                raise ValueError(f"its weights are {weights.dtype} {weights.shape}")
            numbers = [values[name] for name in ("bias", "scale", "offset")]
            if not all(isinstance(n, float) and np.isfinite(n) for n in numbers) or not np.isfinite(weights).all():
                raise ValueError("a weight is no finite number")
            report = QualityReport(**values["report"] | {"bins": tuple(map(tuple, values["report"]["bins"]))})
        except FileNotFoundError:
            raise TritwiseError(f"{path} does not exist", why="a quality model was expected there",
                                fix="tritwise data quality train") from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError, ValidationError) as error:
            raise TritwiseError(f"{path} is not readable as a quality model", why=str(error)) from None
        return cls(settings, weights, *numbers, report)


_MOST_BYTES = (4 << 24) + (1 << 20)


def train(positives: Iterable[str], negatives: Iterable[str], settings: QualitySettings | None = None) -> QualityModel:
    """A model that scores texts like `positives` high and texts like `negatives` low.

    Equal texts count once. Which of them calibrate and test the model follows from their hash, and full batches are
    summed in a fixed order: equal texts give equal weights on equal machines.

    Raises TritwiseError when a class has too few documents to hold some out.
    """
    settings = settings or QualitySettings()
    ids: list[np.ndarray] = []
    labels: list[int] = []
    parts: list[int] = []
    for label, texts in ((1, positives), (0, negatives)):
        for digest, text in _sample(texts, settings.max_documents):
            ids.append(feature_ids(text[:settings.max_characters], settings.bits).astype(np.int32))
            labels.append(label)
            parts.append(int(digest[:12], 16) % settings.hold_out_every)
    label, part = np.array(labels), np.array(parts)
    # Part 0 tests, part 1 calibrates, the others train.
    groups = [np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part > 1)]
    if any(len(np.unique(label[group])) < 2 for group in groups):
        good = int(label.sum())
        raise TritwiseError("there are too few documents to train a quality model",
                            why=f"there are {good} different good and {len(label) - good} bad ones, and of each class "
                                "some must train it, some calibrate it and some test it",
                            fix=f"give at least {5 * settings.hold_out_every} of each")
    tests, calibrates, trains = groups
    weights, bias = _fit([ids[i] for i in trains], label[trains], settings)
    logits = np.array([bias + _logit(weights, each) for each in ids])
    scale, offset = _calibrate(logits[calibrates], label[calibrates])
    scores = _sigmoid(scale * logits[tests] + offset)
    return QualityModel(settings, weights, bias, scale, offset, _report(scores, label[tests], len(trains)))


def _sample(texts: Iterable[str], most: int) -> list[tuple[str, str]]:
    """(hash, text) of different texts, by hash; the first `most`, which is a sample that no order of theirs changes."""
    by_hash = {sha256_bytes(text.encode("utf-8", "surrogatepass")): text for text in texts}
    return sorted(by_hash.items())[:most]


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _logit(weights: np.ndarray, ids: np.ndarray) -> float:
    return float(weights[ids].sum(dtype=np.float64)) / max(len(ids), 1) ** 0.5


def _balance(label: np.ndarray) -> np.ndarray:
    """A weight a document: both classes have half of the sum, which is 1."""
    return np.where(label == 1, 0.5 / max(label.sum(), 1), 0.5 / max((1 - label).sum(), 1))


def _fit(ids: list[np.ndarray], label: np.ndarray, settings: QualitySettings) -> tuple[np.ndarray, float]:
    """Weights and bias of the least balanced log loss, by Adam on full batches."""
    column = np.concatenate(ids)
    lengths = np.array(list(map(len, ids)))
    row = np.repeat(np.arange(len(ids)), lengths)
    value = 1 / np.sqrt(np.maximum(lengths, 1))
    share = _balance(label)
    size = 1 << settings.bits
    parameters, first, second = np.zeros(size + 1), np.zeros(size + 1), np.zeros(size + 1)
    for step in range(1, settings.steps + 1):
        logit = np.bincount(row, parameters[column], len(ids)) * value + parameters[-1]
        error = share * (_sigmoid(logit) - label)
        gradient = np.append(np.bincount(column, (error * value)[row], size), error.sum())
        gradient[:-1] += settings.weight_decay * parameters[:-1]
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient * gradient - second)
        unbiased = first / (1 - 0.9 ** step), second / (1 - 0.999 ** step)
        parameters -= settings.learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return parameters[:-1].astype(np.float32), float(parameters[-1])


def _calibrate(logit: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Platt's scale and offset by Newton's method, with his targets: no document is wholly good or bad."""
    good, bad = label.sum(), (1 - label).sum()
    target = np.where(label == 1, (good + 1) / (good + 2), 1 / (bad + 2))
    share = _balance(label)
    inputs = np.stack([logit, np.ones_like(logit)], axis=1)
    parameters = np.array([1.0, 0.0])
    for _ in range(50):
        score = _sigmoid(inputs @ parameters)
        gradient = inputs.T @ (share * (score - target)) + [1e-6 * parameters[0], 0]
        hessian = (inputs.T * (share * score * (1 - score))) @ inputs + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        parameters -= step * min(1.0, 2 / max(np.abs(step).max(), 1e-12))
    return float(parameters[0]), float(parameters[1])


def _report(score: np.ndarray, label: np.ndarray, trained_on: int) -> QualityReport:
    share = _balance(label)
    bins = []
    error = 0.0
    for low in range(_BINS):
        inside = (np.minimum(score * _BINS, _BINS - 1).astype(int) == low)
        if inside.any():
            weight = share[inside].sum()
            mean, good = float((share * score)[inside].sum() / weight), float((share * label)[inside].sum() / weight)
            bins.append((round(mean, 6), round(good, 6), int(inside.sum())))
            error += weight * abs(mean - good)
    return QualityReport(trained_on, len(label), auc(score[label == 1], score[label == 0]),
                         float((share * (score - label) ** 2).sum()), float(error), tuple(bins))


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """The chance that a good score is above a bad one; equal ones count a half."""
    ordered = np.sort(bad)
    below = np.searchsorted(ordered, good, side="left") + np.searchsorted(ordered, good, side="right")
    return float(below.mean() / (2 * len(bad)))
