"""What the kernels compute, in plain torch: the oracle of their tests, and readable."""

import torch

from tritwise.kernels.planar import Planar, codes_of, padded
from tritwise.kernels.quantise import Quantised


def activation(x: torch.Tensor, kind: str = "none") -> torch.Tensor:
    """float32 [M, K]: x itself, or of [M, 2 K] (gate, up) silu(gate) * up or relu(gate)^2 * up."""
    if kind == "none":
        return x
    gate, up = x.chunk(2, dim=-1)
    if kind == "silu":
        return gate / (1 + torch.exp(-gate)) * up
    return torch.relu(gate).square() * up


def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """x * rstd * gain in float32, multiplied in this order; rstd = 1 / sqrt(mean of squares + eps)."""
    return x * (1 / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + eps)) * gain


def absmax(x: torch.Tensor) -> Quantised:
    """`tritwise.ternary.absmax` of float32 [M, K] and the sums of the codes under fields 0 to 2."""
    k, kp = x.shape[1], padded(x.shape[1])
    largest = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    codes = torch.round(x * (1 / largest * 127)).to(torch.int8)
    codes = torch.nn.functional.pad(codes, (0, kp - k))
    return Quantised(codes, (largest / 127).flatten(), codes[:, :kp // 4 * 3].sum(dim=1, dtype=torch.int32), k)


def quantise(x: torch.Tensor, gain: torch.Tensor | None = None, eps: float = 1e-5, kind: str = "none") -> Quantised:
    """Activation, norm (where there is a gain) and quantisation, one after the other."""
    value = activation(x, kind)
    return absmax(value if gain is None else rms_norm(value, gain, eps))


def linear(x: Quantised, weights: Planar, residual: torch.Tensor | None = None) -> torch.Tensor:
    """float32 [M, N]: the integer product (in float64, which holds every sum exactly), one rescaling, the residual."""
    acc = x.codes[:, :x.length].double() @ codes_of(weights).double().T
    y = acc.to(torch.float32) * (x.scale[:, None] * weights.scales[None, :])
    return y if residual is None else y + residual
