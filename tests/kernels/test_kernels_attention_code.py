"""The machine code of attention, compiled here for GPUs that are not: what it consists of is what bounds its speed."""

import json
import os
import subprocess
import sys

import pytest

COMPILE = """
import json, sys
from tritwise.kernels import decode_attention, prefill_attention
from tritwise.kernels.aot import machine_code
from tritwise.kernels.attention_tiles import block_positions

which, cache_type, head_dim, capability = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
width = -(-head_dim // 32) * 32
stored = width // 2 if cache_type == "int4" else width
element, scale = {"f16": ("*fp16", "*fp32"), "int8": ("*u8", "*fp32"), "int4": ("*u8", "*fp16")}[cache_type]
arguments = {"q": "*fp32", "positions": "*i32", "slots": "*i32", "tables": "*i32", "table_width": "i32",
             "keys": element, "key_scales": scale, "values": element, "value_scales": scale, "out": "*fp32",
             "tops": "*fp32", "totals": "*fp32", "states": "*fp32", "tiles": "*i32", "score_scale": "fp32",
             "chunks": "i32"}
constants = {"TYPE": cache_type, "HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": head_dim, "PAGE": 64, "STORED": stored,
             "GROUPS": width // 32, "BLOCK_D": max(16, 1 << (stored - 1).bit_length()), "COLUMNS": 16, "CHUNK": 256,
             "BLOCK_N": block_positions(head_dim)}
if which in ("decode", "alone"):
    kernel, warps, stages = decode_attention.attend_chunks, 4, 3
    constants |= {"BLOCK_M": 16, "ALONE": which == "alone"}
else:
    kernel, warps, stages = prefill_attention.attend_rows, 8, 2
    constants |= {"BLOCK_M": 32}
code = machine_code(kernel, arguments, constants, capability=capability, warps=warps, stages=stages, sixteens=())
print(json.dumps({"names": [name for _, name, _ in code.instructions], "shared": code.shared}))
"""


def compiled(which, cache_type, head_dim, capability):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", COMPILE, which, cache_type, str(head_dim), str(capability)],
                            capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    answer = json.loads(result.stdout)
    return answer["names"], answer["shared"]


def faults(names, shared):
    """What the machine code should not be."""
    products = {name for name in names if "MMA" in name and name[0] in "HI"}
    wrong = {
        "registers are spilled": any(name.startswith(("LDL", "STL")) for name in names),
        # The same instruction in both kernels and on both GPUs is what makes their results equal.
        f"products are {products}": products != {"HMMA.16816.F32"},
        "no keys in 16 bytes at once": not any(name.startswith("LDGSTS") and name.endswith("128") for name in names),
        "codes are converted by I2F, not by adding": any(name.startswith("I2F.F16") for name in names),
        f"{shared} bytes of shared memory": shared > 99 * 1024}
    return [fault for fault, is_there in wrong.items() if is_there]


def test_decode_with_int8_on_an_h100_is_tensor_core_products_of_wide_loads_without_spills():
    assert faults(*compiled("decode", "int8", 128, 90)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("which", "head_dim", "capability"), [
    ("decode", 128, 80), ("decode", 128, 90), ("prefill", 128, 80), ("prefill", 128, 90), ("alone", 256, 90),
    ("decode", 256, 90), ("prefill", 192, 90), ("prefill", 256, 80), ("prefill", 256, 90)])
@pytest.mark.parametrize("cache_type", ["f16", "int8", "int4"])
def test_each_kernel_is_tensor_core_products_of_wide_loads_without_spills(which, cache_type, head_dim, capability):
    assert faults(*compiled(which, cache_type, head_dim, capability)) == []
