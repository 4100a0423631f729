"""Directories that transformers saved open here, and those written here open in transformers, tensor by tensor."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest
import torch
from hf_models import MODES
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig
from transformers.integrations.bitnet import unpack_weights

from tritwise.config.tokens import END_OF_TEXT, FIM_BEGIN, FIM_END, FIM_HOLE, PAD, SPECIAL_TOKENS
from tritwise.formats import TernaryTensor, open_model, write_model, write_quantised

LAYOUTS = [("bitnet", "silu"), ("bitnet", "relu2"), ("llama", "silu")]
CASES = [(model_type, mode, act, tied) for mode, (model_type, act), tied in product(MODES, LAYOUTS, [True, False])]


def latents(path) -> dict[str, np.ndarray]:
    directory = open_model(path)
    return {name: np.array(directory.read(name)) for name in directory.names()}


def codes_and_scale(module: torch.nn.Module) -> tuple[np.ndarray, float]:
    """What transformers' own layer multiplies with: integer codes and the multiplying scale."""
    if not hasattr(module, "weight_scale"):  # online
        weight = module.weight.float()
        scale = 1.0 / weight.abs().mean().clamp(min=1e-5)
        return (weight * scale).round().clamp(-1, 1).numpy(), float(1 / scale)
    if module.weight.dtype == torch.uint8:
        return unpack_weights(module.weight, torch.float32).numpy(), float(1 / module.weight_scale[0])
    return module.weight.float().numpy(), float(module.weight_scale[0])


def assert_same_model(directory, model) -> None:
    """Every tensor of our directory is what transformers' model computes with."""
    modules, state = dict(model.named_modules()), model.state_dict()
    for name in directory.names():
        ours = directory.read(name)
        if isinstance(ours, TernaryTensor):
            codes, scale = codes_and_scale(modules[name.removesuffix(".weight")])
            assert np.array_equal(ours.codes(), codes), name
            # float32: a mean of n terms summed one by one errs by at most n halves of 2^-23, an inverse by one more.
            assert abs(float(ours.scale[0]) / scale - 1) <= (codes.size + 2) * 2.0**-24, name
        else:
            assert np.array_equal(ours.astype(np.float32), state[name].float().numpy()), name


@pytest.mark.parametrize(("model_type", "mode", "act", "tied"), CASES)
def test_a_quantised_directory_of_transformers_opens_here(saved, opened, model_type, mode, act, tied):
    path = saved(model_type, mode, hidden_act=act, tie_word_embeddings=tied)
    directory = open_model(path)
    assert directory.config.linear_type == "ternary"
    assert directory.config.hidden_act == act
    assert directory.config.tie_word_embeddings == tied
    assert directory.config.rope_theta == 2500.0
    assert_same_model(directory, opened(path))


def test_a_directory_of_float_codes_opens_here(saved, opened):
    path = saved("bitnet", "autobitlinear offline", packed=False)
    assert open_model(path).stored("model.layers.0.mlp.up_proj.weight").dtype == "F32"
    assert_same_model(open_model(path), opened(path))


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_dense_directory_of_transformers_opens_here(tmp_path, saved, opened, model_type, tied, dtype):
    path = saved(model_type, "dense", tie_word_embeddings=tied)
    model = opened(path, dtype)
    model.save_pretrained(tmp_path / "again")
    directory = open_model(tmp_path / "again")
    assert directory.config.linear_type == "dense"
    assert {str(directory.read(name).dtype) for name in directory.names()} == {str(dtype).removeprefix("torch.")}
    assert_same_model(directory, model)


def test_shards_of_transformers_open_here(tmp_path, saved, opened):
    model = opened(saved("bitnet", "dense"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    directory = open_model(tmp_path / "shards")
    assert len(directory.files) > 2
    assert_same_model(directory, model)


@pytest.mark.parametrize(("model_type", "mode", "act", "tied"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_export_opens_in_transformers(tmp_path, saved, opened, model_type, mode, act, tied, dtype):
    path = saved(model_type, "dense", hidden_act=act, tie_word_embeddings=tied)
    config = open_model(path).config.with_changes(linear_type="ternary")
    linear_class, *rest = mode.split()
    form = "online" if rest == ["online"] else "packed"
    write_model(tmp_path / "export", config, latents(path), form=form, linear_class=linear_class, dtype=dtype)
    model = opened(tmp_path / "export")
    assert model.config.rope_parameters["rope_theta"] == 2500.0
    assert_same_model(open_model(tmp_path / "export"), model)
    assert opened(tmp_path / "export", "auto").dtype == getattr(torch, dtype)


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dense_export_opens_in_transformers(tmp_path, saved, opened, model_type, tied, dtype):
    path = saved(model_type, "dense", tie_word_embeddings=tied, hidden_act="silu")
    directory = open_model(path)
    write_model(tmp_path / "export", directory.config, latents(path), form="float", dtype=dtype)
    assert_same_model(open_model(tmp_path / "export"), opened(tmp_path / "export", getattr(torch, dtype)))


def test_a_binary_export_opens_in_transformers_with_its_codes(tmp_path, saved, opened):
    path = saved("bitnet", "dense")
    config = open_model(path).config.with_changes(linear_type="binary")
    write_model(tmp_path / "export", config, latents(path), form="packed", dtype="float32")
    assert_same_model(open_model(tmp_path / "export"), opened(tmp_path / "export"))


def test_a_float32_scale_loses_in_transformers_only_what_bfloat16_would_have_lost(tmp_path, saved, opened):
    path = saved("bitnet", "autobitlinear offline")
    directory = open_model(path)
    write_quantised(tmp_path / "export", directory.config,
                    {name: directory.read(name) for name in directory.names()}, dtype="bfloat16")
    name = "model.layers.0.mlp.up_proj"
    scale = directory.read(f"{name}.weight").scale[0]
    assert opened(tmp_path / "export", torch.float32).get_submodule(name).weight_scale.item() == scale
    in_bfloat16 = opened(tmp_path / "export", torch.bfloat16).get_submodule(name).weight_scale
    assert in_bfloat16.dtype == torch.bfloat16
    assert in_bfloat16.item() == float(scale.astype(ml_dtypes.bfloat16))


def test_the_special_ids_of_an_export_are_those_of_the_configuration(tmp_path, saved, opened):
    path = saved("bitnet", "dense")
    write_model(tmp_path / "export", open_model(path).config, latents(path), form="float")
    model = opened(tmp_path / "export")
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (None, 3, None)
    assert GenerationConfig.from_pretrained(tmp_path / "export").eos_token_id == 3


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_the_tokenizer_of_an_export_opens_in_transformers(tmp_path, saved, model_type):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(tmp_path / "trained.json"))

    path = saved(model_type, "dense", vocab_size=320, pad_token_id=4, eos_token_id=0)
    write_model(tmp_path / "export", open_model(path).config, latents(path), form="float",
                tokenizer_file=tmp_path / "trained.json")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "export")
    text = f"  def f(x):\n\treturn 'é'{FIM_BEGIN}a{FIM_HOLE}b{FIM_END}{END_OF_TEXT}"
    assert theirs(text).input_ids == tokenizer.encode(text).ids
    assert theirs.decode(theirs(text).input_ids) == text
    assert (theirs.eos_token, theirs.pad_token) == (END_OF_TEXT, PAD)
    assert set(theirs.all_special_tokens) == set(SPECIAL_TOKENS)
