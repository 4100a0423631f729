"""BitLinear on a GPU as two operators of torch: what autograd and torch.compile see of the training kernels.

`tritwise::bit_linear` norms, quantises and multiplies; `tritwise::bit_linear_backward` gives all gradients. Saved for
the backward, a token of K inputs: K' bytes of int8 codes and 4 of scale; with a norm in front, also its input (2 K in
bfloat16) and 4 bytes of rstd. A product in bfloat16 would keep 2 K, and 2 K more for the norm.

Weights are quantised once a step: `weight_cache` keeps codes, their transposed and scales of each group of weights
until an optimizer made a step or one of them was written to. Micro-batches, recomputation and the backward find them
there. Writes are seen by `Tensor._version`; fused optimizers do not raise it, so every optimizer's step clears all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from tritwise.kernels import training, training_products
from tritwise.kernels.training_twins import aligned, one_below_the_other, side_by_side, unpack_codes, without_gaps

Quantised = tuple[Tensor, Tensor, Tensor]


class WeightCache:
    """Codes [N, K'], codes [K, N'] and row scales [N] of groups of weights while the weights are what they were."""

    def __init__(self) -> None:
        self._kept: dict[tuple, tuple[list[StorageWeakRef], tuple, Quantised]] = {}
        self._hooked = False
        self.quantised = 0  # how often a group was quantised

    def get(self, weights: Sequence[Tensor], linear_type: str, scale_dtype: torch.dtype) -> Quantised:
        """What `quantise_weights` gives, from memory where no weight was written to since."""
        if any(weight.is_inference() for weight in weights):  # these count no versions
            return self._quantise(weights, linear_type, scale_dtype)
        # A weak reference keeps the address of a storage from being given to another one.
        key = (linear_type, scale_dtype, *((w.untyped_storage()._cdata, w.storage_offset(), w.shape, w.stride(),
                                            w.dtype) for w in weights))
        state = tuple((w.data_ptr(), w._version) for w in weights)
        if key not in self._kept or self._kept[key][1] != state or self._expired(key):
            # Before the new ones are made: both at once would be twice the memory.
            kept = {known for known in self._kept if known != key and not self._expired(known)}
            self._kept = {known: self._kept[known] for known in kept}
            if not self._hooked:
                register_optimizer_step_post_hook(lambda *_: self.clear())
                self._hooked = True
            references = [StorageWeakRef(w.untyped_storage()) for w in weights]
            self._kept[key] = references, state, self._quantise(weights, linear_type, scale_dtype)
        return self._kept[key][2]

    def clear(self) -> None:
        """Forget all codes: after a write that torch does not count, such as one through `.data`."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def _expired(self, key: tuple) -> bool:
        return any(reference.expired() for reference in self._kept[key][0])

    def _quantise(self, weights: Sequence[Tensor], linear_type: str, scale_dtype: torch.dtype) -> Quantised:
        self.quantised += 1
        return training.quantise_weights(list(weights), linear_type, scale_dtype)


weight_cache = WeightCache()


def _forward(x: Tensor, gain: Tensor | None, eps: float, quantised: Quantised) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y [M, N], codes, scales and rstd (empty without a gain) of x [M, K]."""
    codes, _, scales = quantised
    x_codes, x_scale, rstd = training.quantise_tokens(x, gain, None if gain is None else eps)
    y = training_products.product(x_codes, x_scale, codes, scales, x.dtype)
    return y, x_codes, x_scale, x.new_empty(0, dtype=torch.float32) if rstd is None else rstd


def _backward(grad: Tensor, x: Tensor | None, gain: Tensor | None, rstd: Tensor, x_codes: Tensor, x_scale: Tensor,
              quantised: Quantised, rows: list[int], int8_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [M, K], of the gain float32 [K] (empty without one) and of the weights float32 [N, K]."""
    _, codes_t, scales = quantised
    grad, inner = grad.contiguous(), codes_t.shape[0]
    if int8_gradient:
        grad_codes, grad_scale, _ = training.quantise_tokens(grad, scales, None)
        grad_x = training_products.product(grad_codes, grad_scale, without_gaps(codes_t, rows),
                                           scales.new_ones(inner), grad.dtype)
    else:
        grad_x = training_products.input_gradient(grad, codes_t, scales, rows)
    grad_weight = training_products.weight_gradient(grad, x_codes, x_scale, inner)
    if gain is None:
        return grad_x, grad.new_empty(0, dtype=torch.float32), grad_weight
    return *training.norm_backward(grad_x, x, gain, rstd), grad_weight


@torch.library.custom_op("tritwise::bit_linear", mutates_args=())
def _bit_linear(x: Tensor, gain: Tensor | None, weights: Sequence[Tensor], eps: float, linear_type: str,
                scale_dtype: torch.dtype, int8_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _forward(x, gain, eps, weight_cache.get(weights, linear_type, scale_dtype))


@_bit_linear.register_fake
def _(x, gain, weights, eps, linear_type, scale_dtype, int8_gradient):
    tokens = x.shape[0]
    scale = x.new_empty(tokens, dtype=torch.float32)
    codes = x.new_empty(tokens, aligned(x.shape[1]), dtype=torch.int8)
    return (x.new_empty(tokens, sum(w.shape[0] for w in weights)), codes, scale,
            x.new_empty(0 if gain is None else tokens, dtype=torch.float32))


@torch.library.custom_op("tritwise::bit_linear_backward", mutates_args=())
def _bit_linear_backward(grad: Tensor, x: Tensor | None, gain: Tensor | None, rstd: Tensor, x_codes: Tensor,
                         x_scale: Tensor, weights: Sequence[Tensor], linear_type: str, scale_dtype: torch.dtype,
                         int8_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    quantised = weight_cache.get(weights, linear_type, scale_dtype)
    return _backward(grad, x, gain, rstd, x_codes, x_scale, quantised, [w.shape[0] for w in weights], int8_gradient)


@_bit_linear_backward.register_fake
def _(grad, x, gain, rstd, x_codes, x_scale, weights, linear_type, scale_dtype, int8_gradient):
    inner = weights[0].shape[1]
    return (grad.new_empty(grad.shape[0], inner),
            grad.new_empty(0 if gain is None else inner, dtype=torch.float32),
            grad.new_empty(grad.shape[1], inner, dtype=torch.float32))


def _keep(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, gain, weights, _, ctx.linear_type, ctx.scale_dtype, ctx.int8_gradient = inputs
    _, x_codes, x_scale, rstd = output
    ctx.mark_non_differentiable(x_codes, x_scale, rstd)
    # The weights themselves are kept, not their codes: those are in the cache, and autograd refuses changed weights.
    ctx.save_for_backward(None if gain is None else x, gain, rstd, x_codes, x_scale, *weights)


def _gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple:
    x, gain, rstd, x_codes, x_scale, *weights = ctx.saved_tensors
    grad_x, grad_gain, grad_weight = torch.ops.tritwise.bit_linear_backward(
        grad, x, gain, rstd, x_codes, x_scale, weights, ctx.linear_type, ctx.scale_dtype, ctx.int8_gradient)
    parts = list(grad_weight.split([w.shape[0] for w in weights]))
    return grad_x, None if gain is None else grad_gain, parts, None, None, None, None


_bit_linear.register_autograd(_gradients, setup_context=_keep)


class _PackedBitLinear(torch.autograd.Function):
    """The same for weights of which a rank has 2-bit codes only (FSDP); their codes are gathered again if need be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float, scale_dtype: torch.dtype, int8_gradient: bool,
                *weights: Any) -> Tensor:
        y, x_codes, x_scale, rstd = _forward(x, gain, eps, _unpacked(weights, scale_dtype, transposed=False))
        ctx.save_for_backward(None if gain is None else x, gain, rstd, x_codes, x_scale)
        ctx.weights, ctx.scale_dtype, ctx.int8_gradient = weights, scale_dtype, int8_gradient
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, gain, rstd, x_codes, x_scale = ctx.saved_tensors
        rows = [w.shape[0] for w in ctx.weights]
        quantised = _unpacked(ctx.weights, ctx.scale_dtype, transposed=True)
        grad_x, grad_gain, grad_weight = _backward(grad, x, gain, rstd, x_codes, x_scale, quantised, rows,
                                                   ctx.int8_gradient)
        return grad_x, None if gain is None else grad_gain, None, None, None, *grad_weight.split(rows)


def _unpacked(weights: Sequence[Any], scale_dtype: torch.dtype, *, transposed: bool) -> Quantised:
    codes = [unpack_codes(w.packed, w.shape[1]) for w in weights]
    scales = torch.cat([w.means[0].to(scale_dtype).float().expand(w.shape[0]) for w in weights])
    return one_below_the_other(codes), side_by_side(codes) if transposed else codes[0][:0], scales


def bit_linear(x: Tensor, weights: list[Tensor], linear_type: str, *, gain: Tensor | None, eps: float,
               scale_dtype: torch.dtype, int8_gradient: bool = False) -> list[Tensor]:
    """`tritwise.model.bit_linear` on the GPU's tensor cores; see there.

    With `int8_gradient` the input gradient is taken from the upstream gradient in int8, one scale a token.
    """
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    if getattr(weights[0], "packed", None) is not None:
        y = _PackedBitLinear.apply(flat, gain, eps, scale_dtype, int8_gradient, *weights)
    else:
        y = torch.ops.tritwise.bit_linear(flat, gain, weights, eps, linear_type, scale_dtype, int8_gradient)[0]
    return list(y.view(*x.shape[:-1], y.shape[-1]).split([w.shape[0] for w in weights], dim=-1))
