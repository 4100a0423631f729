"""Compiles the training kernels for GPUs that are not there and prints, as JSON, what their machine code consists of.

    python training_aot.py 90      # without TRITON_INTERPRET: that replaces kernels by Python functions
"""

import json
import re
import sys

from tritwise.kernels import training, training_products
from tritwise.kernels.aot import machine_code

N, K = 3200, 3200


def compiled(kernel, types: dict[str, str], constants: dict, warps: int = 4, stages: int = 3) -> dict:
    code = machine_code(kernel, types, constants, capability=int(sys.argv[1]), warps=warps, stages=stages,
                        sixteens=("N", "K", "TOTAL", "count"))
    names = {name for _, name, _ in code.instructions}
    return {"spills": code.count("LDL|STL"), "shared": code.shared,
            "tensor": sorted(name for name in names if re.match("IGMMA|HGMMA|IMMA|HMMA", name)),
            "loads": sorted(name for name in names if name.startswith("LDG"))}


def tiles(of: dict[str, int]) -> tuple[dict[str, int], int, int]:
    return ({name: value for name, value in of.items() if name.startswith("B")} | {"GROUP": training_products.GROUP},
            of["num_warps"], of["num_stages"])


def main() -> None:
    forward, *forward_launch = tiles(training_products.FORWARD)
    backward, *backward_launch = tiles(training_products.INPUT_GRADIENT)
    weight, *weight_launch = tiles(training_products.WEIGHT_GRADIENT)
    block = 4096
    warps = training._warps(block)
    kernels = {
        "forward": (training_products._forward, {"x": "*i8", "x_scale": "*fp32", "w": "*i8", "w_scale": "*fp32",
                                                         "y": "*bf16", "M": "i32"},
                            {"N": N, "K": K} | forward, *forward_launch),
        "input_gradient": (training_products._input_gradient, {"grad": "*bf16", "codes_t": "*i8",
                                                                       "scales": "*fp32", "grad_x": "*bf16",
                                                                       "M": "i32"},
                                   {"N0": N, "N1": N, "N2": N, "K": K} | backward, *backward_launch),
        "weight_gradient": (training_products._weight_gradient, {"grad": "*bf16", "x": "*i8",
                                                                         "x_scale": "*fp32", "grad_w": "*fp32",
                                                                         "M": "i32"},
                                    {"N": N, "K": K, "STEPS": 0} | weight, *weight_launch),
        "exact_sums": (training._exact_sums, {"weight": "*fp32", "sums": "*i64", "count": "i32"},
                               {"BLOCK": training.SUM_BLOCK}),
        "means": (training._means, {"sums": "*i64", "means": "*fp32", "count": "i32"}, {}),
        "weight_codes": (training._weight_codes, {"weight": "*fp32", "means": "*fp32", "codes": "*i8",
                                                          "codes_t": "*i8", "scales": "*fp32", "N": "i32", "K": "i32",
                                                          "TOTAL": "i32"},
                                 {"BINARY": False, "SCALE": training.tl.float32, "TILE": training.TILE}),
        "quantise_tokens": (training._quantise_tokens, {"x": "*bf16", "gain": "*fp32", "codes": "*i8",
                                                                "scales": "*fp32", "rstds": "*fp32", "K": "i32",
                                                                "eps": "fp32"},
                                    {"NORM": True, "GAIN": True, "BLOCK": block}, warps),
        "norm_backward": (training._norm_backward, {"grad": "*bf16", "x": "*bf16", "gain": "*fp32",
                                                            "rstds": "*fp32", "grad_x": "*bf16", "partial": "*fp32",
                                                            "M": "i32", "K": "i32"},
                                  {"ROWS": training.NORM_ROWS, "BLOCK": block}, warps),
    }
    # The older processor for what differs there: the products.
    wanted = kernels if sys.argv[1] == "90" else ("forward", "input_gradient", "weight_gradient")
    print(json.dumps({name: compiled(*kernels[name]) for name in wanted}))


main()
