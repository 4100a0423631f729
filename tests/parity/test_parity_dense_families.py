"""Dense models of other families: Qwen3 (norms of heads), Qwen2 (biases, refused), LLaMA and SmolLM with tied heads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hf_models import MODES, SIZES, build
from safetensors.torch import load_file, save_file
from test_parity_directories import assert_same_model, latents

import tritwise
from tritwise import ModelConfig, TritwiseError
from tritwise.engine import kernels
from tritwise.formats import open_model, write_model
from tritwise.model import Decoder

QWEN3 = {"head_dim": 24, "rms_norm_eps": 1e-6, "hidden_act": "silu"}  # 4 heads of 24 beside a hidden size of 64
# config.json of Qwen/Qwen3-0.6B, without its sizes.
QWEN3_KEYS = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu",
    "initializer_range": 0.02, "max_window_layers": 28, "model_type": "qwen3", "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
}
# Keys of HuggingFaceTB/SmolLM2-135M that LLaMA's configuration does not have.
SMOLLM_KEYS = {"is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1,
               "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}}


def engine_logits(path: Path, ids: torch.Tensor, **settings) -> torch.Tensor:
    with tritwise.load(path, threads=2, head="stored", cache_type="f32", **settings) as model:
        return torch.from_numpy(model.logits(ids.tolist()))


def decoder_logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    model = Decoder(open_model(path).config)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in latents(path).items()})
    return model(ids[None])[0]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    return ((ours - theirs).abs().amax(-1) / theirs.abs().max()).double().numpy()


def edit_config(path: Path, **changes) -> None:
    values = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_dense_qwen3_logits_are_those_of_transformers(saved, opened, ids, tied, kv_heads):
    path = saved("qwen3", "dense", **QWEN3, tie_word_embeddings=tied, num_key_value_heads=kv_heads)
    directory, model = open_model(path), opened(path)
    assert directory.config.model_type == "qwen3"
    assert_same_model(directory, model)
    theirs = model(ids[None]).logits[0]
    assert relative(decoder_logits(path, ids), theirs).max() <= 1e-5
    for kernel in kernels():
        assert relative(engine_logits(path, ids, kernel=kernel), theirs).max() <= 1e-4


def test_the_norms_of_heads_are_seen(saved, ids):
    path = saved("qwen3", "dense", **QWEN3)
    before = engine_logits(path, ids)
    for name in ("q_norm", "k_norm"):
        state = load_file(path / "model.safetensors")
        state[f"model.layers.1.self_attn.{name}.weight"] *= 1.5
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        after = engine_logits(path, ids)
        assert relative(after, before).max() > 1e-3
        before = after


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_qwen3_logits_are_those_of_transformers(tmp_path, saved, opened, ids, dtype):
    opened(saved("qwen3", "dense", **QWEN3), dtype).save_pretrained(tmp_path / "half")
    theirs = opened(tmp_path / "half")(ids[None]).logits[0]
    assert relative(engine_logits(tmp_path / "half", ids), theirs).max() <= 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_ternary_qwen3_has_the_codes_and_scales_of_transformers(saved, opened, mode):
    path = saved("qwen3", mode, **QWEN3)
    assert_same_model(open_model(path), opened(path))


@pytest.mark.parametrize(("form", "linear_type"), [("float", "dense"), ("packed", "ternary"), ("online", "ternary")])
def test_a_written_qwen3_opens_in_transformers(tmp_path, saved, opened, form, linear_type):
    path = saved("qwen3", "dense", **QWEN3)
    config = open_model(path).config.with_changes(linear_type=linear_type)
    write_model(tmp_path / "export", config, latents(path), form=form, dtype="float32")
    model = opened(tmp_path / "export")
    assert isinstance(model, transformers.Qwen3ForCausalLM)
    assert (model.config.head_dim, model.config.rope_parameters["rope_theta"]) == (24, 2500.0)
    assert_same_model(open_model(tmp_path / "export"), model)


def test_the_published_keys_of_qwen3_are_read(saved, opened, ids):
    path = saved("qwen3", "dense", **QWEN3, tie_word_embeddings=True)
    sizes = {key: SIZES[key] for key in SIZES if key != "rope_theta"}
    (path / "config.json").write_text(json.dumps(QWEN3_KEYS | sizes | {"head_dim": 24}))
    config = open_model(path).config
    assert (config.head_dim, config.rope_theta, config.tie_word_embeddings) == (24, 1e6, True)
    assert relative(engine_logits(path, ids), opened(path)(ids[None]).logits[0]).max() <= 1e-4


def test_keys_left_out_of_a_qwen3_configuration_mean_what_transformers_takes_for_them():
    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                         "num_attention_heads", "num_key_value_heads")}
    theirs, ours = transformers.Qwen3Config(**sizes), ModelConfig.from_hf({"model_type": "qwen3"} | sizes)
    for key in ("head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"):
        assert getattr(ours, key) == getattr(theirs, key), key
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(theirs)
    assert ours.tensor_shapes() == {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert ours.parameter_count().total == model.num_parameters()


@pytest.mark.parametrize(("changes", "reason"), [
    ({"use_sliding_window": True, "sliding_window": 16}, "use_sliding_window is True"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types are not all full_attention"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}, "qwen3 blocks with experts"),
    ({"model_type": "qwen3_moe"}, "'qwen3_moe' is not supported"),
])
def test_what_qwen3_could_have_and_is_not_computed_is_refused_by_name(changes, reason):
    with pytest.raises(TritwiseError, match=reason):
        ModelConfig.from_hf(QWEN3_KEYS | SIZES | changes)


def test_qwen2_is_refused_because_of_its_biases(tmp_path):
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(TritwiseError, match=r"(?s)'qwen2' is not supported.*q_proj, k_proj and v_proj have biases"):
        open_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_smollm_has_the_logits_of_transformers(tmp_path, opened, ids, dtype):
    build("llama", tie_word_embeddings=True, num_attention_heads=4, num_key_value_heads=1).to(dtype).save_pretrained(
        tmp_path)
    edit_config(tmp_path, **SMOLLM_KEYS)
    assert relative(engine_logits(tmp_path, ids), opened(tmp_path)(ids[None]).logits[0]).max() <= 1e-4
