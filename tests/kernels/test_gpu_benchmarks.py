"""The GPU benchmarks go through all of their steps here, on tiny sizes."""

import collections
import importlib.util
import json
import runpy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tritwise.model.bitlinear import kernels_everywhere

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "gpu"


class Operators(TorchDispatchMode):
    """Counts the operators that run, without their overloads' names."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func).rpartition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def test_a_dry_run_of_the_attention_benchmark_measures_every_row(tmp_path, capsys):
    main = runpy.run_path(str(BENCHMARKS / "attention.py"))["main"]
    file = tmp_path / "attention.json"
    main(["--dry-run", "--contexts", "70", "--batches", "2", "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [row["what"] for row in rows] == ["sdpa", "f16", "int8", "int4"]
    assert all(row["seconds"] > 0 for row in rows)
    # Of a key and a value of 32 dimensions: int8 has a float32 beside its codes, int4 a float16.
    assert [row["bytes"] for row in rows] == [2 * 70 * each for each in (128, 128, 72, 36)]
    assert "dry run: no speed" in capsys.readouterr().out


def test_what_the_time_was_too_short_for_is_listed_as_not_measured():
    main = runpy.run_path(str(BENCHMARKS / "attention.py"))["main"]
    rows = main(["--dry-run", "--seconds", "-1"])["rows"]
    assert len(rows) == 16
    assert all(row["seconds"] is None and row["why"] == "the time was used up" for row in rows)


def test_without_a_gpu_the_benchmark_says_how_to_try_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--dry-run"):
        runpy.run_path(str(BENCHMARKS / "attention.py"))["main"]([])


def test_the_end_to_end_benchmark_computes_what_does_not_fit_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["end_to_end.py", "--model-only"])
    runpy.run_path(str(BENCHMARKS / "end_to_end.py"))["main"]()
    said = capsys.readouterr().out
    assert "computed: paper-70b, 1 x H200, f16: batch 714" in said
    assert "dense does not fit" in said


@pytest.mark.slow
def test_a_dry_run_of_the_end_to_end_benchmark_runs_every_system(monkeypatch, tmp_path):
    file = tmp_path / "end_to_end.json"
    monkeypatch.setattr("sys.argv", ["end_to_end.py", "--dry-run", "--json", str(file)])
    runpy.run_path(str(BENCHMARKS / "end_to_end.py"))["main"]()
    results = json.loads(file.read_text())
    (row,) = results["decode"]
    assert row["not_measured"] == {}
    assert set(row["systems"]) == {"ternary", "dense", "transformers eager"}
    assert set(row["scaled"]) == set(row["systems"])
    assert row["ratios"]["dense"]["weights"] > 2
    assert [each["scaled_tokens_per_second"] is not None for each in results["serving"]] == [True] * 3


@pytest.mark.slow
# Dynamo makes an instance of an autograd function to trace it, which torch itself warns of; torchao's imports warn too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_dry_run_of_the_training_benchmark_compiles_every_system_whole_and_gives_it_the_same_tokens(tmp_path):
    module = runpy.run_path(str(BENCHMARKS / "training.py"))
    module["main"](["--dry-run", "--json", str(tmp_path / "training.json")])
    rows = {row["system"]: row for row in json.loads((tmp_path / "training.json").read_text())["rows"]}
    assert list(rows) == ["tritwise", "dense", "fake-quant", "torchao"]
    if importlib.util.find_spec("torchao") is None:
        assert rows.pop("torchao")["left_out"].startswith("ModuleNotFoundError")
    for row in rows.values():
        assert "left_out" not in row, row
        assert (row["graphs"], row["graph_breaks"], row["tokens_a_step"]) == (1, 0, 8), row
        assert row["tokens_per_second"] > 0


def test_each_system_of_the_training_benchmark_multiplies_as_its_name_says():
    module = runpy.run_path(str(BENCHMARKS / "training.py"))
    shape = module["TINY"]["tiny"]
    products = {"tritwise": ("tritwise.bit_linear", 4), "dense": ("aten.mm", 7), "fake-quant": ("aten.mm", 7)}
    if importlib.util.find_spec("torchao") is not None:
        products["torchao"] = ("aten._int_mm", 7)
    x, tables = torch.ones(1, 8, 32).bfloat16(), module["rotary_tables"](8, shape.config())
    cos, sin = (table.bfloat16() for table in tables)
    for system, (operator, times) in products.items():
        (block,) = module["blocks_of"](system, shape)
        cast = nullcontext() if system == "tritwise" else torch.autocast("cpu", torch.bfloat16)
        with torch.no_grad(), kernels_everywhere(), cast, Operators() as used:
            block(x, cos, sin)
        assert used.counts[operator] == times, (system, used.counts)
        rounds = used.counts["aten.round"]
        assert rounds == {"tritwise": 0, "dense": 0, "fake-quant": 2 * 7, "torchao": 2 * 7}[system]


def test_memory_and_speed_are_compared_for_the_same_shape_only():
    ratios = runpy.run_path(str(BENCHMARKS / "training.py"))["ratios"]
    rows = [{"shape": shape, "system": system, "tokens_per_second": speed, "peak_bytes": peak}
            for shape, system, speed, peak in (("3B", "tritwise", 30.0, 8), ("3B", "dense", 20.0, 16),
                                               ("7B", "dense", 10.0, 32))]
    rows.append({"shape": "3B", "system": "torchao", "left_out": "no time left"})
    assert ratios(rows) == [{"shape": "3B", "against": "dense", "speed": 1.5, "memory": 0.5}]
