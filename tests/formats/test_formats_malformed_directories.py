"""Hugging Face directories that must not be believed: each is refused at once, with a message and little memory.

The directories are made by tests/corpus; each says in its name what is wrong with it.
"""

import json
import time

import pytest
from corpus.directories import CONFIG, DAMAGES, TOKENIZER, WEIGHTS, edit, write_good
from hostile import is_a_message, is_refused_within, memory_of_refusal, read_everything, refusal

from tritwise import TritwiseError
from tritwise.common.files import MOST_JSON
from tritwise.formats.reader import open_directory

SECONDS, SECONDS_A_BYTE = 0.05, 1e-6
# What Python makes of JSON is many times its size, so what bounds it is how long such a file may be.
BYTES = 32 << 20


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def directory(good, tmp_path):
    """A copy of a directory that opens."""
    path = tmp_path / "model"
    path.mkdir()
    for file in good.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_the_directory_opens(directory):
    assert read_everything(directory) == len(open_directory(directory).config.tensor_shapes())


def test_a_directory_of_links_opens_as_a_download_cache_has_them(directory, tmp_path):
    (tmp_path / "blobs").mkdir()
    for file in (CONFIG, WEIGHTS, TOKENIZER):
        (directory / file).rename(tmp_path / "blobs" / file)
        (directory / file).symlink_to(f"../blobs/{file}")
    assert read_everything(directory) == len(open_directory(directory).config.tensor_shapes())


@pytest.mark.parametrize("name", DAMAGES)
def test_a_malformed_directory_is_refused_at_once_with_a_message(directory, name):
    DAMAGES[name](directory)
    size = sum(file.stat().st_size for file in directory.iterdir() if file.is_file())
    assert is_a_message(refusal(directory)[1], directory)
    # What is not too long to be read is parsed before it is refused.
    allowed = SECONDS + (SECONDS_A_BYTE * size if size <= MOST_JSON else 0)
    assert is_refused_within(directory, allowed)
    assert memory_of_refusal(directory) < 2 * size + BYTES


KEYS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "hidden_act",
        "num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "rms_norm_eps", "rope_theta",
        "rope_scaling", "rope_scaling.rope_type", "rope_scaling.factor", "rope_parameters", "tie_word_embeddings",
        "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "quantization_config.linear_class",
        "quantization_config.quantization_mode", "quantization_config.use_rms_norm",
        "quantization_config.rms_norm_eps", "use_rms_norm", "linear_rms_norm_eps",
        "quantization_config.modules_to_not_convert", "model_type",
        "linear_type", "attention_bias", "layer_types", "torch_dtype", "auto_map", "architectures")
ODD = ("null", "true", "0", "-1", "1", "1.0", "1e308", "NaN", "-Infinity", '""', '"x"', "[]", "[[]]", "{}", '{"a": []}',
       "[NaN]", str(10**400), '"\\ud800"')


@pytest.mark.parametrize("key", KEYS)
def test_any_value_of_any_key_opens_or_is_refused_with_a_message(directory, key):
    original = (directory / CONFIG).read_text()
    for text in ODD:
        (directory / CONFIG).write_text(original)
        edit(directory, key, text)
        try:
            read_everything(directory)
        except TritwiseError as error:
            assert is_a_message(str(error), directory), text  # noqa: PT017  either outcome is right


def test_experts_in_layers_are_counted_before_their_names_are_made(directory):
    sizes = {"model_type": "bitnet_moe", "num_experts": 40_000, "num_experts_per_tok": 1, "moe_intermediate_size": 4,
             "num_hidden_layers": 40_000}
    (directory / CONFIG).write_text(json.dumps(json.loads((directory / CONFIG).read_text()) | sizes))
    data = b""
    header = {str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(40_000)}
    raw = json.dumps(header).encode()
    (directory / WEIGHTS).write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    begin = time.process_time()
    with pytest.raises(TritwiseError, match="num_hidden_layers is 40000 and num_experts is 40000, but the files hold"):
        read_everything(directory)
    assert time.process_time() - begin < 2.0


def test_json_of_more_than_its_limit_is_not_read(directory):
    with (directory / CONFIG).open("r+b") as file:
        file.truncate(MOST_JSON + 1)
    with pytest.raises(TritwiseError, match=f"it has more than {MOST_JSON} bytes"):
        read_everything(directory)
