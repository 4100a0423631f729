"""The forward pass on the device, for any mix of prompts and decoding sequences; no step depends on batch mates.

A ternary block is eleven launches for one token: norm and quantisation, product, rotation and cache, attention (two),
quantisation, product with residual, norm and quantisation, product, gate with norm and quantisation, product with
residual. Between them everything is float32. A dense model keeps its residual in the type of its weights.
"""

import torch
from torch import Tensor

from tritwise.config import ModelConfig
from tritwise.engine.cuda.weights import ModelWeights, TernaryLinears
from tritwise.kernels.attention import AttentionPlan, Workspace, attend
from tritwise.kernels.cache import KVCache
from tritwise.kernels.norm import normed
from tritwise.kernels.rotary import rotary_tables, rotate_and_cache


class Decoder:
    """A model's blocks over its cache. `tables` int32 [rows, most pages]: the pages of each sequence."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, cache: KVCache, tables: Tensor,
                 context: int) -> None:
        self.config, self.weights, self.cache, self.tables = config, weights, cache, tables
        rotary = config.rotary()
        self._cos, self._sin = rotary_tables(rotary.inverse_frequencies, rotary.attention_factor, context,
                                             tables.device)
        self._layers = [cache.layer(index) for index in range(config.num_hidden_layers)]
        ternary = isinstance(weights.blocks[0].qkv, TernaryLinears)
        self._dtype = torch.float32 if ternary else weights.blocks[0].qkv.matrix.dtype

    def mixed(self, rows: int) -> Tensor:
        """Room for what attention gives `rows` rows; zeros, as nothing is written for rows without a slot."""
        shape = (rows, self.config.num_attention_heads, self.config.head_dim)
        return torch.zeros(shape, dtype=self._dtype, device=self.tables.device)

    def hidden(self, tokens: Tensor, plan: AttentionPlan, room: Workspace | None, mixed: Tensor) -> Tensor:
        """Residual stream [n, hidden] behind the last block of tokens int32 [n]; keys and values go into the cache."""
        config, n = self.config, len(tokens)
        eps, heads, head_dim = config.rms_norm_eps, config.num_attention_heads, config.head_dim
        x = self.weights.embedding.index_select(0, tokens).to(self._dtype)
        for block, cache in zip(self.weights.blocks, self._layers, strict=True):
            qkv = block.qkv(x, block.input_norm, eps)
            q = torch.empty(n, heads, head_dim, dtype=torch.float32, device=x.device)
            rotate_and_cache(qkv, cache, self.tables, plan.slots, plan.positions, self._cos, self._sin, q,
                             q_norm=block.q_norm, k_norm=block.k_norm, eps=eps)
            attend(q, cache, self.tables, plan, room, mixed)
            x = block.o(mixed.view(n, -1), block.attn_sub_norm, eps, residual=x)
            x = block.down(block.gate_up(x, block.post_norm, eps), block.ffn_sub_norm, eps,
                           activation=config.hidden_act, residual=x)
        return x

    def states(self, x: Tensor) -> Tensor:
        """What the head multiplies, float32 [n, hidden]."""
        return normed(x, self.weights.final_norm, self.config.rms_norm_eps, dtype=torch.float32)
