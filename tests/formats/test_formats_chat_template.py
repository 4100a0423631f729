"""Where a model's chat template and its special tokens are found: as transformers finds them, and in GGUF metadata."""

import json

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from tritwise import TritwiseError
from tritwise.formats import chat_template, open_model


@pytest.fixture
def directory(make_directory):
    """A model directory with a tokenizer of three tokens."""
    path = make_directory()
    Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a")).save(str(path / "tokenizer.json"))
    return path


def settings(path, **values):
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | values))


def assert_as_transformers(path):
    reference, found = AutoTokenizer.from_pretrained(path), chat_template(open_model(path))
    assert found.source == reference.get_chat_template()
    assert found.tokens == {role: str(token) for role, token in reference.special_tokens_map.items()}


def test_templates_of_directories_are_found_as_by_transformers(directory):
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False, "rstrip": False,
                                                "normalized": False, "single_word": False, "__type": "AddedToken"}}
    settings(directory, chat_template="in the settings {{ bos_token }}", **tokens)
    assert_as_transformers(directory)
    settings(directory, chat_template=[{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}])
    assert_as_transformers(directory)
    (directory / "chat_template.jinja").write_text("in a file of its own é\n")
    assert_as_transformers(directory)


def test_special_tokens_of_an_old_directory_come_from_their_own_file(directory):
    settings(directory, chat_template="x")
    (directory / "special_tokens_map.json").write_text('{"bos_token": "<s>", "eos_token": {"content": "</s>"}}')
    assert chat_template(open_model(directory)).tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_a_directory_without_a_template_has_none(directory):
    assert chat_template(open_model(directory)) is None
    settings(directory)
    assert chat_template(open_model(directory)) is None


@pytest.mark.parametrize(("name", "content", "match"), [
    ("tokenizer_config.json", b"[]", "holds no JSON object"), ("tokenizer_config.json", b"{", "not readable"),
    ("tokenizer_config.json", b'{"chat_template": 3}', "is not a text"),
    ("tokenizer_config.json", b'{"chat_template": [{"name": "x", "template": "y"}, 3]}', "the default"),
    ("special_tokens_map.json", b"3", "holds no JSON object"), ("chat_template.jinja", b"\xff", "not readable"),
])
def test_what_is_not_readable_is_named(directory, name, content, match):
    (directory / name).write_bytes(content)
    with pytest.raises(TritwiseError, match=match):
        chat_template(open_model(directory))


def test_a_gguf_file_has_it_in_its_metadata(tmp_path):
    path = tmp_path / "model.gguf"
    sizes = {"block_count": 1, "context_length": 16, "embedding_length": 32, "feed_forward_length": 32,
             "attention.head_count": 2}
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in sizes.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_chat_template("{{ bos_token }}")
    writer.add_token_list(["<s>", "</s>", "a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_tensor("token_embd.weight", np.zeros((3, 32), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(32, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = chat_template(open_model(path))
    assert (found.source, found.tokens) == ("{{ bos_token }}", {"bos_token": "<s>", "eos_token": "</s>"})
