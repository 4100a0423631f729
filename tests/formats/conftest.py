"""Tiny models for this folder: a configuration, random latent weights, and directories written from them."""

from pathlib import Path

import numpy as np
import pytest

from tritwise.config import ModelConfig
from tritwise.formats import write_model

SIZES = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture
def make_config():
    """`make_config(**changes)`: a tiny `ModelConfig`."""
    return lambda **changes: ModelConfig(**(SIZES | changes))


@pytest.fixture
def make_tensors():
    """`make_tensors(config)`: random float32 weights in Hugging Face's names."""
    def make(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {name: rng.normal(scale=0.1, size=shape).astype(np.float32)
                for name, shape in config.tensor_shapes().items()}
    return make


@pytest.fixture
def make_directory(tmp_path: Path, make_config, make_tensors):
    """`make_directory(form, linear_class, dtype, **config)`: a written directory's path."""
    def make(form: str = "packed", linear_class: str = "autobitlinear", dtype: str = "float32", **changes) -> Path:
        if form == "float":
            changes = {"linear_type": "dense"} | changes
        config = make_config(**changes)
        out = tmp_path / "model"
        write_model(out, config, make_tensors(config), form=form, linear_class=linear_class, dtype=dtype)
        return out
    return make
