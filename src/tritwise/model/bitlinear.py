"""BitLinear: a linear whose weight is quantised to ternary or binary codes and whose input to int8, in every forward.

The quantisers are those of `tritwise.ternary`, in torch; a test holds the two equal. The backward is the
straight-through estimator of the BitNet papers: the gradient passes both roundings unchanged, so the input gradient
goes through the *quantised* weight and the weight gradient sees the *quantised* input.

Several linears that read the same input (q, k, v; gate, up) run as one product over their concatenated codes: the input
is quantised once, and each keeps its own scale. Where each has a norm of its own inside (`use_rms_norm`), no two inputs
are the same, and each is a product of its own.

Codes are small integers, which float32 holds exactly, and so are their sums below 2^24: in float32 the accumulator
is the integer one. Training may compute in bfloat16, whose roundings are noise far below the int8 rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tritwise.common.errors import TritwiseError
from tritwise.model.norm import RMSNorm, rms_norm_backward, rms_normalise
from tritwise.model.packed import PackedWeight

EPS = 1e-5
_kernels_everywhere = False


@contextmanager
def kernels_everywhere() -> Iterator[None]:
    """Inside, BitLinear takes the GPU's kernels on CPU tensors too, which needs Triton's interpreter: for tests."""
    global _kernels_everywhere
    _kernels_everywhere = True
    try:
        yield
    finally:
        _kernels_everywhere = False


def _kernels() -> ModuleType:
    try:
        from tritwise.kernels import training_linear
    except ImportError as error:
        raise TritwiseError("training on a GPU needs Triton", why=str(error), fix="pip install triton") from None
    return training_linear



def quantise_weight(weight: Tensor, linear_type: Literal["ternary", "binary"],
                    scale_dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Codes (float32, the weight's shape) and scale (float32, no axes) with W ~ codes * scale.

    `ternary` is absmean (BitNet b1.58, equations 1-3), `binary` the sign of W - mean(W) (BitNet b1, equations 1-3).
    Sums are taken in float64, as in `tritwise.ternary`, so that the codes cannot depend on the order of a sum. What is
    returned of the scale is rounded to `scale_dtype`; codes are made with the scale as it was. A `PackedWeight` was
    quantised before.
    """
    if isinstance(weight, PackedWeight):
        return weight.codes().float(), weight.scale(scale_dtype)
    w = weight.float()
    scale = w.abs().mean(dtype=torch.float64).float().clamp_(min=EPS)
    if linear_type == "ternary":
        return (w * scale.reciprocal()).round_().clamp_(-1, 1), scale.to(scale_dtype).float()
    codes = torch.where(w > w.mean(dtype=torch.float64).float(), 1.0, -1.0)
    return codes, scale.to(scale_dtype).float()


def quantise_activation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (float32 [..., K]) and scale (float32 [..., 1]) of float32 x with x ~ codes * scale, one scale a token.

    |x| * 127 / max|x| never rounds above 127, so the published clamp to -128..127 cannot bite and is left out.
    """
    largest = x.abs().amax(dim=-1, keepdim=True).clamp_(min=EPS)
    return (x * (largest.reciprocal() * 127.0)).round_(), largest / 127.0


class _BitLinear(torch.autograd.Function):
    """One input, normed or not, times several quantised weights; see `bit_linear`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float, linear_type: str, scale_dtype: torch.dtype,
                *weights: Tensor) -> Any:
        dtype = x.dtype
        flat = x.reshape(-1, x.shape[-1])
        normed, rstd = rms_normalise(flat, eps) if gain is not None else (flat.float(), None)
        codes, x_scale = quantise_activation(normed * gain if gain is not None else normed)
        x_hat = (codes * x_scale).to(dtype)
        quantised = [quantise_weight(w, linear_type, scale_dtype) for w in weights]
        w_codes = torch.cat([c for c, _ in quantised]).to(dtype)
        scales = [s for _, s in quantised]
        # In float32 the product is of codes, so the accumulator is the integer one. In bfloat16 the scale is multiplied
        # in before: a rounding an input, averaged over the sum, instead of another pass over the larger output.
        product = (codes @ w_codes.T).mul_(x_scale) if dtype == torch.float32 else x_hat @ w_codes.T
        parts = product.split([w.shape[0] for w in weights], dim=-1)
        ctx.save_for_backward(flat, gain, rstd, x_hat, w_codes, *scales)
        return tuple((part * scale).view(*x.shape[:-1], len(w))
                     for part, scale, w in zip(parts, scales, weights, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, rstd, x_hat, w_codes, *scales = ctx.saved_tensors
        rows = [grad.shape[-1] for grad in grads]
        flat = [grad.reshape(-1, count) for grad, count in zip(grads, rows, strict=True)]
        # The weight gradient sees the quantised input, the input gradient the quantised weight (codes * scale).
        grad_weights = [(grad.T @ x_hat).float() for grad in flat]
        grad_x = torch.cat([grad * scale for grad, scale in zip(flat, scales, strict=True)], dim=-1) @ w_codes
        grad_gain = None
        if gain is not None:
            grad_x, grad_gain = rms_norm_backward(grad_x, x, gain, rstd)
        return grad_x.view(*grads[0].shape[:-1], x.shape[-1]), grad_gain, None, None, None, *grad_weights


def bit_linear(x: Tensor, weights: list[Tensor], linear_type: Literal["ternary", "binary"], *,
               gain: Tensor | None = None, eps: float = EPS,
               scale_dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Products of x [..., K] with latent weights [N_i, K]: [..., N_i] each, in the dtype of x.

    With `gain` [K], x goes through RMSNorm first, in float32 up to the quantiser, as in the published BitLinear.
    Forward: y = (absmax(x) @ codes(W).T) * x_scale * w_scale. Backward: straight-through (see the module). Weights are
    float32 master weights whatever the dtype of x; their gradients are float32. On a GPU it runs on the kernels of
    `tritwise.kernels.training_linear`.
    """
    if x.is_cuda or _kernels_everywhere:
        kernels = _kernels()
        return kernels.bit_linear(x, weights, linear_type, gain=gain, eps=eps, scale_dtype=scale_dtype)
    return list(_BitLinear.apply(x, gain, eps, linear_type, scale_dtype, *weights))


class _DenseLinear(torch.autograd.Function):
    """A plain linear with float32 master weights and products in the dtype of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        weight = torch.cat([w.to(x.dtype) for w in weights])
        ctx.save_for_backward(x, weight)
        ctx.rows = [w.shape[0] for w in weights]
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_weights = (flat.T @ x.reshape(-1, x.shape[-1])).float().split(ctx.rows)
        return (flat @ weight).view(x.shape), *grad_weights


def dense_linear(x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Products of x [..., K] with master weights [N_i, K]: [..., N_i] each, in the dtype of x."""
    return list(_DenseLinear.apply(x, *weights).split([w.shape[0] for w in weights], dim=-1))


class BitLinear(nn.Module):
    """One linear of a block: a float32 master weight [N, K] and the way it multiplies. No bias.

    `linear_type` is `ternary`, `binary` or `dense`; the name says the common case. `scale_dtype` is that of
    `quantise_weight`. With `rms_norm_eps` the input of a quantised one goes through an RMSNorm of its own first, as in
    the published BitLinear; its parameter is `rms_norm.weight`, as in transformers. `observer`, if set, is shown what a
    dense linear multiplies, [..., K] after the norm.
    """

    observer: Callable[[Tensor], None] | None = None

    def __init__(self, in_features: int, out_features: int, linear_type: str, scale_dtype: str = "float32",
                 rms_norm_eps: float | None = None) -> None:
        super().__init__()
        self.linear_type = linear_type
        self.scale_dtype = getattr(torch, scale_dtype)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.rms_norm = None if rms_norm_eps is None else RMSNorm(in_features, rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., K] to [..., N]."""
        return multiply(x, self)[0]


def multiply(x: Tensor, *linears: BitLinear, norm: RMSNorm | None = None) -> list[Tensor]:
    """Linears of one type on one input, after `norm` if given, as one product where they have no norms of their own."""
    weights = [linear.weight for linear in linears]
    linear_type = linears[0].linear_type
    if linear_type == "dense":
        x = x if norm is None else norm(x)
        for linear in linears:
            if linear.observer is not None:
                linear.observer(x)
        return dense_linear(x, weights)
    scale_dtype = linears[0].scale_dtype
    if linears[0].rms_norm is not None:
        x = x if norm is None else norm(x)
        return [bit_linear(x, [linear.weight], linear_type, gain=linear.rms_norm.weight, eps=linear.rms_norm.eps,
                           scale_dtype=scale_dtype)[0] for linear in linears]
    if norm is None:
        return bit_linear(x, weights, linear_type, scale_dtype=scale_dtype)
    return bit_linear(x, weights, linear_type, gain=norm.weight, eps=norm.eps, scale_dtype=scale_dtype)
