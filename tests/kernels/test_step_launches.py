"""Whole decode and prefill steps of published shapes compile for GPUs that are not here, launch by launch.

The interpreter runs kernels that a GPU would refuse: an argument of 1 is a constant there, types are stricter, shared
memory and registers end. step_launches.py compiles what is launched, in a process without the interpreter.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("step_launches.py")
# What every step of a ternary model consists of; the product kernel depends on the rows.
COMMON = {"absmax_kernel", "rotate_head", "attend_chunks", "merge_chunks", "attend_rows", "norm_kernel", "split_state",
          "head_rows", "best_of_block", "best_of_blocks", "weigh_blocks", "draw_rows", "add_digits", "narrow_top_k",
          "narrow_top_p", "cut_blocks", "adjust_block", "count_token", "prefill"}
SHARED = {90: 227 << 10, 80: 163 << 10}  # bytes that a program may have (CUDA C++ Programming Guide, table 24)


def kernels_of(capability: int, shape: str, cache_type: str, *rows: int) -> list[dict]:
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), str(capability), shape, cache_type, *map(str, rows)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_steps_of_one_and_of_two_rows_compile_and_keep_their_values_in_registers():
    found = kernels_of(90, "paper-700m", "int8", 1, 2)
    assert {each["kernel"] for each in found} == COMMON | {"gemv", "small_batch"}
    assert max(each["shared"] for each in found) <= SHARED[90]
    assert [each for each in found if each["stack"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, 80])
@pytest.mark.parametrize("cache_type", ["f16", "int8", "int4"])
@pytest.mark.parametrize("shape", ["2b4t", "paper-3b", "llama-3-8b", "2b4t-dense", "paper-3b-dense"])
def test_steps_of_published_shapes_compile(capability, cache_type, shape):
    found = kernels_of(capability, shape, cache_type, 1, 4, 16, 64)
    names = {each["kernel"] for each in found}
    if shape.endswith("dense"):  # products are torch's
        assert names == COMMON - {"absmax_kernel", "prefill"}
    else:
        assert names == COMMON | {"gemv", "small_batch"}
    assert max(each["shared"] for each in found) <= SHARED[capability]
    # A few words at the end of a tile are no loss; a loop that lives on the stack is.
    assert max(each["stack"] for each in found) <= 64, [each for each in found if each["stack"]]
