"""What the CUDA backend makes of model files: the codes, scales and floats that the readers give, and their errors."""

import ml_dtypes
import numpy as np
import pytest
import torch
from engine_fakes import tiny_config

from tritwise.common.errors import TritwiseError
from tritwise.formats import open_model, write_gguf, write_model

pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")
from tritwise.engine.cuda import CudaBackend
from tritwise.engine.cuda.weights import load_weights
from tritwise.kernels import codes_of

PARTS = {"qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "o": ("self_attn.o_proj",),
         "gate_up": ("mlp.gate_proj", "mlp.up_proj"), "down": ("mlp.down_proj",)}


def latent(config) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) if len(shape) > 1 else
            rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in config.tensor_shapes().items()}


def sources(directory):
    return ((name, directory.source(name)) for name in directory.names())


def loaded(directory):
    return load_weights(directory.config, sources(directory), head="int8", threads=1, device=torch.device("cpu"))


def differences(directory) -> list[str]:
    """What of linears, norms and embedding is not as the numpy reader has it."""
    weights, found = loaded(directory), []

    def compare(name: str, got: torch.Tensor, expected: np.ndarray) -> None:
        if not np.array_equal(got.numpy(), expected):
            found.append(name)

    compare("embedding", weights.embedding.float(), directory.read("model.embed_tokens.weight").astype(np.float32))
    assert len(weights.blocks) == directory.config.num_hidden_layers
    for layer, block in enumerate(weights.blocks):
        for name, parts in PARTS.items():
            expected = [directory.read(f"model.layers.{layer}.{part}.weight") for part in parts]
            matrix, = getattr(block, name).matrices
            compare(f"codes of {layer} {name}", codes_of(matrix), np.concatenate([each.codes() for each in expected]))
            compare(f"scales of {layer} {name}", matrix.scales,
                    np.concatenate([each.row_scales() for each in expected]))
        compare(f"norm of {layer}", block.post_norm, directory.read(
            f"model.layers.{layer}.post_attention_layernorm.weight").astype(np.float32))
    return found


@pytest.mark.parametrize(("form", "changes"), [
    ("packed", {}), ("online", {}), ("packed", {"linear_type": "binary"}), ("packed", {"intermediate_size": 100})])
def test_directories_are_what_their_reader_says(form, changes, tmp_path):
    config = tiny_config(**changes)
    write_model(tmp_path / "model", config, latent(config), form=form)
    assert differences(open_model(tmp_path / "model")) == []


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "I2_S"])
def test_gguf_files_are_what_their_reader_says(kind, tmp_path):
    config = tiny_config(hidden_size=256, intermediate_size=512, num_hidden_layers=1, tie_word_embeddings=True,
                         scale_dtype="float16", hidden_act="relu2")
    write_model(tmp_path / "model", config, latent(config), form="packed")
    directory = open_model(tmp_path / "model")
    write_gguf(tmp_path / "model.gguf", directory.config, directory.read, ternary_type=kind)
    assert differences(open_model(tmp_path / "model.gguf")) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dense_matrices_keep_their_type_and_their_bits(dtype, tmp_path):
    config = tiny_config(model_type="llama", linear_type="dense")
    write_model(tmp_path / "model", config, latent(config), form="float", dtype=dtype)
    directory = open_model(tmp_path / "model")
    weights = load_weights(config, sources(directory), head="stored", threads=1, device=torch.device("cpu"))
    got = weights.blocks[1].gate_up.matrix
    assert got.dtype == getattr(torch, dtype)
    expected = np.concatenate([directory.read(f"model.layers.1.mlp.{name}_proj.weight") for name in ("gate", "up")])
    assert np.array_equal(got.view(torch.int16).numpy(), expected.view(np.int16))


def test_a_head_in_float32_is_refused_with_the_choices(tmp_path):
    config = tiny_config(model_type="llama", linear_type="dense")
    with pytest.raises(TritwiseError, match="head in float32") as caught:
        CudaBackend(config, latent(config).items(), device="cpu")
    assert "f16" in caught.value.fix
    assert CudaBackend(config, latent(config).items(), device="cpu", head="f16").info.head == "f16"


@pytest.mark.parametrize(("name", "value", "message"), [
    ("model.embed_tokens.weight", b"\xff\x7f", "NaN or infinite"),
    ("model.layers.0.mlp.up_proj.weight", b"\xff", "up_proj")])
def test_values_that_cannot_be_are_refused_as_the_reader_refuses_them(name, value, message, tmp_path):
    config = tiny_config()
    write_model(tmp_path / "model", config, latent(config), form="packed")
    directory = open_model(tmp_path / "model")
    source = directory.source(name)
    with open(directory.files[0], "r+b") as file:
        file.seek(source.offset)
        file.write(value)
    with pytest.raises(TritwiseError) as expected:
        open_model(tmp_path / "model").read(name)
    with pytest.raises(TritwiseError, match=message) as caught:
        loaded(open_model(tmp_path / "model"))
    assert str(caught.value) == str(expected.value)


def test_a_file_that_has_become_shorter_is_said_to_be(tmp_path):
    config = tiny_config()
    write_model(tmp_path / "model", config, latent(config), form="packed")
    directory = open_model(tmp_path / "model")
    tensors = list(sources(directory))
    with open(directory.files[0], "r+b") as file:
        file.truncate(2000)
    with pytest.raises(TritwiseError, match="has become shorter"):
        load_weights(config, tensors, head="int8", threads=1, device=torch.device("cpu"))


def test_matrices_of_one_input_in_two_types_are_refused():
    config = tiny_config(model_type="llama", linear_type="dense", num_hidden_layers=1)
    tensors = {name: tensor.astype(ml_dtypes.bfloat16 if "k_proj" not in name else np.float16)
               for name, tensor in latent(config).items()}
    with pytest.raises(TritwiseError, match="different types"):
        CudaBackend(config, tensors.items(), device="cpu")
