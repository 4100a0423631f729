"""What the writer puts into a directory, what it refuses, and that a refusal leaves nothing behind."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tritwise import TritwiseError
from tritwise.config.tokens import END_OF_TEXT, FIM_BEGIN, FIM_END, FIM_HOLE, PAD, SPECIAL_TOKENS
from tritwise.formats import TernaryTensor, open_model, write_model, write_quantised

GATE = "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def tokenizer_file(tmp_path):
    tokenizer = Tokenizer(models.BPE(vocab={chr(97 + i): i for i in range(19)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))  # ids 19..23
    tokenizer.save(str(tmp_path / "some-tokenizer.json"))
    return tmp_path / "some-tokenizer.json"


def refused(tmp_path, write) -> str:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TritwiseError) as caught:
        write()
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


def test_a_packed_directory_says_how_it_is_to_be_read(make_directory):
    path = make_directory(eos_token_id=(3, 4), pad_token_id=5, dtype="bfloat16")
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "generation_config.json",
                                                            "model.safetensors"]
    config = json.loads((path / "config.json").read_text())
    assert config["architectures"] == ["BitNetForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert config["linear_type"] == "ternary"
    assert config["eos_token_id"] == [3, 4]
    assert config["bos_token_id"] is None
    assert config["quantization_config"] == {
        "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline",
        "use_rms_norm": False, "rms_norm_eps": 1e-6}
    assert json.loads((path / "generation_config.json").read_text()) == {"eos_token_id": [3, 4], "pad_token_id": 5}
    with safe_open(path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    stored = load_file(path / "model.safetensors")
    assert stored[GATE].dtype == np.uint8
    assert stored[f"{GATE}_scale"].dtype == np.float32
    assert stored["model.norm.weight"].dtype == ml_dtypes.bfloat16


def test_no_generation_config_is_written_when_no_id_is_known(make_directory):
    assert not (make_directory() / "generation_config.json").exists()


def test_a_dense_directory_has_no_quantization_config(make_directory):
    config = json.loads((make_directory("float", model_type="llama") / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config


def test_the_tokenizer_and_extra_files_stand_beside_the_weights(tmp_path, make_config, make_tensors, tokenizer_file):
    config = make_config(eos_token_id=19, pad_token_id=23)
    write_model(tmp_path / "m", config, make_tensors(config), form="packed", tokenizer_file=tokenizer_file,
                extra={"provenance.json": {"step": 7}})
    assert (tmp_path / "m" / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()
    assert open_model(tmp_path / "m").tokenizer_file == tmp_path / "m" / "tokenizer.json"
    assert json.loads((tmp_path / "m" / "provenance.json").read_text()) == {"step": 7}
    assert json.loads((tmp_path / "m" / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT, "pad_token": PAD,
        "additional_special_tokens": [FIM_BEGIN, FIM_HOLE, FIM_END], "model_max_length": 2048,
        "clean_up_tokenization_spaces": False}


@pytest.mark.parametrize(("changes", "reason"), [
    ({"vocab_size": 23}, "ids up to 23"), ({"eos_token_id": 24, "vocab_size": 32}, "eos_token_id is 24")])
def test_a_tokenizer_that_does_not_fit_the_model_is_refused(tmp_path, make_config, make_tensors, tokenizer_file,
                                                            changes, reason):
    config = make_config(**changes)
    text = refused(tmp_path, lambda: write_model(tmp_path / "m", config, make_tensors(config), form="packed",
                                                 tokenizer_file=tokenizer_file))
    assert reason in text


@pytest.mark.parametrize("content", [None, b"{}", b"\xff", b"["])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path, make_config, make_tensors, content):
    config, file = make_config(), tmp_path / "broken.json"
    if content is not None:
        file.write_bytes(content)
    assert "broken.json" in refused(tmp_path, lambda: write_model(
        tmp_path / "m", config, make_tensors(config), form="packed", tokenizer_file=file))


@pytest.mark.parametrize(("rows", "nearest"), [(21, "20 or 24"), (23, "20 or 24"), (3, "4")])
def test_rows_that_hugging_face_cannot_hold_are_refused_before_anything_is_written(tmp_path, make_config,
                                                                                   make_tensors, rows, nearest):
    config = make_config(intermediate_size=rows)
    text = refused(tmp_path, lambda: write_model(tmp_path / "m", config, make_tensors(config), form="packed"))
    assert f"{GATE} has {rows} rows" in text
    assert f"the nearest is {nearest}" in text


@pytest.mark.parametrize(("linear_type", "form", "reason"), [
    ("binary", "online", "quantises latent weights to ternary"), ("binary", "float", "for a dense model"),
    ("ternary", "float", "for a dense model"), ("dense", "packed", "only quantised linears"),
    ("dense", "online", "quantises latent weights"), ("ternary", "gguf", "no such form")])
def test_a_form_that_does_not_fit_the_model_is_refused(tmp_path, make_config, make_tensors, linear_type, form, reason):
    config = make_config(linear_type=linear_type)
    text = refused(tmp_path, lambda: write_model(tmp_path / "m", config, make_tensors(config), form=form))
    assert reason in text


@pytest.mark.parametrize(("change", "named"), [
    (lambda t: t.pop(GATE), f"{GATE} is missing"),
    (lambda t: t.update(extra=np.ones(1, np.float32)), "extra is not a tensor"),
    (lambda t: t.update({GATE: t[GATE].T}), f"{GATE} has shape [16, 20]"),
    (lambda t: t.update({GATE: t[GATE].astype(np.int64)}), f"{GATE} is of type int64"),
    (lambda t: t.update({GATE: t[GATE] * np.float32(np.nan)}), f"{GATE} holds NaN"),
    (lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}), "lm_head.weight differs"),
])
@pytest.mark.parametrize("form", ["packed", "online"])
def test_tensors_that_do_not_fit_the_configuration_are_refused_by_name(tmp_path, make_config, make_tensors, change,
                                                                       named, form):
    config = make_config(tie_word_embeddings=True)
    tensors = make_tensors(config)
    change(tensors)
    assert named in refused(tmp_path, lambda: write_model(tmp_path / "m", config, tensors, form=form))


def test_a_tied_head_among_the_tensors_is_left_out(tmp_path, make_config, make_tensors):
    config = make_config(tie_word_embeddings=True)
    tensors = make_tensors(config)
    write_model(tmp_path / "m", config, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]},
                form="online")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")


def test_values_beyond_float16_are_refused_by_name(tmp_path, make_config, make_tensors):
    config = make_config(linear_type="dense")
    tensors = make_tensors(config)
    tensors[GATE][0, 0] = 1e5
    text = refused(tmp_path, lambda: write_model(tmp_path / "m", config, tensors, form="float", dtype="float16"))
    assert f"{GATE} cannot be written as float16" in text
    assert "100000" in text


def test_squared_relu_is_not_written_as_float16(tmp_path, make_config, make_tensors):
    config = make_config(hidden_act="relu2")
    text = refused(tmp_path, lambda: write_model(tmp_path / "m", config, make_tensors(config), form="packed",
                                                 dtype="float16"))
    assert "65504" in text


def test_a_directory_of_other_files_is_not_replaced(tmp_path, make_config, make_tensors):
    config = make_config()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("")
    for out, reason in (("home", "writing would replace all of it"), ("file", "a file of that name")):
        assert reason in refused(tmp_path, lambda out=out: write_model(tmp_path / out, config, make_tensors(config),
                                                                       form="packed"))


def test_an_old_model_is_replaced_as_a_whole(tmp_path, make_directory, make_config, make_tensors):
    path = make_directory(eos_token_id=3)
    opened = open_model(path)
    before = opened.read("model.embed_tokens.weight").copy()
    config = make_config()
    write_model(path, config, make_tensors(config, seed=1), form="packed", dtype="float32")
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    assert np.array_equal(opened.read("model.embed_tokens.weight"), before)  # an open one keeps its file


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "../up.json", "tokenizer.json", "notes.txt"])
def test_an_extra_file_cannot_take_the_place_of_the_models_own(tmp_path, make_config, make_tensors, name):
    config = make_config()
    assert name in refused(tmp_path, lambda: write_model(tmp_path / "m", config, make_tensors(config), form="packed",
                                                         extra={name: {}}))


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_could_not_be_read_again_is_not_written(tmp_path, make_directory, linear_class, scale):
    directory = open_model(make_directory())
    tensors = {name: directory.read(name) for name in directory.names()}
    tensors[GATE] = TernaryTensor(tensors[GATE].packed, np.array([scale], np.float32), tensors[GATE].shape)
    text = refused(tmp_path, lambda: write_quantised(tmp_path / "m", directory.config, tensors,
                                                     linear_class=linear_class))
    assert f"{GATE} cannot be written" in text


def test_what_is_quantised_and_what_is_not_cannot_be_exchanged(tmp_path, make_directory):
    directory = open_model(make_directory())
    tensors = {name: directory.read(name) for name in directory.names()}
    latent = tensors | {GATE: np.ones((20, 16), np.float32)}
    assert GATE in refused(tmp_path, lambda: write_quantised(tmp_path / "m", directory.config, latent))
    codes = TernaryTensor.from_codes(np.zeros((24, 16), np.int8), np.float32(1))
    head = tensors | {"lm_head.weight": codes}
    assert "lm_head.weight" in refused(tmp_path, lambda: write_quantised(tmp_path / "m", directory.config, head))
