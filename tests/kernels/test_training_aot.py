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


SIZES = {"700M": (1536, 4096), "1.3B": (2048, 5460), "3B": (3200, 8640)}
QUANTISERS = ("exact_sums", "weight_codes", "quantise_tokens", "norm_backward")


@pytest.mark.slow
@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize("capability", [90, 80])
def test_products_run_on_tensor_cores_and_nothing_spills(capability, model, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    child = subprocess.run([sys.executable, Path(__file__).with_name("training_aot.py"), str(capability), model],
                           capture_output=True, text=True, check=False,
                           env=environment | {"TRITON_CACHE_DIR": str(tmp_path)})
    assert child.returncode == 0, child.stderr
    kernels = json.loads(child.stdout)
    assert len(kernels) == 4 * 3 + 2 * 5
    for name, code in kernels.items():
        assert code["spills"] == 0, name
        assert code["shared"] <= (227 if capability == 90 else 163) * 1024, name
    for name, code in kernels.items():
        kernel, of = name.split()
        if kernel in TENSOR_CORES[capability]:
            assert any(used.startswith(TENSOR_CORES[capability][kernel]) for used in code["tensor"]), (name, code)
            # Operands go to shared memory asynchronously, 16 bytes a thread; 8 where the gradient of the second of two
            # weights begins 5460 bfloat16 behind that of the first.
            widest = "64" if (name, model) == ("input_gradient gate_up", "1.3B") else "128"
            assert all("U8" not in load and "U16" not in load for load in code["loads"]), (name, code)
            assert any(load.startswith("LDGSTS") and load.endswith(widest) for load in code["loads"]), (name, code)
        elif kernel in QUANTISERS:
            assert "LDG.E.128" in code["loads"] or int(of) % 16, (name, code)
            assert "LDG.E.U16" not in code["loads"], (name, code)
