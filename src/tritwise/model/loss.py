"""Head and cross-entropy in one step, a chunk of tokens at a time.

The logits of a batch, [tokens, vocab], are by far its largest tensor. Here a chunk of them exists at a time: its
softmax gradient is taken while it is in the cache and multiplied back at once.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_TOKENS = 1024


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        tokens = hidden.shape[0]
        dtype = hidden.dtype
        w = weight.to(dtype)
        needs_grad = any(ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for begin in range(0, tokens, CHUNK_TOKENS):
            rows = slice(begin, begin + CHUNK_TOKENS)
            h, t = hidden[rows], targets[rows]
            logits = h @ w.T
            if dtype == torch.float32:
                log_p = torch.log_softmax(logits, dim=-1)
                total -= log_p.gather(1, t[:, None]).sum(dtype=torch.float64)
                p = log_p.exp_()
            else:  # softmax works in float32 inside; its bfloat16 result is a fifth of the cost of float32 passes
                p = torch.softmax(logits, dim=-1)
                total -= p.gather(1, t[:, None]).float().clamp_(min=1e-38).log_().sum(dtype=torch.float64)
            if needs_grad:
                p.scatter_add_(1, t[:, None], p.new_full((1, 1), -1.0).expand(len(t), 1))
                torch.mm(p, w, out=grad_hidden[rows])
                product = p.T @ h
                grad_weight = product.float() if grad_weight is None else grad_weight.add_(product)
        if needs_grad:
            ctx.save_for_backward(grad_hidden, torch.zeros_like(weight) if grad_weight is None else grad_weight)
        ctx.tokens = max(tokens, 1)
        return (total / ctx.tokens).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        # In place: these gradients are used once, and the weight's is as large as the head.
        factor = grad / ctx.tokens
        return grad_hidden.mul_(factor), grad_weight.mul_(factor), None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats (float32) of softmax(hidden @ weight.T) against targets; 0 of none.

    `hidden` is [tokens, H] in the compute dtype, `weight` float32 [vocab, H], `targets` int64 [tokens]. The softmax is
    computed in float32 and stored in the compute dtype; the sum over tokens is float64.
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets)
