"""A tiny exported model, and a way to run the command line in a process of its own."""

import json.decoder
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tritwise import ModelConfig
from tritwise.data import train_tokenizer
from tritwise.formats import write_model


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory):
    """A ternary model of random weights with a tokenizer of 300 entries."""
    root = tmp_path_factory.mktemp("model")
    train_tokenizer([Path(json.decoder.__file__).read_text()], 300).save(str(root / "tokenizer.json"))
    config = ModelConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                         tie_word_embeddings=True, eos_token_id=0)
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.2, shape).astype(np.float32) if len(shape) > 1 else np.ones(shape, np.float32)
               for name, shape in config.tensor_shapes().items()}
    write_model(root / "model", config, tensors, form="packed", tokenizer_file=root / "tokenizer.json")
    return root / "model"


@pytest.fixture(scope="session")
def tritwise():
    """`tritwise(*arguments, input=..., **environment)` in a fresh process; returns the finished process."""
    def run(*arguments, stdin="", **environment):
        return subprocess.run([sys.executable, "-m", "tritwise.cli.app", *map(str, arguments)], input=stdin, text=True,
                              capture_output=True, check=False, env=os.environ | environment, timeout=120)

    return run
