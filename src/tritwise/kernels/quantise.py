"""Quantised activations, and the launcher of the kernel that makes them: activation, RMSNorm and absmax in one pass.

    x = quantise(hidden, gain, eps)                        # norm, codes, scale, sums
    x = quantise(gate_up, gain, eps, activation="relu2")   # gated activation, norm, codes, scale, sums
"""

from dataclasses import dataclass

import torch

from tritwise.common.errors import TritwiseError
from tritwise.kernels.checks import check_device, check_tensor
from tritwise.kernels.planar import padded

ACTIVATIONS = ("none", "silu", "relu2")
LONGEST_TOKEN = 1 << 15  # values that one program holds in registers


@dataclass(frozen=True)
class Quantised:
    """Activations x ~ codes * scale: `codes` int8 [M, K padded], `scale` float32 [M], `sums` int32 [M].

    The codes behind `length` = K are 0. `sums` are of the codes under fields 0 to 2, the first 3/4 of the padded ones.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    sums: torch.Tensor
    length: int

    def __post_init__(self) -> None:
        m = self.codes.shape[0]
        for name, tensor, dtype, shape in (("codes", self.codes, torch.int8, (m, padded(self.length))),
                                           ("scale", self.scale, torch.float32, (m,)),
                                           ("sums", self.sums, torch.int32, (m,))):
            check_tensor(name, tensor, dtype, shape, self.codes.device)

    @property
    def tokens(self) -> int:
        return self.codes.shape[0]


def quantise(x: torch.Tensor, gain: torch.Tensor | None = None, eps: float = 1e-5,
             activation: str = "none") -> Quantised:
    """Absmax-quantised activations of x float32 [M, K]; or of [M, 2 K] (gate, up) behind "silu" or "relu2".

    With `gain` float32 [K], an RMSNorm comes before the quantisation: value * rstd * gain. Codes and scales are
    `tritwise.ternary.absmax`'s of the same float32 values, bit for bit, for values below 2^126. The norm's rstd sums in
    another order than torch, so it may differ by a few units in the last place (relatively by at most
    (log2 K + 6) 2^-24); with it the scale, and a code whose value lies that near to a half by 1. NaN is not looked for.
    Raises TritwiseError for other types, shapes and devices.
    """
    if activation not in ACTIVATIONS:
        raise TritwiseError(f"there is no activation {activation!r}", why=f"there are {', '.join(ACTIVATIONS)}")
    if x.dim() != 2 or not x.numel() or (activation != "none" and x.shape[1] % 2):
        raise TritwiseError(f"cannot quantise activations of shape {list(x.shape)}", why="[M, K] or [M, 2 K] is needed")
    m, width = x.shape
    k = width if activation == "none" else width // 2
    check_tensor("x", x, torch.float32, (m, width), x.device)
    if gain is not None:
        check_tensor("gain", gain, torch.float32, (k,), x.device)
    if padded(k) > LONGEST_TOKEN:
        raise TritwiseError(f"cannot quantise tokens of {k} values", why=f"at most {LONGEST_TOKEN} fit in registers")
    check_device(x.device)
    from tritwise.kernels.absmax_kernel import absmax_kernel

    kp = padded(k)
    codes = torch.empty(m, kp, dtype=torch.int8, device=x.device)
    scale = torch.empty(m, dtype=torch.float32, device=x.device)
    sums = torch.empty(m, dtype=torch.int32, device=x.device)
    block = 1 << (kp - 1).bit_length()
    absmax_kernel[(m,)](x, x if gain is None else gain, codes, scale, sums, eps, k, kp // 4, ACTIVATION=activation,
                        NORM=gain is not None, BLOCK=block, num_warps=min(32, max(1, block // 512)),
                        enable_fp_fusion=False)
    return Quantised(codes, scale, sums, k)
