import struct

import gguf_file
import numpy as np
import pytest
from works import RefusedError

from tritwise.config import ModelConfig
from tritwise.measure.shapes import shape_config

TINY = ModelConfig(vocab_size=96, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, tie_word_embeddings=True)


def read(path):
    """Key-value pairs, and the tensors as name -> (shape, type, bytes): a reader of the specification, not of ours."""
    data, place = path.read_bytes(), 0

    def take(form):
        nonlocal place
        values = struct.unpack_from("<" + form, data, place)
        place += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]

    def text():
        nonlocal place
        size = take("Q")
        place += size
        return data[place - size:place].decode()

    assert take("4s") == b"GGUF"
    assert take("I") == 3
    tensors, pairs = take("QQ")
    metadata = {}
    for _ in range(pairs):
        key, kind = text(), take("I")
        metadata[key] = text() if kind == 8 else take({4: "I", 6: "f"}[kind])
    infos = []
    for _ in range(tensors):
        name = text()
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape, *take("IQ")))
    start = place + -place % 32
    ends = [info[3] for info in infos[1:]] + [len(data) - start]
    return metadata, {name: (shape, kind, data[start + offset:start + end])
                      for (name, shape, kind, offset), end in zip(infos, ends, strict=True)}


@pytest.mark.parametrize(("kind", "number", "bits"), [
    ("TQ2_0", 35, 66 * 8 / 256), ("I2_S", 36, 2), ("IQ2_BN_R4", 335, 2)])
def test_a_ternary_matrix_has_the_size_of_its_blocks(tmp_path, kind, number, bits):
    gguf_file.write(tmp_path / "a.gguf", TINY, kind=kind, head="q6_K", architecture="bitnet")
    metadata, tensors = read(tmp_path / "a.gguf")
    shape, found, data = tensors["blk.1.ffn_down.weight"]
    beside = {"TQ2_0": 0, "I2_S": 32, "IQ2_BN_R4": 4 * 256}[kind]  # a scale a tensor, padded; a float32 a row
    assert (shape, found, len(data)) == ([512, 256], number, 512 * 256 * bits / 8 + beside)
    assert metadata["bitnet.attention.head_count_kv"] == 2
    assert tensors["token_embd.weight"][1] == gguf_file.TYPES["q6_K"]


def test_scales_stand_where_each_layout_has_them(tmp_path):
    scale = 512 ** -0.5
    data = {}
    for kind in ("TQ2_0", "I2_S", "IQ2_BN_R4"):
        gguf_file.write(tmp_path / "a.gguf", TINY, kind=kind, head="f16", architecture="bitnet")
        data[kind] = read(tmp_path / "a.gguf")[1]["blk.0.ffn_down.weight"][2]
    assert (np.frombuffer(data["TQ2_0"], np.float16).reshape(-1, 33)[:, 32] == np.float16(scale)).all()
    assert np.frombuffer(data["I2_S"], np.float32)[-8] == np.float32(scale)
    assert (np.frombuffer(data["IQ2_BN_R4"], np.float32).reshape(64, -1)[:, :4] == np.float32(scale)).all()


def test_a_ternary_field_is_never_3(tmp_path):
    gguf_file.write(tmp_path / "a.gguf", TINY, kind="I2_S", head="f16", architecture="bitnet")
    data = np.frombuffer(read(tmp_path / "a.gguf")[1]["blk.0.attn_q.weight"][2][:-32], np.uint8)
    assert {int(field) for shift in (0, 2, 4, 6) for field in np.unique(data >> shift & 3)} == {0, 1, 2}


def test_an_untied_llama_reads_its_head_but_not_its_embedding_for_a_token(tmp_path):
    untied = TINY.with_changes(tie_word_embeddings=False)
    tied = gguf_file.bytes_per_token(TINY, "TQ2_0", "f16", "llama")
    assert gguf_file.bytes_per_token(untied, "TQ2_0", "f16", "llama") == tied
    gguf_file.write(tmp_path / "a.gguf", untied, kind="TQ2_0", head="f16", architecture="llama")
    assert len(read(tmp_path / "a.gguf")[1]["output.weight"][2]) == 96 * 256 * 2


@pytest.mark.parametrize(("shape", "kind", "width"), [
    ("2b4t", "TQ2_0", 6912), ("paper-700m", "TQ2_0", 4096), ("paper-1.3b", "IQ2_BN_R4", 5504),
    ("paper-1.3b", "TQ2_0", 5632), ("paper-3b", "IQ2_BN_R4", 8640), ("paper-3b", "I2_S", 8704)])
def test_a_feed_forward_width_is_filled_up_to_whole_blocks(shape, kind, width):
    assert gguf_file.fitted(shape_config(shape), kind).intermediate_size == width


def test_a_hidden_width_that_is_no_multiple_of_the_block_is_refused():
    with pytest.raises(RefusedError, match="TQ2_0 stores blocks of 256 inputs; 3200"):
        gguf_file.fitted(shape_config("paper-3b"), "TQ2_0")


def test_a_head_that_does_not_fit_q6_k_is_q8_0():
    assert gguf_file.head_type(shape_config("paper-3b"), "q6_K") == "q8_0"
    assert gguf_file.head_type(shape_config("2b4t"), "q6_K") == "q6_K"
