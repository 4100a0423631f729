"""Models in GGUF files: written by the gguf package, read as the same model that a Hugging Face directory holds."""

from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch
from corpus.peer_gguf import finish, writer_of
from gguf import GGMLQuantizationType as Type
from tokenizers import pre_tokenizers
from transformers import LlamaForCausalLM

from tritwise import TritwiseError
from tritwise.cli.app import main
from tritwise.config import ModelConfig
from tritwise.engine import load
from tritwise.formats import TernaryTensor, open_model, write_quantised
from tritwise.formats.gguf_file import GGUFFile
from tritwise.formats.gguf_names import ARCHITECTURES, gguf_name
from tritwise.formats.reader import linear_names
from tritwise.ternary import absmean

# Widths that hold whole blocks of every type.
SIZES = {"vocab_size": 40, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 10000.0, "tie_word_embeddings": True}


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp's converter lays them out for its pairs of neighbours."""
    order = np.arange(weight.shape[0]).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
    return weight[order]


def write(path: Path, config: ModelConfig, tensors: dict[str, np.ndarray], arch: str, kind: str, *,
          metadata: dict[str, float] | None = None, extra: dict[str, np.ndarray] | None = None,
          vocabulary: list[str] | None = None) -> Path:
    """A file of `arch` with the block linears as `kind`, TERNARY-F16 for -s, 0, +s in halves; all else in float32."""
    writer = writer_of(path, arch, config)
    if vocabulary:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(vocabulary)
        writer.add_token_merges(["a b"])
    for key, value in (metadata or {}).items():
        writer.add_float32(f"{arch}.{key}", value)
    linears = linear_names(config.with_changes(linear_type="ternary"))
    for name, weight in tensors.items():
        if ARCHITECTURES.get(arch) and ARCHITECTURES[arch].interleaved:
            for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
                if f".{part}." in name:
                    weight = permuted(weight, heads)
        if name not in linears or kind == "F32":
            writer.add_tensor(gguf_name(name), weight)
        elif kind == "BF16":
            writer.add_tensor(gguf_name(name), weight.astype(ml_dtypes.bfloat16).view(np.uint8),
                              raw_dtype=Type.BF16)
        else:
            codes, scale = absmean(weight)
            half = np.float32(np.float16(scale))
            if kind == "TERNARY-F16":
                writer.add_tensor(gguf_name(name), (codes * half).astype(np.float16))
            else:
                data = gguf.quants.quantize(codes * half, Type[kind])
                writer.add_tensor(gguf_name(name), data, raw_dtype=Type[kind])
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    finish(writer)
    return path


def model(make_tensors, **changes) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    config = ModelConfig(**(SIZES | changes))
    return config, make_tensors(config)


@pytest.mark.parametrize("arch", ["bitnet", "bitnet-25", "bitnet-b1.58", "llama"])
@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_codes_and_scales_are_those_that_were_written(tmp_path, make_tensors, arch, kind):
    architecture = ARCHITECTURES[arch]
    config, tensors = model(make_tensors, model_type=architecture.model_type, hidden_act=architecture.hidden_act)
    found = open_model(write(tmp_path / "model.gguf", config, tensors, arch, kind))
    same = ("model_type", "linear_type", "hidden_act", *SIZES, "head_dim", "rms_norm_eps", "max_position_embeddings")
    assert {key: getattr(found.config, key) for key in same} == {key: getattr(config, key) for key in same}
    for name in found.names():
        read = found.read(name)
        if name in linear_names(config):
            codes, scale = absmean(tensors[name])
            assert isinstance(read, TernaryTensor)
            assert np.array_equal(read.codes(), codes)
            assert read.scale[0] == np.float32(np.float16(scale))
        else:
            assert np.array_equal(read, tensors[name])


def test_a_bitnet_file_of_floats_holds_codes(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    found = open_model(write(tmp_path / "model.gguf", config, tensors, "bitnet", "TERNARY-F16"))
    for name in linear_names(config):
        codes, scale = absmean(tensors[name])
        assert np.array_equal(found.read(name).codes(), codes)
        assert found.read(name).scale[0] == np.float32(np.float16(scale))


def test_a_bitnet_file_of_latent_floats_is_refused(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    found = open_model(write(tmp_path / "model.gguf", config, tensors, "bitnet", "F32"))
    with pytest.raises(TritwiseError, match=r"blk\.0\.attn_q\.weight cannot be used\nwhy: .*not a ternary matrix"):
        found.read("model.layers.0.self_attn.q_proj.weight")


def test_a_scale_beside_a_matrix_is_multiplied_with_it(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    path = write(tmp_path / "model.gguf", config, tensors, "bitnet", "TQ2_0",
                 extra={"blk.1.ffn_up.scale": np.array([0.5], np.float32)})
    name = "model.layers.1.mlp.up_proj.weight"
    _, scale = absmean(tensors[name])
    found = open_model(path)
    assert found.read(name).scale[0] == np.float32(np.float16(scale)) / 2
    assert found.tensor_bytes(name) == 512 * 66 + 4


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
def test_an_untied_head_is_read(tmp_path, make_tensors, arch):
    architecture = ARCHITECTURES[arch]
    config, tensors = model(make_tensors, model_type=architecture.model_type, hidden_act=architecture.hidden_act,
                            tie_word_embeddings=False)
    found = open_model(write(tmp_path / "model.gguf", config, tensors, arch, "TQ2_0"))
    assert not found.config.tie_word_embeddings
    assert np.array_equal(found.read("lm_head.weight"), tensors["lm_head.weight"])


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_a_dense_llama_file_is_the_dense_model(tmp_path, make_tensors, kind):
    config, tensors = model(make_tensors, model_type="llama", linear_type="dense")
    found = open_model(write(tmp_path / "model.gguf", config, tensors, "llama", kind))
    assert found.config.linear_type == "dense"
    for name in found.names():
        stored = tensors[name].astype(ml_dtypes.bfloat16) if kind == "BF16" and name in linear_names(
            config.with_changes(linear_type="ternary")) else tensors[name]
        assert np.array_equal(found.read(name), stored)


@pytest.mark.parametrize(("settings", "match"), [
    ({"arch": "gemma"}, "architecture 'gemma' is not supported\nwhy: bitnet, "),
    ({"metadata": {"logit_scale": 2.0}}, "bitnet.logit_scale is 2.0"),
    ({"metadata": {"warp": 1.0}}, "bitnet.warp is 1.0\nwhy: this forward pass does not have it"),
    ({"drop": "model.layers.1.mlp.ffn_sub_norm.weight"}, "blk.1.ffn_sub_norm.weight is missing"),
    ({"extra": {"blk.0.attn_q.bias": np.zeros(256, np.float32)}},
     "blk.0.attn_q.bias is there\nwhy: a ternary bitnet model has none"),
    ({"extra": {"rope_freqs.weight": np.ones(32, np.float32)}}, "rope_freqs.weight"),
])
def test_what_this_forward_pass_does_not_have_is_refused_by_name(tmp_path, make_tensors, settings, match):
    config, tensors = model(make_tensors)
    tensors.pop(settings.pop("drop", None), None)
    path = write(tmp_path / "model.gguf", config, tensors, settings.pop("arch", "bitnet"), "TQ2_0", **settings)
    with pytest.raises(TritwiseError, match=match):
        open_model(path)


ODD = [np.ones(3, np.float32), np.array([1, 2]), ["a", "b"], [], "", "x", -1, 0, 2**63, 0.5, -1.0, 1e300, float("nan"),
       float("inf"), True]


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
def test_any_value_of_any_key_opens_or_is_named(tmp_path, make_tensors, monkeypatch, arch):
    architecture = ARCHITECTURES[arch]
    config, tensors = model(make_tensors, model_type=architecture.model_type, hidden_act=architecture.hidden_act,
                            vocab_size=257)
    path = write(tmp_path / "model.gguf", config, tensors, arch, "TQ2_0",
                 vocabulary=[*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"])
    metadata = GGUFFile(path).metadata
    optional = [f"{arch}.{key}" for key in ("attention.key_length", "attention.value_length", "rope.dimension_count",
                                            "rope.scaling.type", "rope.scaling.factor",
                                            "rope.scaling.original_context_length", "expert_count")]
    optional += [f"tokenizer.ggml.{key}" for key in ("bos_token_id", "eos_token_id", "padding_token_id",
                                                     "token_type")]
    refused, named = set(), True
    for key in [*metadata, *optional]:
        for value in ODD:
            file = GGUFFile(path)
            file.metadata[key] = value
            monkeypatch.setattr("tritwise.formats.gguf_model.GGUFFile", lambda _, file=file: file)
            try:
                open_model(path).tokenizer_json()
            except TritwiseError as error:
                refused.add(key)
                named &= str(path) in error.what and bool(error.why)
    ignored = {key for key in metadata if key.startswith("general.")} - {"general.architecture"}
    assert named
    assert refused == {*metadata, *optional} - ignored


def test_a_misshapen_tensor_is_named(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    tensors["model.norm.weight"] = np.ones(128, np.float32)
    with pytest.raises(TritwiseError, match=r"output_norm.weight cannot be used\nwhy: its shape is \[128\]"):
        open_model(write(tmp_path / "model.gguf", config, tensors, "bitnet", "TQ2_0"))


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
def test_the_engine_computes_the_same_bits_as_from_a_directory(tmp_path, make_tensors, arch):
    architecture = ARCHITECTURES[arch]
    config, tensors = model(make_tensors, model_type=architecture.model_type, hidden_act=architecture.hidden_act)
    path = write(tmp_path / "model.gguf", config, tensors, arch, "TQ1_0")
    opened = open_model(path)
    write_quantised(tmp_path / "directory", opened.config, {name: opened.read(name) for name in opened.names()},
                    dtype="float32")
    with load(tmp_path / "directory") as directory, load(path) as file:
        assert np.array_equal(directory.logits([1, 5, 9, 20]), file.logits([1, 5, 9, 20]))


def test_transformers_reads_the_same_dense_model(tmp_path, make_tensors):
    config, tensors = model(make_tensors, model_type="llama", linear_type="dense", tie_word_embeddings=False)
    path = write(tmp_path / "model.gguf", config, tensors, "llama", "F32")
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    found = open_model(path)
    state = theirs.state_dict()
    assert set(found.names()) == set(state)
    for name in found.names():
        assert np.array_equal(found.read(name), state[name].numpy())


def test_a_file_with_a_tokenizer_writes_text(tmp_path, make_tensors, capsys):
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    config, tensors = model(make_tensors, hidden_act="relu2", vocab_size=len(tokens))
    path = write(tmp_path / "model.gguf", config, tensors, "bitnet-b1.58", "TQ2_0", vocabulary=tokens)
    with load(path) as opened:
        text = opened.generate("def f():", max_tokens=8).text
        assert opened.codec.encode("def") == [tokens.index(letter) for letter in "def"]
    assert main(["generate", str(path), "--prompt", "def f():", "--max-tokens", "8"]) == 0
    assert text in capsys.readouterr().out
    assert main(["inspect", str(path)]) == 0
    assert "ternary" in capsys.readouterr().out
