"""The walls stand: imports between rooms go down only, the style holds, and running a model needs no PyTorch."""

import json
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import numpy as np
import pytest
from long_builds import built

from tritwise import ModelConfig, load
from tritwise.bundled import read_facts
from tritwise.data import train_tokenizer
from tritwise.formats import write_model

ROOT = Path(__file__).parents[1]
PROMPT = "def decode(self, s):\n"


def test_imports_between_rooms_go_down_only():
    child = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True,
                           text=True, check=False)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "2 kept, 0 broken" in child.stdout


def test_the_style_rules_hold():
    child = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=ROOT, capture_output=True,
                           text=True, check=False)
    assert child.returncode == 0, child.stdout


@pytest.mark.parametrize("module", ["tritwise", "tritwise.engine", "tritwise.evaluate", "tritwise.measure.bench",
                                    "tritwise.pipeline.probe", "tritwise.bundled", "tritwise.cli.commands.generate",
                                    "tritwise.cli.commands.try_"])
def test_what_runs_a_model_imports_no_training_library(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


@pytest.fixture
def model_directory(tmp_path):
    """A ternary model of random weights, exported as a run exports one."""
    train_tokenizer([Path(json.decoder.__file__).read_text()], 320).save(str(tmp_path / "tokenizer.json"))
    config = ModelConfig(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True, eos_token_id=0)
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) if len(shape) > 1 else np.ones(shape, np.float32)
               for name, shape in config.tensor_shapes().items()}
    write_model(tmp_path / "model", config, tensors, form="packed", tokenizer_file=tmp_path / "tokenizer.json")
    return tmp_path / "model"


def test_the_base_package_alone_generates_the_same_text_and_has_no_pytorch(model_directory, tmp_path):
    with load(model_directory) as model:
        expected = model.generate(PROMPT, max_tokens=16, temperature=0.8, seed=3).text
    venv.create(tmp_path / "clean", with_pip=True)
    binaries = tmp_path / "clean" / "bin"
    install = subprocess.run([binaries / "python", "-m", "pip", "install", "--quiet", built("wheel")],
                             capture_output=True, text=True, check=False)
    assert install.returncode == 0, install.stderr
    script = textwrap.dedent(f"""
        import importlib.util, json, sys
        import tritwise
        with tritwise.load({str(model_directory)!r}) as model:
            text = model.generate({PROMPT!r}, max_tokens=16, temperature=0.8, seed=3).text
        found = [name for name in ("torch", "transformers", "pyarrow", "matplotlib") if importlib.util.find_spec(name)]
        print(json.dumps([text, found, tritwise.__file__]))
    """)

    def run(*command):
        # Elsewhere than in the source tree, so that the installed package is the one that runs.
        return subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True,
                              check=False)

    python = run(binaries / "python", "-c", script)
    assert python.returncode == 0, python.stderr
    text, found, file = json.loads(python.stdout)
    assert text == expected
    assert found == []
    assert Path(file).is_relative_to(tmp_path / "clean")
    command = run(binaries / "tritwise", "generate", model_directory, "--prompt", PROMPT, "--max-tokens", 16,
                  "--temperature", 0.8, "--seed", 3)
    assert command.stdout == expected + "\n"
    # The bundled model is in the wheel, whole.
    shown = run(binaries / "tritwise", "try", "--json")
    assert shown.returncode == 0, shown.stderr
    assert Path(json.loads(shown.stdout)["path"]).is_relative_to(tmp_path / "clean")
    assert json.loads(shown.stdout)["facts"] == read_facts().model_dump(mode="json")
    # What needs more says so, with the command that installs it.
    training = run(binaries / "tritwise", "run", ROOT / "recipes" / "paper-700m.toml")
    assert training.returncode == 1
    assert "training and its report needs torch, pyarrow, matplotlib" in training.stderr
    assert "pip install 'tritwise[train,report]'" in training.stderr
