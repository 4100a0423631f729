"""The quality model: it learns what it is shown, the same each time, and files that are none are refused."""

import pickle
import random

import numpy as np
import pytest
from safetensors.numpy import load, save

from tritwise.common.errors import TritwiseError
from tritwise.config.data_screening import QualitySettings
from tritwise.data.screening.features import feature_ids
from tritwise.data.screening.quality import QualityModel, auc, train

SETTINGS = QualitySettings(bits=12, steps=60, hold_out_every=4, learning_rate=0.1)
chance = random.Random(3)
GOOD = [f"def area_{i}(width, height):\n    return width * height + {i}\n" * chance.randint(1, 4) for i in range(90)]
BAD = [f"a{i}=b*c;d=e*f+{i};" * chance.randint(1, 9) for i in range(70)]


@pytest.fixture(scope="module")
def model() -> QualityModel:
    return train(GOOD, BAD, SETTINGS)


def test_it_tells_unseen_texts_of_both_kinds_apart(model):
    assert model.report.auc == 1.0
    assert model.report.tested_on > 10
    assert model.score("def volume(width, height):\n    return width * height\n") > 0.8
    assert model.score("x=b*c;y=d*e;z=f*g;") < 0.2
    assert 0 < model.score("") < 1


def test_neither_order_nor_repeats_change_it(model):
    other = train(GOOD[::-1] + GOOD[:5], BAD[::-1], SETTINGS)
    assert other.weights.tobytes() == model.weights.tobytes()
    assert other.report == model.report
    assert (other.bias, other.scale, other.offset) == (model.bias, model.scale, model.offset)


def test_it_learns_nothing_where_there_is_nothing_to_learn():
    texts = [" ".join(chance.choices(["one", "two", "three", "four"], k=30)) for _ in range(300)]
    report = train(texts[:150], texts[150:], SETTINGS).report
    assert 0.25 < report.auc < 0.75
    assert report.calibration_error < 0.25  # scores stay near a half, for they say nothing


def test_a_score_is_that_of_its_features(model):
    text = GOOD[0]
    ids = feature_ids(text, 12)
    logit = model.bias + sum(float(model.weights[i]) for i in ids) / len(ids) ** 0.5
    assert model.score(text) == pytest.approx(1 / (1 + np.exp(-(model.scale * logit + model.offset))), rel=1e-6)
    long = QualitySettings(bits=12, max_characters=len(text))
    cut = QualityModel(long, model.weights, model.bias, model.scale, model.offset, model.report)
    assert cut.score(text + BAD[0]) == cut.score(text) != model.score(text + BAD[0])


def test_features_are_those_of_words_pairs_and_shapes():
    assert feature_ids("", 12).tolist() == []
    assert set(feature_ids("ab cd", 20)) > set(feature_ids("ab", 20)) | set(feature_ids("cd", 20))
    assert set(feature_ids("x = 1", 20)) ^ set(feature_ids("x=1", 20))  # the layout counts
    one, other = (set(feature_ids(text, 20)) for text in ("left right", "right left"))
    assert len(one - other) >= 1  # the order of words counts


def test_auc_is_the_share_of_pairs_in_order():
    good, bad = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.0, 0.5, 0.7])
    assert auc(good, bad) == sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / 12


def test_it_travels_between_processes_and_through_a_file(model, tmp_path):
    model.save(tmp_path / "q.safetensors")
    for other in (QualityModel.load(tmp_path / "q.safetensors"), pickle.loads(pickle.dumps(model))):
        assert [other.score(text) for text in GOOD[:3] + BAD[:3]] == [model.score(text) for text in GOOD[:3] + BAD[:3]]
        assert other.report == model.report
        assert other.settings == model.settings
    QualityModel.load(tmp_path / "q.safetensors").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "q.safetensors").read_bytes()


def text_of(change):
    """Change the JSON that a model's file holds."""
    return lambda arrays: arrays | {
        "settings": np.frombuffer(change(arrays["settings"].tobytes().decode()).encode(), dtype=np.uint8)}


@pytest.mark.parametrize(("change", "why"), [
    (lambda a: {"weights": a["weights"]}, "no quality model"),
    (lambda a: a | {"weights": a["weights"][:-1].copy()}, "its weights are"),
    (lambda a: a | {"weights": a["weights"].astype(np.float64)}, "its weights are"),
    (lambda a: a | {"weights": np.full_like(a["weights"], np.nan)}, "no finite number"),
    (text_of(lambda t: t.replace("tritwise-quality-model", "x")), "no quality model"), (text_of(lambda t: t[:-2]), "."),
    (text_of(lambda t: t.replace('"bits":12', '"bits":13')), "its weights are"),
    (text_of(lambda t: t.replace('"bits":12', '"bits":99')), "less than"),
    (text_of(lambda t: t.replace('"bias":', '"bias":"x","other":')), "no finite number"),
    (text_of(lambda t: t.replace('"auc":', '"auk":')), "auk"),
])
def test_a_file_that_is_no_model_is_refused(model, tmp_path, change, why):
    path = tmp_path / "q.safetensors"
    model.save(path)
    path.write_bytes(save(change(load(path.read_bytes()))))
    with pytest.raises(TritwiseError, match=why):
        QualityModel.load(path)


def test_damaged_and_missing_files_are_refused(model, tmp_path):
    model.save(tmp_path / "q")
    (tmp_path / "cut").write_bytes((tmp_path / "q").read_bytes()[:-100])
    for name in ("cut", "missing"):
        with pytest.raises(TritwiseError):
            QualityModel.load(tmp_path / name)


def test_too_few_documents_are_refused():
    with pytest.raises(TritwiseError, match="too few documents"):
        train(GOOD, BAD[:1], SETTINGS)
