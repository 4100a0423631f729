"""Floats that are ternary already, as the TriLM models are published: codes and scales of blocks of rows, exactly."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tritwise import TritwiseError
from tritwise.formats import TernaryTensor, open_model, write_quantised
from tritwise.formats.ternarised import codes_and_scales
from tritwise.measure.inspection import inspect_model

UP = "model.layers.0.mlp.up_proj.weight"


def shards(rows: int, inner: int, count: int, dtype=np.float16, seed: int = 0) -> np.ndarray:
    """Ternary floats of `count` shards of rows, each with a magnitude of its own."""
    rng = np.random.default_rng(seed)
    scales = np.linspace(0.01, 0.05, count).astype(dtype)
    codes = rng.integers(-1, 2, (rows, inner)).astype(dtype)
    return codes * np.repeat(scales, rows // count)[:, None]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_codes_times_scales_are_the_values_and_a_shard_has_one_scale(count, dtype):
    values = shards(12, 40, count, dtype)
    codes, scales = codes_and_scales(values)
    tensor = TernaryTensor.from_codes(codes, scales)
    assert tensor.scales.shape == (count,)
    assert np.array_equal(tensor.codes() * tensor.row_scales()[:, None], values.astype(np.float32))


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_any_magnitudes_of_rows_come_back_exactly(rows, inner, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (rows, inner)) * rng.choice([0.0, 0.25, 0.5, 3.0], (rows, 1))
    tensor = TernaryTensor.from_codes(*codes_and_scales(values.astype(np.float32)))
    assert np.array_equal(tensor.codes() * tensor.row_scales()[:, None], values)
    assert (tensor.scales > 0).all()


def test_rows_of_zeros_fit_the_scale_of_their_block():
    values = shards(8, 16, 2)
    values[[0, 5]] = 0
    assert codes_and_scales(values)[1].shape == (2,)
    assert codes_and_scales(np.zeros((4, 3), np.float32))[1].tolist() == [1.0]


def test_many_rows_are_looked_at_in_blocks():
    values = shards(1200, 1024, 6)
    codes, scales = codes_and_scales(values)
    assert scales.shape == (6,)
    assert np.array_equal(codes, np.sign(values))
    values[1100, 3] = 0.5
    with pytest.raises(ValueError, match="row 1100 holds 2 magnitudes"):
        codes_and_scales(values)


def test_shards_of_columns_are_refused():
    with pytest.raises(ValueError, match="row 0 holds 3 magnitudes"):
        codes_and_scales(np.ascontiguousarray(shards(12, 40, 3).T))


@pytest.fixture
def trilm(tmp_path, make_config):
    """A directory as SpectraSuite publishes it, float16 and with two shards a matrix; `linear_type` is our addition."""
    config = make_config(model_type="llama", linear_type="dense")
    rng = np.random.default_rng(1)
    state = {name: shards(*shape, 2, seed=len(name)) if "_proj" in name else rng.normal(size=shape).astype(np.float16)
             for name, shape in config.tensor_shapes().items()}
    save_file(state, tmp_path / "model.safetensors")
    values = config.to_hf(dtype="float16") | {"pretraining_model_parallel": 2}
    values.pop("linear_type")

    def write(**changes):
        (tmp_path / "config.json").write_text(json.dumps(values | changes))
        return tmp_path, state
    return write


def test_without_linear_type_it_is_the_dense_model_that_it_is_published_as(trilm):
    path, state = trilm()
    directory = open_model(path)
    assert directory.config.linear_type == "dense"
    assert np.array_equal(directory.read(UP), state[UP])


def test_with_linear_type_ternary_its_codes_and_scales_are_read(trilm):
    path, state = trilm(linear_type="ternary")
    directory = open_model(path)
    for name in directory.names():
        tensor = directory.read(name)
        if "_proj" not in name:
            assert np.array_equal(tensor, state[name])
            continue
        assert tensor.scales.shape == (2,)
        assert np.array_equal(tensor.codes() * tensor.row_scales()[:, None], state[name].astype(np.float32))
    report = inspect_model(path)
    assert {(tensor.scales, round(tensor.scale, 4)) for tensor in report.quantised} == {(2, 0.03)}


def test_latent_weights_are_not_taken_for_ternary_ones(trilm):
    path, state = trilm(linear_type="ternary")
    state[UP][7, 3] = 0.125
    save_file(state, path / "model.safetensors")
    with pytest.raises(TritwiseError, match=rf"(?s){UP} cannot be used.*row 7 holds 2 magnitudes.*quantization_mode"):
        open_model(path).read(UP)


def test_a_format_that_holds_one_scale_refuses_several(tmp_path, trilm):
    path, _ = trilm(linear_type="ternary")
    directory = open_model(path)
    tensors = {name: directory.read(name) for name in directory.names()}
    with pytest.raises(TritwiseError, match=r"q_proj\.weight cannot be written packed\nwhy: it has 2 scales"):
        write_quantised(tmp_path / "packed", directory.config, tensors)
    assert not (tmp_path / "packed").exists()
