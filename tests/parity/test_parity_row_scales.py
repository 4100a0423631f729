"""Ternary weights with a scale for each shard of rows (TriLM), against transformers' AutoBitLinear.

Its `weight_scale` multiplies the layer's output, so a scale for each row does too.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import SIZES, build, quantised
from safetensors.torch import save_file

import tritwise
from tritwise.engine import kernels
from tritwise.formats import TernaryTensor, open_model
from tritwise.ternary import bitlinear

SHARDS = 4


@pytest.fixture
def pair(tmp_path) -> tuple[Path, torch.nn.Module, torch.nn.Module]:
    """A directory with four scales a matrix, the dense model that it is published as, and that with int8 inputs."""
    dense = build("llama", num_key_value_heads=4)
    for name, weight in dense.named_parameters():
        if "_proj" in name:
            parts = weight.data.chunk(SHARDS)
            scales = [part.abs().mean().half().float() for part in parts]
            weight.data = torch.cat([(part / scale).round().clamp(-1, 1) * scale
                                     for part, scale in zip(parts, scales, strict=True)])
        else:
            weight.data = weight.data.half().float()
    state = {name: tensor.half() for name, tensor in dense.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    keys = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-6, "num_key_value_heads": 4,
            "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "pretraining_model_parallel": SHARDS}
    (tmp_path / "config.json").write_text(json.dumps(SIZES | keys))
    rows = {name: torch.from_numpy(open_ternary(tmp_path).read(name).row_scales()) for name in state if "_proj" in name}
    eight_bit = build("llama", num_key_value_heads=4)
    eight_bit.load_state_dict(dense.state_dict())
    eight_bit, _ = quantised(eight_bit, "autobitlinear offline", packed=False)
    for name, scales in rows.items():
        module = eight_bit.get_submodule(name.removesuffix(".weight"))
        module.weight = torch.nn.Parameter(state[name].sign().float(), requires_grad=False)
        module.weight_scale = scales
    eight_bit.load_state_dict({name: tensor for name, tensor in dense.state_dict().items() if "_proj" not in name},
                              strict=False)
    return tmp_path, dense, eight_bit


def open_ternary(path: Path):
    set_linear_type(path, "ternary")
    return open_model(path)


def set_linear_type(path: Path, linear_type: str) -> None:
    values = json.loads((path / "config.json").read_text()) | {"linear_type": linear_type}
    (path / "config.json").write_text(json.dumps(values))


def test_the_dense_model_has_the_logits_of_transformers(pair, ids):
    path, dense, _ = pair
    set_linear_type(path, "dense")
    theirs = dense(ids[None]).logits[0]
    with tritwise.load(path, threads=2, cache_type="f32") as model:
        ours = torch.from_numpy(model.logits(ids.tolist()))
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("kernel", kernels())
def test_every_linear_multiplies_each_row_with_its_scale(pair, ids, kernel):
    path, _, eight_bit = pair
    directory = open_ternary(path)
    with tritwise.load(path, threads=2, kernel=kernel, head="stored", cache_type="f32") as engine:
        trace = engine.backend._model.trace(ids.numpy().astype(np.int32))  # the native model's own, for tests alone
    checked = 0
    for name in directory.names():
        tensor = directory.read(name)
        if not isinstance(tensor, TernaryTensor):
            continue
        assert tensor.scales.size == SHARDS, name
        short = name.removeprefix("model.").removesuffix(".weight")
        x_scale = trace[f"{short}.input_scale"][:, None]
        x = trace[f"{short}.input_codes"].astype(np.float32) * x_scale
        ours = trace[f"{short}.accumulator"].astype(np.float32) * (x_scale * tensor.row_scales())
        theirs = eight_bit.get_submodule(f"model.{short}")(torch.from_numpy(x)).numpy()
        # Of K products, each at most |x| s; 2^-24 for each rounding on the way.
        bound = (x.shape[1] + 8) * 2.0**-24 * np.abs(x).sum(-1, keepdims=True) * tensor.row_scales()
        assert (np.abs(ours - theirs) <= bound).all(), name
        assert (np.abs(bitlinear(x, tensor.codes(), tensor.row_scales()) - theirs) <= bound).all(), name
        checked += 1
    assert checked == 7 * SIZES["num_hidden_layers"]


def test_logits_are_equal_on_every_kernel_and_near_those_of_transformers(pair, ids):
    path, _, eight_bit = pair
    set_linear_type(path, "ternary")
    theirs = eight_bit(ids[None]).logits[0]
    found = []
    for kernel in kernels():
        for threads in (1, 2):
            with tritwise.load(path, threads=threads, kernel=kernel, head="stored", cache_type="f32") as model:
                found.append(model.logits(ids.tolist()))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    # An activation within a rounding error of two int8 codes may take the other one (test_parity_logits.py).
    assert (torch.from_numpy(found[0]) - theirs).abs().max() <= 0.05 * theirs.abs().max()
