"""The launcher of the float norm: for what is not quantised behind it (norm_kernel.py)."""

import torch

from tritwise.common.errors import TritwiseError
from tritwise.kernels.checks import check_device, check_tensor
from tritwise.kernels.quantise import ACTIVATIONS, LONGEST_TOKEN

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def normed(x: torch.Tensor, gain: torch.Tensor | None, eps: float, *, activation: str = "none",
           dtype: torch.dtype | None = None) -> torch.Tensor:
    """Activation and RMSNorm of x [M, K] (of [M, 2 K] behind "silu" or "relu2"): [M, K] of `dtype`, that of x if None.

    x is float32, bfloat16 or float16, `gain` float32 [K] or None for no norm. Computed in float32 and rounded once:
    value * rstd * gain with rstd = 1 / sqrt(mean of squares + eps), as `twins.rms_norm`.
    Raises TritwiseError for other types, shapes and devices.
    """
    if activation not in ACTIVATIONS:
        raise TritwiseError(f"there is no activation {activation!r}", why=f"there are {', '.join(ACTIVATIONS)}")
    dtype = x.dtype if dtype is None else dtype
    if x.dim() != 2 or not x.numel() or x.dtype not in _FLOATS or dtype not in _FLOATS or not x.is_contiguous() or (
            activation != "none" and x.shape[1] % 2):
        raise TritwiseError(f"cannot norm {x.dtype} {list(x.shape)} to {dtype}",
                            why="contiguous [M, K] or [M, 2 K] of float32, bfloat16 or float16 is needed")
    m, k = x.shape[0], x.shape[1] if activation == "none" else x.shape[1] // 2
    if gain is not None:
        check_tensor("gain", gain, torch.float32, (k,), x.device)
    if k > LONGEST_TOKEN:
        raise TritwiseError(f"cannot norm tokens of {k} values", why=f"at most {LONGEST_TOKEN} fit in registers")
    check_device(x.device)
    from tritwise.kernels.norm_kernel import norm_kernel

    out = torch.empty(m, k, dtype=dtype, device=x.device)
    block = 1 << (k - 1).bit_length()
    norm_kernel[(m,)](x, x if gain is None else gain, out, eps, k, ACTIVATION=activation, NORM=gain is not None,
                      BLOCK=block, num_warps=min(32, max(1, block // 512)), enable_fp_fusion=False)
    return out
