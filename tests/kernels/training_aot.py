"""Compiles the training kernels for GPUs that are not there and prints, as JSON, what their machine code consists of.

    python training_aot.py 90 1.3B     # without TRITON_INTERPRET: that replaces kernels by Python functions
"""

import json
import re
import sys

from tritwise.kernels import training, training_products
from tritwise.kernels.aot import machine_code
from tritwise.kernels.training_twins import aligned


def compiled(kernel, types: dict[str, str], constants: dict, warps: int = 4, stages: int = 3,
             **sizes: int) -> dict:
    """Facts of a kernel's machine code; `sizes` are the values of run-time arguments that are fixed by the model."""
    code = machine_code(kernel, types, constants, capability=int(sys.argv[1]), warps=warps, stages=stages,
                        sixteens=[name for name, value in sizes.items() if value % 16 == 0])
    names = {name for _, name, _ in code.instructions}
    return {"spills": code.count("LDL|STL"), "shared": code.shared,
            "tensor": sorted(name for name in names if re.match("IGMMA|HGMMA|IMMA|HMMA", name)),
            "loads": sorted(name for name in names if name.startswith("LDG"))}


def tiles(of: dict[str, int]) -> tuple[dict[str, int], int, int]:
    return ({name: value for name, value in of.items() if name.startswith("B")} | {"GROUP": training_products.GROUP},
            of["num_warps"], of["num_stages"])


# Hidden and intermediate sizes of BitNet b1.58's models (arXiv 2402.17764).
SIZES = {"700M": (1536, 4096), "1.3B": (2048, 5460), "3B": (3200, 8640)}


def products(rows: list[int], inner: int) -> dict[str, dict]:
    """The products of a linear, or of several with one input, as their launchers start them."""
    forward, *forward_launch = tiles(training_products.FORWARD)
    backward, *backward_launch = tiles(training_products.INPUT_GRADIENT)
    weight, *weight_launch = tiles(training_products.WEIGHT_GRADIENT)
    total = sum(rows)
    counts = [*rows, 0, 0][:3]
    parts = {f"N{i}": count for i, count in enumerate(counts)} | {f"W{i}": aligned(c) for i, c in enumerate(counts)}
    return {
        "forward": compiled(training_products._forward,
                            {"x": "*i8", "x_scale": "*fp32", "w": "*i8", "w_scale": "*fp32", "y": "*bf16", "M": "i32"},
                            {"N": total, "K": aligned(inner)} | forward, *forward_launch),
        "input_gradient": compiled(training_products._input_gradient,
                                   {"grad": "*bf16", "codes_t": "*i8", "scales": "*fp32", "grad_x": "*bf16",
                                    "M": "i32"}, parts | {"K": inner} | backward, *backward_launch),
        "weight_gradient": compiled(training_products._weight_gradient,
                                    {"grad": "*bf16", "x": "*i8", "x_scale": "*fp32", "grad_w": "*fp32", "M": "i32"},
                                    {"N": total, "K": inner, "WIDTH": aligned(inner), "STEPS": 0} | weight,
                                    *weight_launch),
    }


def quantisers(inner: int) -> dict[str, dict]:
    block, width = training.triton.next_power_of_2(inner), aligned(inner)
    warps = training._warps(block)
    return {
        "exact_sums": compiled(training._exact_sums, {"weight": "*fp32", "sums": "*i64", "count": "i32"},
                               {"BLOCK": training.SUM_BLOCK}, count=inner * inner),
        "means": compiled(training._means, {"sums": "*i64", "means": "*fp32", "count": "i32"}, {}),
        "weight_codes": compiled(training._weight_codes,
                                 {"weight": "*fp32", "means": "*fp32", "codes": "*i8", "codes_t": "*i8",
                                  "scales": "*fp32"} | dict.fromkeys(("N", "K", "WIDTH", "ROWS", "TOTAL"), "i32"),
                                 {"BINARY": False, "SCALE": training.tl.float32, "TILE": training.TILE}, N=inner,
                                 K=inner, WIDTH=width, ROWS=width, TOTAL=width),
        "quantise_tokens": compiled(training._quantise_tokens,
                                    {"x": "*bf16", "gain": "*fp32", "codes": "*i8", "scales": "*fp32",
                                     "rstds": "*fp32", "eps": "fp32"},
                                    {"NORM": True, "GAIN": True, "BLOCK": block, "K": inner, "WIDTH": width}, warps),
        "norm_backward": compiled(training._norm_backward,
                                  {"grad": "*bf16", "x": "*bf16", "gain": "*fp32", "rstds": "*fp32",
                                   "grad_x": "*bf16", "partial": "*fp32", "M": "i32"},
                                  {"ROWS": training.NORM_ROWS, "BLOCK": block, "K": inner}, warps),
    }


def main() -> None:
    hidden, intermediate = SIZES[sys.argv[2]]
    linears = {"qkv": ([hidden] * 3, hidden), "o": ([hidden], hidden), "gate_up": ([intermediate] * 2, hidden),
               "down": ([hidden], intermediate)}
    found = {f"{kernel} {name}": code for name, (rows, inner) in linears.items()
             for kernel, code in products(rows, inner).items()}
    for inner in (hidden, intermediate):
        found |= {f"{kernel} {inner}": code for kernel, code in quantisers(inner).items()}
    print(json.dumps(found))


main()
