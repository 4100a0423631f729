"""Models written as GGUF: read back by the gguf package and by our reader, bit for bit what was written."""

import json

import gguf
import ml_dtypes
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tritwise import TritwiseError
from tritwise.config import ModelConfig
from tritwise.config.tokens import END_OF_TEXT
from tritwise.data.tokenizer import empty_tokenizer
from tritwise.engine import load
from tritwise.formats import TernaryTensor, open_model, write_gguf, write_quantised
from tritwise.formats.gguf_names import ARCHITECTURES, gguf_name
from tritwise.formats.gguf_packing import TYPE_NUMBERS, stored_scale
from tritwise.formats.gguf_tokenizer import tokenizer_json
from tritwise.formats.gguf_vocabulary import control_tokens, tokenizer_metadata
from tritwise.formats.writer import deployed

SIZES = {"vocab_size": 320, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 10000.0, "tie_word_embeddings": True,
         "eos_token_id": 0, "rms_norm_eps": 1e-6, "max_position_embeddings": 64}
LAYOUTS = [("bitnet", "silu"), ("bitnet", "relu2"), ("llama", "silu")]
TEXTS = ["def area(r):\n    return 3.14159 * r ** 2\n\n\n", "I'll DON'T we'Re 12345 67  \t x\r\n\r\n  ",
         "naïve 東京 \U0001F468"]


def model(make_tensors, **changes):
    config = ModelConfig(**(SIZES | changes))
    tensors = {name: deployed(config, name, array) for name, array in make_tensors(config).items()}
    return config, tensors


def byte_level(pre: str, special: tuple[str, ...] = (END_OF_TEXT,)) -> Tokenizer:
    """A tokenizer of 320 entries with the special ones first."""
    tokenizer = empty_tokenizer(pre)
    trainer = trainers.BpeTrainer(vocab_size=320, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=[AddedToken(token, special=True, normalized=False)
                                                  for token in special])
    tokenizer.train_from_iterator([text * 4 for text in TEXTS] * 4, trainer)
    return tokenizer


@pytest.mark.parametrize(("kind", "model_type", "hidden_act"), [
    (kind, *layout) for kind in ("TQ1_0", "TQ2_0", "I2_S", "F32", "F16", "BF16") for layout in LAYOUTS
    if layout[0] == "bitnet" or kind not in ("F32", "F16", "BF16")])
def test_every_code_scale_and_float_comes_back(tmp_path, make_tensors, kind, model_type, hidden_act):
    config, tensors = model(make_tensors, model_type=model_type, hidden_act=hidden_act,
                            tie_word_embeddings=hidden_act == "silu")
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, ternary_type=kind)
    found = open_model(tmp_path / "m.gguf")
    assert found.config == config.with_changes(quantization_config=found.config.quantization_config)
    for name, written in tensors.items():
        read = found.read(name)
        if isinstance(written, TernaryTensor):
            assert np.array_equal(read.packed, written.packed)
            assert read.scale[0] == stored_scale(kind, written.scale[0])
        else:
            assert np.array_equal(read, written)


def test_a_ternary_model_in_floats_of_the_llama_architecture_is_a_dense_one(tmp_path, make_tensors):
    config, tensors = model(make_tensors, model_type="llama")
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, ternary_type="F32")
    found = open_model(tmp_path / "m.gguf")
    assert found.config.linear_type == "dense"
    name = "model.layers.1.self_attn.k_proj.weight"
    assert np.array_equal(found.read(name), tensors[name].codes() * tensors[name].scale)


def test_a_directory_a_file_and_a_directory_again_are_one_model(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    halves = {name: TernaryTensor(t.packed, t.scale.astype(np.float16).astype(np.float32), t.shape)
              if isinstance(t, TernaryTensor) else t for name, t in tensors.items()}
    write_quantised(tmp_path / "a", config, halves, dtype="bfloat16")
    first = open_model(tmp_path / "a")
    write_gguf(tmp_path / "b.gguf", first.config, first.read, ternary_type="TQ1_0")
    second = open_model(tmp_path / "b.gguf")
    write_quantised(tmp_path / "c", second.config, {name: second.read(name) for name in second.names()})
    ends = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ac"]
    assert ends[0] == ends[1]
    with load(tmp_path / "a") as one, load(tmp_path / "b.gguf") as other:
        assert np.array_equal(one.logits([1, 7, 300]), other.logits([1, 7, 300]))


def test_the_gguf_package_reads_what_was_written(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, ternary_type="TQ2_0", float_type="Q8_0",
               tokenizer=byte_level("gpt-2").to_str(), chat_template="{{ messages }}")
    found = gguf.GGUFReader(tmp_path / "m.gguf")
    stored = {tensor.name: tensor for tensor in found.tensors}
    assert set(stored) == {gguf_name(name) for name in tensors}
    for name, written in tensors.items():
        tensor = stored[gguf_name(name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if isinstance(written, TernaryTensor):
            assert np.array_equal(values, written.codes() * np.float32(np.float16(written.scale[0])))
        elif written.ndim == 1:
            assert tensor.tensor_type.name == "F32"
            assert np.array_equal(values, written)
        else:
            assert tensor.tensor_type.name == "Q8_0"
            assert np.abs(values - written).max() < np.abs(written).max() / 127
    fields = {key: field.contents() for key, field in found.fields.items()}
    assert fields["general.architecture"] == "bitnet"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_TQ2_0
    assert fields["bitnet.attention.head_count_kv"] == 2
    assert fields["bitnet.attention.layer_norm_rms_epsilon"] == np.float32(1e-6)
    assert fields["tokenizer.ggml.bos_token_id"] == fields["tokenizer.ggml.eos_token_id"] == 0
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.tokens"][0] == END_OF_TEXT
    assert fields["tokenizer.ggml.token_type"][:2] == [gguf.TokenType.CONTROL, gguf.TokenType.NORMAL]
    assert fields["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", None])
def test_a_dense_model_is_written_in_the_float_type_asked_for(tmp_path, make_tensors, kind):
    config, tensors = model(make_tensors, model_type="llama", linear_type="dense", tie_word_embeddings=False)
    tensors = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, float_type=kind)
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    for name, array in tensors.items():
        assert types[gguf_name(name)] == ("F32" if array.ndim == 1 else kind or "BF16")
        assert kind == "Q8_0" or np.allclose(open_model(tmp_path / "m.gguf").read(name).astype(np.float32),
                                             array.astype(np.float32), rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize(("changes", "kind", "match"), [
    ({"intermediate_size": 384}, "TQ2_0",
     "mlp.down_proj.weight .* cannot be written as TQ2_0\nwhy: .* 256 inputs .*384.*: 256 or 512 would fit\ntry: I2_S"),
    ({"intermediate_size": 320}, "I2_S", "128 inputs .* 256 or 384 would fit\ntry: train with a width"),
    ({"tie_word_embeddings": False}, "TQ2_0", "takes the embedding for the head"),
    ({"linear_type": "dense"}, "TQ2_0", "so a dense one is another model"),
    ({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}, "TQ2_0", "ternary experts"),
    ({"use_rms_norm": True}, "TQ2_0", r"a norm inside of each linear \(use_rms_norm\)"),
    ({"model_type": "llama", "hidden_act": "relu2"}, "TQ2_0", "llama layout with relu2"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16.0}}, "TQ2_0", "rope_scaling .yarn."),
])
def test_what_a_target_cannot_hold_is_refused_before_anything_is_written(tmp_path, changes, kind, match):
    config = ModelConfig(**(SIZES | changes))

    def read(name):
        assert name == "model.embed_tokens.weight"  # only its type may be looked at
        return np.zeros(config.tensor_shapes()[name], np.float32)

    with pytest.raises(TritwiseError, match=match):
        write_gguf(tmp_path / "m.gguf", config, read, ternary_type=kind)
    assert not list(tmp_path.iterdir())


def test_a_failure_half_way_leaves_the_old_file(tmp_path, make_tensors):
    config, tensors = model(make_tensors)
    tensors["model.layers.1.mlp.down_proj.weight"] = TernaryTensor(
        tensors["model.layers.1.mlp.down_proj.weight"].packed, np.array([1e-12], np.float32), (256, 512))
    (tmp_path / "m.gguf").write_bytes(b"old")
    with pytest.raises(TritwiseError, match=r"layers\.1\.mlp\.down_proj\.weight cannot be written: the scale 1e-12"):
        write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("scaling", [{"rope_type": "linear", "factor": 4.0},
                                     {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}])
@pytest.mark.parametrize("arch", ["bitnet", "llama"])
def test_rope_scaling_comes_back(tmp_path, make_tensors, scaling, arch):
    config, tensors = model(make_tensors, model_type=ARCHITECTURES[arch].model_type, rope_scaling=scaling)
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
    assert open_model(tmp_path / "m.gguf").config.rope_scaling == config.rope_scaling


def test_the_order_of_gaps_comes_back(tmp_path, make_tensors):
    for order, stored in (("psm", None), ("spm", "spm")):
        config, tensors = model(make_tensors, fim_order=order)
        write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
        assert open_model(tmp_path / "m.gguf").config.fim_order == order
        field = gguf.GGUFReader(tmp_path / "m.gguf").get_field("tritwise.fim_order")
        assert (None if field is None else field.contents()) == stored


def test_llama3_scaling_is_a_tensor_of_divisors(tmp_path, make_tensors):
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}
    config, tensors = model(make_tensors, model_type="llama", linear_type="dense", rope_scaling=scaling,
                            rope_theta=500000.0, hidden_size=512)
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
    assert open_model(tmp_path / "m.gguf").config.rope_scaling == config.rope_scaling
    stored = next(t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors if t.name == "rope_freqs.weight")
    expected = 1 / (ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(
        head_dim=128, rope_parameters=scaling | {"rope_theta": 500000.0}), "cpu")[0].double().numpy()
        * 500000.0 ** (np.arange(0, 128, 2) / 128))
    assert np.allclose(stored.data, expected, rtol=1e-6)
    assert stored.data[0] == 1
    assert stored.data[-1] == 32


def test_divisors_of_no_known_scaling_are_refused(tmp_path, make_tensors):
    config, tensors = model(make_tensors, model_type="llama", rope_theta=500000.0, hidden_size=512, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192})
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
    with pytest.raises(TritwiseError, match=r"rope_freqs\.weight cannot be used\nwhy: it does not hold the divisors"):
        open_model(tmp_path / "m.gguf")


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
def test_a_tokenizer_comes_back_with_the_same_ids(pre):
    tokenizer = byte_level(pre, ("<|end|>", "<|pad|>"))
    metadata = tokenizer_metadata(tokenizer.to_str(), 330)
    assert metadata["tokenizer.ggml.pre"] == pre
    assert len(metadata["tokenizer.ggml.tokens"]) == 330
    found = Tokenizer.from_str(tokenizer_json(metadata, 330))
    for one in (tokenizer, found):
        one.encode_special_tokens = True
    for text in [*TEXTS, "<|end|>", "[UNUSED325]"]:
        assert found.encode(text).ids == tokenizer.encode(text).ids
        assert found.decode(found.encode(text).ids) == text
    assert found.token_to_id("<|pad|>") == 1


@pytest.mark.parametrize(("tokenizer", "match"), [
    (empty_tokenizer("code"), "the way in which it cuts text is none"),
    (Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")), "its model is WordPiece"),
])
def test_a_tokenizer_that_gguf_has_no_name_for_is_refused(tokenizer, match):
    with pytest.raises(TritwiseError, match=f"{match}(.|\n)*--ids-only"):
        tokenizer_metadata(tokenizer.to_str(), 10)


def test_a_tokenizer_that_changes_text_is_refused():
    tokenizer = byte_level("gpt-2")
    tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(TritwiseError, match=r"changes text before it cuts it \(Lowercase\)"):
        tokenizer_metadata(tokenizer.to_str(), 320)


def test_what_a_tokenizer_puts_around_a_text_is_said():
    tokenizer = byte_level("gpt-2", ("<s>", "</s>"))
    config = ModelConfig(**(SIZES | {"bos_token_id": 0, "eos_token_id": 1}))
    bare = control_tokens(config, tokenizer.to_str())
    assert bare == {"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
                    "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False}
    special = [("<s>", 0), ("</s>", 1)]
    for single, around in (("<s> $A", (True, False)), ("<s> $A </s>", (True, True)), ("$A </s>", (False, True))):
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
        written = tokenizer_metadata(tokenizer.to_str(), 320) | control_tokens(config, tokenizer.to_str())
        assert (written["tokenizer.ggml.add_bos_token"], written["tokenizer.ggml.add_eos_token"]) == around
        found = Tokenizer.from_str(tokenizer_json(written, 320))
        assert found.encode("area of x").ids == tokenizer.encode("area of x").ids
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> </s> $A", special_tokens=special)
    with pytest.raises(TritwiseError, match=r"it puts the tokens \[0, 1\] and \[\] around a text"):
        control_tokens(config, tokenizer.to_str())


def test_words_that_merges_do_not_make_are_refused_where_they_are_looked_up():
    tokenizer = byte_level("llama-bpe")
    parsed = json.loads(tokenizer.to_str())
    parsed["model"]["vocab"]["zqzq"] = 320
    with pytest.raises(TritwiseError, match="the merges do not make its token 'zqzq'"):
        tokenizer_metadata(json.dumps(parsed), 321)
    parsed["model"]["ignore_merges"] = True
    assert tokenizer_metadata(json.dumps(parsed), 321)["tokenizer.ggml.tokens"][320] == "zqzq"


def test_any_tokenizer_can_go_along_whole(tmp_path, make_tensors):
    tokenizer = empty_tokenizer()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    config, tensors = model(make_tensors)
    write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, tokenizer=tokenizer.to_str(), ids_only=True)
    assert open_model(tmp_path / "m.gguf").tokenizer_json() == tokenizer.to_str()
    field = gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.model"]
    assert field.contents() == "no_vocab"


def test_type_numbers_are_those_of_the_gguf_package():
    theirs = {kind.name: kind.value for kind in gguf.GGMLQuantizationType}
    common = set(theirs) & set(TYPE_NUMBERS)
    assert common >= {"F32", "F16", "BF16", "Q8_0", "TQ1_0", "TQ2_0"}
    assert {name: theirs[name] for name in common} == {name: TYPE_NUMBERS[name] for name in common}
