"""The PyTorch modules that are trained, with Hugging Face's parameter names.

    model = Decoder(config)                      # ternary, binary or dense linears; bitnet or llama blocks
    loss = model.loss(inputs, targets)           # [batch, seq] ids -> mean cross-entropy in nats
    logits = model(inputs)                       # float32 [batch, seq, vocab]

Shapes: B batch, T tokens of a sequence, H hidden, N outputs and K inputs of a linear.
"""

from tritwise.model.bitlinear import BitLinear, bit_linear, dense_linear
from tritwise.model.decoder import Decoder
from tritwise.model.experts import SparseFeedForward, choose_experts, load_balancing_loss
from tritwise.model.loss import linear_cross_entropy
from tritwise.model.norm import RMSNorm

__all__ = [
    "BitLinear", "Decoder", "RMSNorm", "SparseFeedForward", "bit_linear", "choose_experts", "dense_linear",
    "linear_cross_entropy", "load_balancing_loss",
]
