"""A feed-forward of experts: a dense router sends each token to a few of them, and a shared one sees every token.

The arithmetic is transformers' Qwen2-MoE (modeling_qwen2_moe.py): softmax of the router in float32 over all experts,
the `num_experts_per_tok` largest, divided by their sum with `norm_topk_prob`; the shared expert through a sigmoid gate.
Among equal logits the lowest id wins. Every expert norms and quantises its own tokens as the dense feed-forward does,
and its `ffn_sub_norm` is its own: channels of different experts have nothing to do with one another.

In training every expert runs, one that no token chose on no tokens: its gradient is zero then, not missing. So
AdamW treats it as any other weight, and all ranks of a sharded training have the same gradients to add up.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tritwise.config import ModelConfig
from tritwise.model.bitlinear import BitLinear, multiply
from tritwise.model.norm import RMSNorm


class FeedForward(nn.Module):
    """act(gate) * up, then `down_proj`; `ffn_sub_norm` between them in the bitnet layout.

    `name` is one of `ModelConfig.feed_forward_sizes()`.
    """

    def __init__(self, config: ModelConfig, name: str = "mlp") -> None:
        super().__init__()
        size = config.feed_forward_sizes()[name]
        how = (config.linear_type, config.scale_dtype, config.linear_rms_norm_eps)
        self.gate_proj = BitLinear(config.hidden_size, size, *how)
        self.up_proj = BitLinear(config.hidden_size, size, *how)
        self.down_proj = BitLinear(size, config.hidden_size, *how)
        self.ffn_sub_norm = RMSNorm(size, config.rms_norm_eps) if config.has_sub_norms else None
        self.relu2 = config.hidden_act == "relu2"

    def forward(self, x: Tensor, norm: RMSNorm) -> Tensor:
        """x [..., H], still to be normed, to [..., H]."""
        gate, up = multiply(x, self.gate_proj, self.up_proj, norm=norm)
        y = (F.relu(gate).square() if self.relu2 else F.silu(gate)) * up
        return multiply(y, self.down_proj, norm=self.ffn_sub_norm)[0]


def choose_experts(logits: Tensor, k: int, normalise: bool) -> tuple[Tensor, Tensor]:
    """Ids int64 [N, k], likeliest first, and weights float32 [N, k], of router logits [N, E]."""
    ids = logits.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    weights = logits.float().softmax(dim=-1).gather(-1, ids)
    return ids, weights / weights.sum(dim=-1, keepdim=True) if normalise else weights


def load_balancing_loss(router_logits: list[Tensor], k: int,
                        over_ranks: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """E * sum_i f_i P_i over all layers' tokens: k when they spread evenly, up to k * E when not.

    f_i is the share of tokens that expert i gets, P_i the mean probability the router gives it (Switch Transformer,
    arXiv 2101.03961, equations 4-6; for top-k as in transformers' Mixtral). `router_logits` are [N, E] each.
    Where ranks share a batch, `over_ranks` adds up counts int64 [E] of all of them; the mean of their losses, each over
    as many tokens, is that of the whole batch then, because f_i is the whole batch's.
    """
    logits = torch.cat([each.float() for each in router_logits])
    ids, _ = choose_experts(logits, k, False)
    experts = logits.shape[-1]
    counts = torch.bincount(ids.flatten(), minlength=experts)
    if over_ranks is not None:
        counts = over_ranks(counts)
    share = counts.to(logits.dtype) / (counts.sum() // k)  # by the number of tokens
    return experts * (share * logits.softmax(dim=-1).mean(dim=0)).sum()


class SparseFeedForward(nn.Module):
    """Router, experts and shared expert of one block. The routers' weights are float32 and never quantised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.k, self.normalise = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config, f"mlp.experts.{expert}")
                                     for expert in range(config.num_experts))
        if config.shared_expert_intermediate_size:
            self.shared_expert = FeedForward(config, "mlp.shared_expert")
            self.shared_expert_gate = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, x: Tensor, norm: RMSNorm) -> tuple[Tensor, Tensor]:
        """x [B, T, H], still to be normed, to [B, T, H], and the router's logits [B T, E]."""
        flat = x.flatten(0, -2)
        normed = norm(flat).float()
        logits = self.gate(normed)
        ids, weights = choose_experts(logits, self.k, self.normalise)
        y = torch.zeros_like(flat)
        # Ascending, so that a token's sum has one order.
        for expert in range(len(self.experts)) if torch.is_grad_enabled() else ids.unique().tolist():
            rows, places = torch.where(ids == expert)
            out = self.experts[expert](flat[rows], norm) * weights[rows, places, None].to(x.dtype)
            y = y.index_add(0, rows, out)
        if hasattr(self, "shared_expert"):
            gate = self.shared_expert_gate(normed).sigmoid().to(x.dtype)
            y = y + gate * self.shared_expert(flat, norm)
        return y.view(x.shape), logits
