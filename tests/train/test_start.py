"""Fine-tuning: a training begins with the weights of a model in any format, to the code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tritwise import TritwiseError
from tritwise.config import Recipe
from tritwise.data import build, train_tokenizer
from tritwise.engine import load
from tritwise.formats import TernaryTensor, latent, open_model, write_gguf, write_model
from tritwise.model import Decoder
from tritwise.train import load_checkpoint_model, train
from tritwise.train.start import load_weights

MODEL = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "tie_word_embeddings": True}
CODE = "\n".join(f"def part_{i}(x):\n    return x + {i}\n" for i in range(60))


def recipe_of(root: Path, start: Path | None, linear_type: str = "ternary", **model) -> Recipe:
    schedule = {"shape": "two_stage", "peak": 1e-3, "second_peak": 6e-4, "floor": 2e-5, "warmup_steps": 1}
    model_type = "llama" if linear_type == "dense" else "bitnet"
    return Recipe.model_validate({
        "name": "tiny", "data": {"sources": {"paths": [str(root / "repositories")]},
                                 "held_out_fraction": 0.3, "fim": {"rate": 0}},
        "tokenizer": {"file": str(root / "tokenizer.json"), "vocab_size": 320, "end_of_text": "<|stop|>"},
        "model": MODEL | model, "train": {"steps": 2, "batch_size": 2, "sequence_length": 32, "dtype": "float32"},
        "variants": {"v": {"model_type": model_type, "linear_type": linear_type, "schedule": schedule,
                           "start": None if start is None else str(start)}}})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Repositories, a foreign tokenizer, and one ternary model in four formats with its dense sister."""
    root = tmp_path_factory.mktemp("start")
    for name in "abc":
        (root / "repositories" / name).mkdir(parents=True)
        (root / "repositories" / name / "code.py").write_text(CODE.replace("part", name))
    tokenizer = train_tokenizer([CODE], 300, pattern="gpt-2")
    parsed = json.loads(tokenizer.to_str().replace("<|end_of_text|>", "<|stop|>"))
    (root / "tokenizer.json").write_text(json.dumps(parsed))
    build(recipe_of(root, None), root / "data")
    for linear_type in ("ternary", "dense"):
        config = recipe_of(root, None, linear_type).model_config_of("v").with_changes(eos_token_id=0, bos_token_id=3)
        model = Decoder(config)
        model.initialise(torch.Generator().manual_seed(1))
        weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
        if linear_type == "dense":
            write_model(root / "dense", config, weights, form="float", dtype="float32")
            continue
        write_model(root / "packed", config, weights, form="packed", dtype="float32")
        write_model(root / "online", config, weights, form="online", dtype="float32")
        packed = open_model(root / "packed")
        write_gguf(root / "m.gguf", packed.config, packed.read, ternary_type="I2_S")
    return root


@pytest.mark.parametrize("name", ["packed", "online", "m.gguf"])
def test_the_first_forward_pass_is_that_of_the_model(root, name):
    opened = open_model(root / name)
    model = Decoder(opened.config)
    load_weights(model, root / name)
    for weight, parameter in model.named_parameters():
        stored = opened.read(weight)
        if isinstance(stored, TernaryTensor):
            codes, scale = np.unique(stored.codes()), stored.scale[0]
            assert list(codes) == [-1, 0, 1]
            quantised = model.get_submodule(weight.removesuffix(".weight"))
            found, found_scale = _quantised(quantised)
            assert np.array_equal(found, stored.codes())
            assert found_scale == pytest.approx(scale, rel=1e-6)
        else:
            assert np.array_equal(parameter.detach().numpy(), stored)


def _quantised(linear) -> tuple[np.ndarray, float]:
    from tritwise.model.bitlinear import quantise_weight

    codes, scale = quantise_weight(linear.weight.detach(), "ternary")
    return codes.numpy(), float(scale)


def test_stored_latent_weights_are_taken_as_they_are(root):
    name = "model.layers.0.mlp.up_proj.weight"
    weights = latent(open_model(root / "online"), name)
    assert len(np.unique(weights)) > 1000
    assert len(np.unique(latent(open_model(root / "packed"), name))) == 3


@pytest.mark.parametrize(("name", "linear_type"), [("online", "ternary"), ("dense", "dense"), ("m.gguf", "ternary")])
def test_training_goes_on_from_the_model_with_its_tokenizer_and_ids(root, tmp_path, name, linear_type):
    train(recipe_of(root, root / name, linear_type), "v", root / "data", tmp_path / "out", threads=1)
    config, tensors = load_checkpoint_model(tmp_path / "out")
    assert (config.bos_token_id, config.eos_token_id) == (3, 0)
    opened = open_model(root / name)
    for weight, value in tensors.items():
        before = latent(opened, weight)
        assert not np.array_equal(value, before) or "norm" in weight
        assert np.abs(value - before).max() < 0.01  # two small steps
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["held_out"]["tokens"] > 0


def test_norms_inside_of_linears_are_trained_on_exported_and_run(root, tmp_path):
    """A model with them from scratch, a second training from its export, and the engine on that one's."""
    norms = {"use_rms_norm": True, "linear_rms_norm_eps": 1e-4}
    name = "model.layers.0.mlp.down_proj.rms_norm.weight"
    train(recipe_of(root, None, **norms), "v", root / "data", tmp_path / "first", threads=1)
    config, tensors = load_checkpoint_model(tmp_path / "first")
    assert (config.use_rms_norm, config.linear_rms_norm_eps) == (True, 1e-4)
    assert len(np.unique(tensors[name])) > 100  # they began as ones
    write_model(tmp_path / "online", config, tensors, form="online", dtype="float32")

    train(recipe_of(root, tmp_path / "online", **norms), "v", root / "data", tmp_path / "second", threads=1)
    config, more = load_checkpoint_model(tmp_path / "second")
    assert 0 < np.abs(more[name] - tensors[name]).max() < 0.01  # two small steps
    write_model(tmp_path / "packed", config, more, form="packed", dtype="float32")
    decoder = Decoder(config)
    decoder.load_state_dict({key: torch.from_numpy(value) for key, value in more.items()})
    ids = [5, 17, 300, 8]
    with load(tmp_path / "packed", head="stored", cache_type="f32") as model, torch.no_grad():
        ours, theirs = model.logits(ids), decoder(torch.tensor([ids]))[0].numpy()
    assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()  # codes at a tie may flip (test_parity_logits.py)


def test_a_recipe_without_the_norms_of_its_start_is_refused(root, tmp_path):
    config = recipe_of(root, None, use_rms_norm=True).model_config_of("v").with_changes(eos_token_id=0)
    weights = {name: np.ones(shape, np.float32) for name, shape in config.tensor_shapes().items()}
    write_model(tmp_path / "packed", config, weights, form="packed")
    with pytest.raises(TritwiseError, match=r"use_rms_norm is False in the recipe and True in the model"):
        train(recipe_of(root, tmp_path / "packed"), "v", root / "data", tmp_path / "out")


def test_another_model_to_start_from_is_another_run(root, tmp_path):
    train(recipe_of(root, root / "online"), "v", root / "data", tmp_path / "out", threads=1, stop_after=1)
    with pytest.raises(TritwiseError, match="holds a run of other settings"):
        train(recipe_of(root, root / "packed"), "v", root / "data", tmp_path / "out", threads=1)


def test_settings_that_are_not_the_models_are_named(root, tmp_path):
    recipe = recipe_of(root, root / "packed", rms_norm_eps=1e-6, num_key_value_heads=2)
    with pytest.raises(TritwiseError, match=r"num_key_value_heads is 2 in the recipe and 1 in the model; rms_norm_eps"):
        train(recipe, "v", root / "data", tmp_path / "out")


def test_a_start_without_its_tokenizer_is_refused(root):
    values = recipe_of(root, root / "packed").model_dump(mode="json")
    values["tokenizer"]["file"] = None
    with pytest.raises(ValueError, match="with its own tokenizer only"):
        Recipe.model_validate(values)


@pytest.mark.parametrize(("changes", "match"), [
    ({"vocab_size": 301}, None), ({"vocab_size": 300, "end_of_text": "<|nothing|>"}, "has no token '<|nothing|>'"),
    ({"file": "nowhere.json"}, "nowhere.json does not exist"),
])
def test_a_tokenizer_that_does_not_fit_is_refused(root, tmp_path, changes, match):
    values = recipe_of(root, None).model_dump(mode="json")
    values["tokenizer"] |= changes
    recipe = Recipe.model_validate(values)
    if match is None:
        build(recipe, tmp_path / "data")
        assert (tmp_path / "data" / "tokenizer.json").is_file()
        return
    with pytest.raises(TritwiseError, match=match.replace("|", r"\|")):
        build(recipe, tmp_path / "data")
