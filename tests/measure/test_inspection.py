"""`inspect_model` against the numbers that went into the directory."""

import json

import numpy as np
import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.formats import TernaryTensor, pack_rows, write_model
from tritwise.measure.inspection import code_counts, inspect_model
from tritwise.ternary import absmean

CONFIG = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=2)


def weights(config: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0.01, 0.3, shape).astype(np.float32) for name, shape in config.tensor_shapes().items()}


def test_codes_scales_and_statistics_are_those_of_the_weights(tmp_path):
    tensors = weights(CONFIG)
    write_model(tmp_path / "m", CONFIG, tensors, form="packed", dtype="float32")
    report = inspect_model(tmp_path / "m")
    assert len(report.quantised) == 14
    for entry in report.quantised:
        codes, scale = absmean(tensors[entry.name])
        assert (entry.minus, entry.zero, entry.plus) == tuple(int((codes == c).sum()) for c in (-1, 0, 1))
        assert entry.scale == scale
        assert entry.shape == tensors[entry.name].shape
        assert sum(entry.shares) == pytest.approx(1, abs=1e-15)
    assert {entry.name for entry in report.quantised} | {entry.name for entry in report.dense} == set(tensors)
    for entry in report.dense:
        expected = tensors[entry.name].astype(np.float64)
        assert entry.dtype == "float32"
        # Two orders of float64 sums over n terms.
        np.testing.assert_allclose([entry.mean, entry.std], [expected.mean(), expected.std()],
                                   rtol=0, atol=expected.size * 2.0**-52)


def test_bits_per_weight_follow_from_the_stored_bytes(tmp_path):
    write_model(tmp_path / "m", CONFIG, weights(CONFIG), form="packed", dtype="bfloat16")
    report = inspect_model(tmp_path / "m")
    count = CONFIG.parameter_count()
    packed = 2 * sum(-(-out // 4) * inner for out, inner in CONFIG.linear_shapes().values())
    scales = 14 * 4
    assert report.quantised_bytes == packed + scales
    assert report.stored_bytes == packed + scales + 2 * (count.embedding + count.norm)
    assert report.bits_per_weight == 8 * report.stored_bytes / count.total
    assert report.bits_per_quantised_weight == 8 * (packed + scales) / count.block
    assert report.parameters == count.total
    values = json.loads(json.dumps(report.to_json()))
    assert values["config"]["hidden_size"] == 32
    assert values["bits_per_weight"] == report.bits_per_weight
    assert len(values["quantised"][0]["shares"]) == 3


def test_a_dense_model_has_no_quantised_tensors(tmp_path):
    config = CONFIG.with_changes(model_type="llama", linear_type="dense")
    write_model(tmp_path / "m", config, weights(config), form="float", dtype="bfloat16")
    report = inspect_model(tmp_path / "m")
    assert report.quantised == ()
    assert report.bits_per_weight == 16
    assert report.bits_per_quantised_weight is None


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 1030])
def test_rows_that_pad_the_last_stripes_are_not_counted(rows):
    codes = np.random.default_rng(rows).integers(-1, 2, (rows, 6)).astype(np.int8)
    tensor = TernaryTensor(pack_rows(codes), np.ones(1, dtype=np.float32), codes.shape)
    assert code_counts(tensor) == tuple(int((codes == c).sum()) for c in (-1, 0, 1))


def test_a_path_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(TritwiseError, match=r"config\.json"):
        inspect_model(tmp_path)
