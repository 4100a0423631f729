"""The training kernels compiled for sm_90 and sm_80, without a GPU: tensor cores, wide loads, no spills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TENSOR_CORES = {
    90: {"forward": "IGMMA.64x128x32.S8.S8", "input_gradient": "HGMMA.64x128x16.F32.BF16",
         "weight_gradient": "HGMMA.64x128x16.F32.BF16"},
    80: {"forward": "IMMA.16832.S8.S8", "input_gradient": "HMMA.16816.F32.BF16",
         "weight_gradient": "HMMA.16816.F32.BF16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, 80])
def test_products_run_on_tensor_cores_and_nothing_spills(capability, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    child = subprocess.run([sys.executable, Path(__file__).with_name("training_aot.py"), str(capability)],
                           capture_output=True, text=True, check=False,
                           env=environment | {"TRITON_CACHE_DIR": str(tmp_path)})
    assert child.returncode == 0, child.stderr
    kernels = json.loads(child.stdout)
    assert len(kernels) == (8 if capability == 90 else 3)
    for name, code in kernels.items():
        assert code["spills"] == 0, name
        assert code["shared"] <= (227 if capability == 90 else 163) * 1024, name
    for name, instruction in TENSOR_CORES[capability].items():
        assert any(used.startswith(instruction) for used in kernels[name]["tensor"]), (name, kernels[name]["tensor"])
        # Operands go to shared memory asynchronously, 16 bytes a thread.
        assert any(load.startswith("LDGSTS") and load.endswith("128") for load in kernels[name]["loads"]), name
        assert "LDG.E.U8" not in kernels[name]["loads"], name
    for name in kernels.keys() & {"exact_sums", "weight_codes", "quantise_tokens", "norm_backward"}:
        assert "LDG.E.128" in kernels[name]["loads"], name
