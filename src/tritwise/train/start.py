"""Fine-tuning: a training that begins with the weights of an opened model instead of random ones."""

from pathlib import Path

import torch

from tritwise.common.errors import TritwiseError
from tritwise.common.files import canonical_json, sha256_bytes, sha256_file
from tritwise.config import ModelConfig
from tritwise.formats import latent, open_model
from tritwise.model import Decoder

# What has to be the same in recipe and model for the weights to mean the same.
_SAME = ("model_type", "linear_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
         "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "use_rms_norm",
         "linear_rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings", "num_experts",
         "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size", "norm_topk_prob")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def started_config(config: ModelConfig, path: Path) -> ModelConfig:
    """The configuration of a training that starts from the model at `path`: the recipe's, with the model's token ids.

    Raises TritwiseError with the settings in which recipe and model differ.
    """
    theirs = open_model(path).config
    differ = [key for key in _SAME if getattr(config, key) != getattr(theirs, key)]
    if differ:
        raise TritwiseError(f"the recipe's model is not that of {path}",
                            why="; ".join(f"{key} is {getattr(config, key)} in the recipe and {getattr(theirs, key)} "
                                          "in the model" for key in differ),
                            fix="set these keys under [model] as the model has them")
    return config.with_changes(**{key: getattr(theirs, key) for key in _IDS if getattr(theirs, key) is not None})


def load_weights(model: Decoder, path: Path) -> None:
    """Set every parameter to the float weights of the model at `path`, latent ones for quantised linears."""
    opened = open_model(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(latent(opened, name)))


def start_key(path: Path) -> str:
    """A hash of the model's files, part of what a training is keyed by."""
    opened = open_model(path)
    return sha256_bytes(canonical_json([opened.config.model_dump(mode="json", exclude={"fim_order"}),
                                        [sha256_file(file) for file in opened.files]]).encode())
