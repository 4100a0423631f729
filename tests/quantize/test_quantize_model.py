"""A dense model's directory to a quantised one: what is written, and that every linear saw its own inputs."""

import json
import json.decoder
from pathlib import Path

import numpy as np
import pytest
import torch

from tritwise.cli.app import main
from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.data import train_tokenizer
from tritwise.engine import load
from tritwise.formats import TernaryTensor, open_model, write_model
from tritwise.formats.reader import linear_names
from tritwise.model import Decoder
from tritwise.quantize import GRIDS, gptq, layer_error, quantise_model, round_to_nearest
from tritwise.quantize.calibration import quantise_with_inputs

CONFIG = ModelConfig(model_type="llama", linear_type="dense", vocab_size=300, hidden_size=32, intermediate_size=48,
                     num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                     eos_token_id=0)
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
           "shared_expert_intermediate_size": 16}
TEXT = Path(json.decoder.__file__).read_text()
LINEARS = linear_names(CONFIG.with_changes(linear_type="ternary"))


def weights(config: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) if len(shape) > 1 else
            rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in config.tensor_shapes().items()}


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dense")
    train_tokenizer([TEXT], 300).save(str(root / "tokenizer.json"))
    write_model(root / "model", CONFIG, weights(CONFIG), form="float", dtype="bfloat16",
                tokenizer_file=root / "tokenizer.json")
    return root / "model"


def read(path: Path) -> dict[str, np.ndarray | TernaryTensor]:
    directory = open_model(path)
    return {name: directory.read(name) for name in directory.names()}


@pytest.mark.parametrize(("to", "group"), [("int8", None), ("int4", 16), ("ternary", 16)])
def test_a_dense_directory_holds_the_dequantised_values_and_all_else_as_it_was(dense, tmp_path, to, group):
    report = quantise_model(dense, tmp_path / "out", to=to, group_size=group)
    before, after = read(dense), read(tmp_path / "out")
    bits = []
    for name, array in before.items():
        if name in LINEARS:
            expected = round_to_nearest(array.astype(np.float32), GRIDS[to], group)
            assert np.array_equal(after[name], expected.values())
            bits.append((expected.bits, array.size))
        else:
            assert np.array_equal(after[name], array.astype(np.float32))
    assert report.bits_per_weight == pytest.approx(sum(b for b, _ in bits) / sum(n for _, n in bits))
    assert (report.form, report.activations) == ("dense", "float")
    assert open_model(tmp_path / "out").config.linear_type == "dense"
    assert open_model(tmp_path / "out").tokenizer_json() == open_model(dense).tokenizer_json()
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["quantized"]["bits_per_weight"] == report.bits_per_weight
    assert (provenance["quantized"]["to"], provenance["quantized"]["group_size"]) == (to, group)
    assert list(provenance["source_sha256"]) == ["model.safetensors"]


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_ternary_with_one_scale_a_matrix_is_packed_or_the_same_values_dense(dense, tmp_path, method):
    settings = {"to": "ternary", "method": method, "text": TEXT if method == "gptq" else None, "context": 64,
                "windows": 8}
    packed = quantise_model(dense, tmp_path / "packed", **settings)
    floats = quantise_model(dense, tmp_path / "floats", weights_only=True, **settings)
    assert (packed.form, packed.activations, packed.bits_per_weight > 2) == ("packed", "int8", True)
    assert (floats.form, floats.activations, 1.6 < floats.bits_per_weight < 1.7) == ("dense", "float", True)
    codes, values = read(tmp_path / "packed"), read(tmp_path / "floats")
    for name in LINEARS:
        assert isinstance(codes[name], TernaryTensor)
        assert np.array_equal(codes[name].codes() * codes[name].scale, values[name])
    assert open_model(tmp_path / "packed").config.model_type == "llama"
    with load(tmp_path / "packed") as eight_bits, load(tmp_path / "floats") as sixteen:
        ours, theirs = eight_bits.logits([5, 9, 17]), sixteen.logits([5, 9, 17])
    assert 0 < np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


@pytest.mark.parametrize("changes", [{}, EXPERTS, {"model_type": "bitnet"}])
def test_every_linear_is_calibrated_on_what_the_quantised_model_feeds_it(changes):
    config = CONFIG.with_changes(**changes)
    tensors, rng = weights(config), np.random.default_rng(1)
    ids = rng.integers(0, 300, (6, 20))
    seen: dict[str, np.ndarray] = {}
    result = {name: tensor.copy() for name, tensor in tensors.items()}

    def quantise(name, weight, hessian):
        assert np.array_equal(weight, tensors[name])
        seen[name] = hessian
        result[name] = round_to_nearest(weight, GRIDS["int4"]).values()
        return result[name]

    quantise_with_inputs(config, tensors, ids, quantise)
    assert set(seen) == linear_names(config.with_changes(linear_type="ternary"))
    # Of the finished model, the inputs of every linear: those it was calibrated on, as all before it was quantised.
    model = Decoder(config)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in result.items()})
    again = {name: np.zeros_like(hessian) for name, hessian in seen.items()}

    def observe(name):
        def add(x):
            flat = x.flatten(0, -2).numpy()
            again[name] += flat.T @ flat
        return add

    for name in seen:
        model.get_submodule(name.removesuffix(".weight")).observer = observe(name)
    with torch.inference_mode():
        model(torch.from_numpy(ids))
    for name, hessian in seen.items():
        assert np.abs(hessian - again[name]).max() <= 1e-4 * np.abs(again[name]).max()


def test_gptq_writes_what_the_update_gives_and_changes_outputs_less_than_rounding(dense, tmp_path):
    report = quantise_model(dense, tmp_path / "out", to="int4", method="gptq", text=TEXT, context=64, windows=16)
    assert report.calibration_tokens == 16 * 64
    tensors = {name: tensor.astype(np.float32) for name, tensor in read(dense).items()}
    written = read(tmp_path / "out")
    rounded = {}

    def quantise(name, weight, hessian):
        values = round_to_nearest(weight, GRIDS["int4"]).values()
        rounded[name] = layer_error(weight, values, hessian)
        assert np.array_equal(written[name], gptq(weight, hessian, GRIDS["int4"]).values())
        return written[name].copy()

    codec_ids = np.array(ids_of(dense)[:len(ids_of(dense)) // 64 * 64]).reshape(-1, 64)
    chosen = codec_ids[np.linspace(0, len(codec_ids) - 1, 16).round().astype(int)]
    quantise_with_inputs(CONFIG, tensors, chosen, quantise)
    assert set(rounded) == set(report.output_error) == LINEARS
    assert all(report.output_error[name] < rounded[name] for name in LINEARS)
    assert sum(report.output_error.values()) < 0.7 * sum(rounded.values())


def ids_of(path: Path) -> list[int]:
    with load(path) as model:
        return model.codec.document(TEXT)


def test_the_command_writes_a_model_that_perplexity_scores(dense, tmp_path, capsys):
    (tmp_path / "text.py").write_text(TEXT)
    out, text = tmp_path / "out", str(tmp_path / "text.py")
    assert main(["quantize", str(dense), str(out), "--to", "int4", "--group-size", "16", "--method", "gptq", "--text",
                 text, "--windows", "4", "--context", "64"]) == 0
    assert "bits a weight  5.250" in capsys.readouterr().out
    assert main(["quantize", str(dense), str(tmp_path / "ternary"), "--to", "ternary", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["form"] == "packed"
    (tmp_path / "short.py").write_text(TEXT[:400])
    assert main(["perplexity", str(out), str(tmp_path / "short.py")]) == 0
    assert "perplexity a token" in capsys.readouterr().out


@pytest.mark.parametrize(("settings", "said"), [
    ({"method": "gptq"}, "gptq needs a calibration text"),
    ({"method": "gptq", "text": "def f():"}, "the calibration text has . tokens\nwhy: one window of 128 tokens"),
    ({"method": "gptq", "text": TEXT, "windows": 0}, "0 windows of 512 tokens are no calibration"),
    ({"text": TEXT}, "rounding to nearest reads no calibration text"),
    ({"group_size": 0}, "the group size is 0"),
    ({"weights_only": True}, "weights_only changes nothing here"),
    ({"to": "ternary", "weights_only": True, "group_size": 8}, "weights_only changes nothing here"),
    ({"to": "int3"}, "there is no quantisation to int3 by rtn"),
])
def test_settings_that_do_not_fit_are_refused_and_nothing_is_written(dense, tmp_path, settings, said):
    with pytest.raises(TritwiseError, match=said):
        quantise_model(dense, tmp_path / "out", **({"to": "int4"} | settings))
    assert not (tmp_path / "out").exists()


def test_a_ternary_model_and_the_model_itself_are_refused(dense, tmp_path):
    quantise_model(dense, tmp_path / "ternary", to="ternary")
    with pytest.raises(TritwiseError, match="is a ternary model\nwhy: only a dense model"):
        quantise_model(tmp_path / "ternary", tmp_path / "again", to="int8")
    with pytest.raises(TritwiseError, match="is the model itself"):
        quantise_model(dense, dense, to="int8")
    assert main(["quantize", str(tmp_path / "ternary"), str(tmp_path / "again"), "--to", "int8"]) == 1


def test_what_cannot_be_written_is_refused_before_the_work(dense, tmp_path, monkeypatch):
    monkeypatch.setattr("tritwise.quantize.model.round_to_nearest", None)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(TritwiseError, match="with other files, no old model"):
        quantise_model(dense, tmp_path / "notes", to="int8")
    config = CONFIG.with_changes(intermediate_size=50)
    write_model(tmp_path / "odd", config, weights(config), form="float")
    with pytest.raises(TritwiseError, match="has 50 rows and cannot be written packed"):
        quantise_model(tmp_path / "odd", tmp_path / "out", to="ternary")
