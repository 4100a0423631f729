"""Two ranks on the CPU (gloo): codes equal to one process's bit for bit, losses to rounding, one checkpoint for all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from parallel_worker import EXCHANGES, EXPERTS, UNEVEN, accumulating, tokens, two_steps, uneven_model
from safetensors.torch import load_file
from test_loop import corpus, losses, recipe_of  # noqa: F401  (corpus is a fixture)

from tritwise import TritwiseError
from tritwise.cli.commands.train import train as command
from tritwise.kernels.training_twins import pack_codes, unpack_codes
from tritwise.model import experts
from tritwise.model.bitlinear import quantise_weight
from tritwise.train import latest_checkpoint, loop, train
from tritwise.train.ranks import Ranks, join_ranks, micro_batch_size

WORKER = Path(__file__).with_name("parallel_worker.py")


def smooth(paths, **changes):
    """A recipe whose updates follow the gradient. AdamW's usual eps turns a gradient that is rounding into a step."""
    return recipe_of(paths, **{"adam_eps": 0.1, "micro_batch_size": 1} | changes)


def on_two_ranks(command: list[str]) -> list[str]:
    """Start a command as torchrun would, twice; returns what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "TRITON_INTERPRET": "1"}
    processes = [subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
                 for rank in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return outputs


@pytest.fixture(scope="module")
def two_ranks(corpus, tmp_path_factory):  # noqa: F811
    """Where parallel_worker.py left its findings."""
    out = tmp_path_factory.mktemp("ranks")
    on_two_ranks([str(WORKER), smooth(corpus[0]).model_dump_json(), str(corpus[1]), str(out)])
    return out


@pytest.fixture(scope="module")
def one_process(corpus, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("one")
    train(smooth(corpus[0]), "ternary", corpus[1], out, stop_after=3, threads=1)
    return out


@pytest.mark.parametrize(("config", "folder", "linears"), [(UNEVEN, ".", 7), (EXPERTS, "experts", 4 + 3 * 7)],
                         ids=["dense", "experts"])
def test_codes_and_scales_of_two_ranks_equal_one_process_bit_for_bit(two_ranks, config, folder, linears):
    found = load_file(two_ranks / folder / "codes.safetensors")
    checked = 0
    for name, parameter in uneven_model(config).named_parameters():
        if f"codes.{name}" in found:
            codes, scale = quantise_weight(parameter.detach(), "ternary")
            np.testing.assert_array_equal(found[f"codes.{name}"], codes)
            assert found[f"means.{name}"][0] == scale
            np.testing.assert_array_equal(found[f"weight.{name}"], parameter.detach())
            checked += 1
    assert checked == linears


def test_a_model_with_experts_has_the_losses_and_weights_of_one_process(two_ranks, monkeypatch):
    """What two ranks see at once is a micro-batch of two in one process, the load-balancing loss with it."""
    model, used = uneven_model(EXPERTS), []
    original = experts.choose_experts
    monkeypatch.setattr(experts, "choose_experts", lambda *given: (used.append(original(*given)), used[-1])[1])
    expected, _ = two_steps(model, accumulating(micro_batch_size=2), Ranks(), length=3)
    assert any(len(ids.unique()) < 6 for ids, _ in used)
    assert json.loads((two_ranks / "experts" / "losses.json").read_text()) == pytest.approx(expected, rel=1e-6)
    found = load_file(two_ranks / "experts" / "weights.safetensors")
    for key, parameter in model.named_parameters():
        assert (found[key] - parameter.detach()).abs().max() < 1e-6, key
    alone, _ = two_steps(uneven_model(EXPERTS), accumulating(), Ranks(), length=3)
    assert alone != pytest.approx(expected, rel=1e-4)  # a balance over other tokens is another loss


def test_one_all_reduce_serves_all_linears_and_codes_are_gathered_in_2_bits(two_ranks):
    facts = json.loads((two_ranks / "facts.json").read_text())
    assert facts["all_reduces"] == 1
    for packed, master in facts["bytes"].values():
        assert packed <= master / 16 * 1.1  # 45 inputs are padded to 48, 23 rows of 45 stand for 22.5


def test_codes_that_are_older_than_the_weights_are_an_error(two_ranks):
    for rank in range(2):
        assert "quantise_shards(model) has to follow" in (two_ranks / f"stale-{rank}.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux, where CI runs this")
def test_gradients_of_two_ranks_on_the_gpus_kernels_equal_those_of_one_process(two_ranks):
    found, model, ids = load_file(two_ranks / "gradients.safetensors"), uneven_model(), tokens()
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        # float32 sums of at most 61 terms through 9 products and norms in each direction, in another order.
        bound = 18 * 61 * 2.0**-24 * parameter.grad.abs().max()
        assert (found[name] - parameter.grad).abs().max() <= bound, name


@pytest.mark.parametrize("name", EXCHANGES)
def test_gradients_are_reduced_once_a_step_and_give_the_same_losses_and_weights(two_ranks, name):
    facts = json.loads((two_ranks / "accumulation.json").read_text())[name]
    model = uneven_model()
    expected, _ = two_steps(model, accumulating(), Ranks())
    assert expected[1] < expected[0]
    # The same sums in another order, in float32, through one update.
    assert facts["losses"] == pytest.approx(expected, rel=1e-6)
    found = load_file(two_ranks / f"accumulated-{name}.safetensors")
    for key, parameter in model.named_parameters():
        assert (found[key] - parameter.detach()).abs().max() < 1e-6, key
    groups, parts = 2, 3  # the block, the rest; micro-batches of a rank
    reductions = groups * (parts if EXCHANGES[name].reduce_gradients == "micro_batch" else 1)
    # The block's weights are let go of between forward and backward, the rest's are not.
    gathers = groups if EXCHANGES[name].keep_gathered else 3 * parts
    assert facts["calls"] == 2 * [{"allgather": gathers, "reduce_scatter": reductions}]


def test_what_ranks_exchange_and_what_is_recomputed_is_no_part_of_what_a_run_is(corpus):  # noqa: F811
    keys = {loop.run_key(smooth(corpus[0], ranks=each.model_dump(), recompute=recompute), "ternary", "")
            for each in EXCHANGES.values() for recompute in ("none", "blocks")}
    assert len(keys) == 1
    assert loop.run_key(smooth(corpus[0], adam_eps=0.2), "ternary", "") not in keys


def test_losses_and_weights_of_two_ranks_equal_one_process_to_rounding(two_ranks, one_process):
    ours, theirs = losses(two_ranks / "ranks"), losses(one_process)
    assert len(ours) == len(theirs) == 3
    # The same means in another order, in float32, carried over three updates.
    assert ours == pytest.approx(theirs, rel=1e-5)
    pair = [load_file(latest_checkpoint(out) / "model.safetensors") for out in (two_ranks / "ranks", one_process)]
    assert pair[0].keys() == pair[1].keys()
    for name, tensor in pair[0].items():
        assert tensor.shape == pair[1][name].shape
        assert (tensor - pair[1][name]).abs().max() < 1e-5, name


def test_a_single_process_goes_on_from_the_ranks_checkpoint(two_ranks, one_process, corpus, tmp_path):  # noqa: F811
    recipe = smooth(corpus[0])
    assert [path.name for path in (two_ranks / "ranks" / "checkpoints").iterdir()] == ["step-00000003"]
    train(recipe, "ternary", corpus[1], two_ranks / "ranks", stop_after=4, threads=1)
    train(recipe, "ternary", corpus[1], one_process, stop_after=4, threads=1)
    assert losses(two_ranks / "ranks") == pytest.approx(losses(one_process), rel=1e-5)


def test_the_command_line_goes_on_under_two_ranks_and_the_first_speaks(one_process, corpus, tmp_path):  # noqa: F811
    recipe = smooth(corpus[0], steps=6)
    file = tmp_path / "recipe.toml"
    file.write_text(_toml(recipe.model_dump(mode="json", exclude_unset=True)))
    train(recipe, "ternary", corpus[1], tmp_path / "out", stop_after=3, threads=1)
    first, second = on_two_ranks(["-m", "tritwise.cli.app", "train", str(file), "--variant", "ternary", "--data",
                                  str(corpus[1]), "--out", str(tmp_path / "out")])
    assert "step-00000006" in first
    assert second.strip() == ""
    whole = tmp_path / "whole"
    train(recipe, "ternary", corpus[1], whole, threads=1)
    assert losses(tmp_path / "out") == pytest.approx(losses(whole), rel=1e-5)
    results = [json.loads((out / "result.json").read_text())["held_out"] for out in (tmp_path / "out", whole)]
    assert results[0]["bits_per_byte"] == pytest.approx(results[1]["bits_per_byte"], rel=1e-3)


def _toml(values: dict, path: str = "") -> str:
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"[{path}]"] if path else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tables]
    return "\n".join(lines) + "\n" + "".join(_toml(value, f"{path}.{key}".strip(".")) for key, value in tables.items())


def test_packed_codes_unpack_to_what_they_were():
    codes = torch.randint(-1, 2, (5, 45), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    assert pack_codes(codes).shape == (5, 12)
    np.testing.assert_array_equal(unpack_codes(pack_codes(codes), 45), codes)


def test_ranks_that_cannot_share_a_batch_are_refused(corpus):  # noqa: F811
    settings = smooth(corpus[0], micro_batch_size=2).train
    assert micro_batch_size(settings, Ranks()) == micro_batch_size(settings, Ranks(0, 2)) == 2
    assert micro_batch_size(settings, Ranks(0, 4)) == 1
    with pytest.raises(TritwiseError, match="cannot be shared by 3 ranks"):
        micro_batch_size(settings, Ranks(0, 3))
    uneven = settings.model_copy(update={"batch_size": 12, "micro_batch_size": 4})
    with pytest.raises(TritwiseError, match="6 sequences of a step are no multiple of micro_batch_size 4"):
        micro_batch_size(uneven, Ranks(0, 2))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TritwiseError, match="no CUDA device") as caught:
        join_ranks("cuda")
    assert "--device cpu" in caught.value.fix


def test_the_command_line_asks_for_data_where_it_trains_on_a_gpu(tmp_path):
    with pytest.raises(TritwiseError, match="--device cuda needs --data and --out"):
        command(tmp_path / "recipe.toml", variant="ternary", device="cuda")
