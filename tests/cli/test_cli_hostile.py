"""The commands on models that must not be believed: three lines, exit status 1, and nothing left behind."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from corpus.directories import DAMAGES, TOKENIZER, WEIGHTS, tokenizer, write_good
from corpus.gguf_layout import encode
from corpus.gguf_malformed import FILES
from corpus.gguf_models import model
from safetensors.numpy import save_file

from tritwise import ModelConfig, TritwiseError
from tritwise.cli.app import main
from tritwise.formats import TernaryTensor, open_model, write_quantised

# Every so many of the corpus; whatever a command does with one of a family it does with all.
GGUF_SAMPLE, DIRECTORY_SAMPLE = list(FILES)[::23], [name for name in list(DAMAGES)[::13] if "100 MB" not in name]


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.py").write_text("def add(a, b):\n    return a + b\n")
    return tmp_path / "text.py"


def said(capsys, *arguments) -> tuple[int, str, list[str]]:
    """Exit status, standard output and the lines on standard error of a command."""
    status = main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err.strip("\n").split("\n")


def is_a_message(lines: list[str]) -> bool:
    """Whether lines on standard error say what happened and why, and nothing else."""
    return (1 < len(lines) <= 3 and lines[0].startswith("tritwise: ") and lines[1].startswith("why: ")
            and all(line.isprintable() and len(line) < 1100 for line in lines))


def refused(capsys, *arguments) -> str:
    """What a command that fails says, after checking that it is a message and nothing else."""
    status, out, lines = said(capsys, *arguments)
    assert (status, out) == (1, "")
    assert is_a_message(lines), lines
    return "\n".join(lines)


def commands(path: Path, text: Path) -> list[tuple]:
    return [("inspect", path), ("inspect", path, "--json"), ("perplexity", path, text),
            ("generate", path, "--prompt", "ab", "--max-tokens", 2), ("compare", path, text),
            ("bench", path, "--prefill", 4, "--decode", 2, "--repeats", 1)]


@pytest.mark.parametrize("name", GGUF_SAMPLE)
def test_a_malformed_gguf_file_gets_three_lines_of_every_command(tmp_path, capsys, text, name):
    path = tmp_path / "model.gguf"
    path.write_bytes(FILES[name]())
    for command in commands(path, text):
        if not (name.startswith("tokenizer") and command[0] in ("inspect", "bench")):  # which need no tokenizer
            status, out, lines = said(capsys, *command)
            assert (status, out) == (1, "")
            assert is_a_message(lines), lines


@pytest.mark.parametrize("name", DIRECTORY_SAMPLE)
def test_a_malformed_directory_gets_three_lines_of_every_command(tmp_path, capsys, text, name):
    path = write_good(tmp_path / "model")
    DAMAGES[name](path)
    for command in commands(path, text):
        if not (TOKENIZER in name and command[0] in ("inspect", "bench")):
            status, out, lines = said(capsys, *command)
            assert (status, out) == (1, "")
            assert is_a_message(lines), lines


def written_again(path: Path, out: Path) -> None:
    """A model as it is opened, written as a directory, as exporters do."""
    opened = open_model(path)
    write_quantised(out, opened.config, {name: opened.read(name) for name in opened.names()}, dtype="float32")


@pytest.mark.parametrize("name", [name for name in [*GGUF_SAMPLE, *DIRECTORY_SAMPLE]
                                  if not name.startswith("tokenizer")])  # tokenizers are not what is written here
def test_nothing_is_written_from_a_malformed_model(tmp_path, name):
    source = tmp_path / "source"
    source.mkdir()
    if name in FILES:
        path = source / "model.gguf"
        path.write_bytes(FILES[name]())
    else:
        path = write_good(source / "model")
        DAMAGES[name](path)
    with pytest.raises(TritwiseError):
        written_again(path, tmp_path / "out" / "model")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_whole_is_written(tmp_path):
    (tmp_path / "model.gguf").write_bytes(encode(model()))
    written_again(tmp_path / "model.gguf", tmp_path / "out")
    before, after = open_model(tmp_path / "model.gguf"), open_model(tmp_path / "out")
    assert after.names() == before.names()
    for name in after.names():
        read, written = before.read(name), after.read(name)
        if isinstance(read, TernaryTensor):
            assert np.array_equal(read.packed, written.packed)
        else:
            assert np.array_equal(read, written)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint by hand, whose manifest is right."""
    path = tmp_path / "step-00000001"
    path.mkdir()
    config = ModelConfig(vocab_size=259, hidden_size=16, intermediate_size=20, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
    rng = np.random.default_rng(0)
    save_file({name: rng.normal(scale=0.1, size=shape).astype(np.float32)
               for name, shape in config.tensor_shapes().items()}, path / WEIGHTS)
    save_file({"a": np.zeros(1, np.float32)}, path / "optimizer.safetensors")
    state = {"step": 1, "variant": "ternary", "model": config.to_hf(dtype="float32") | {"linear_type": "dense",
             "model_type": "llama"}, "run_key": "", "threads": 1}
    (path / "state.json").write_text(json.dumps(state))
    (tmp_path / TOKENIZER).write_text(json.dumps(tokenizer()))
    save_file({name: rng.normal(scale=0.1, size=shape).astype(np.float32) for name, shape in ModelConfig.from_hf(
        state["model"]).tensor_shapes().items()}, path / WEIGHTS)
    return sealed(path)


def sealed(path: Path) -> Path:
    """The checkpoint with a manifest of whatever its files are now: an enemy can compute hashes, too."""
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()
              if file.name != "manifest.json"}
    (path / "manifest.json").write_text(json.dumps({"sha256": hashes}))
    return path


def test_the_checkpoint_by_hand_is_exported(checkpoint, tmp_path, capsys):
    out = tmp_path / "out" / "model"
    assert main(["export", str(checkpoint), str(out), "--tokenizer", str(tmp_path / TOKENIZER)]) == 0
    open_model(out)
    assert capsys.readouterr().out == f"{out}\n"


WEIGHT_DAMAGES = [name for name in DAMAGES if name.startswith(f"{WEIGHTS}: ") and "scale" not in name
                  and "field 3" not in name and "q_proj" not in name][::4]


@pytest.mark.parametrize("name", WEIGHT_DAMAGES)
def test_nothing_is_exported_from_malformed_weights(checkpoint, tmp_path, capsys, name):
    DAMAGES[name](checkpoint)
    sealed(checkpoint)
    refused(capsys, "export", checkpoint, tmp_path / "out" / "model", "--tokenizer", tmp_path / TOKENIZER)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [
    {"model": None}, {"model": []}, {"model": {}}, {"model": "x"}, {"model": {"model_type": []}}, {"extra": 1},
    {"step": None, "model": {"model_type": "llama", "hidden_size": 2**70}},
    {"model": {"model_type": "llama", "vocab_size": 259, "hidden_size": 16, "intermediate_size": 20,
               "num_attention_heads": 4, "num_hidden_layers": 2**31 - 1}},
])
def test_nothing_is_exported_from_a_malformed_state(checkpoint, tmp_path, capsys, change):
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps(state | change))
    sealed(checkpoint)
    refused(capsys, "export", checkpoint, tmp_path / "out" / "model", "--tokenizer", tmp_path / TOKENIZER)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "content"), [
    ("state.json", b"[]"), ("state.json", b"{"), ("state.json", b"1" * 5000), ("state.json", b"[" * 100_000),
    ("manifest.json", b"[]"), ("manifest.json", b'{"sha256": []}'), ("manifest.json", b'{"sha256": {}}'),
    ("manifest.json", b'{"sha256": 1}'), ("manifest.json", b"\xff"), (f"../{TOKENIZER}", b""),
    (f"../{TOKENIZER}", b"[]"), (f"../{TOKENIZER}", b"[" * 100_000), (f"../{TOKENIZER}", b"\xff\xfe"),
    (f"../{TOKENIZER}", json.dumps(tokenizer() | {"normalizer": {
        "type": "Precompiled", "precompiled_charsmap": "!"}}).encode()),
])
def test_nothing_is_exported_from_malformed_files_beside_the_weights(checkpoint, tmp_path, capsys, name, content):
    (checkpoint / name).write_bytes(content)
    if name == "state.json":
        sealed(checkpoint)
    error = main(["export", str(checkpoint), str(tmp_path / "out" / "model"), "--tokenizer",
                  str(tmp_path / TOKENIZER)]), capsys.readouterr()
    assert error[0] == 1
    # A panic of the tokenizers library prints lines of its own before ours.
    message = error[1].err[error[1].err.index("tritwise: "):].strip("\n").split("\n")
    assert len(message) <= 3
    assert error[1].out == ""
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_its_unknown_token_gets_three_lines(tmp_path, capsys, text):
    path = write_good(tmp_path / "model")
    words = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {"a": 0}}
    (path / TOKENIZER).write_text(json.dumps(tokenizer() | {"model": words, "added_tokens": []}))
    for command in (("generate", path, "--prompt", "b"), ("perplexity", path, text)):
        assert "cannot take the text apart" in refused(capsys, *command)
