"""The decoder: LLaMA's block, BitNet's with two sub-norms, or Qwen3's with norms of heads, over any kind of linears.

Norms (float32), rotary embedding and the residual stream are those of `transformers`' modeling_bitnet.py,
modeling_llama.py and modeling_qwen3.py, against which the tests compare. Parameters are float32; `dtype` is what
activations and products are computed in.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tritwise.config import ModelConfig
from tritwise.model.bitlinear import BitLinear, multiply
from tritwise.model.experts import FeedForward, SparseFeedForward, load_balancing_loss
from tritwise.model.loss import linear_cross_entropy
from tritwise.model.norm import RMSNorm


def rotary_tables(positions: int, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [positions, head_dim]: the half-split form of RoPE (arXiv 2104.09864, section 3.4)."""
    inverse_frequencies, attention_factor = config.rotary()
    angles = torch.arange(positions).float()[:, None] * torch.from_numpy(inverse_frequencies)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos() * attention_factor, angles.sin() * attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embedding to x [B, heads, T, head_dim]; the tables are [T, head_dim], in x's dtype."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention with grouped key-value heads.

    The bitnet layout has `attn_sub_norm` before `o_proj`, that of qwen3 `q_norm` and `k_norm` before the rotation.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        shapes = config.linear_shapes()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            out, inner = shapes[f"self_attn.{name}"]
            setattr(self, name, BitLinear(inner, out, config.linear_type, config.scale_dtype,
                                          config.linear_rms_norm_eps))
        self.attn_sub_norm = RMSNorm(config.hidden_size, config.rms_norm_eps) if config.has_sub_norms else None
        for name in ("q_norm", "k_norm"):
            setattr(self, name, RMSNorm(config.head_dim, config.rms_norm_eps) if config.has_head_norms else None)

    def forward(self, x: Tensor, norm: RMSNorm, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, T, H], still to be normed, to [B, T, H]."""
        q, k, v = (y.unflatten(-1, (-1, self.head_dim))
                   for y in multiply(x, self.q_proj, self.k_proj, self.v_proj, norm=norm))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.groups > 1)
        return multiply(y.transpose(1, 2).flatten(2), self.o_proj, norm=self.attn_sub_norm)[0]


class Block(nn.Module):
    """Pre-norm attention and feed-forward, dense or of experts, with residuals."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SparseFeedForward(config) if config.num_experts else FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, *,
                with_router: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """x [B, T, H] to [B, T, H]; with `with_router`, of a block with experts, also its router's logits [B T, E]."""
        x = x + self.self_attn(x, self.input_layernorm, cos, sin)
        y = self.mlp(x, self.post_attention_layernorm)
        if not isinstance(self.mlp, SparseFeedForward):
            return x + y
        y, logits = y
        return (x + y, logits) if with_router else x + y


class _Stack(nn.Module):
    """Embedding, blocks and final norm: what Hugging Face names `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A language model. `state_dict()` has exactly the names and shapes of `ModelConfig.tensor_shapes()`.

    With `recompute`, of each block its input alone is kept for the backward, which computes the rest again (activation
    checkpointing, arXiv 1604.06174): the same numbers for more arithmetic and less memory.
    """

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype = torch.float32, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.config = config
        self.dtype = dtype
        self.model = _Stack(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._tables: tuple[Tensor, Tensor] | None = None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every matrix from N(0, initializer_range) in the order of `tensor_shapes()`; norms are ones."""
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, shape in self.config.tensor_shapes().items():
                if len(shape) == 2:
                    drawn = torch.empty(shape).normal_(0.0, self.config.initializer_range, generator=generator)
                    parameters[name].copy_(drawn)  # drawn on the CPU, whatever the device
                else:
                    parameters[name].fill_(1.0)

    @property
    def head_weight(self) -> Tensor:
        """float32 [vocab, H]: the embedding itself when tied."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def _rotary(self, length: int) -> tuple[Tensor, Tensor]:
        if self._tables is None or self._tables[0].shape[0] < length:
            cos, sin = rotary_tables(length, self.config)
            device = self.model.embed_tokens.weight.device
            self._tables = cos.to(device, self.dtype), sin.to(device, self.dtype)
        return self._tables[0][:length], self._tables[1][:length]

    def _block(self, layer: Block, *inputs: Tensor, **options: bool) -> Any:
        if self.recompute and torch.is_grad_enabled():  # nothing here is random
            return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False, **options)
        return layer(*inputs, **options)

    def hidden(self, ids: Tensor, router_logits: list[Tensor] | None = None) -> Tensor:
        """Final normed states [B, T, H] of ids [B, T]; routers' logits [B T, E] are appended to a given list."""
        cos, sin = self._rotary(ids.shape[1])
        x = self.model.embed_tokens(ids).to(self.dtype)
        for layer in self.model.layers:
            if router_logits is None or not self.config.num_experts:
                x = self._block(layer, x, cos, sin)
            else:  # as a result of the block: what wraps one (FSDP, recomputation) knows of results
                x, logits = self._block(layer, x, cos, sin, with_router=True)
                router_logits.append(logits)
        return self.model.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, float32 [B, T, vocab], of ids [B, T]."""
        return F.linear(self.hidden(ids), self.head_weight.to(self.dtype)).float()

    def loss(self, ids: Tensor, targets: Tensor, *, balance: float = 0.0,
             over_ranks: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Mean cross-entropy in nats of targets [B, T] given ids [B, T]; targets below 0 are left out.

        Ids below 0 stand behind all others of their row, where nothing looks.
        With experts, `balance` times `load_balancing_loss` is added, for which see `over_ranks`: training without it
        starves most experts.
        """
        router_logits: list[Tensor] = []
        scored = targets.flatten() >= 0
        everything = bool(scored.all())
        hidden = self.hidden(ids if everything else ids.clamp(min=0), router_logits).flatten(0, 1)
        targets = targets.flatten()
        if not everything:
            hidden, targets = hidden[scored], targets[scored]
        loss = linear_cross_entropy(hidden, self.head_weight, targets)
        if balance and router_logits:
            loss = loss + balance * load_balancing_loss(router_logits, self.config.num_experts_per_tok,
                                                        over_ranks)
        return loss
