"""Files that must not be believed: each is refused with the name of the file or tensor and a reason."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tritwise import TritwiseError
from tritwise.formats import open_model

Q, SCALE, NORM = (f"model.layers.0.{name}" for name in
                  ("self_attn.q_proj.weight", "self_attn.q_proj.weight_scale", "input_layernorm.weight"))


def edit_tensors(path, *, put=None, drop=()):
    """Replace or add tensors (`put`: name -> array), or drop them by name."""
    tensors = load_file(path / "model.safetensors") | (put or {})
    save_file({k: v for k, v in tensors.items() if k not in drop}, path / "model.safetensors")


def edit_config(path, drop=(), **changes):
    values = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k not in drop}))


def refusal(path) -> str:
    """The text with which opening and reading everything is refused."""
    with pytest.raises(TritwiseError) as caught:
        read_all(path)
    return str(caught.value)


def read_all(path) -> None:
    directory = open_model(path)
    for name in directory.names():
        directory.read(name)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 2000, -1])
def test_a_truncated_file_is_refused_by_name(make_directory, keep):
    path = make_directory()
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file} is not a whole safetensors file" in refusal(path)


def test_a_file_with_bytes_too_many_is_refused(make_directory):
    path = make_directory()
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"\0")
    assert "is not a whole safetensors file" in refusal(path)


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"PK\x03\x04" + bytes(100), (2).to_bytes(8, "little") + b"[]",
                                     (10**12).to_bytes(8, "little") + b"{}"])
def test_garbage_is_refused_by_name(make_directory, garbage):
    path = make_directory()
    (path / "model.safetensors").write_bytes(garbage)
    assert "model.safetensors is not a whole safetensors file" in refusal(path)


def test_every_single_damaged_header_byte_gives_an_error_or_the_same_names(make_directory):
    path = make_directory(num_hidden_layers=1)
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[:8], "little")
    for position in range(0, 8 + length, 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x15
        file.write_bytes(damaged)
        try:
            names = open_model(path).names()
        except TritwiseError as error:
            assert str(path) in str(error)  # noqa: PT017  either outcome is right
        else:
            assert NORM in names


def test_a_header_that_names_a_tensor_twice_is_refused(make_directory):
    path = make_directory()
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    header = b"{" + entry + b"," + entry + b"}"
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    assert "names a twice" in refusal(path)


@pytest.mark.parametrize(("name", "array", "reason"), [
    (Q, np.zeros((4, 16), np.int8), "I8 [4, 16]"),
    (Q, np.zeros((16, 16), np.uint8), "U8 [16, 16]"),
    (Q, np.zeros((4, 12), np.uint8), "U8 [4, 12]"),
    (Q, np.zeros((3, 16), np.uint8), "U8 [3, 16]"),
    (Q, np.zeros((4, 16), np.float32), "F32 [4, 16]"),
    (SCALE, np.ones(2, np.float32), "F32 [2]"),
    (SCALE, np.array(1, np.float32), "F32 []"),
    (SCALE, np.ones(1, np.uint8), "U8 [1]"),
    (NORM, np.ones(16, np.float64), "F64 [16]"),
    (NORM, np.ones(16, np.uint8), "U8 [16]"),
    (NORM, np.ones(15, np.float32), "F32 [15]"),
    (NORM, np.ones((1, 16), np.float32), "F32 [1, 16]"),
    ("model.embed_tokens.weight", np.ones((23, 16), np.float32), "F32 [23, 16]"),
])
def test_a_tensor_of_another_type_or_shape_is_refused_by_name(make_directory, name, array, reason):
    path = make_directory()
    edit_tensors(path, put={name: array})
    text = refusal(path)
    assert f"{path / 'model.safetensors'}: {name} cannot be used" in text
    assert f"it is {reason}; config.json asks for " in text


@pytest.mark.parametrize("name", [Q, SCALE, NORM, "model.norm.weight", "lm_head.weight"])
def test_a_missing_tensor_is_refused_by_name(make_directory, name):
    path = make_directory()
    edit_tensors(path, drop=[name])
    assert f"{name} is missing" in refusal(path)


@pytest.mark.parametrize("name", ["model.layers.2.input_layernorm.weight", "model.layers.0.self_attn.q_proj.bias",
                                  "model.layers.0.self_attn.q_proj.rms_norm.weight", "extra"])
def test_a_tensor_too_many_is_refused_by_name(make_directory, name):
    path = make_directory()
    edit_tensors(path, put={name: np.ones(16, np.float32)})
    assert f"{name} cannot be used" in refusal(path)


@pytest.mark.parametrize("form", ["online", "float"])
def test_a_scale_beside_latent_weights_is_refused(make_directory, form):
    path = make_directory(form)
    edit_tensors(path, put={SCALE: np.ones(1, np.float32)})
    assert f"{SCALE} cannot be used" in refusal(path)


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0])
def test_a_scale_that_is_not_positive_and_finite_is_refused(make_directory, linear_class, scale):
    path = make_directory(linear_class=linear_class)
    edit_tensors(path, put={SCALE: np.array([scale], np.float32)})
    text = refusal(path)
    assert Q in text
    assert "must be positive and finite" in text


def test_the_field_3_is_refused_by_name(make_directory):
    path = make_directory()
    packed = load_file(path / "model.safetensors")[Q].copy()
    packed[3, 15] |= 0xC0
    edit_tensors(path, put={Q: packed})
    text = refusal(path)
    assert f"{Q} cannot be used" in text
    assert "a 2-bit field holds 3" in text


def test_a_zero_code_in_a_binary_model_is_refused_by_name(make_directory):
    path = make_directory(linear_type="binary")
    packed = load_file(path / "model.safetensors")[Q].copy()
    packed[0, 0] = 0b01_00_00_00
    edit_tensors(path, put={Q: packed})
    text = refusal(path)
    assert Q in text
    assert "it holds the code 0" in text


def test_master_weights_under_an_offline_configuration_are_refused(make_directory):
    path = make_directory()
    edit_tensors(path, put={Q: np.full((16, 16), 0.5, np.float32)})
    text = refusal(path)
    assert Q in text
    assert "online" in text


@pytest.mark.parametrize("form", ["packed", "online", "float"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(make_directory, form, dtype, value):
    path = make_directory(form, dtype=dtype)
    name = NORM if form == "packed" else Q
    array = np.array(open_model(path)._array(name))
    array.reshape(-1)[-1] = value
    edit_tensors(path, put={name: array})
    text = refusal(path)
    assert f"{name} cannot be used" in text
    assert "NaN or infinite" in text


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"text"', "{\"model_type\": \"bitnet\"", "\x00"])
def test_a_configuration_that_is_no_json_object_is_refused(make_directory, content):
    path = make_directory()
    (path / "config.json").write_text(content)
    assert "config.json" in refusal(path)


@pytest.mark.parametrize(("changes", "named"), [
    ({"sliding_window": 4096}, "sliding_window"),
    ({"model_type": "mistral"}, "mistral"),
    ({"attention_bias": True}, "attention_bias"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"hidden_size": 18}, "hidden_size"),
    ({"num_hidden_layers": 10**15}, "num_hidden_layers"),
    ({"num_hidden_layers": 3}, "model.layers.2."),
    ({"num_hidden_layers": 1}, "model.layers.1."),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ({"rope_theta": float("inf")}, "rope_theta"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type 'dynamic'"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rope_parameters"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quant_method"),
    ({"quantization_config": {"quant_method": "bitnet", "linear_class": "other"}}, "linear_class"),
    ({"quantization_config": {"quant_method": "bitnet", "use_rms_norm": True}},
     "model.layers.0.mlp.down_proj.rms_norm.weight is missing"),
    ({"quantization_config": {"quant_method": "bitnet", "use_rms_norm": 1}}, "use_rms_norm is 1"),
    ({"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["model.layers.0"]}},
     "modules_to_not_convert"),
    ({"linear_type": "dense"}, "linear_type"),
    ({"quantization_config": None}, "quantization_config"),
])
def test_a_configuration_with_another_meaning_is_refused_by_key(make_directory, changes, named):
    path = make_directory()
    edit_config(path, **changes)
    text = refusal(path)
    assert str(path) in text
    assert named in text


def test_a_missing_configuration_or_directory_is_named(tmp_path, make_directory):
    path = make_directory()
    (path / "config.json").unlink()
    assert "config.json does not exist" in refusal(path)
    assert "is not a model directory" in refusal(tmp_path / "nothing")
    assert "is not a model directory" in refusal(path / "model.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_directory_with_only_pickles_is_refused_for_being_that(make_directory, name):
    path = make_directory()
    (path / "model.safetensors").rename(path / name)
    text = refusal(path)
    assert name in text
    assert "only safetensors are read" in text


def test_a_directory_without_weights_is_refused(make_directory):
    path = make_directory()
    (path / "model.safetensors").unlink()
    assert "holds no weights" in refusal(path)


@pytest.fixture
def sharded(make_directory):
    """A directory in two shards; `sharded(change)` lets `change(weight_map)` edit the index."""
    path = make_directory()
    stored = load_file(path / "model.safetensors")
    names = sorted(stored)
    weight_map = {}
    for shard, held in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        save_file({name: stored[name] for name in held}, path / shard)
        weight_map |= dict.fromkeys(held, shard)
    (path / "model.safetensors").unlink()

    def write(change):
        change(weight_map)
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return path
    return write


def test_the_index_of_the_shards_itself_is_right(sharded):
    directory = open_model(sharded(lambda weight_map: None))
    assert len(directory.files) == 2


@pytest.mark.parametrize(("change", "named"), [
    (lambda m: m.update({Q: "c.safetensors"}), "c.safetensors does not exist"),
    (lambda m: m.update({Q: "../a.safetensors"}), f"{Q} is said to lie in '../a.safetensors'"),
    (lambda m: m.update({Q: "/etc/a.safetensors"}), f"{Q} is said to lie in '/etc/a.safetensors'"),
    (lambda m: m.update({Q: "sub/a.safetensors"}), f"{Q} is said to lie in 'sub/a.safetensors'"),
    (lambda m: m.update({Q: "pytorch_model.bin"}), f"{Q} is said to lie in 'pytorch_model.bin'"),
    (lambda m: m.update({Q: 7}), f"{Q} is said to lie in 7"),
    (lambda m: m.update({Q: "a.safetensors" if m[Q] == "b.safetensors" else "b.safetensors"}), Q),
    (lambda m: m.update({"model.extra": "a.safetensors"}), "model.extra"),
    (lambda m: m.pop(Q), Q),
    (lambda m: m.clear(), "is not an index of shards"),
])
def test_an_index_that_does_not_fit_its_shards_is_refused(sharded, change, named):
    assert named in refusal(sharded(change))


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": []}', '{"metadata": {}}'])
def test_an_index_that_is_no_index_is_refused(sharded, content):
    path = sharded(lambda weight_map: None)
    (path / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json is not" in refusal(path)
