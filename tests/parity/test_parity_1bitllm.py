"""The models of 1bitLLM (bitnet_b1_58-large, -xl, -3B): LLaMA by their model_type, with sub-norms and latent weights.

transformers has no class for them: their code lies in their repositories. Its BitNet model is the same block (a norm
before `o_proj` and one before `down_proj`), so it is the referee here, with BitLinear as their utils_quant.py has it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import SIZES, build
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import tritwise
from tritwise import ModelConfig, TritwiseError
from tritwise.formats import TernaryTensor, open_model, write_model
from tritwise.model import Decoder

# config.json of 1bitLLM/bitnet_b1_58-large.
LARGE = {
    "architectures": ["BitnetForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02, "input_bits": 8,
    "intermediate_size": 4096, "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 16,
    "num_hidden_layers": 24, "num_key_value_heads": 16, "pad_token_id": 32000, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "torch_dtype": "float32", "use_cache": True, "vocab_size": 32002, "weight_bits": 1,
}
TINY = LARGE | {key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                            "num_attention_heads")} | {
    "num_key_value_heads": 4, "pad_token_id": None, "rope_theta": 10000.0, "max_position_embeddings": 128}
THEIR_NAMES = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}


def weight_quant(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and the inverse scale of their `weight_quant`, which gives codes / inverse in the type of the weight."""
    weight = weight.float()
    inverse = 1 / weight.abs().mean().clamp(min=1e-5)
    return (weight * inverse).round().clamp(-1, 1), inverse


def activation_quant(x: torch.Tensor) -> torch.Tensor:
    x = x.float()
    inverse = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    return (x * inverse).round().clamp(-128, 127) / inverse


class TheirBitLinear(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, inverse = weight_quant(self.weight)
        return F.linear(activation_quant(x), codes / inverse)


@pytest.fixture
def published(tmp_path) -> tuple[Path, torch.nn.Module]:
    """A directory as they publish it, and the model that it is."""
    sizes = {key: TINY[key] for key in SIZES if key in TINY} | {"num_key_value_heads": 4}
    model = build("bitnet", **sizes, hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=True)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name.endswith("_proj"):
                ours = TheirBitLinear(child.in_features, child.out_features, bias=False)
                ours.weight = child.weight
                setattr(parent, name, ours)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    for ours, theirs in THEIR_NAMES.items():
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    for layer in range(TINY["num_hidden_layers"]):  # a buffer that their rotary embedding saves
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    return tmp_path, model


def edit_config(path: Path, **changes) -> None:
    values = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(values))


def test_the_published_configuration_is_a_ternary_model_with_sub_norms():
    config = ModelConfig.from_hf(LARGE)
    assert (config.model_type, config.linear_type, config.hidden_act) == ("bitnet", "ternary", "silu")
    assert config.quantization_config.quantization_mode == "online"
    assert (config.head_dim, config.rms_norm_eps, config.rope_theta) == (96, 1e-5, 10000.0)
    assert config.parameter_count().block == 679_477_248  # 24 * (4 * 1536^2 + 3 * 1536 * 4096)


@pytest.mark.parametrize("changes", [{"model_type": "bitnet"}, {"architectures": None}, {"weight_bits": None}])
def test_the_same_model_is_known_by_each_of_its_marks(changes):
    assert ModelConfig.from_hf(LARGE | changes) == ModelConfig.from_hf(LARGE)


@pytest.mark.parametrize("sizes", [
    {"hidden_size": 2048, "intermediate_size": 5460, "num_attention_heads": 32, "num_key_value_heads": 32},
    {"hidden_size": 3200, "intermediate_size": 8640, "num_attention_heads": 32, "num_key_value_heads": 32,
     "num_hidden_layers": 26, "vocab_size": 32001}])
def test_the_larger_published_sizes_are_read(sizes):
    config = ModelConfig.from_hf(LARGE | sizes)
    assert config.head_dim == sizes["hidden_size"] // 32
    assert config.tensor_shapes()["model.layers.0.mlp.ffn_sub_norm.weight"] == (sizes["intermediate_size"],)


def test_keys_left_out_mean_what_their_configuration_class_takes_for_them():
    left_out = ("hidden_act", "rms_norm_eps", "rope_theta", "weight_bits", "input_bits")
    config = ModelConfig.from_hf({key: value for key, value in LARGE.items() if key not in left_out})
    assert (config.model_type, config.linear_type) == ("bitnet", "ternary")
    assert (config.hidden_act, config.rms_norm_eps, config.rope_theta) == ("silu", 1e-6, 10000.0)


def test_codes_and_scales_are_those_of_the_published_formula(published):
    path, model = published
    directory, state = open_model(path), model.state_dict()
    for name in directory.names():
        tensor = directory.read(name)
        if isinstance(tensor, TernaryTensor):
            codes, inverse = weight_quant(state[name])
            assert np.array_equal(tensor.codes(), codes.numpy()), name
            # The mean in float32 rounds up to n terms; ours is the mean itself, theirs 1 / (1 / mean): two roundings.
            assert abs(float(tensor.scale[0]) * float(inverse) - 1) <= (codes.numel() + 2) * 2.0**-24
        else:
            assert np.array_equal(tensor, state[name].numpy()), name


def test_a_weight_at_half_the_mean_rounds_to_even_on_both_sides(published):
    path, _ = published
    state = load_file(path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weight = torch.full_like(state[name], 1.5)  # mean 1 with as many halves; 0.5 and 1.5 are ties
    weight[:, ::2] = 0.5
    state[name] = weight * 2.0**-6
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    tensor = open_model(path).read(name)
    assert np.array_equal(tensor.codes(), weight_quant(state[name])[0].numpy())
    assert set(tensor.codes()[:, 0]) == {0}
    assert tensor.scale[0] == 2.0**-6


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    return ((ours - theirs).abs().amax(-1) / theirs.abs().max()).double().numpy()


def test_logits_are_those_of_the_published_model(published, ids):
    path, model = published
    theirs = model(ids[None]).logits[0]
    decoder = Decoder(open_model(path).config)
    decoder.load_state_dict({name: torch.from_numpy(array) for name, array in latents(path).items()})
    with tritwise.load(path, threads=2, head="stored", cache_type="f32") as engine:
        ours = torch.from_numpy(engine.logits(ids.tolist()))
    for logits in (ours, decoder(ids[None])[0]):
        # An activation within a rounding error of two int8 codes may take the other one, and what follows differs by
        # more than rounding (test_parity_logits.py measures it).
        assert relative(logits, theirs).max() <= 0.05


def latents(path: Path) -> dict[str, np.ndarray]:
    """The float weights of the file by our names."""
    state = load_file(path / "model.safetensors")
    for ours, theirs in THEIR_NAMES.items():
        state = {name.replace(theirs, ours): tensor for name, tensor in state.items()}
    return {name: tensor.numpy() for name, tensor in state.items() if "inv_freq" not in name}


def test_it_is_the_same_model_as_an_online_directory_of_transformers(published, tmp_path, ids):
    path, _ = published
    online = tmp_path / "online"
    config = open_model(path).config
    write_model(online, config, latents(path), form="online", dtype="float32")
    logits = []
    for directory in (path, online):
        with tritwise.load(directory, threads=2) as engine:
            logits.append(engine.logits(ids.tolist()))
    assert np.array_equal(*logits)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"input_bits": 4}, "input_bits is 4"),
    ({"weight_bits": 2}, "weight_bits is 2"),
    ({"architectures": ["LlamaForCausalLM"]}, r"weight_bits or input_bits is set, but architectures is \['Llama"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic' is not supported"),
])
def test_what_would_change_the_model_is_refused_by_name(changes, reason):
    with pytest.raises(TritwiseError, match=reason):
        ModelConfig.from_hf(LARGE | changes)


def test_a_norm_under_both_of_its_names_is_refused(published):
    path, _ = published
    state = load_file(path / "model.safetensors")
    state["model.layers.1.self_attn.attn_sub_norm.weight"] = state["model.layers.1.self_attn.inner_attn_ln.weight"]
    save_file({name: tensor.clone() for name, tensor in state.items()}, path / "model.safetensors")
    with pytest.raises(TritwiseError, match=r"layers\.1\.self_attn\.inner_attn_ln\.weight cannot be used"):
        open_model(path)


def test_an_error_names_the_tensor_as_the_file_does(published):
    path, _ = published
    state = load_file(path / "model.safetensors")
    state["model.layers.2.mlp.ffn_layernorm.weight"][3] = float("nan")
    save_file(state, path / "model.safetensors")
    with pytest.raises(TritwiseError, match=r"layers\.2\.mlp\.ffn_layernorm\.weight cannot be used"):
        open_model(path).read("model.layers.2.mlp.ffn_sub_norm.weight")


def test_their_norms_have_no_place_in_a_model_without_sub_norms(published):
    path, _ = published
    edit_config(path, architectures=["LlamaForCausalLM"], weight_bits=None, input_bits=None)
    with pytest.raises(TritwiseError, match="a dense llama model of this"):
        open_model(path)
