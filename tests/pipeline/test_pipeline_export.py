"""`tritwise export`: checkpoints and models of every format to every format, through the command line."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tritwise import ModelConfig, load
from tritwise.cli.app import main
from tritwise.data import train_tokenizer
from tritwise.data.tokenizer import load_tokenizer
from tritwise.formats import TernaryTensor, open_model
from tritwise.model import Decoder
from tritwise.model.bitlinear import quantise_weight
from tritwise.pipeline.export import export_gguf
from tritwise.ternary import absmean
from tritwise.train.checkpoint import TrainState, save_checkpoint

SIZES = {"vocab_size": 300, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "tie_word_embeddings": True}
TEXT = "def add(a, b):\n    return a + b\n" * 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory: a checkpoint of one step, and the tokenizer beside it."""
    root = tmp_path_factory.mktemp("run")
    (root / "data").mkdir()
    train_tokenizer([TEXT], 270).save(str(root / "data" / "tokenizer.json"))
    model = Decoder(ModelConfig(**SIZES))
    model.initialise(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters())
    state = TrainState(step=1, variant="ternary", model=ModelConfig(**SIZES).to_hf(dtype="float32"), run_key="x",
                       threads=1)
    save_checkpoint(root / "train-ternary" / "checkpoints", state, model, optimizer)
    return root, {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def test_a_checkpoint_becomes_a_gguf_file_with_its_codes(run, tmp_path, capsys):
    root, weights = run
    out = tmp_path / "model.gguf"
    assert main(["export", str(root / "train-ternary"), str(out), "--type", "tq1_0", "--ids-only"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "verified: 7 matrices with every code equal (scales: B is A in float16), 6 other tensors" in said.err
    found = open_model(out)
    for name, weight in weights.items():
        if name.startswith("model.layers.0") and "proj" in name:
            assert np.array_equal(found.read(name).codes(), absmean(weight)[0])
    with load(out) as model:
        assert model.codec.encode("add") == load_tokenizer(root / "data" / "tokenizer.json").encode("add").ids
        assert model.config.eos_token_id == 0


def test_directory_file_and_directory_hold_the_same_bytes(run, tmp_path, capsys):
    root, _ = run
    first, file, second = tmp_path / "a", tmp_path / "b.gguf", tmp_path / "c"
    assert main(["export", str(root / "train-ternary"), str(first)]) == 0
    assert main(["export", str(first), str(file), "--type", "i2_s", "--ids-only"]) == 0
    assert "(scales: equal), 6 other tensors (equal), top token the same for 100.00 %" in capsys.readouterr().err
    assert main(["export", str(file), str(second)]) == 0
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert (first / "tokenizer.json").read_text() == (second / "tokenizer.json").read_text()
    configs = [json.loads((path / "config.json").read_text()) for path in (first, second)]
    assert configs[1].pop("bos_token_id") == 0  # what a text begins with: without one, the end of the text before it
    assert configs[0].pop("bos_token_id", None) is None
    assert configs[0] == configs[1]


def test_a_directory_changes_its_linear_class(run, tmp_path):
    root, _ = run
    assert main(["export", str(root / "train-ternary"), str(tmp_path / "a")]) == 0
    assert main(["export", str(tmp_path / "a"), str(tmp_path / "b"), "--linear-class", "bitlinear"]) == 0
    a, b = (open_model(tmp_path / name) for name in "ab")
    assert b.config.quantization_config.linear_class == "bitlinear"
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.array_equal(a.read(name).packed, b.read(name).packed)


@pytest.mark.parametrize(("scale_dtype", "options"), [
    ("float16", ["m.gguf", "--type", "tq1_0", "--float-type", "f32", "--ids-only"]),
    ("bfloat16", ["m", "--dtype", "float32"])])
def test_scales_rounded_in_training_are_stored_as_they_were_trained(tmp_path, capsys, run, scale_dtype, options):
    root, _ = run
    config = ModelConfig(**SIZES, scale_dtype=scale_dtype)
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(3))
    state = TrainState(step=1, variant="ternary", model=config.to_hf(dtype="float32"), run_key="x", threads=1)
    save_checkpoint(tmp_path / "checkpoints", state, model, torch.optim.AdamW(model.parameters()))
    out = tmp_path / options[0]
    assert main(["export", str(tmp_path), str(out), "--tokenizer", str(root / "data" / "tokenizer.json"),
                 *options[1:]]) == 0
    assert "every code equal (scales: equal)" in capsys.readouterr().err
    found = open_model(out)
    for name, weight in model.named_parameters():
        if "_proj" in name:
            codes, scale = quantise_weight(weight.detach(), "ternary", getattr(torch, scale_dtype))
            assert np.array_equal(found.read(name).codes(), codes.numpy())
            assert found.read(name).scale[0] == scale.numpy()
            assert scale != absmean(weight.detach().numpy())[1]
    ids = [1, 40, 200, 7]
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].numpy()
    with load(out, head="stored", cache_type="f32") as engine:
        assert np.abs(engine.logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("layout", ["arm", "rows"])
def test_other_layouts_of_i2_s_are_converted_when_they_are_named(run, tmp_path, capsys, layout):
    root, _ = run
    paths = {name: tmp_path / f"{name}.gguf" for name in ("x86", "other", "back", "wrong")}
    assert main(["export", str(root / "train-ternary"), str(paths["x86"]), "--type", "i2_s", "--ids-only"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tritwise.formats.gguf_packing._TERNARY", {"I2_S": partial(i2_s_in_layout, layout)})
        assert main(["export", str(paths["x86"]), str(paths["other"]), "--type", "i2_s", "--ids-only",
                     "--no-verify"]) == 0
    assert main(["export", str(paths["other"]), str(paths["back"]), "--type", "i2_s", "--ids-only",
                 "--i2s-layout", layout]) == 0
    assert paths["back"].read_bytes() == paths["x86"].read_bytes() != paths["other"].read_bytes()
    assert main(["export", str(paths["other"]), str(paths["wrong"]), "--type", "i2_s", "--ids-only"]) == 0
    assert paths["wrong"].read_bytes() != paths["x86"].read_bytes()  # without the name nobody can know
    assert main(["export", str(root / "train-ternary"), str(tmp_path / "a")]) == 0
    assert main(["export", str(tmp_path / "a"), str(tmp_path / "b"), "--i2s-layout", layout]) == 1
    assert "has no layout of I2_S" in capsys.readouterr().err


def i2_s_in_layout(layout: str, fields: np.ndarray, scale: np.float32) -> np.ndarray:
    """The bytes of fields [out, in], weight by weight."""
    out, inner = fields.shape
    data = np.zeros(out * inner // 4 + 32, np.uint8)
    for row, column in np.ndindex(out, inner):
        if layout == "rows":
            at, place = row // 4 * inner + column, row % 4
        else:
            index = row * inner + column
            at, place = index // 64 * 16 + index % 16, index % 64 // 16
        data[at] |= fields[row, column] << 6 - 2 * place
    data[-32:-28] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
    return data


@pytest.mark.parametrize(("options", "match"), [
    (["m.gguf"], "programs that open GGUF files do not have this tokenizer"),
    (["m.gguf", "--form", "packed"], "--form does not go with --to gguf"),
    (["m", "--type", "i2_s"], "--type does not go with --to hf"),
    (["m", "--ids-only"], "--ids-only does not go with --to hf"),
    (["m.gguf", "--ids-only", "--tokenizer", "nowhere.json"], "nowhere.json does not exist"),
])
def test_what_cannot_be_done_is_said_in_a_few_lines_and_leaves_nothing(run, tmp_path, capsys, options, match):
    root, _ = run
    assert main(["export", str(root / "train-ternary"), str(tmp_path / options[0]), *options[1:]]) == 1
    message = capsys.readouterr().err
    assert match in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_the_model_is_an_error(run, tmp_path, capsys, monkeypatch):
    root, _ = run

    def wrong(source, out, **options):
        read = source.read
        export_gguf(replace(source, read=lambda name: flipped(read(name)) if "up_proj" in name else read(name)), out,
                    **options)

    monkeypatch.setattr("tritwise.cli.commands.export.export_gguf", wrong)
    arguments = ["export", str(root / "train-ternary"), str(tmp_path / "m.gguf"), "--ids-only"]
    assert main(arguments) == 1
    assert "up_proj.weight has" in capsys.readouterr().err
    assert main([*arguments, "--no-verify"]) == 0


def flipped(tensor: TernaryTensor) -> TernaryTensor:
    return TernaryTensor.from_codes(-tensor.codes(), tensor.scale[0])


def test_latent_weights_of_a_model_that_has_codes_are_refused(run, tmp_path, capsys):
    root, _ = run
    assert main(["export", str(root / "train-ternary"), str(tmp_path / "a")]) == 0
    assert main(["export", str(tmp_path / "a"), str(tmp_path / "b"), "--form", "online"]) == 1
    assert "only a checkpoint holds what training goes on with" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
