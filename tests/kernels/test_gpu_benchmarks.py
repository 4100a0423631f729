"""The GPU benchmarks go through all of their steps here, on tiny sizes."""

import json
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "gpu"


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
    import torch

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
