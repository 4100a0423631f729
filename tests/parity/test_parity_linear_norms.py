"""`use_rms_norm`: a learnable RMSNorm inside of each quantised linear, against transformers' layers that have it.

The engine's modules and codes are compared in test_parity_engine.py, whole models' logits in test_parity_logits.py.
"""

import json

import numpy as np
import pytest
import torch
from hf_models import MODES, build
from safetensors.torch import load_file
from test_parity_directories import assert_same_model, latents
from transformers.integrations.bitnet import AutoBitLinear

import tritwise
from tritwise.engine import kernels
from tritwise.formats import open_model, write_model, write_quantised
from tritwise.model import BitLinear, Decoder
from tritwise.model.bitlinear import multiply

EPS = 3e-4  # nobody's default
LAYOUTS = {"bitnet": {"hidden_act": "relu2"}, "llama": {}, "qwen3": {"head_dim": 24}}
CASES = [(model_type, mode) for model_type in LAYOUTS for mode in MODES]


@pytest.mark.parametrize(("model_type", "mode"), CASES)
def test_a_directory_of_transformers_opens_here(saved, opened, model_type, mode):
    path = saved(model_type, mode, linear_norm_eps=EPS, **LAYOUTS[model_type])
    directory, theirs = open_model(path), opened(path)
    assert (directory.config.use_rms_norm, directory.config.linear_rms_norm_eps) == (True, EPS)
    assert_same_model(directory, theirs)
    norms = {name: module for name, module in theirs.named_modules() if name.endswith(".rms_norm")}
    assert len(norms) == 7 * directory.config.num_hidden_layers
    for name, module in norms.items():
        assert module.variance_epsilon == EPS
        assert np.array_equal(directory.read(f"{name}.weight"), module.weight.detach().numpy())


def test_a_directory_of_float_codes_opens_here(saved, opened):
    path = saved("llama", "autobitlinear offline", packed=False, linear_norm_eps=EPS)
    assert open_model(path).stored("model.layers.0.mlp.up_proj.weight").dtype == "F32"
    assert_same_model(open_model(path), opened(path))


@pytest.mark.parametrize("model_type", list(LAYOUTS))
def test_names_shapes_and_counts_of_the_weights_are_those_of_transformers(saved, opened, model_type):
    path = saved(model_type, "autobitlinear online", linear_norm_eps=EPS, **LAYOUTS[model_type])
    config, theirs = open_model(path).config, opened(path)
    assert config.tensor_shapes() == {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    assert config.parameter_count().total == theirs.num_parameters()


@pytest.mark.parametrize(("model_type", "mode", "dtype"), [(*case, "float32") for case in CASES] + [
    ("llama", "bitlinear", "bfloat16"), ("bitnet", "autobitlinear online", "bfloat16")])
def test_what_is_written_opens_in_transformers(tmp_path, saved, opened, model_type, mode, dtype):
    path = saved(model_type, "autobitlinear online", linear_norm_eps=EPS, **LAYOUTS[model_type])
    config = open_model(path).config.with_changes(quantization_config=None)
    weights = {name: tensor.numpy() for name, tensor in load_file(path / "model.safetensors").items()}
    linear_class, *rest = mode.split()
    write_model(tmp_path / "export", config, weights, form="online" if rest == ["online"] else "packed",
                linear_class=linear_class, dtype=dtype)
    written = open_model(tmp_path / "export")
    assert written.config.with_changes(quantization_config=None) == config
    theirs = opened(tmp_path / "export")
    assert theirs.model.layers[1].mlp.up_proj.rms_norm.variance_epsilon == EPS
    assert_same_model(written, theirs)


def test_a_packed_directory_is_written_again_with_every_bit(tmp_path, saved):
    first = open_model(saved("llama", "autobitlinear offline", linear_norm_eps=EPS))
    write_quantised(tmp_path / "again", first.config, {name: first.read(name) for name in first.names()},
                    dtype="float32")
    second = open_model(tmp_path / "again")
    assert second.config == first.config
    for name in first.names():
        ours, theirs = second.read(name), first.read(name)
        if isinstance(ours, np.ndarray):
            assert np.array_equal(ours, theirs)
        else:
            assert np.array_equal(ours.packed, theirs.packed)
            assert np.array_equal(ours.scales, theirs.scales)


def test_without_a_key_transformers_and_we_take_the_same_eps(saved, opened):
    path = saved("llama", "bitlinear", linear_norm_eps=EPS)
    values = json.loads((path / "config.json").read_text())
    del values["quantization_config"]["rms_norm_eps"]
    (path / "config.json").write_text(json.dumps(values))
    theirs = opened(path).model.layers[0].mlp.up_proj.rms_norm.variance_epsilon
    assert open_model(path).config.linear_rms_norm_eps == theirs == 1e-6


@pytest.mark.parametrize("model_type", list(LAYOUTS))
def test_logits_are_equal_to_the_bit_however_they_are_computed(saved, ids, model_type):
    path = saved(model_type, "bitlinear", linear_norm_eps=EPS, **LAYOUTS[model_type])
    found = []
    for kernel in kernels():
        for threads in (1, 2):
            with tritwise.load(path, threads=threads, kernel=kernel, cache_type="f32") as model:
                found.append(model.logits(ids.tolist()))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    # Without the norms it is another model: they are not passed over.
    with tritwise.load(path, threads=1, cache_type="f32") as model:
        for weight in (name for name in model.config.tensor_shapes() if name.endswith(".rms_norm.weight")):
            size = model.config.tensor_shapes()[weight][0]
            model.backend._model.set_dense(weight, np.ones(size, np.float32))
        assert np.abs(model.logits(ids.tolist()) - found[0]).max() > 0.1 * np.abs(found[0]).max()


@pytest.mark.parametrize("inner", [64, 333])
def test_gradients_of_a_layer_are_those_of_transformers(inner):
    generator = torch.Generator().manual_seed(inner)
    weight, gain = torch.randn(20, inner, generator=generator), torch.rand(inner, generator=generator) + 0.5
    upstream = torch.randn(3, 5, 20, generator=generator)
    theirs = AutoBitLinear(inner, 20, bias=False, online_quant=True, use_rms_norm=True, rms_norm_eps=EPS)
    ours = BitLinear(inner, 20, "ternary", rms_norm_eps=EPS)
    results = []
    for layer in (theirs, ours):
        layer.load_state_dict({"weight": weight, "rms_norm.weight": gain})
        x = torch.randn(3, 5, inner, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.enable_grad():
            y = layer(x)
            y.backward(upstream)
        results.append([y.detach(), x.grad, layer.weight.grad, layer.rms_norm.weight.grad])
    for name, a, b in zip(("output", "input", "weight", "gain"), *results, strict=True):
        # Sums of at most 333 products in float32, in another order on either side.
        assert (a - b).abs().max() <= 2 * inner * 2.0**-24 * a.abs().max(), name


def test_linears_of_one_input_norm_it_each_for_itself():
    layers = [BitLinear(48, 12, "ternary", rms_norm_eps=EPS) for _ in range(2)]
    for seed, layer in enumerate(layers):
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(layer.weight, generator=generator)
        torch.nn.init.uniform_(layer.rms_norm.weight, 0.5, 1.5, generator=generator)
    x = torch.randn(7, 48, generator=torch.Generator().manual_seed(9))
    for together, alone in zip(multiply(x, *layers), (layer(x) for layer in layers), strict=True):
        assert torch.equal(together, alone)


@pytest.mark.parametrize("model_type", list(LAYOUTS))
def test_the_modules_that_are_trained_compute_what_transformers_does(saved, opened, ids, model_type):
    path = saved(model_type, "autobitlinear online", linear_norm_eps=EPS, **LAYOUTS[model_type])
    theirs, directory = opened(path), open_model(path)
    ours = Decoder(directory.config)
    ours.load_state_dict(load_file(path / "model.safetensors"))
    embedded = theirs.model.embed_tokens(ids[None])
    normed = theirs.model.layers[0].input_layernorm(embedded)
    attention = ours.model.layers[0].self_attn
    expected = [getattr(theirs.model.layers[0].self_attn, f"{name}_proj")(normed) for name in "qkv"]
    found = multiply(embedded, attention.q_proj, attention.k_proj, attention.v_proj,
                     norm=ours.model.layers[0].input_layernorm)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_a_dense_model_of_transformers_becomes_one_with_norms_by_its_configuration(tmp_path, opened, ids):
    """The start of training from scratch: norms of ones, and transformers computes what the decoder does."""
    theirs = build("llama")
    theirs.save_pretrained(tmp_path / "dense")
    config = open_model(tmp_path / "dense").config.with_changes(linear_type="ternary", use_rms_norm=True)
    decoder = Decoder(config)
    decoder.initialise(torch.Generator().manual_seed(0))
    weights = {name: p.detach().numpy() for name, p in decoder.named_parameters()} | latents(tmp_path / "dense")
    decoder.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    write_model(tmp_path / "online", config, weights, form="online", dtype="float32")
    logits = opened(tmp_path / "online")(ids[None]).logits[0]
    # An activation within a rounding error of two int8 codes may take the other one (test_parity_logits.py).
    assert (decoder(ids[None])[0] - logits).abs().max() <= 0.05 * logits.abs().max()
