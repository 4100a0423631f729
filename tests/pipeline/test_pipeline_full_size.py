"""Layers of BitNet b1.58 2B4T's size through the commands: to GGUF in every ternary type, back, and a text from each.

    .venv/bin/python -m pytest -m slow -s tests/pipeline/test_pipeline_full_size.py

Shows seconds and peak memory of each command. The model is random and has few of the thirty layers, but every matrix
has its true size, the embedding too. Its scales are float16 numbers, which every type holds.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tritwise import load
from tritwise.formats import TernaryTensor, open_model, write_quantised
from tritwise.formats.gguf_names import gguf_name
from tritwise.measure.shapes import random_tensors, shape_config

pytestmark = pytest.mark.slow

LAYERS = 10
TYPES = ("i2_s", "tq2_0", "tq1_0")
# A process at most: what is exported and what was written are read at once, and run by two engines to be compared.
MOST_MEMORY = 4e9
PROMPT, TOKENS = "w1 w77 w128255 w4096 w5", 16
# The command line in a process of its own, which says its peak in the end.
PROCESS = """
import sys
from tritwise.cli.app import main
from tritwise.measure.memory import peak_rss_bytes
code = main(sys.argv[1:])
print(f"peak {peak_rss_bytes()}", file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with the model, whose tokenizer has a word for each id."""
    root = tmp_path_factory.mktemp("full-size")
    config = shape_config("2b4t").with_changes(num_hidden_layers=LAYERS, max_position_embeddings=512)
    assert (config.hidden_size, config.intermediate_size, config.vocab_size) == (2560, 6912, 128256)
    assert (config.num_attention_heads, config.num_key_value_heads) == (20, 5)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(config.vocab_size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(root / "tokenizer.json"))
    tensors = {}
    for name, tensor in random_tensors(config):
        if isinstance(tensor, TernaryTensor):
            scale = np.random.default_rng(len(tensors)).uniform(0.8, 1.2) * tensor.scale
            tensor = TernaryTensor(tensor.packed, scale.astype(np.float16).astype(np.float32), tensor.shape)
        tensors[name] = tensor
    write_quantised(root / "model", config, tensors, tokenizer_file=root / "tokenizer.json")
    return root


def command(*arguments: object) -> str:
    """Both streams of a command that has to succeed within `MOST_MEMORY`; its time and peak are shown."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROCESS, *map(str, arguments)], text=True, capture_output=True,
                          check=False, env=os.environ, timeout=600)
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.rsplit("peak ", 1)[1])
    print(f"{time.perf_counter() - started:6.1f} s {peak / 1e9:5.2f} GB  tritwise {arguments[0]} "
          f"{' '.join(Path(str(argument)).name for argument in arguments[1:])}")
    assert peak < MOST_MEMORY
    return done.stdout + done.stderr


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def greedy(path: Path) -> str:
    """What `tritwise generate` writes, as ids in words."""
    said = command("generate", path, "--prompt", PROMPT, "--max-tokens", TOKENS, "--threads", 2, "--context", 64)
    return said.split("\n", 1)[0].strip()


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    """The directory's greedy continuation."""
    text = greedy(root / "model")
    assert len(text.split()) == TOKENS
    with load(root / "model", threads=2, context=64) as model:
        ids = model.generate(PROMPT, max_tokens=TOKENS).token_ids
    assert text == " ".join(f"w{i}" for i in ids)
    assert len(set(text.split())) > TOKENS // 2  # not one id over and over
    return text


@pytest.mark.parametrize("kind", TYPES)
def test_every_code_and_scale_survives_gguf_and_the_way_back(root: Path, text: str, kind: str):
    directory, file, back = root / "model", root / f"{kind}.gguf", root / f"back-{kind}"
    said = command("export", directory, file, "--type", kind, "--ids-only")
    assert (f"verified: {7 * LAYERS} matrices with every code equal (scales: equal), {4 * LAYERS + 2} other tensors "
            "(equal), top token the same for 100.00 % of 255, KL 0.0e+00") in said
    if kind != "i2_s":  # a type of bitnet.cpp, which the gguf package does not know
        check_with_the_gguf_package(directory, file)
    assert greedy(file) == text
    command("export", file, back, "--no-verify")  # its bytes are compared
    assert sha256(back / "model.safetensors") == sha256(directory / "model.safetensors")
    written, given = (json.loads((path / "config.json").read_text()) for path in (back, directory))
    assert written == given
    for path in (file, back / "model.safetensors"):
        path.unlink()


def check_with_the_gguf_package(directory: Path, file: Path) -> None:
    """The first and the last layer's matrices, dequantised by the gguf package, are codes times scale."""
    opened = open_model(directory)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    names = [name for name in opened.names() if name.startswith(("model.layers.0.", f"model.layers.{LAYERS - 1}."))]
    checked = 0
    for name in names:
        ours = opened.read(name)
        if isinstance(ours, TernaryTensor):
            stored = found[gguf_name(name)]
            assert np.array_equal(gguf.quants.dequantize(stored.data, stored.tensor_type), ours.codes() * ours.scale)
            checked += 1
    assert checked == 14
