"""What is written is what is read: codes, scales and floats, for every form."""

import gc
import json
import shutil
import weakref

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tritwise import TritwiseError
from tritwise.formats import TernaryTensor, open_model, pack_rows, write_model, write_quantised
from tritwise.ternary import absmean, sign

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
LINEAR = "model.layers.1.mlp.gate_proj.weight"


def edit_config(path, **changes):
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def assert_same_linear(tensor, codes, scale):
    assert isinstance(tensor, TernaryTensor)
    assert tensor.shape == codes.shape
    assert np.array_equal(tensor.codes(), codes)
    assert tensor.packed.tobytes() == pack_rows(codes).tobytes()
    assert tensor.scale.tobytes() == np.float32(scale).tobytes()


@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_packed_codes_and_scales_come_back_bit_for_bit(tmp_path, make_config, make_tensors, linear_type, model_type,
                                                       tied):
    config = make_config(linear_type=linear_type, model_type=model_type, tie_word_embeddings=tied)
    tensors = make_tensors(config)
    write_model(tmp_path / "m", config, tensors, form="packed", dtype="float32")
    directory = open_model(tmp_path / "m")
    assert directory.names() == tuple(config.tensor_shapes())
    for name, latent in tensors.items():
        if "_proj" in name:
            assert_same_linear(directory.read(name), *{"ternary": absmean, "binary": sign}[linear_type](latent))
        else:
            assert directory.read(name).tobytes() == latent.tobytes()


def test_the_inverse_scale_of_bitlinear_comes_back_within_two_roundings(make_directory, make_config, make_tensors):
    path = make_directory(linear_class="bitlinear")
    stored, directory = load_file(path / "model.safetensors"), open_model(path)
    for name, latent in make_tensors(make_config()).items():
        if "_proj" in name:
            codes, scale = absmean(latent)
            assert np.array_equal(directory.read(name).codes(), codes)
            assert stored[f"{name}_scale"][0] == np.float32(1) / scale
            # 1/(1/s), each division rounded to half a unit of 2^-23.
            assert abs(float(directory.read(name).scale[0]) / float(scale) - 1) <= 2.0**-23


def test_only_linear_class_says_whether_a_scale_divides(make_directory):
    path = make_directory(linear_class="autobitlinear")
    multiplied = open_model(path).read(LINEAR).scale[0]
    edit_config(path, quantization_config={"quant_method": "bitnet", "linear_class": "bitlinear"})
    assert open_model(path).read(LINEAR).scale[0] == np.float32(1) / multiplied
    edit_config(path, quantization_config={"quant_method": "bitnet"})  # bitlinear is the default
    assert open_model(path).read(LINEAR).scale[0] == np.float32(1) / multiplied


def test_bitlinear_is_packed_whatever_its_mode_says(make_directory):
    path = make_directory(linear_class="bitlinear")
    before = open_model(path).read(LINEAR)
    edit_config(path, quantization_config={"linear_class": "bitlinear", "quantization_mode": "online"})
    assert np.array_equal(open_model(path).read(LINEAR).packed, before.packed)


def test_codes_stored_as_floats_are_read_as_the_packed_ones(make_directory):
    path = make_directory()
    packed = open_model(path)
    expected = {name: packed.read(name) for name in packed.names() if "_proj" in name}
    expected = {name: (tensor.codes(), tensor.scale[0]) for name, tensor in expected.items()}
    stored = load_file(path / "model.safetensors")
    save_file(stored | {name: codes.astype(np.float16) for name, (codes, _) in expected.items()},
              path / "model.safetensors")
    for name, (codes, scale) in expected.items():
        assert_same_linear(open_model(path).read(name), codes, scale)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_online_masters_are_quantised_on_read_from_what_is_stored(make_directory, make_config, make_tensors, dtype):
    path = make_directory("online", dtype=dtype)
    directory = open_model(path)
    for name, latent in make_tensors(make_config()).items():
        if "_proj" in name:
            assert_same_linear(directory.read(name), *absmean(latent.astype(DTYPES[dtype])))


def test_online_masters_of_a_binary_model_are_read_by_their_sign(make_directory, make_config, make_tensors):
    path = make_directory("online")
    edit_config(path, linear_type="binary")
    assert_same_linear(open_model(path).read(LINEAR), *sign(make_tensors(make_config())[LINEAR]))


def test_online_masters_may_have_any_number_of_rows(make_directory, make_config, make_tensors):
    path = make_directory("online", intermediate_size=21)
    latent = make_tensors(make_config(intermediate_size=21))[LINEAR]
    assert_same_linear(open_model(path).read(LINEAR), *absmean(latent))


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_dense_weights_come_back_in_the_type_they_were_written_in(tmp_path, make_config, make_tensors, dtype,
                                                                  model_type):
    config = make_config(linear_type="dense", model_type=model_type)
    tensors = make_tensors(config)
    write_model(tmp_path / "m", config, tensors, form="float", dtype=dtype)
    directory = open_model(tmp_path / "m")
    assert directory.config == config
    for name, latent in tensors.items():
        read = directory.read(name)
        assert read.dtype == DTYPES[dtype]
        assert read.tobytes() == latent.astype(DTYPES[dtype]).tobytes()


def test_shards_read_as_the_single_file_does(make_directory):
    path = make_directory()
    whole = open_model(path)
    before = {name: whole.read(name) for name in whole.names()}
    stored = load_file(path / "model.safetensors")
    names = sorted(stored)
    shards = {"model-00001-of-00002.safetensors": names[:11], "model-00002-of-00002.safetensors": names[11:]}
    for shard, held in shards.items():
        save_file({name: stored[name] for name in held}, path / shard)
    (path / "model.safetensors").unlink()
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    directory = open_model(path)
    assert [file.name for file in directory.files] == list(shards)
    assert directory.stored_bytes == whole.stored_bytes
    for name, tensor in before.items():
        if isinstance(tensor, TernaryTensor):
            assert_same_linear(directory.read(name), tensor.codes(), tensor.scale[0])
        else:
            assert np.array_equal(directory.read(name), tensor)


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
def test_what_was_opened_can_be_written_again(tmp_path, make_directory, linear_class):
    first = open_model(make_directory(linear_class=linear_class))
    tensors = {name: first.read(name) for name in first.names()}
    write_quantised(tmp_path / "again", first.config, tensors, linear_class="autobitlinear", dtype="float32")
    again = open_model(tmp_path / "again")
    for name, tensor in tensors.items():
        if isinstance(tensor, TernaryTensor):
            assert_same_linear(again.read(name), tensor.codes(), tensor.scale[0])


def test_equal_models_give_equal_bytes(make_directory):
    path = make_directory()
    first = {file.name: file.read_bytes() for file in path.iterdir()}
    shutil.rmtree(path)
    make_directory()
    assert {file.name: file.read_bytes() for file in path.iterdir()} == first


def test_stored_bytes_counts_two_bits_a_ternary_weight(make_directory, make_config):
    directory = open_model(make_directory(dtype="bfloat16"))
    config = make_config()
    count = config.parameter_count()
    linears = 7 * config.num_hidden_layers
    assert directory.stored_bytes == count.block // 4 + 4 * linears + 2 * (count.embedding + count.norm)
    assert directory.tensor_bytes(LINEAR) == 20 * 16 // 4 + 4
    assert directory.stored(LINEAR).dtype == "U8"


def test_arrays_are_read_only_views_of_the_file_that_outlive_its_directory(make_directory):
    path = make_directory("float")
    directory = open_model(path)
    array = directory.read("model.embed_tokens.weight")
    copy = array.copy()
    assert not array.flags.writeable
    assert array.base is not None
    part = array[3:5]
    gone = weakref.ref(directory)
    del directory, array
    shutil.rmtree(path)
    gc.collect()
    assert gone() is None
    assert np.array_equal(part, copy[3:5])


def test_a_view_stays_right_after_its_sibling_was_released(make_directory):
    directory = open_model(make_directory("float"))
    first = directory.read("model.embed_tokens.weight")
    copy = first.copy()
    second = directory.read("model.embed_tokens.weight")
    del second
    gc.collect()
    assert np.array_equal(first, copy)


def test_bytes_that_lie_unaligned_are_read_right(make_directory):
    path = make_directory("float", dtype="float32")
    expected = {name: open_model(path).read(name).copy() for name in open_model(path).names()}
    file = path / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8:8 + length].rstrip() + b" " * 3
    while len(header) % 4 != 1:
        header += b" "
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length:])
    directory = open_model(path)
    for name, array in expected.items():
        assert np.array_equal(directory.read(name), array)


def test_a_tied_head_that_is_stored_all_the_same_must_equal_the_embedding(make_directory):
    path = make_directory("float", tie_word_embeddings=True)
    file = path / "model.safetensors"
    stored = load_file(file)
    save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"]}, file)
    assert "lm_head.weight" not in open_model(path).names()
    save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"] * 2}, file)
    with pytest.raises(TritwiseError, match=r"lm_head\.weight(.|\n)*differs from model\.embed_tokens\.weight"):
        open_model(path)


def test_rotary_buffers_of_old_files_are_passed_over(make_directory):
    path = make_directory("float", model_type="llama")
    file = path / "model.safetensors"
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
               "model.rotary_emb.inv_freq": np.ones(2, np.float32)}
    save_file(load_file(file) | buffers, file)
    assert not set(open_model(path).names()) & set(buffers)


def test_a_name_outside_the_model_is_a_key_error(make_directory):
    directory = open_model(make_directory(tie_word_embeddings=True))
    with pytest.raises(KeyError):
        directory.read("lm_head.weight")
    with pytest.raises(KeyError):
        directory.read(LINEAR + "_scale")
