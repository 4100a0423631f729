"""Tiny models with transformers' own layers, for every way in which it holds a ternary model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

with warnings.catch_warnings():
    # torch.compile, used as a decorator there, makes torch import a part of itself that torch calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch
    import transformers
    from transformers.integrations import bitnet as hf_bitnet

LAYERS = 3
# Grouped heads (4 to 2), sizes that are no powers of two, a theta that no model type has by default.
SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 88, "num_hidden_layers": LAYERS,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 2500.0,
         "bos_token_id": None, "eos_token_id": 3, "pad_token_id": None}
MODES = ("bitlinear", "autobitlinear offline", "autobitlinear online")


@contextmanager
def as_referee() -> Iterator[None]:
    """Run transformers quietly, eagerly (it compiles its BitNet layers, seconds a shape) and on one thread.

    The models are too small to share among threads, and none of the three changes what is compared.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.compiler.set_stance("force_eager"), torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def build(model_type: str, *, seed: int = 0, **changes) -> transformers.PreTrainedModel:
    """A float32 model of transformers with random weights; norms are random too, so that each is told apart."""
    kinds = {"bitnet": (transformers.BitNetConfig, transformers.BitNetForCausalLM),
             "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
             "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM)}
    config_class, model_class = kinds[model_type]
    torch.manual_seed(seed)
    model = model_class(config_class(**(SIZES | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.08)
    return model.eval()


def quantised(model: transformers.PreTrainedModel, mode: str, *, packed: bool = True,
              linear_norm_eps: float | None = None
              ) -> tuple[transformers.PreTrainedModel, dict[str, torch.Tensor]]:
    """The same model with transformers' own ternary layers for `mode`, and the state dict that it saves.

    Codes and scales are computed here by the published formula in torch, packed by transformers' `pack_weights`. With
    `linear_norm_eps` each layer has a norm inside, of random weights.
    """
    linear_class, *rest = mode.split()
    online = rest == ["online"]
    state: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if "_proj" not in name or online:
            state[name] = tensor.clone()
            continue
        scale = tensor.abs().mean(dtype=torch.float64).float().clamp(min=1e-5)
        codes = (tensor * (1 / scale)).round().clamp(-1, 1)
        # pack_weights changes its argument in place
        state[name] = hf_bitnet.pack_weights(codes.clone()) if packed else codes
        state[f"{name}_scale"] = (1 / scale if linear_class == "bitlinear" else scale).reshape(1)
    norms = {} if linear_norm_eps is None else {"use_rms_norm": True, "rms_norm_eps": linear_norm_eps}
    config = transformers.BitNetQuantConfig(linear_class=linear_class,
                                            quantization_mode="online" if online else "offline", **norms)
    hf_bitnet.replace_with_bitnet_linear(model, modules_to_not_convert=["lm_head"], quantization_config=config)
    model.config.quantization_config = config
    generator = torch.Generator().manual_seed(11)  # one model in every mode
    for name, parameter in model.named_parameters():
        if name.endswith(".rms_norm.weight"):
            state[name] = torch.empty(parameter.shape).uniform_(0.5, 1.5, generator=generator)
    return model, state
