"""Others' ternary products on a GPU, for the comparison in linear.py: gemlite's, and the kernel of microsoft/BitNet.

Neither is part of this project. gemlite (pure Python and Triton; 0.6.0.post2 was read) has to be importable:

    pip install --no-deps --target PEERS gemlite==0.6.0.post2        # and PYTHONPATH=PEERS

The other is one source file, which nvcc compiles; a machine without a GPU can do it, with nvcc from PyPI:

    pip install --target CUDA nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* \\
        nvidia-cuda-runtime==13.0.*
    CUDA/nvidia/cu13/bin/nvcc -std=c++17 --compiler-options -fPIC --shared gpu/bitnet_kernels/bitnet_kernels.cu \\
        -gencode=arch=compute_90,code=sm_90 -cudart static -LCUDA/nvidia/cu13/lib -o libbitnet.so
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from tritwise.kernels import Quantised

Call = Callable[[], torch.Tensor]
# Of one token: N, K and the number of weight scales, each for as many rows (gpu/bitnet_kernels/bitnet_kernels.cu).
MICROSOFT_SHAPES = {(3840, 2560): 3, (2560, 2560): 1, (13824, 2560): 2, (2560, 6912): 1, (4800, 3200): 6,
                    (3200, 3200): 1, (20480, 3200): 2, (3200, 10240): 1, (5120, 27648): 1, (55296, 5120): 1}


class NotMeasuredError(Exception):
    """Why a peer has no time for a product."""


class Peer(Protocol):
    """`from_floats`: its time holds the quantisation of activations, and is compared with ours of both together."""

    name: str
    from_floats: bool

    def weights(self, codes: torch.Tensor, scale: float) -> Any:
        """Its form of int8 codes [N, K] with one scale. Raises NotMeasuredError for a shape that it does not have."""

    def call(self, weights: Any, x: Quantised, floats: torch.Tensor) -> Call:
        """What computes [M, N] of codes, or of the same activations in bfloat16 [M, K]."""


class Gemlite:
    """A8W158: 2-bit weights, int8 activations a token, in Triton; its own choice of kernel, its own autotuning."""

    name, from_floats = "gemlite", True

    def __init__(self, device: torch.device) -> None:
        try:
            from gemlite.helper import A8W158_INT_dynamic
        except ImportError as error:
            raise NotMeasuredError(f"gemlite cannot be imported: {error}") from None
        self._make = A8W158_INT_dynamic(device=device, dtype=torch.bfloat16)

    def weights(self, codes: torch.Tensor, scale: float) -> Any:
        if codes.shape[1] % 32:
            raise NotMeasuredError("it needs K in multiples of 32")
        return self._make.from_weights(codes.to(torch.bfloat16), torch.tensor(scale))

    def call(self, weights: Any, x: Quantised, floats: torch.Tensor) -> Call:
        return lambda: weights(floats)


class Microsoft:
    """microsoft/BitNet's dp4a kernel: one token, ten shapes, bfloat16 scales."""

    name, from_floats = "microsoft", False

    def __init__(self, library: Path | None) -> None:
        if library is None:
            raise NotMeasuredError("no --microsoft LIBRARY was given")
        try:
            self._run = ctypes.CDLL(str(Path(library).absolute())).bitlinear_int8xint2
        except (OSError, AttributeError) as error:
            raise NotMeasuredError(f"{library} is not its library: {error}") from None
        self._run.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int] * 3 + [ctypes.c_void_p]
        self._run.restype = None

    def weights(self, codes: torch.Tensor, scale: float) -> Any:
        n, k = codes.shape
        if (n, k) not in MICROSOFT_SHAPES:
            raise NotMeasuredError("its kernel does not have this shape")
        scales = torch.full((MICROSOFT_SHAPES[n, k],), scale, dtype=torch.bfloat16, device=codes.device)
        return pack_for_microsoft(codes), scales, (n, k)

    def call(self, weights: Any, x: Quantised, floats: torch.Tensor) -> Call:
        if x.tokens != 1:
            raise NotMeasuredError("its kernel computes one token")
        packed, scales, (n, k) = weights
        codes = x.codes[:, :k].contiguous()
        divisor = (1 / x.scale).to(torch.bfloat16)
        y = torch.empty(1, n, dtype=torch.bfloat16, device=codes.device)

        def run() -> torch.Tensor:
            self._run(codes.data_ptr(), packed.data_ptr(), y.data_ptr(), divisor.data_ptr(), scales.data_ptr(), 1, n, k,
                      torch.cuda.current_stream(codes.device).cuda_stream)
            return y

        return run


def pack_for_microsoft(codes: torch.Tensor) -> torch.Tensor:
    """int8 {-1, 0, 1} [N, K] as uint8 [N K / 4], as that kernel reads it: words of 16 weights of a row.

    In a word weight 4 i + j is 2 bits, code + 2, at bit 8 j + 2 i. Words stand by blocks of 16 rows, of 32 columns,
    then halves of the rows, halves of the columns, and rows.
    """
    n, k = codes.shape
    words = (codes.to(torch.int32) + 2).view(n // 16, 2, 8, k // 32, 2, 4, 4)  # ..., word's i, j
    words = words.permute(0, 3, 1, 4, 2, 5, 6)  # block of rows, of columns, half of rows, of columns, row, i, j
    shifts = torch.arange(4, device=codes.device) * 2
    return (words << shifts[:, None]).sum(-2).to(torch.uint8).reshape(-1)


def open_peers(device: torch.device, microsoft: Path | None) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are at hand, and of the others why not."""
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for name, make in (("gemlite", lambda: Gemlite(device)), ("microsoft", lambda: Microsoft(microsoft))):
        try:
            if device.type != "cuda":
                raise NotMeasuredError("there is no GPU")
            found.append(make())
        except NotMeasuredError as error:
            missing[name] = str(error)
    return found, missing


def differs(y: torch.Tensor, codes: torch.Tensor, scale: float, x: Quantised) -> float:
    """How far a peer's first 256 channels are from the exact product, over the largest of these; 0.01 is bfloat16's."""
    exact = x.codes[:, :x.length].double() @ codes[:256].double().T * (x.scale[:, None].double() * scale)
    return ((y[:, :256].double() - exact).abs().max() / exact.abs().max()).item()
