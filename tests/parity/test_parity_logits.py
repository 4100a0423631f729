"""Whole models: our logits against transformers' on the same directory.

A dense model agrees to float rounding. A ternary one need not: an activation that lies within a rounding error of two
int8 codes takes one here and the other there, and that step grows through the layers. transformers' own three ways to
hold one ternary model differ by the same mechanism, so their spread is the bound: over twelve random models (three
layouts, four seeds) ours must be as near to one of the three as these are to each other, both for the typical token
(where nothing flipped) and for the root of the mean square (which the flips make).
"""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hf_models import MODES, build, quantised
from safetensors.torch import load_file

from tritwise.formats import open_model, write_model
from tritwise.model import Decoder

LAYOUTS = {"bitnet-silu-tied": ("bitnet", {"hidden_act": "silu", "tie_word_embeddings": True}),
           "bitnet-relu2": ("bitnet", {"hidden_act": "relu2"}),
           "llama": ("llama", {})}
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


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    """Each token's largest difference over the largest logit: [T]."""
    return ((ours - theirs).abs().amax(-1) / theirs.abs().max()).double().numpy()


@pytest.fixture(scope="module")
def peers(tmp_path_factory) -> list[tuple[Path, dict[str, torch.Tensor]]]:
    """For each of the twelve models: where its online directory lies, and transformers' logits in each mode."""
    ids = token_ids()
    models = []
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        for layout, (model_type, changes) in LAYOUTS.items():
            for seed in SEEDS:
                root, logits = tmp_path_factory.mktemp(f"{layout}-{seed}"), {}
                for mode in MODES:
                    model, state = quantised(build(model_type, seed=seed, **changes), mode)
                    if model.config.tie_word_embeddings:
                        state.pop("lm_head.weight")
                    model.save_pretrained(root / mode, state_dict=state)
                    logits[mode] = by_transformers(root / mode, ids)
                models.append((root / "autobitlinear online", logits))
    return models


def token_ids() -> torch.Tensor:
    return torch.randint(96, (48,), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("logits_of", [by_decoder, by_export], ids=lambda f: f.__name__)
def test_ternary_logits_are_as_near_to_transformers_as_its_modes_are_to_each_other(peers, logits_of: Logits):
    spread: dict[tuple[str, str], list] = {pair: [] for pair in combinations(MODES, 2)}
    ours: dict[str, list] = {mode: [] for mode in MODES}
    nearest = []
    for path, theirs in peers:
        logits = logits_of(path, token_ids())
        for a, b in spread:
            spread[a, b].append(relative(theirs[a], theirs[b]))
        for mode in MODES:
            ours[mode].append(relative(logits, theirs[mode]))
        nearest.append(min((ours[mode][-1] for mode in MODES), key=lambda d: np.square(d).mean()))
    assert min(np.median(d) for d in ours.values()) <= max(np.median(d) for d in spread.values())
    assert np.square(nearest).mean() <= max(np.square(d).mean() for d in spread.values())


@pytest.mark.parametrize(("model_type", "act"), [("bitnet", "silu"), ("bitnet", "relu2"), ("llama", "silu")])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_dense_logits_of_the_trained_module_are_those_of_transformers(saved, ids, model_type, act, tied, kv_heads):
    path = saved(model_type, "dense", hidden_act=act, tie_word_embeddings=tied, num_key_value_heads=kv_heads)
    assert relative(by_decoder(path, ids), by_transformers(path, ids)).max() <= 1e-5
