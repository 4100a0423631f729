"""RMSNorm (arXiv 1910.07467, equation 4), in float32, with the gradient written out.

The pieces are functions because BitLinear fuses them: its input is normed, quantised and multiplied in one step.
"""

from typing import Any

import torch
from torch import Tensor, nn


def rms_normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x * rstd in float32 and rstd = 1 / sqrt(mean(x^2) + eps), float32 [..., 1]."""
    xf = x.float()
    rstd = (xf * xf).mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    return xf * rstd, rstd


def rms_norm_backward(grad: Tensor, x: Tensor, gain: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x (in its dtype) and of the gain (float32), given that of the normed output; x is [n, K]."""
    grad, normed = grad.float(), x.float() * rstd
    gain_terms = grad * normed
    mean = (gain_terms @ gain[:, None]).div_(x.shape[-1])
    grad_x = (grad * gain).sub_(normed.mul_(mean)).mul_(rstd)
    return grad_x.to(x.dtype), gain_terms.sum(dim=0)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        normed, rstd = rms_normalise(x, eps)
        ctx.save_for_backward(x, gain, rstd)
        return normed.mul_(gain).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, rstd = ctx.saved_tensors
        grad_x, grad_gain = rms_norm_backward(grad.flatten(0, -2), x.flatten(0, -2), gain, rstd.flatten(0, -2))
        return grad_x.view(x.shape), grad_gain, None


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32, returned in the dtype of x."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] to [..., size]."""
        return _RMSNorm.apply(x, self.weight, self.eps)
