"""Kernels compiled for GPUs that are not here: what their machine code must have, and must not have.

Each compiles in a process without the interpreter, which would have replaced the kernels.
"""

import json
import os
import subprocess
import sys

import pytest

from tritwise.kernels.linear import GEMV_SUMS

_COUNT = """
import json, sys
from tritwise.kernels import aot
from tritwise.kernels.tiles import Tile
order = json.loads(sys.argv[1])
tile = Tile(**order["tile"])
code = aot.tile_code(tile, order["k"], capability=order["capability"], residual=order["residual"],
                     tokens=order["tokens"])
loop = code.main_loop("IGMMA|IMMA|IDP")
names = code.names(loop)
print(json.dumps({"loop": names, "spills": code.count("LDL|STL"), "registers": code.registers, "shared": code.shared,
                  "async": code.count("LDGSTS"), "async_128": code.count(r"LDGSTS.*[.]128"),
                  "loads_128": code.count(r"LDG.*[.]128", loop), "loads": code.count("LDG[.]", loop)}))
"""


def compiled(kernel, bn, bm, bk, warps, stages, *, k=8192, splits=2, capability=90, residual=False, tokens=1):
    """Counts of the machine code, in a process of its own."""
    tile = {"kernel": kernel, "bn": bn, "bm": bm, "bk": bk, "splits": splits, "warps": warps, "stages": stages}
    order = {"tile": tile, "k": k, "capability": capability, "residual": residual, "tokens": tokens}
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", _COUNT, json.dumps(order)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    found["weights"] = 4 * bn * bk / (32 * warps)  # of a thread in a step
    return found


def check_tensor_core_loop(found, instruction, spills=0, replicas=1):
    """The main loop: masks alone unpack (0.25 a weight), data comes by wide asynchronous copies, nothing is spilled.

    `replicas`: how many warps at most unpack the same weights, each for tokens of its own.
    """
    loop = found["loop"]
    assert loop.get(instruction, 0) > 0
    assert found["spills"] <= spills
    assert loop.get("LDL", 0) + loop.get("STL", 0) == 0
    assert found["async_128"] == found["async"] > 0
    assert loop.get("LDG", 0) == 0
    # Per weight; a few more for addresses. Prefill's loop unpacks one field of the four.
    assert loop["LOP3"] <= found["unpacked"] * 0.25 * replicas + 8
    assert loop["LOP3"] >= found["unpacked"] * 0.25
    assert loop.get("SHF", 0) + loop.get("PRMT", 0) <= 8


@pytest.mark.parametrize(("k", "residual"), [pytest.param(8192, False, marks=pytest.mark.slow), (6912, True)],
                         ids=["even", "masked"])
def test_small_batches_unpack_with_masks_alone_on_hopper(k, residual):
    found = compiled("small_batch", 64, 16, 128, 4, 4, k=k, residual=residual)
    check_tensor_core_loop(found | {"unpacked": found["weights"]}, "IGMMA")


@pytest.mark.slow
def test_gemv_is_dp4a_behind_masks_and_wide_loads():
    found = compiled("gemv", 4, 1, 128, 1, 2)
    assert found["spills"] == 0
    assert found["loop"]["IDP"] == found["weights"]  # BK counts words of four bytes: a quarter of the weights
    assert found["loop"]["IDP"] <= found["loop"]["LOP3"] <= found["loop"]["IDP"] + 4
    assert found["loads_128"] == found["loads"] == 8
    assert found["loop"].get("SHF", 0) + found["loop"].get("PRMT", 0) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_gemv_spills_nothing_with_as_many_sums_as_it_is_ever_launched_with(tokens, capability):
    found = compiled("gemv", GEMV_SUMS // (tokens * 128), 1, 128, 1, 2, tokens=tokens, capability=capability)
    assert found["spills"] == 0
    assert found["loop"]["IDP"] == 128


@pytest.mark.slow
@pytest.mark.parametrize("bm", [128, 256])
def test_prefill_unpacks_with_masks_alone_on_hopper(bm):
    found = compiled("prefill", 128, bm, 64, 8, 4, splits=1)
    # At 128 x 256 one register is kept in memory across the end of the tile, outside of every loop.
    check_tensor_core_loop(found | {"unpacked": found["weights"] / 4}, "IGMMA", spills=2 if bm == 256 else 0)


@pytest.mark.slow
@pytest.mark.parametrize(("bn", "bm", "bk"), [(128, 16, 128), (128, 32, 128), (128, 64, 64)])
def test_other_tiles_of_small_batches_on_hopper(bn, bm, bk):
    found = compiled("small_batch", bn, bm, bk, 4 if bm == 16 else 8, 4)
    check_tensor_core_loop(found | {"unpacked": found["weights"]}, "IGMMA")


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "bn", "bm", "bk", "warps"), [
    ("small_batch", 64, 16, 128, 4), ("small_batch", 32, 64, 64, 4), ("prefill", 128, 128, 64, 8)])
def test_the_same_holds_on_ampere(kernel, bn, bm, bk, warps):
    found = compiled(kernel, bn, bm, bk, warps, 3, capability=80)
    unpacked = found["weights"] / (4 if kernel == "prefill" else 1)
    # mma.sync has no operand that several warps share, so up to four of them unpack the same rows.
    check_tensor_core_loop(found | {"unpacked": unpacked}, "IMMA", replicas=4)


@pytest.mark.slow
def test_no_multiplication_and_addition_of_the_quantisation_become_one():
    """x * s + 1.5 * 2^23 rounded once could be another code; only divisions and roots may have fused instructions."""
    program = """
import json
from tritwise.kernels import aot
from tritwise.kernels.absmax_kernel import absmax_kernel
arguments = {"x": "*fp32", "gain": "*fp32", "codes": "*i8", "scale": "*fp32", "sums": "*i32", "eps": "fp32",
             "K": "i32", "K4": "i32"}
constants = {"ACTIVATION": "relu2", "NORM": True}
codes = [aot.machine_code(absmax_kernel, arguments, constants | {"BLOCK": block}) for block in (512, 2048)]
print(json.dumps([[code.count(name) for name in ("FFMA", "FADD", "LDL|STL", "LDG.*[.]128")] for code in codes]))
"""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    few, many = json.loads(done.stdout)
    assert few[0] == many[0]  # whatever the number of values of a thread
    assert many[1] > few[1] + 2 * 12  # two more additions for each of twelve more values
    assert few[2] == many[2] == 0
    assert many[3] == 3 * 4  # gate, up and gain, four values at once


def test_without_the_interpreter_cpu_tensors_are_refused_in_our_words():
    program = ("import torch\nfrom tritwise.kernels import quantise\n"
               "import sys\nassert 'triton' not in sys.modules\n"
               "try: quantise(torch.zeros(1, 4))\nexcept Exception as error: print(type(error).__name__, error)")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TritwiseError the GPU kernels cannot run on CPU tensors")
    assert "backend" in done.stdout
