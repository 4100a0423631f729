"""The training loop: it learns, resumes bit for bit, survives kill -9, and stops at a NaN with the last state kept."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tritwise import TritwiseError
from tritwise.common.errors import Interrupted
from tritwise.config import DataRecipe, PackingSettings, Recipe
from tritwise.data import build
from tritwise.model import Decoder
from tritwise.train import SampleOrder, latest_checkpoint, load_checkpoint_model, loop, train
from tritwise.train.mixes import open_order
from tritwise.train.samples import NO_TARGET

STEPS = 12


def recipe_of(paths: Path, **train_changes) -> Recipe:
    schedule = {"peak": 1e-2, "warmup_steps": 2}
    return Recipe.model_validate({
        "name": "tiny", "seed": 3,
        "data": {"sources": {"paths": [str(paths)]}, "held_out_fraction": 0.2},
        "tokenizer": {"vocab_size": 300},
        "model": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "tie_word_embeddings": True},
        "train": {"steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "sequence_length": 32, "dtype": "float32",
                  "checkpoint_every": 4} | train_changes,
        "variants": {
            "ternary": {"model_type": "bitnet", "linear_type": "ternary",
                        "schedule": schedule | {"shape": "two_stage", "second_peak": 6e-3, "floor": 2e-4}},
            "dense": {"model_type": "llama", "linear_type": "dense",
                      "schedule": schedule | {"shape": "cosine", "floor": 1e-3}},
        },
    })


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of five small repositories and the data built from it."""
    root = tmp_path_factory.mktemp("corpus")
    for number in range(5):
        repository = root / "repositories" / f"r{number}"
        repository.mkdir(parents=True)
        for name in "abc":
            lines = [f"def {name}_{i}(x):\n    return x + {i * number}\n" for i in range(40)]
            (repository / f"{name}.py").write_text("\n".join(lines))
    data = root / "data"
    build(recipe_of(root / "repositories"), data)
    return root / "repositories", data


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    """An uninterrupted ternary run."""
    out = tmp_path_factory.mktemp("whole")
    train(recipe_of(corpus[0]), "ternary", corpus[1], out, threads=1)
    return out


def test_the_loss_falls_and_every_step_is_logged(whole):
    values = losses(whole)
    assert len(values) == STEPS
    assert values[0] == pytest.approx(np.log(300), rel=0.05)  # a fresh model knows nothing
    assert np.mean(values[-3:]) < values[0] - 0.5
    result = json.loads((whole / "result.json").read_text())["held_out"]
    assert 0 < result["bits_per_byte"] < np.log2(300)


def test_experts_are_trained_with_their_balance_in_the_loss(corpus, tmp_path):
    first = []
    for coefficient in (0.0, 0.5):
        recipe = recipe_of(corpus[0], steps=1, router_aux_loss_coef=coefficient)
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        recipe = Recipe.model_validate(recipe.model_dump() | {"model": recipe.model | experts})
        out = tmp_path / str(coefficient)
        train(recipe, "ternary", corpus[1], out, threads=1)
        first.append(losses(out)[0])
    # The balance is k when the experts share the tokens evenly, and more when not (Switch Transformer, equation 4).
    assert 0.5 * 2 <= first[1] - first[0] < 0.5 * 2 * 4


def test_both_variants_see_the_same_tokens(corpus, whole, tmp_path, monkeypatch):
    seen = []
    original = SampleOrder.batch

    def recorded(*arguments, **options):
        seen.append(original(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(SampleOrder, "batch", recorded)
    for variant in ("ternary", "dense"):
        train(recipe_of(corpus[0]), variant, corpus[1], tmp_path / variant, stop_after=3, threads=1)
    assert len(seen) == 6
    for a, b in zip(seen[:3], seen[3:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stop", [4, 7])
def test_a_stopped_run_goes_on_bit_for_bit(corpus, whole, tmp_path, stop):
    recipe = recipe_of(corpus[0])
    train(recipe, "ternary", corpus[1], tmp_path, stop_after=stop, threads=1)
    assert latest_checkpoint(tmp_path).name == f"step-{stop:08d}"
    train(recipe, "ternary", corpus[1], tmp_path, threads=1)
    assert losses(tmp_path) == losses(whole)
    assert_equal_checkpoints(tmp_path, whole)


def assert_equal_checkpoints(a: Path, b: Path) -> None:
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (load_file(latest_checkpoint(run) / name) for run in (a, b))
        assert first.keys() == second.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], second[key], err_msg=key)


KILLED = """
import sys
from pathlib import Path
from tritwise.config import DataRecipe, PackingSettings, Recipe
from tritwise.train import train
train(Recipe.model_validate_json(sys.argv[1]), "ternary", Path(sys.argv[2]), Path(sys.argv[3]), threads=1)
"""


def test_kill_9_at_any_moment_loses_nothing(corpus, tmp_path):
    """The run is killed three times, wherever it happens to be, and goes on; the curve is the uninterrupted one."""
    recipe = recipe_of(corpus[0], steps=60, checkpoint_every=5)
    train(recipe, "ternary", corpus[1], tmp_path / "whole", threads=1)
    out, kills = tmp_path / "killed", 0
    rng = np.random.default_rng(0)
    while not (out / "result.json").exists():
        process = subprocess.Popen([sys.executable, "-c", KILLED, recipe.model_dump_json(), str(corpus[1]), str(out)],
                                   stderr=subprocess.DEVNULL)
        lines_before = len(losses_or_none(out))
        deadline = time.monotonic() + 60
        # Wait until this process has made some steps of its own, then kill within the time of a few more.
        while process.poll() is None and time.monotonic() < deadline and len(losses_or_none(out)) <= lines_before + 8:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        if kills < 3 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait(timeout=60) in (0, -signal.SIGKILL)
    assert kills == 3
    assert losses(out) == losses(tmp_path / "whole")
    assert_equal_checkpoints(out, tmp_path / "whole")


def losses_or_none(out: Path) -> list[str]:
    return (out / "log.jsonl").read_text().splitlines() if (out / "log.jsonl").exists() else []


def test_ctrl_c_saves_and_says_how_to_go_on(corpus, whole, tmp_path, monkeypatch):
    original = loop._optimizer_step

    def interrupted_at_step_6(model, optimizer, batch, settings, step, ranks):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return original(model, optimizer, batch, settings, step, ranks)

    monkeypatch.setattr(loop, "_optimizer_step", interrupted_at_step_6)
    with pytest.raises(Interrupted, match=r"stopped at step 6 of 12(.|\n)*the same command goes on"):
        train(recipe_of(corpus[0]), "ternary", corpus[1], tmp_path, threads=1)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(recipe_of(corpus[0]), "ternary", corpus[1], tmp_path, threads=1)
    assert losses(tmp_path) == losses(whole)


def test_a_nan_loss_stops_the_run_and_keeps_the_last_good_checkpoint(corpus, tmp_path, monkeypatch):
    original = loop.Decoder.loss
    calls = [0]

    def poisoned(self, ids, targets, **options):
        calls[0] += 1
        loss = original(self, ids, targets, **options)
        return loss * float("nan") if calls[0] == 13 else loss  # two micro-batches a step: step 7

    monkeypatch.setattr(loop.Decoder, "loss", poisoned)
    with pytest.raises(TritwiseError, match="diverged at step 7: loss nan"):
        train(recipe_of(corpus[0]), "ternary", corpus[1], tmp_path, threads=1)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint.name == "step-00000004"
    _, tensors = load_checkpoint_model(checkpoint)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_gradient_accumulation_gives_the_gradient_of_the_whole_batch(corpus):
    recipe = recipe_of(corpus[0])
    batch = torch.randint(0, 300, (4, 33), generator=torch.Generator().manual_seed(0))
    norms = []
    for micro in (1, 2, 4):
        settings = recipe.train.model_copy(update={"micro_batch_size": micro})
        model = loop.Decoder(recipe.model_config_of("ternary"))
        model.initialise(torch.Generator().manual_seed(0))
        norms.append(loop._optimizer_step(model, loop.make_optimizer(model, settings), batch, settings, 1))
    # The same numbers summed in another order.
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert norms[2] == pytest.approx(norms[0], rel=1e-5)


def test_a_directory_of_another_run_is_refused(corpus, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    with pytest.raises(TritwiseError, match="holds a run of other settings"):
        train(recipe_of(corpus[0], steps=13), "ternary", corpus[1], tmp_path / "copy", threads=1)


def test_how_gaps_are_asked_for_is_kept_and_makes_no_other_run(corpus, tmp_path):
    recipe = recipe_of(corpus[0], steps=2)
    train(recipe, "ternary", corpus[1], tmp_path, threads=1, stop_after=1)
    changed = recipe.model_copy(update={"model": recipe.model | {"fim_order": "spm"}})
    train(changed, "ternary", corpus[1], tmp_path, threads=1)
    config, _ = load_checkpoint_model(tmp_path)
    assert config.fim_order == "spm"


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(corpus, whole, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    newest = latest_checkpoint(run)
    with (newest / "model.safetensors").open("r+b") as f:
        f.seek(200)
        f.write(b"\xff\xff")
    assert latest_checkpoint(run).name == "step-00000008"
    with pytest.raises(TritwiseError, match="is damaged"):
        load_checkpoint_model(newest)
    train(recipe_of(corpus[0]), "ternary", corpus[1], run, threads=1)
    assert losses(run) == losses(whole)


def test_when_every_checkpoint_is_damaged_the_run_is_not_started_over_in_silence(whole, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(whole, run)
    for checkpoint in (run / "checkpoints").iterdir():
        (checkpoint / "state.json").write_text("{}")
    with pytest.raises(TritwiseError, match=r"no checkpoint in .* is whole"):
        latest_checkpoint(run)


def test_a_checkpoint_gives_configuration_and_master_weights(whole, corpus):
    config, tensors = load_checkpoint_model(whole)
    assert config == recipe_of(corpus[0]).model_config_of("ternary")
    assert {name: tensor.shape for name, tensor in tensors.items()} == config.tensor_shapes()
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(TritwiseError, match="is not a checkpoint"):
        load_checkpoint_model(tmp_path)


def test_a_mix_is_trained_on_resumed_bit_for_bit_and_reported(corpus, tmp_path, capsys):
    """The recipe's own data and the same as a second source; from half of the steps on that one alone."""
    mix = {"sources": [{"name": "own", "weight": 3}, {"name": "other", "weight": 1, "paths": [str(corpus[1])]}],
           "stages": [{"start": 0.5, "weights": {"other": 1}}], "max_epochs": 0.01}
    recipe = Recipe.model_validate(recipe_of(corpus[0]).model_dump() | {"mix": mix})
    one = load_file(train(recipe, "ternary", corpus[1], tmp_path / "one", threads=1) / "model.safetensors")
    train(recipe, "ternary", corpus[1], tmp_path / "two", stop_after=7, threads=1)
    two = load_file(train(recipe, "ternary", corpus[1], tmp_path / "two", threads=1) / "model.safetensors")
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    used = json.loads((tmp_path / "one" / "result.json").read_text())["mix"]
    assert [(each["name"], each["samples"]) for each in used] == [("own", 18), ("other", 6 + 24)]
    assert "the source other is repeated" in capsys.readouterr().err
    other = Recipe.model_validate(recipe.model_dump() | {"mix": mix | {"stages": []}})
    with pytest.raises(TritwiseError, match="a run of other settings"):
        train(other, "ternary", corpus[1], tmp_path / "one", threads=1)


@pytest.mark.parametrize("packing", [{"method": "best_fit", "window": 32},
                                     {"method": "best_fit", "window": 32, "keep_neighbours": True},
                                     {"window": 32}])
def test_training_on_stored_windows_learns_and_takes_no_loss_on_padding(packing, corpus, tmp_path):
    recipe = recipe_of(corpus[0])
    data = recipe.data.model_copy(update={
        "packing": PackingSettings.model_validate(packing),
        "fim": recipe.data.fim.model_copy(update={"level": "piece" if "method" in packing else "context"})})
    recipe = recipe.model_copy(update={"data": DataRecipe.model_validate(data.model_dump())})
    report = build(recipe, tmp_path / "data")
    assert report.train.windows > 0
    order, _ = open_order(recipe, tmp_path / "data")
    assert order.windows == report.train.windows
    rows = order.rows(np.arange(order.windows))
    assert int((rows == NO_TARGET).sum()) == report.train.padding > 0
    assert int((rows != NO_TARGET).sum()) == report.train.tokens
    train(recipe, "dense", tmp_path / "data", tmp_path / "out", threads=1)
    values = losses(tmp_path / "out")
    assert values[0] == pytest.approx(np.log(300), rel=0.05)
    assert np.mean(values[-3:]) < values[0] - 0.5


def test_micro_batches_with_padding_give_the_gradient_of_the_whole_batch(corpus):
    recipe = recipe_of(corpus[0])
    batch = torch.randint(0, 300, (4, 33), generator=torch.Generator().manual_seed(2))
    batch[0, 5:], batch[3, 20:] = NO_TARGET, NO_TARGET
    found = []
    for size in (4, 2, 1):
        model = Decoder(recipe.model_config_of("dense"))
        model.initialise(torch.Generator().manual_seed(0))
        step = recipe.train.model_copy(update={"micro_batch_size": size})
        found.append(loop._optimizer_step(model, loop.make_optimizer(model, step), batch, step, 1))
    for loss, norm in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert norm == pytest.approx(found[0][1], rel=1e-4)
