"""Packed LLaMA models as published (Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E), small, with all of their keys."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import SIZES
from safetensors.torch import load_file, save_file
from test_parity_directories import assert_same_model

import tritwise
from tritwise import TritwiseError
from tritwise.formats import open_model

LLAMA3 = {
    "_name_or_path": "model", "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "hidden_act": "silu", "initializer_range": 0.02, "is_bitnet_config": True, "mlp_bias": False, "model_type": "llama",
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 500000.0,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.44.0.dev0", "use_cache": True,
    "quantization_config": {"modules_to_not_convert": None, "quant_method": "bitnet"},
}
FALCON3 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 24,
    "hidden_act": "silu", "initializer_range": 0.02, "is_bitnet_config": True, "mlp_bias": False, "model_type": "llama",
    "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000042,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.3", "use_cache": True,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"},
}
FALCON_E = FALCON3 | {"tie_word_embeddings": True, "quantization_config": {
    "modules_to_not_convert": ["lm_head", "model.embed_tokens"], "quant_method": "bitnet"}}
PUBLISHED = {"Llama3-8B-1.58": LLAMA3, "Falcon3-1.58bit": FALCON3, "Falcon-E": FALCON_E}


@pytest.fixture
def published(saved):
    """`published(keys)`: tiny bfloat16 weights packed by transformers, with these keys in config.json."""
    def make(keys: dict) -> Path:
        changes = {key: keys[key] for key in ("head_dim", "rms_norm_eps", "rope_theta", "tie_word_embeddings")
                   if key in keys}
        path = saved("llama", "bitlinear", **changes)
        state = load_file(path / "model.safetensors")
        state = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(SIZES | {"rope_theta": 10000.0} | keys))
        return path
    return make


@pytest.mark.parametrize("keys", PUBLISHED.values(), ids=list(PUBLISHED))
def test_codes_scales_and_logits_are_those_of_transformers(published, opened, ids, keys):
    path = published(keys)
    directory, theirs = open_model(path), opened(path)
    config = directory.config
    assert (config.model_type, config.linear_type) == ("llama", "ternary")
    assert config.quantization_config.linear_class == "bitlinear"
    assert config.rope_theta == theirs.config.rope_parameters["rope_theta"]
    assert (config.rms_norm_eps, config.head_dim) == (theirs.config.rms_norm_eps, theirs.config.head_dim)
    assert_same_model(directory, theirs)
    logits = theirs(ids[None]).logits[0]
    with tritwise.load(path, threads=2, head="stored", cache_type="f32") as model:
        ours = torch.from_numpy(model.logits(ids.tolist()))
    differences = ((ours - logits).abs().amax(-1) / logits.abs().max()).numpy()
    # An activation within a rounding error of two int8 codes may take the other one, and what follows differs by more
    # than rounding (test_parity_logits.py measures it).
    assert differences.max() <= 0.05


def test_a_bfloat16_scale_is_inverted_in_float32(published):
    path = published(FALCON3)
    state, directory = load_file(path / "model.safetensors"), open_model(path)
    name = "model.layers.1.mlp.down_proj.weight"
    assert state[f"{name}_scale"].dtype == torch.bfloat16
    assert directory.read(name).scale[0] == np.float32(1) / np.float32(state[f"{name}_scale"].float().item())
    assert directory.source(name).scale == directory.read(name).scale[0]


def edited(path: Path, **changes) -> Path:
    values = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(values))
    return path


def bitnet(**changes) -> dict:
    return {"quantization_config": {"quant_method": "bitnet"} | changes}


@pytest.mark.parametrize("changes", [
    bitnet(linear_class="bitlinear", quantization_mode="offline"),
    {"quantization_config": LLAMA3["quantization_config"] | {"use_rms_norm": False, "rms_norm_eps": 1e-6}},
    bitnet(modules_to_not_convert=["lm_head", "model.norm", "embed_tokens", "layers"]),
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    {"pretraining_tp": 2, "max_length": 20, "temperature": 0.6, "top_p": 0.9, "do_sample": True, "_commit_hash": "0"},
    {"pad_token_id": None, "pruned_heads": {}, "partial_rotary_factor": 1, "rope_interleaved": None},
])
def test_keys_that_do_not_change_what_is_computed_are_accepted(published, changes):
    expected = {key: value for key, value in changes.get("quantization_config", {}).items() if "norm" not in key}
    assert open_model(edited(published(LLAMA3), **changes)).config == open_model(published(LLAMA3)).config.with_changes(
        **({"quantization_config": expected} if expected else {}))


@pytest.mark.parametrize(("changes", "reason"), [
    ({"rope_interleaved": True}, "rope_interleaved is True"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"mlp_bias": True}, "mlp_bias is True"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
    ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
    ({"embedding_multiplier": 12.0}, "embedding_multiplier: this key is unknown"),
    ({"quantization_config": None}, "is_bitnet_config is set, but quantization_config is missing"),
    (bitnet(bits=2), r"quantization_config\.bits: this key is unknown"),
    (bitnet(modules_to_not_convert=["lm_head", "model.layers.2"]), r"modules_to_not_convert names model\.layers\.2"),
    (bitnet(modules_to_not_convert=["model.layers"]), r"modules_to_not_convert names model\.layers"),
    (bitnet(modules_to_not_convert=["self_attn.o_proj"]), r"modules_to_not_convert names self_attn\.o_proj"),
    (bitnet(modules_to_not_convert=["model.layers.0.mlp"]), r"modules_to_not_convert names model\.layers\.0\.mlp"),
    (bitnet(modules_to_not_convert=[".*mlp"]), r"modules_to_not_convert names \.\*mlp"),
])
def test_keys_that_change_what_is_computed_are_refused_by_name(published, changes, reason):
    with pytest.raises(TritwiseError, match=reason):
        open_model(edited(published(LLAMA3), **changes))
