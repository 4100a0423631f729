"""`ModelConfig` against transformers' own configuration files and parameter counts."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from tritwise import ModelConfig, TritwiseError

TINY = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
# config.json of microsoft/bitnet-b1.58-2B-4T: the same model in the keys that transformers wrote before version 5.
BITNET_2B4T = {
    "architectures": ["BitNetForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": 128001, "hidden_act": "relu2", "hidden_size": 2560, "initializer_range": 0.02,
    "intermediate_size": 6912, "max_position_embeddings": 4096, "model_type": "bitnet", "num_attention_heads": 20,
    "num_hidden_layers": 30, "num_key_value_heads": 5, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 128256,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
}


def transformers_config(model_type, **changes):
    return {"bitnet": BitNetConfig, "llama": LlamaConfig}[model_type](**(TINY | changes))


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_a_config_json_of_transformers_is_read_without_renaming(model_type, tmp_path):
    theirs = transformers_config(model_type, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
                                 tie_word_embeddings=True, rms_norm_eps=3e-6)
    theirs.save_pretrained(tmp_path)
    for values in (json.loads((tmp_path / "config.json").read_text()), theirs.to_dict()):
        config = ModelConfig.from_hf(values)
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps",
                    "tie_word_embeddings", "bos_token_id", "eos_token_id"):
            assert getattr(config, key) == getattr(theirs, key), key
        assert config.rope_theta == theirs.rope_parameters["rope_theta"]
        assert config.model_type == model_type
        assert config.linear_type == "dense"


def test_the_published_2b4t_configuration_is_read_in_its_old_keys():
    config = ModelConfig.from_hf(BITNET_2B4T)
    assert (config.linear_type, config.head_dim, config.rope_theta) == ("ternary", 128, 500000.0)
    assert config.quantization_config.linear_class == "autobitlinear"
    # The model card: 2 412 820 480 parameters, 2 084 044 800 of them ternary.
    assert config.parameter_count().block == 2_084_044_800
    assert config.parameter_count().total == 2_412_820_480


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
@pytest.mark.parametrize("changes", [
    {"num_key_value_heads": 4}, {"num_key_value_heads": 2}, {"num_key_value_heads": 1, "tie_word_embeddings": True},
    {"intermediate_size": 50, "hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5}])
def test_names_shapes_and_counts_of_the_weights_equal_transformers(model_type, changes):
    theirs = transformers_config(model_type, **changes)
    with torch.device("meta"):
        model = {"bitnet": BitNetForCausalLM, "llama": LlamaForCausalLM}[model_type](theirs)
    config = ModelConfig.from_hf(theirs.to_dict())
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}  # a tied head is listed once
    assert config.tensor_shapes() == expected
    assert config.parameter_count().total == model.num_parameters()


@pytest.mark.parametrize(("model_type", "linear_type"), [("bitnet", "ternary"), ("bitnet", "dense"),
                                                         ("bitnet", "binary"), ("llama", "dense")])
def test_what_is_written_is_read_back_and_opens_in_transformers(model_type, linear_type, tmp_path):
    config = ModelConfig(**TINY, model_type=model_type, linear_type=linear_type, num_key_value_heads=2,
                         rope_theta=12345.0, eos_token_id=(2, 3), hidden_act="relu2")
    written = config.to_hf(dtype="bfloat16")
    assert ModelConfig.from_hf(json.loads(json.dumps(written))) == config
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = {"bitnet": BitNetConfig, "llama": LlamaConfig}[model_type].from_pretrained(tmp_path)
    assert theirs.rope_parameters["rope_theta"] == 12345.0
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.hidden_act) == (None, [2, 3], "relu2")
    assert theirs.head_dim == 8 if model_type == "llama" else theirs.hidden_size // theirs.num_attention_heads == 8


def test_the_order_of_gaps_is_written_where_it_is_not_the_usual_one(tmp_path):
    config = ModelConfig(**TINY, model_type="llama", linear_type="dense")
    assert config.fim_order == "psm"
    assert "fim_order" not in config.to_hf(dtype="float32")
    written = config.with_changes(fim_order="spm").to_hf(dtype="float32")
    assert ModelConfig.from_hf(json.loads(json.dumps(written))).fim_order == "spm"
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert LlamaConfig.from_pretrained(tmp_path).fim_order == "spm"
    with pytest.raises(TritwiseError, match="fim_order"):
        ModelConfig.from_hf(written | {"fim_order": "mps"})


@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_keys_left_out_of_a_config_json_mean_what_transformers_takes_for_them(model_type):
    theirs = transformers_config(model_type)
    config = ModelConfig.from_hf({"model_type": model_type, **TINY})
    assert config.hidden_act == theirs.hidden_act
    assert config.rms_norm_eps == theirs.rms_norm_eps
    assert config.rope_theta == theirs.rope_parameters["rope_theta"]
    assert config.tie_word_embeddings == theirs.tie_word_embeddings


@pytest.mark.parametrize(("changes", "reason"), [
    ({"sliding_window": 4096}, "sliding_window: this key is unknown"),
    ({"hidden_sise": 3}, "hidden_sise: this key is unknown"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"mlp_bias": True}, "mlp_bias is True"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic' is not supported"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
     "partial_rotary_factor is set"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"model_type": "mamba"}, "'mamba' is not supported"),
    ({"num_attention_heads": 5}, "not a multiple of num_attention_heads 5"),
    ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
    ({"hidden_size": 0}, "hidden_size"),
    ({"hidden_size": 32.5}, "hidden_size"),
    ({"num_hidden_layers": True}, "num_hidden_layers"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ({"rope_theta": 0}, "rope_theta"),
    ({"head_dim": 7, "model_type": "llama"}, "head_dim 7 is odd"),
    ({"head_dim": 16}, "must equal hidden_size 32"),
    ({"quantization_config": {"quant_method": "gptq"}}, r"quantization_config\.quant_method"),
    ({"quantization_config": {"use_rms_norm": "yes"}}, "use_rms_norm is 'yes'"),
    ({"quantization_config": {"use_rms_norm": True, "rms_norm_eps": None}}, "rms_norm_eps is null"),
    ({"quantization_config": {"use_rms_norm": True, "rms_norm_eps": 0}}, "linear_rms_norm_eps"),
    ({"quantization_config": {"use_rms_norm": False}, "use_rms_norm": True}, "and in quantization_config false"),
    ({"use_rms_norm": True}, "use_rms_norm is set, but linear_type is dense"),
    ({"linear_type": "ternary", "linear_rms_norm_eps": 1e-6}, "linear_rms_norm_eps is set, but use_rms_norm is not"),
])
def test_what_this_forward_pass_does_not_compute_is_refused_by_name(changes, reason):
    with pytest.raises(TritwiseError, match=reason):
        ModelConfig.from_hf({"model_type": "bitnet", **TINY, **changes}, source="their/config.json")


def test_norms_inside_of_linears_stand_in_quantization_config_where_there_is_one():
    config = ModelConfig(**TINY, use_rms_norm=True)
    assert config.linear_rms_norm_eps == 1e-6
    assert ModelConfig.from_hf(config.to_hf(dtype="float32")) == config  # latent weights in training have none
    stored = config.with_changes(linear_rms_norm_eps=3e-4,
                                 quantization_config={"linear_class": "autobitlinear", "quantization_mode": "online"})
    written = stored.to_hf(dtype="float32")
    assert written["quantization_config"]["use_rms_norm"] is True
    assert written["quantization_config"]["rms_norm_eps"] == 3e-4
    assert not {"use_rms_norm", "linear_rms_norm_eps"} & set(written)
    assert ModelConfig.from_hf(json.loads(json.dumps(written))) == stored


def test_the_eps_of_norms_that_are_not_there_is_dropped():
    quantisation = {"linear_class": "bitlinear", "use_rms_norm": False, "rms_norm_eps": 0.5}
    config = ModelConfig.from_hf({"model_type": "bitnet", **TINY, "quantization_config": quantisation})
    assert (config.use_rms_norm, config.linear_rms_norm_eps) == (False, None)
    assert config.to_hf(dtype="float32")["quantization_config"]["rms_norm_eps"] == 1e-6


MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@pytest.mark.parametrize("shared", [None, 40])
@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_a_model_with_experts_is_written_under_a_type_of_its_own_and_read_back(model_type, shared):
    config = ModelConfig(**TINY, **MOE, model_type=model_type, shared_expert_intermediate_size=shared)
    written = config.to_hf(dtype="bfloat16")
    assert written["model_type"] == {"bitnet": "bitnet_moe", "llama": "qwen2_moe"}[model_type]
    assert ModelConfig.from_hf(json.loads(json.dumps(written))) == config.with_changes(linear_type="ternary")
    assert "num_experts" not in ModelConfig(**TINY).to_hf(dtype="bfloat16")


def test_names_shapes_and_counts_of_experts_equal_the_files_of_transformers(tmp_path):
    theirs = Qwen2MoeConfig(**TINY, **MOE, num_key_value_heads=2, shared_expert_intermediate_size=40, qkv_bias=False)
    model = Qwen2MoeForCausalLM(theirs)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        expected = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    config = ModelConfig.from_hf(theirs.to_dict())
    assert config.tensor_shapes() == expected
    assert config.parameter_count().total == model.num_parameters()


@pytest.mark.parametrize(("changes", "reason"), [
    ({"num_experts_per_tok": 7}, "num_experts_per_tok 7 is above num_experts 6"),
    ({"num_experts_per_tok": None}, "num_experts is set, but num_experts_per_tok is not"),
    ({"moe_intermediate_size": None}, "num_experts is set, but moe_intermediate_size is not"),
    ({"num_experts": None}, "num_experts_per_tok is set, but num_experts is not"),
    ({"moe_intermediate_size": 0}, "moe_intermediate_size"),
    ({"quantization_config": {"use_rms_norm": True}}, "experts with a norm inside of each linear"),
    ({"model_type": "llama"}, "model_type llama does not fit num_experts 6"),
])
def test_experts_that_do_not_fit_are_refused_by_name(changes, reason):
    with pytest.raises(TritwiseError, match=reason):
        ModelConfig.from_hf({"model_type": "bitnet_moe", **TINY, **MOE, **changes})


def test_a_missing_key_is_named_with_the_file():
    with pytest.raises(TritwiseError, match=r"(?s)their/config\.json.*hidden_size"):
        ModelConfig.from_hf({"model_type": "llama", "vocab_size": 8}, source="their/config.json")


def test_a_changed_copy_is_checked_like_the_original():
    config = ModelConfig(**TINY)
    assert config.with_changes(num_hidden_layers=3).num_hidden_layers == 3
    with pytest.raises(TritwiseError, match="not a multiple"):
        config.with_changes(num_key_value_heads=3)
    with pytest.raises(TritwiseError, match="this key is unknown"):
        config.with_changes(layers=3)
