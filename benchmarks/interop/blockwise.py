"""The training model with the roundings of llama.cpp in place of ours: what its logits should be.

llama.cpp multiplies TQ1_0 and TQ2_0 with activations of type Q8_K: 256 neighbours have one scale, max / -127 with the
sign of the largest (ggml-quants.c). Everything else is the same model: codes, scales, norms, rotation.
"""

import torch
from torch import Tensor

from tritwise.formats import TernaryTensor
from tritwise.model import Decoder, bitlinear

BLOCK = 256


def q8_k(x: Tensor) -> tuple[Tensor, Tensor]:
    """x float32 [..., K] as Q8_K keeps it, with the factor 1 in the place of a scale a token."""
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    largest = blocks.gather(-1, blocks.abs().argmax(dim=-1, keepdim=True))
    inverse = torch.where(largest == 0, 0.0, -127.0 / largest)
    codes = (blocks * inverse).round().clamp(max=127)
    scale = torch.where(inverse == 0, 0.0, 1.0 / inverse)
    return (codes * scale).reshape(x.shape), torch.ones_like(x[..., :1])


def logits(opened, windows: Tensor, *, blocks: bool) -> Tensor:
    """float32 [windows, length, vocabulary] of a model that `open_model` gave, with Q8_K or with one scale a token."""
    model = Decoder(opened.config)
    scales = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stored = opened.read(name)
            if isinstance(stored, TernaryTensor):
                parameter.copy_(torch.from_numpy(stored.codes()).float())
                scales[parameter.data_ptr()] = torch.tensor(float(stored.scale[0]))
            else:
                parameter.copy_(torch.from_numpy(stored.astype("float32")))
    ours = bitlinear.quantise_activation, bitlinear.quantise_weight
    bitlinear.quantise_weight = lambda weight, *_: (weight, scales[weight.data_ptr()])
    if blocks:
        bitlinear.quantise_activation = q8_k
    try:
        with torch.no_grad():
            return torch.stack([model(window[None])[0] for window in windows])
    finally:
        bitlinear.quantise_activation, bitlinear.quantise_weight = ours
