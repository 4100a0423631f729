"""The machine code of attention, compiled here for GPUs that are not: what it consists of is what bounds its speed."""

import json
import os
import subprocess
import sys

import pytest

COMPILE = """
import json, os, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tritwise.kernels import decode_attention, prefill_attention

which, cache_type, head_dim, capability = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
width = -(-head_dim // 32) * 32
stored = width // 2 if cache_type == "int4" else width
element, scale = {"f16": ("*fp16", "*fp32"), "int8": ("*u8", "*fp32"), "int4": ("*u8", "*fp16")}[cache_type]
cache = {"tables": "*i32", "table_width": "i32", "keys": element, "key_scales": scale, "values": element,
         "value_scales": scale}
rows = {"q": "*fp32", "positions": "*i32", "slots": "*i32"}
constants = {"TYPE": cache_type, "HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": head_dim, "PAGE": 64, "STORED": stored,
             "GROUPS": width // 32, "BLOCK_D": max(16, 1 << (stored - 1).bit_length()), "BLOCK_N": 64, "COLUMNS": 16,
             "CHUNK": 256}
if which == "decode":
    kernel, warps, stages = decode_attention.attend_chunks, 4, 3
    constants |= {"BLOCK_M": 16, "ALONE": False}
    signature = rows | cache | {"tops": "*fp32", "totals": "*fp32", "states": "*fp32", "out": "*fp32",
                                "score_scale": "fp32", "chunks": "i32"}
else:
    kernel, warps, stages = prefill_attention.attend_rows, 8, 2
    constants |= {"BLOCK_M": 32}
    signature = rows | {"tiles": "*i32"} | cache | {"out": "*fp32", "score_scale": "fp32"}
signature |= {name: "constexpr" for name in constants}
aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name][0] == "*"}
compiled = triton.compile(ASTSource(kernel, signature, constants, aligned), target=GPUTarget("cuda", capability, 32),
                          options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False})
tools = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")
with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
    file.write(compiled.asm["cubin"])
    file.flush()
    listing = subprocess.run([os.path.join(tools, "cuobjdump"), "-sass", file.name], capture_output=True, text=True,
                             check=True, env=os.environ | {"PATH": tools + os.pathsep + os.environ["PATH"]}).stdout
names = re.findall(r"^\\s+/\\*[0-9a-f]+\\*/\\s+(?:@!?U?P\\w+\\s+)?([A-Z][A-Z0-9_.a-z]*)", listing, re.MULTILINE)
print(json.dumps({"names": names, "shared": compiled.metadata.shared}))
"""


def compiled(which, cache_type, head_dim, capability):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    result = subprocess.run([sys.executable, "-c", COMPILE, which, cache_type, str(head_dim), str(capability)],
                            capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    answer = json.loads(result.stdout)
    return answer["names"], answer["shared"]


def check(which, cache_type, head_dim, capability):
    names, shared = compiled(which, cache_type, head_dim, capability)
    assert not [name for name in names if name.startswith(("LDL", "STL"))], "registers are spilled"
    # The same instruction in both kernels and on both GPUs is what makes their results equal.
    assert [name for name in names if name.startswith("HMMA")]
    assert {name for name in names if "MMA" in name and name[0] in "HI"} == {"HMMA.16816.F32"}
    assert [name for name in names if name.startswith("LDGSTS") and name.endswith("128")], "keys in 16 bytes at once"
    assert not [name for name in names if name.startswith("I2F.F16")], "codes are converted by adding, not by I2F"
    assert shared <= 99 * 1024


def test_decode_with_int8_on_an_h100_is_tensor_core_products_of_wide_loads_without_spills():
    check("decode", "int8", 128, 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("cache_type", ["f16", "int8", "int4"])
@pytest.mark.parametrize("which", ["decode", "prefill"])
def test_each_kernel_is_tensor_core_products_of_wide_loads_without_spills(which, cache_type, capability):
    check(which, cache_type, 128, capability)
