"""Whole models: our logits against transformers' on the same directory.

A dense model agrees to float rounding. A ternary one need not: an activation that lies within a rounding error of two
int8 codes takes one here and the other there, and that step grows through the layers. transformers' own three ways to
hold one ternary model differ by the same mechanism, so their spread is the bound: at every token of twenty
random models (five layouts, four seeds) the distance from ours to the nearest of the three is set against the largest
between two of them, for the typical token (where nothing flipped) and in the mean square (which the flips make).
"""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hf_models import MODES, as_referee, build, quantised
from safetensors.torch import load_file

import tritwise
from tritwise.formats import open_model, write_model
from tritwise.model import Decoder

LAYOUTS = {"bitnet-silu-tied": ("bitnet", {"hidden_act": "silu", "tie_word_embeddings": True}),
           "bitnet-relu2": ("bitnet", {"hidden_act": "relu2"}),
           "llama": ("llama", {}),
           "qwen3": ("qwen3", {"head_dim": 24}),
           "llama-norms-in-linears": ("llama", {"linear_norm_eps": 1e-4})}
SEEDS = range(4)
Logits = Callable[[Path, torch.Tensor], torch.Tensor]


def by_transformers(path: Path, ids: torch.Tensor) -> torch.Tensor:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                                    output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()(ids[None]).logits[0]


def by_decoder(path: Path, ids: torch.Tensor) -> torch.Tensor:
    """`tritwise.model` with the latent weights of a dense or online directory."""
    model = Decoder(open_model(path).config)
    model.load_state_dict(load_file(path / "model.safetensors"))
    return model(ids[None])[0]


def by_export(path: Path, ids: torch.Tensor) -> torch.Tensor:
    """transformers again, on the packed directory that we write from the latent weights of an online one."""
    config = open_model(path).config
    latents = {name: tensor.numpy() for name, tensor in load_file(path / "model.safetensors").items()}
    write_model(path.parent / "export", config, latents, form="packed", dtype="float32")
    return by_transformers(path.parent / "export", ids)


def by_engine(path: Path, ids: torch.Tensor) -> torch.Tensor:
    """The native engine, its head as stored (rounded to 8 bits, as by default for ternary, it is another model)."""
    with tritwise.load(path, threads=2, head="stored", cache_type="f32") as model:
        return torch.from_numpy(model.logits(ids.tolist()))


def by_engine_from_bitlinear(path: Path, ids: torch.Tensor) -> torch.Tensor:
    return by_engine(path.parent / "bitlinear", ids)


def by_engine_from_packed(path: Path, ids: torch.Tensor) -> torch.Tensor:
    return by_engine(path.parent / "autobitlinear offline", ids)


def by_engine_from_masters(path: Path, ids: torch.Tensor) -> torch.Tensor:
    return by_engine(path, ids)


TERNARY = [by_decoder, by_export, by_engine_from_bitlinear, by_engine_from_packed, by_engine_from_masters]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    """Each token's largest difference over the largest logit: [T]."""
    return ((ours - theirs).abs().amax(-1) / theirs.abs().max()).double().numpy()


@pytest.fixture(scope="module")
def peers(tmp_path_factory) -> list[tuple[Path, dict[str, torch.Tensor]]]:
    """For each of the twenty models: where its online directory lies, and transformers' logits in each mode."""
    ids = token_ids()
    models = []
    with as_referee():
        for layout, (model_type, changes) in LAYOUTS.items():
            for seed in SEEDS:
                root, logits = tmp_path_factory.mktemp(f"{layout}-{seed}"), {}
                for mode in MODES:
                    keys = dict(changes)
                    norm_eps = keys.pop("linear_norm_eps", None)
                    model, state = quantised(build(model_type, seed=seed, **keys), mode, linear_norm_eps=norm_eps)
                    if model.config.tie_word_embeddings:
                        state.pop("lm_head.weight")
                    model.save_pretrained(root / mode, state_dict=state)
                    logits[mode] = by_transformers(root / mode, ids)
                models.append((root / "autobitlinear online", logits))
    return models


def token_ids() -> torch.Tensor:
    return torch.randint(96, (48,), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("logits_of", TERNARY, ids=lambda function: function.__name__)
def test_ternary_logits_are_as_near_to_transformers_as_its_modes_are_to_each_other(peers, logits_of: Logits):
    spread, ours = [], []
    for path, theirs in peers:
        logits = logits_of(path, token_ids())
        spread.append(np.max([relative(theirs[a], theirs[b]) for a, b in combinations(MODES, 2)], axis=0))
        ours.append(np.min([relative(logits, theirs[mode]) for mode in MODES], axis=0))
    assert np.median(ours) <= np.median(spread)
    assert np.square(ours).mean() <= np.square(spread).mean()


@pytest.mark.parametrize(("model_type", "act"), [("bitnet", "silu"), ("bitnet", "relu2"), ("llama", "silu")])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_dense_logits_are_those_of_transformers(saved, ids, model_type, act, tied, kv_heads):
    path = saved(model_type, "dense", hidden_act=act, tie_word_embeddings=tied, num_key_value_heads=kv_heads)
    theirs = by_transformers(path, ids)
    assert relative(by_decoder(path, ids), theirs).max() <= 1e-5
    assert relative(by_engine(path, ids), theirs).max() <= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_dense_logits_of_16_bit_weights_are_those_of_transformers(tmp_path, saved, opened, ids, model_type, dtype):
    opened(saved(model_type, "dense"), dtype).save_pretrained(tmp_path / "half")
    theirs = by_transformers(tmp_path / "half", ids)
    assert relative(by_engine(tmp_path / "half", ids), theirs).max() <= 1e-4


def test_a_head_size_that_is_not_hidden_size_over_heads_gives_the_logits_of_transformers(saved, ids):
    path = saved("llama", "dense", head_dim=24)
    theirs = by_transformers(path, ids)
    assert relative(by_decoder(path, ids), theirs).max() <= 1e-5
    assert relative(by_engine(path, ids), theirs).max() <= 1e-4
