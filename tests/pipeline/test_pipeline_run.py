"""A tiny recipe walked from repositories to the report, killed and resumed, changed and walked again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tritwise import TritwiseError, load
from tritwise.config import load_recipe
from tritwise.data import write_shard
from tritwise.pipeline import run_recipe, stages_of, train_variant
from tritwise.pipeline.stages import UNFINISHED, stage_keys

RECIPE = """
name = "tiny"
[data]
sources.paths = ["{repositories}"]
held_out_fraction = 0.05
[tokenizer]
vocab_size = 384
[model]
hidden_size = 64
intermediate_size = 96
num_attention_heads = 2
num_hidden_layers = 2
tie_word_embeddings = true
[train]
steps = 40
batch_size = 4
sequence_length = 96
dtype = "float32"
checkpoint_every = 5
[variants.ternary]
model_type = "bitnet"
linear_type = "ternary"
schedule = {{ shape = "two_stage", peak = 4e-3, second_peak = 2e-3, floor = 1e-5, warmup_steps = 3 }}
[variants.dense]
model_type = "llama"
linear_type = "dense"
schedule = {{ shape = "cosine", peak = 2e-3, floor = 2e-4, warmup_steps = 3 }}
"""


@pytest.fixture(scope="module", autouse=True)
def one_processor():
    """On one processor: so small matrices gain nothing from two, and lose much where the machine is busy."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe over a few small packages of the standard library, as folders."""
    root = tmp_path_factory.mktemp("tiny")
    for package in ("json", "wsgiref", "dbm", "concurrent", "logging", "html", "xmlrpc", "curses"):
        for file in Path(sysconfig.get_path("stdlib"), package).rglob("*.py"):
            if 400 < file.stat().st_size < 9000:
                target = root / "repositories" / package / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    path = root / "tiny.toml"
    path.write_text(RECIPE.format(repositories=root / "repositories"))
    return path


@pytest.fixture(scope="module")
def finished(recipe):
    """The recipe walked once without interruption: (its directory, the report, what stood on standard error)."""
    out = recipe.parent / "finished"
    command = [sys.executable, "-m", "tritwise.cli.app", "run", str(recipe), "--out", str(out), "--json"]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return out, json.loads(child.stdout), child.stderr


def losses(out, variant):
    return [(line["step"], line["loss"], line["grad_norm"])
            for line in map(json.loads, (out / f"train-{variant}" / "log.jsonl").read_text().splitlines())]


def test_a_run_leaves_the_promised_directories(finished):
    out, _, _ = finished
    assert sorted(entry.name for entry in out.iterdir()) == [
        "data", "dense", "report.html", "report.json", "run", "ternary", "train-dense", "train-ternary"]
    for name in ("ternary", "dense"):
        with load(out / name) as model:
            assert model.config.linear_type == name
            assert model.generate("def ", max_tokens=3).token_ids


def test_the_engine_scores_the_held_out_text_as_the_training_model_does(finished):
    _, report, _ = finished
    for model in report["models"]:
        assert model["held_out"]["bits_per_byte"] == pytest.approx(model["training"]["bits_per_byte"], rel=1e-3)


def test_measuring_happens_in_processes_without_pytorch(finished):
    _, report, _ = finished
    assert [model["torch_imported"] for model in report["models"]] == [False, False]


def test_the_report_holds_what_a_reader_needs_to_judge_and_repeat_it(finished):
    out, report, _ = finished
    assert json.loads((out / "report.json").read_text())["models"] == report["models"]
    ternary, dense = report["models"]
    assert (ternary["linear_type"], dense["linear_type"]) == ("ternary", "dense")
    for model in report["models"]:
        assert len(model["training"]["curve"]["loss"]) == 40
        assert [c["kind"] for c in model["completions"]] == ["completion", "infill"]
        assert model["files"]["bytes"] > 0
        assert model["bench"]["peak_rss_bytes"] > 1e6
        assert model["bench"]["decode_tokens_per_second"] > 0
    assert [sum(layer.values()) for layer in ternary["layers"]] == [4 * 64 * 64 + 3 * 64 * 96] * 2
    assert dense["layers"] == []
    assert 0 < report["held_out"]["xz_bits_per_byte"] < 8
    assert report["repeat"]["command"].startswith("tritwise run ")
    assert {"python", "tritwise", "torch"} <= set(report["repeat"]["versions"])
    assert "ternary/model.safetensors" in report["repeat"]["hashes"]
    assert [stage["name"] for stage in report["stages"]] == [
        "data", "train-ternary", "train-dense", "ternary", "dense", "run"]


def test_a_completion_of_a_held_out_function_is_shown_as_it_comes(finished):
    _, report, stderr = finished
    for shown in report["models"][0]["completions"]:
        assert f"--- {shown['kind']}, {shown['source']}" in stderr
        assert f"[[{shown['text']}]]" in stderr
    assert "tokens/s" in stderr
    assert "kernel" in stderr


def test_a_second_run_reuses_everything_within_seconds(finished, recipe):
    out, report, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    began = time.monotonic()
    child = subprocess.run([sys.executable, "-X", "importtime", "-m", "tritwise.cli.app", "run", str(recipe), "--out",
                            str(out)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert time.monotonic() - began < 10
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert child.stderr.count("unchanged, reused") == 6
    assert "| torch\n" not in child.stderr.replace("  ", "")
    # The summary is shown again, with the same numbers.
    for model in report["models"]:
        assert f"{model['held_out']['bits_per_byte']:.4f}" in child.stdout
    assert f"{report['held_out']['xz_bits_per_byte']:.4f}" in child.stdout
    assert str(out / "report.html") in child.stdout


def run_until(command, condition, end):
    """Start a command, send it the signal `end` as soon as `condition()` holds; returns the finished process."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while child.poll() is None and not condition():
            time.sleep(0.002)
        child.send_signal(end)
        stdout, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
    return child.returncode, stdout, stderr


def test_a_killed_and_an_interrupted_run_go_on_and_end_bit_equal(finished, recipe):
    whole, _, _ = finished
    out = recipe.parent / "broken"
    command = [sys.executable, "-m", "tritwise.cli.app", "run", str(recipe), "--out", str(out)]

    def steps_logged(variant, count):
        log = out / f"train-{variant}" / "log.jsonl"
        return lambda: log.exists() and log.read_text().count("\n") >= count

    status, _, _ = run_until(command, steps_logged("ternary", 12), signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert (out / "train-ternary" / UNFINISHED).exists()  # it was killed in the middle
    status, stdout, stderr = run_until(command, steps_logged("ternary", 25), signal.SIGINT)
    assert status == 130, stderr
    assert stdout == ""
    assert "continuing what an earlier run began" in stderr
    assert "Traceback" not in stderr
    assert "the same command goes on from there" in stderr
    report = run_recipe(recipe, out)
    assert losses(out, "ternary") == losses(whole, "ternary")
    assert losses(out, "dense") == losses(whole, "dense")
    for name in ("ternary", "dense"):
        assert (out / name / "model.safetensors").read_bytes() == (whole / name / "model.safetensors").read_bytes()
    assert [stage["reused"] for stage in report["stages"]] == [True, *[False] * 5]


def test_a_changed_training_setting_retrains_without_new_data_and_keeps_the_old_training(finished, recipe, capsys):
    out = recipe.parent / "changed"
    shutil.copytree(finished[0], out)
    changed = recipe.with_name("changed.toml")
    changed.write_text(recipe.read_text().replace('"cosine", peak = 2e-3', '"cosine", peak = 1e-3'))
    report = run_recipe(changed, out)
    reused = {stage["name"]: stage["reused"] for stage in report["stages"]}
    assert reused == {"data": True, "train-ternary": True, "train-dense": False, "ternary": True, "dense": False,
                      "run": False}
    assert losses(out, "dense") != losses(finished[0], "dense")
    old = out / "superseded" / "train-dense-1" / "log.jsonl"
    assert old.read_text() == (finished[0] / "train-dense" / "log.jsonl").read_text()
    assert "moved to" in capsys.readouterr().err


def test_one_variant_alone_is_the_same_stage_as_in_a_run(finished, recipe, capsys):
    out = finished[0]
    before = (out / "train-dense" / "log.jsonl").stat().st_mtime_ns
    assert train_variant(recipe, "dense", out) == out / "train-dense"
    assert (out / "train-dense" / "log.jsonl").stat().st_mtime_ns == before
    assert capsys.readouterr().err.count("unchanged, reused") == 2


def test_keys_follow_the_sources_and_only_the_settings_that_matter(recipe, tmp_path):
    def keys(text=None):
        path = tmp_path / "recipe.toml"
        path.write_text(text or recipe.read_text())
        return stage_keys(stages_of(load_recipe(path), tmp_path))

    base = keys()
    # How often a checkpoint is written changes no number.
    assert keys(recipe.read_text().replace("checkpoint_every = 5", "checkpoint_every = 7")) == base
    fewer = keys(recipe.read_text().replace("steps = 40", "steps = 41"))
    assert {name for name in base if fewer[name] != base[name]} == set(base) - {"data"}
    file = next((recipe.parent / "repositories").rglob("*.py"))
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    try:
        assert all(keys()[name] != base[name] for name in base)
    finally:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert keys() == base
    # A mix changes what is trained on, and so does each of its shards.
    write_shard(tmp_path / "x.ds", [np.arange(9)], vocab_size=384, tokenizer_hash="t", recipe_hash="r")
    mix = f'\n[[mix.sources]]\nname = "own"\nweight = 1\n[[mix.sources]]\nname = "x"\nweight = 1\n' \
          f'paths = ["{tmp_path / "x.ds"}"]\n'
    mixed = keys(recipe.read_text() + mix)
    assert {name for name in base if mixed[name] != base[name]} == set(base) - {"data"}
    write_shard(tmp_path / "x.ds", [np.arange(8)], vocab_size=384, tokenizer_hash="t", recipe_hash="r")
    assert keys(recipe.read_text() + mix)["train-dense"] != mixed["train-dense"]


@pytest.mark.parametrize("name", ["data", "run", "train-x", "superseded"])
def test_a_variant_cannot_take_the_name_of_a_stage(recipe, tmp_path, name):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.read_text().replace("[variants.dense]", f"[variants.{name}]"))
    with pytest.raises(TritwiseError, match=f"cannot be called '{name}'"):
        stages_of(load_recipe(path), tmp_path)
