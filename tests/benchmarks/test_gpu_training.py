"""The training benchmark goes through all of its code without a GPU, and says what it did not measure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux, where CI runs this")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "training.py"


@pytest.mark.slow
def test_a_dry_run_makes_a_step_of_every_system_that_is_installed(tmp_path):
    child = subprocess.run([sys.executable, SCRIPT, "--dry-run", "--json", tmp_path / "out.json"], capture_output=True,
                           text=True, check=False, env=os.environ | {"TRITON_INTERPRET": "1"})
    assert child.returncode == 0, child.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    rows = {row["system"]: row for row in result["rows"]}
    assert list(rows) == ["tritwise", "dense", "fake-quant", "torchao"]
    for system in ("tritwise", "dense", "fake-quant"):
        assert rows[system]["tokens_per_second"] > 0
        assert rows[system]["peak_bytes"] is None
    assert "no measurement" in result["device"]
    assert result["ratios"] == []


def test_without_a_gpu_nothing_is_measured(tmp_path):
    child = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False,
                           env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert child.returncode == 1
    assert "no GPU: --dry-run goes through the code without one" in child.stderr
