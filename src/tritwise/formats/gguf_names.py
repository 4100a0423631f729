"""What GGUF files call the tensors and settings of a model, beside Hugging Face's names.

The names are those of llama.cpp's converter (gguf-py, constants.py); `bitnet-25` and `bitnet-b1.58` are what the forks
call the bitnet layout with squared ReLU.
"""

import re
from typing import Literal, NamedTuple


class Architecture(NamedTuple):
    """`general.architecture`: our layout, its activation, and whether rows of q and k are interleaved for rotation.

    llama.cpp turns neighbouring inputs in `llama` (its type "norm") and the halves of a head, as Hugging Face does, in
    the bitnet ones ("neox").
    """

    model_type: Literal["bitnet", "llama"]
    hidden_act: Literal["silu", "relu2"]
    interleaved: bool


ARCHITECTURES = {
    "bitnet": Architecture("bitnet", "silu", False),
    "bitnet-25": Architecture("bitnet", "relu2", False),
    "bitnet-b1.58": Architecture("bitnet", "relu2", False),
    "llama": Architecture("llama", "silu", True),
}

_MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_sub_norm": "self_attn.attn_sub_norm", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_sub_norm": "mlp.ffn_sub_norm", "ffn_down": "mlp.down_proj",
}
# Where "spm" stands for a model that fills gaps in that order. GGUF has no key for it, and other programs ignore ours.
FIM_ORDER = "tritwise.fim_order"
# Divisors of the rotary frequencies, float32 [head_dim / 2]: what llama3's rope scaling becomes there.
ROPE_FREQS = "rope_freqs.weight"
_Q_OR_K = re.compile(r"model\.layers\.\d+\.self_attn\.([qk])_proj\.weight")
_MODEL_BACK = {ours: theirs for theirs, ours in _MODEL.items()}
_BLOCK_BACK = {ours: theirs for theirs, ours in _BLOCK.items()}


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor: `model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight`. KeyError for others."""
    stem, _, kind = name.rpartition(".")
    if stem in _MODEL_BACK:
        return f"{_MODEL_BACK[stem]}.{kind}"
    model, layers, layer, part = (*stem.split(".", 3), "", "", "", "")[:4]
    if (model, layers) != ("model", "layers"):
        raise KeyError(name)
    return f"blk.{layer}.{_BLOCK_BACK[part]}.{kind}"


def q_or_k(name: str) -> Literal["q", "k"] | None:
    """Which of the two matrices a tensor of ours is whose rows `interleaved` turns; None for all others."""
    match = _Q_OR_K.fullmatch(name)
    return match and match[1]
