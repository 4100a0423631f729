"""Ternary kernels for NVIDIA GPUs, in Triton, each with a twin in plain torch (`twins`) that it is tested against.

    weights = from_codes(codes, scale)                   # planar: read by the kernels without a shift
    x = quantise(hidden, gain, eps)                      # RMSNorm + absmax int8
    y = linear(x, weights, residual)                     # float32 [M, N]

Importing this needs torch; Triton is imported by the first launch. No CUDA call is made before it.
"""

from tritwise.kernels.linear import Workspace, linear, new_workspace, prepare
from tritwise.kernels.planar import Planar, codes_of, concatenate, from_codes, from_consecutive, from_stripes
from tritwise.kernels.quantise import Quantised, quantise
from tritwise.kernels.tiles import Tile

__all__ = [
    "Planar", "Quantised", "Tile", "Workspace", "codes_of", "concatenate", "from_codes", "from_consecutive",
    "from_stripes", "linear", "new_workspace", "prepare", "quantise",
]
