"""Scaled rotary embedding beyond the original positions: logits against transformers, and 32 768 positions."""

import numpy as np
import pytest
import torch
import transformers
from hf_models import SIZES, build

import tritwise
from tritwise import TritwiseError
from tritwise.formats import open_model
from tritwise.model import Decoder
from tritwise.model.decoder import rotary_tables

ORIGINAL = 24
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn with mscale": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL,
                         "mscale": 0.7, "mscale_all_dim": 1.2},
    "llama3": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": ORIGINAL},
}


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids, four times as many as the original positions."""
    return torch.randint(SIZES["vocab_size"], (4 * ORIGINAL,), generator=torch.Generator().manual_seed(7))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def decoder_logits(path, ids: torch.Tensor, config=None) -> torch.Tensor:
    directory = open_model(path)
    model = Decoder(config or directory.config)
    model.load_state_dict({name: torch.from_numpy(directory.read(name).copy()) for name in directory.names()})
    return model(ids[None])[0]


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=list(SCALINGS))
@pytest.mark.parametrize("model_type", ["llama", "bitnet"])
def test_logits_beyond_the_original_positions_are_those_of_transformers(saved, opened, ids, model_type, scaling):
    path = saved(model_type, "dense", max_position_embeddings=4 * ORIGINAL, rope_scaling=dict(scaling))
    plain = saved(model_type, "dense", seed=1, max_position_embeddings=4 * ORIGINAL)
    theirs = opened(path)(ids[None]).logits[0]
    assert relative(decoder_logits(path, ids), theirs) <= 1e-5
    with tritwise.load(path, threads=2, cache_type="f32") as model:
        assert relative(torch.from_numpy(model.logits(ids.tolist())), theirs) <= 1e-4
    # The scaling is seen: without it the logits would be others.
    without = decoder_logits(path, ids, open_model(plain).config)
    assert relative(without, theirs) > 1e-2


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=list(SCALINGS))
def test_a_short_model_stretched_at_load_is_the_model_that_was_saved_with_the_scaling(saved, opened, ids, scaling):
    short = saved("llama", "dense", max_position_embeddings=ORIGINAL)
    long = saved("llama", "dense", seed=1, max_position_embeddings=4 * ORIGINAL, rope_scaling=dict(scaling))
    (long / "model.safetensors").write_bytes((short / "model.safetensors").read_bytes())
    theirs = opened(long)(ids[None]).logits[0]
    with pytest.raises(TritwiseError, match=f"the model knows {ORIGINAL} positions"):
        tritwise.load(short, context=4 * ORIGINAL)
    given = {key: value for key, value in scaling.items() if key != "original_max_position_embeddings"}
    with tritwise.load(short, threads=2, context=4 * ORIGINAL, rope_scaling=given, cache_type="f32") as model:
        assert relative(torch.from_numpy(model.logits(ids.tolist())), theirs) <= 1e-4
    with tritwise.load(short, threads=2, context=4 * ORIGINAL, rope_scaling=given | {"factor": None},
                       cache_type="f32") as model:
        assert relative(torch.from_numpy(model.logits(ids.tolist())), theirs) <= 1e-4


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=list(SCALINGS))
def test_tables_of_131072_positions_are_those_of_transformers(scaling):
    length, head_dim = 131072, 64
    changes = {"rope_theta": 5e5, "head_dim": head_dim, "max_position_embeddings": length}
    config = transformers.LlamaConfig(**(SIZES | changes | {"rope_scaling": dict(scaling)}))
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    ours = tritwise.ModelConfig.from_hf(config.to_dict())
    assert np.array_equal(ours.rotary().inverse_frequencies, rotary.inv_freq.numpy())
    for mine, theirs in zip(rotary_tables(length, ours), rotary(torch.zeros(1), torch.arange(length)[None]),
                            strict=True):
        assert torch.equal(mine, theirs[0])


def test_a_sequence_of_32768_tokens_has_the_logits_of_transformers_to_its_end(tmp_path, opened):
    length = 32768
    changes = {"hidden_size": 16, "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1,
               "rope_theta": 10000.0, "intermediate_size": 32, "max_position_embeddings": length,
               "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}}
    build("llama", **changes).save_pretrained(tmp_path)
    ids = torch.randint(SIZES["vocab_size"], (length,), generator=torch.Generator().manual_seed(7))
    theirs = opened(tmp_path)(ids[None]).logits[0]
    with tritwise.load(tmp_path, threads=2, slots=1, cache_type="f32") as model:
        assert model.context == length
        # Sums over 32 768 positions in two orders, each term rounded: their random errors add up as a walk.
        assert relative(torch.from_numpy(model.logits(ids.tolist())), theirs) <= 1e-3
