"""What fuzzing begins with: small valid inputs of each target, by hand, by the gguf package and by our writer."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from corpus.directories import parts_of, tokenizer, write_good
from corpus.gguf_layout import GGUF, Tensor, encode, number, text
from corpus.gguf_models import FLOATS, TERNARY, model, tokenizer_keys, vocabulary

from fuzz.targets import INDEX, PARTS, join
from tritwise.config import ModelConfig
from tritwise.formats import write_model


def seeds(target: str) -> list[bytes]:
    """The inputs that `target` begins with."""
    return list({"gguf": _gguf, "gguf-tokenizer": _gguf_tokenizers, "directory": _directories, "config": _configs,
                 "tokenizer": _tokenizers}[target]())


def _gguf() -> Iterator[bytes]:
    for kind in TERNARY:
        yield encode(model(kind, tokenizer=False, embedding="F16"))
    for embedding in FLOATS:
        wide = embedding in ("Q4_K", "Q6_K")
        yield encode(model("TQ2_0" if wide else "IQ2_BN", tokenizer=False, embedding=embedding, head=True))
    for arch, kind in (("llama", "F16"), ("llama", "BF16"), ("llama", "Q8_0"), ("llama", "IQ2_BN"), ("bitnet", "F16"),
                       ("bitnet-25", "I2_S")):
        yield encode(model(kind, arch=arch, tokenizer=False))
    yield encode(model(pre="llama-bpe"))
    yield encode(model(tokenizer=False).with_key(text("bitnet-b1.58.rope.scaling.type", "yarn")).with_key(
        number("bitnet-b1.58.rope.scaling.factor", "f32", 2.0)))
    yield encode(model(tokenizer=False).with_more(Tensor("blk.0.attn_q.scale", (1,), 0, b"\0\0\0\x3f")))
    yield _by_the_gguf_package()


def _by_the_gguf_package() -> bytes:
    file = model("F16", arch="llama")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for add, value in ((writer.add_block_count, 1), (writer.add_context_length, 64),
                           (writer.add_embedding_length, 64), (writer.add_feed_forward_length, 64),
                           (writer.add_head_count, 4), (writer.add_head_count_kv, 2),
                           (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_vocab_size, 259),
                           (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, "qwen2"),
                           (writer.add_token_list, list(vocabulary())), (writer.add_token_merges, ["a b"])):
            add(value)
        for tensor in file.tensors:
            shape = tuple(reversed(tensor.sizes))
            dtype = np.float32 if tensor.kind == 0 else np.float16
            values = np.full(shape, 0.5, dtype) if tensor.kind != FLOATS["Q8_0"] else np.full(shape, 0.5, np.float32)
            writer.add_tensor(str(tensor.name), values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _gguf_tokenizers() -> Iterator[bytes]:
    for pre in ("gpt-2", "llama-bpe", "qwen2"):
        yield encode(GGUF((text("general.architecture", "llama"), *tokenizer_keys(pre))))


def _written(config: ModelConfig, form: str, linear_class: str, dtype: str) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(scale=0.1, size=shape).astype(np.float32)
               for name, shape in config.tensor_shapes().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_model(path, config, tensors, form=form, linear_class=linear_class, dtype=dtype)
        return {name: (path / name).read_bytes() for name in PARTS if (path / name).is_file()}


def _directories() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_good(Path(folder) / "model")
        parts = {name: (path / name).read_bytes() for name in PARTS if (path / name).is_file()}
        header, _ = parts_of(path)
    yield join(parts)
    names = dict.fromkeys(sorted(set(header) - {"__metadata__"}), "a.safetensors")
    yield join(parts | {INDEX: json.dumps({"metadata": {}, "weight_map": names}).encode()})
    sizes = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
             "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    for changes, form, linear_class, dtype in (
            ({}, "packed", "bitlinear", "bfloat16"), ({}, "packed", "autobitlinear", "float16"),
            ({}, "online", "autobitlinear", "float32"),
            ({"linear_type": "binary"}, "packed", "autobitlinear", "float32"),
            ({"linear_type": "dense", "model_type": "llama", "tie_word_embeddings": True}, "float", "autobitlinear",
             "bfloat16"), (experts, "packed", "autobitlinear", "float32")):
        yield join(_written(ModelConfig(**(sizes | changes)), form, linear_class, dtype))


def _configs() -> Iterator[bytes]:
    base = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": [1, 2]}
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8,
               "shared_expert_intermediate_size": 8}
    packed = {"quantization_config": {"linear_class": "bitlinear", "quantization_mode": "offline"}}
    for changes in ({}, {"linear_type": "dense", "model_type": "llama", "quantization_config": None}, experts,
                    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "mscale": 1.0,
                                      "mscale_all_dim": 0.5, "original_max_position_embeddings": 512}},
                    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                      "high_freq_factor": 4.0, "original_max_position_embeddings": 512}},
                    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, {"use_rms_norm": True},
                    {"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                             "modules_to_not_convert": ["lm_head"]}}):
        yield json.dumps(ModelConfig(**(base | packed | changes)).to_hf(dtype="float32")).encode()


def _tokenizers() -> Iterator[bytes]:
    whole = tokenizer()
    pattern = {"type": "Split", "pattern": {"Regex": "\\w+|\\s+|[^\\w\\s]+"}, "behavior": "Isolated", "invert": False}
    bytes_only = whole["pre_tokenizer"] | {"use_regex": False}
    yield json.dumps(whole).encode()
    yield json.dumps(whole | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [pattern, bytes_only]},
                              "normalizer": {"type": "NFC"}}).encode()
    pieces = [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -1.5], ["\u2581", -3.0]]
    yield json.dumps(whole | {"model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
                              "added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                                                                    "prepend_scheme": "always", "split": True},
                              "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                                          "split": True}}).encode()
    words = {"[UNK]": 0, "a": 1, "##b": 2, "def": 3}
    yield json.dumps(whole | {"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                                        "max_input_chars_per_word": 100, "vocab": words}, "added_tokens": [],
                              "pre_tokenizer": {"type": "BertPreTokenizer"}, "normalizer": {
                                  "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                  "strip_accents": None, "lowercase": True},
                              "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}).encode()


