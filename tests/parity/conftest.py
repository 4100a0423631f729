"""transformers as the referee: it saves directories and opens them, without a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from hf_models import SIZES, as_referee, build, quantised


@pytest.fixture(autouse=True)
def _referee():
    with as_referee():
        yield


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """`saved(model_type, mode, packed=True, seed=0, linear_norm_eps=None, **config)`: a directory of save_pretrained.

    `mode` is "dense" or one of `MODES`; with packed=False the codes are stored as floats (autobitlinear offline). With
    `linear_norm_eps` each quantised layer has a norm inside.
    """
    def save(model_type: str, mode: str, *, packed: bool = True, seed: int = 0, linear_norm_eps: float | None = None,
             **changes) -> Path:
        model, path = build(model_type, seed=seed, **changes), tmp_path / f"{mode.replace(' ', '-')}-{seed}"
        if mode == "dense":
            model.save_pretrained(path)
            return path
        model, state = quantised(model, mode, packed=packed, linear_norm_eps=linear_norm_eps)
        if model.config.tie_word_embeddings:
            state.pop("lm_head.weight")
        model.save_pretrained(path, state_dict=state)
        return path
    return save


@pytest.fixture
def opened() -> Callable[..., transformers.PreTrainedModel]:
    """`opened(path, dtype)`: what from_pretrained gives, refused here if any key was missing, unexpected or misfit."""
    def open_strictly(path: Path, dtype: torch.dtype = torch.float32) -> transformers.PreTrainedModel:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
        assert not any(info.values()), info
        return model.eval()
    return open_strictly


@pytest.fixture
def ids() -> torch.Tensor:
    """48 token ids."""
    return torch.randint(SIZES["vocab_size"], (48,), generator=torch.Generator().manual_seed(7))
