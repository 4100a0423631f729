"""SentencePiece tokenizers from GGUF metadata: the ids of the sentencepiece library for the same model."""

import io
import json
import random
import unicodedata
from itertools import pairwise

import gguf
import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import LlamaTokenizer

from tritwise import TritwiseError, load
from tritwise.formats.gguf_tokenizer import tokenizer_json

# A character of each kind from every plane that has any, and some beyond what is assigned.
PLANES = [chr(code) for code in range(0x20, 0x110000, 61) if unicodedata.category(chr(code)) != "Cs"]
TEXTS = ["def area(r):\n    return 3.14159 * r ** 2\n\n\n", "I'll DON'T we'Re 12345 67  \t x\r\n\r\n  ", "Hello world",
         "naïve café 東京 مرحبا", "a\u0301\u0323 \U0001F468\u200D\U0001F469\u200D\U0001F467", " " * 40 + "end", " ", "",
         "  leading and trailing  ", "▁▁ literal ▁", "<0x41> <s> </s> <unk>", "aaaaaaaaaaaaaaaaaaaaa", "abababab" * 5,
         "aabaabaaab" * 4, "".join(PLANES), "\x00\x01\x7f\u2028\ufeff\ufffd"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def trained(**changes) -> sentencepiece.SentencePieceProcessor:
    """A model of a few hundred pieces, as LLaMA's was made: BPE, bytes, text as it is."""
    corpus = [*TEXTS[:4], *TEXTS[8:10], "the area of the return of the area " * 3, "aaaa aaa aa a abab aba baa" * 4,
              "    " * 6 + "x", "return the area of 123 1234 12 " * 4]
    written = io.BytesIO()
    options = {"vocab_size": 420, "byte_fallback": True, "normalization_rule_name": "identity",
               "remove_extra_whitespaces": False, "character_coverage": 0.99, "allow_whitespace_only_pieces": True,
               "split_by_whitespace": True, "split_digits": True, "minloglevel": 2, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_writer=written, model_type="bpe",
                                             **options | changes)
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def metadata(model: sentencepiece.SentencePieceProcessor) -> dict:
    """What llama.cpp's converter writes of a model."""
    numbers = range(model.vocab_size())
    types = [UNKNOWN if model.is_unknown(n) else CONTROL if model.is_control(n) else UNUSED if model.is_unused(n)
             else BYTE if model.is_byte(n) else NORMAL for n in numbers]
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": [model.id_to_piece(n) for n in numbers],
            "tokenizer.ggml.scores": np.array([model.get_score(n) for n in numbers], np.float32),
            "tokenizer.ggml.token_type": np.array(types, np.int32), "tokenizer.ggml.bos_token_id": model.bos_id(),
            "tokenizer.ggml.eos_token_id": model.eos_id(), "tokenizer.ggml.unknown_token_id": model.unk_id()}


def read(values: dict) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json(values, 10_000))
    tokenizer.encode_special_tokens = True
    return tokenizer


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


MODELS = {"llama": trained(), "no prefix": trained(add_dummy_prefix=False),
          "long runs": trained(split_by_whitespace=False, max_sentencepiece_length=24, split_digits=False)}
TOKENIZERS = {name: read(metadata(model) | {"tokenizer.ggml.add_space_prefix": name != "no prefix"})
              for name, model in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_ids_and_text_are_those_of_sentencepiece(name):
    model, found = MODELS[name], TOKENIZERS[name]
    for text in [*TEXTS, *PLANES]:
        expected = model.encode(text)
        assert ids(found, text) == expected
        if text:
            assert found.decode(expected, skip_special_tokens=False) == text.replace("▁", " ")


@given(st.sampled_from(sorted(MODELS)), st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.text("ab ", max_size=60),
    st.text("the are\n1", max_size=60),
    st.lists(st.sampled_from([" ", "  ", "a", "aa", "ab", "ba", "area", "the", "\U0001F9EA", "▁"]),
             max_size=40).map("".join)))
@settings(max_examples=300, deadline=None)
def test_ids_of_any_text_are_those_of_sentencepiece(name, text):
    assert ids(TOKENIZERS[name], text) == MODELS[name].encode(text)


def joined(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's rule as it is stated: the neighbours with the highest score, the leftmost of equal ones."""
    symbols = list(text)
    while True:
        pairs = [(-scores[one + other], at) for at, (one, other) in enumerate(pairwise(symbols))
                 if one + other in scores]
        if not pairs:
            return symbols
        at = min(pairs)[1]
        symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]


@pytest.mark.parametrize("falling", [True, False], ids=["scores as trained", "scores in any order"])
def test_merges_join_as_the_rule_says_with_any_pieces_and_scores(falling):
    random.seed(1)
    ambiguous = 0
    for _ in range(400):
        pieces = ["a", "b", "▁"]
        for _ in range(random.randint(3, 14)):
            piece = random.choice(pieces) + random.choice(pieces)
            pieces += [piece] if piece not in pieces and len(piece) < 12 else []
        scores = [-float(rank) for rank in range(len(pieces))]
        if not falling:
            random.shuffle(scores)
        tokens = ["<unk>", *pieces]
        content = tokenizer_json({
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.add_space_prefix": False,
            "tokenizer.ggml.scores": np.array([0, *scores], np.float32), "tokenizer.ggml.add_bos_token": False,
            "tokenizer.ggml.token_type": np.array([UNKNOWN] + [NORMAL] * len(pieces), np.int32)}, 100)
        ambiguous += len(json.loads(content)["model"]["merges"]) > len(pieces) - 3
        found, ranks = Tokenizer.from_str(content), dict(zip(pieces, scores, strict=True))
        for _ in range(8):
            period = "".join(random.choices("ab▁", weights=(5, 3, 1), k=random.randint(1, 12)))
            text = (period * 30)[random.randint(0, 3):random.randint(4, 40)]
            assert found.encode(text).tokens == joined(text, ranks)
    assert ambiguous > 100  # pieces that can be cut in more than one way are what this is about


def test_a_text_begins_and_ends_as_the_file_says():
    model, values = MODELS["llama"], metadata(MODELS["llama"])
    begin, end, text = model.bos_id(), model.eos_id(), model.encode("the area")
    for changes, expected in (({}, [begin, *text]), ({"add_bos_token": False}, text),
                              ({"add_eos_token": True}, [begin, *text, end]),
                              ({"add_bos_token": False, "add_eos_token": True}, [*text, end])):
        found = read(values | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})
        assert found.encode("the area").ids == expected


def test_control_tokens_and_bytes_spelled_out_are_text():
    found, model = TOKENIZERS["llama"], MODELS["llama"]
    for text in ("<s>", "</s>a", "<unk>", "<0x41>", "a<s>b"):
        assert not any(model.is_control(n) or model.is_unknown(n) for n in ids(found, text))
        assert found.decode(ids(found, text)) == text
    found = Tokenizer.from_str(tokenizer_json(metadata(model), 10_000))
    assert model.bos_id() in ids(found, "a<s>b")


def test_a_user_defined_token_is_found_in_text_and_what_follows_gets_a_space_as_in_llama_cpp():
    model = MODELS["llama"]
    values = metadata(model)
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"], "<|turn|>", "xyz"]
    values["tokenizer.ggml.scores"] = np.append(values["tokenizer.ggml.scores"], np.float32([0, 0]))
    values["tokenizer.ggml.token_type"] = np.append(values["tokenizer.ggml.token_type"], np.int32([4, 4]))
    found, number = read(values), model.vocab_size()
    assert ids(found, "the<|turn|>area") == [*model.encode("the"), number, *model.encode("area")]
    assert ids(found, "xyz<|turn|>") == [number + 1, number]


def test_a_model_without_bytes_has_one_unknown_token_for_a_run():
    model = trained(byte_fallback=False, vocab_size=160)
    found = read(metadata(model))
    for text in ("a漢字b", "東京漢", "area \U0001F9EA the"):
        assert ids(found, text) == model.encode(text)


def test_ids_are_those_of_transformers_with_the_same_merges():
    """transformers' own class for the vocabulary: its Metaspace adds no space before one, so texts begin with none."""
    values = metadata(MODELS["llama"])
    content = tokenizer_json(values, 10_000)
    model = Tokenizer.from_str(content)
    vocabulary = {token: number for number, token in enumerate(values["tokenizer.ggml.tokens"])}
    merges = [tuple(pair) for pair in json.loads(content)["model"]["merges"]]
    theirs = LlamaTokenizer(vocab=vocabulary, merges=merges)
    for text in TEXTS:
        if text and not text.startswith((" ", "▁")) and "<" not in text:
            assert theirs.encode(text, add_special_tokens=False) == ids(model, text)


def test_a_file_with_such_a_tokenizer_opens_with_it_and_with_its_chat_template(tmp_path):
    values, model = metadata(MODELS["llama"]), MODELS["llama"]
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for key, value in {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32,
                       "attention.head_count": 2}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(values["tokenizer.ggml.tokens"])
    writer.add_token_scores(values["tokenizer.ggml.scores"].tolist())
    writer.add_token_types(values["tokenizer.ggml.token_type"].tolist())
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template("{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}")
    shapes = {"token_embd": (model.vocab_size(), 32), "output_norm": (32,)} | {
        f"blk.0.{name}": (32,) for name in ("attn_norm", "ffn_norm")} | {
        f"blk.0.{name}": (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
                                               "ffn_down")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with load(tmp_path / "model.gguf") as opened:
        assert opened.codec.document("the area </s>") == [model.bos_id(), *model.encode("the area </s>")]
        assert opened.render_chat("the </s>") == "<s>[the </s>]</s>"
        ids = opened.chat_codec.ids("the </s>")
        assert (ids[0], ids[-1], ids[1:-1]) == (model.bos_id(), model.eos_id(), model.encode("[the </s>]"))
        assert len(opened.chat("the area", max_tokens=3).token_ids) <= 3


def changed(key: str, change) -> dict:
    values = metadata(MODELS["llama"])
    values[f"tokenizer.ggml.{key}"] = change(values.get(f"tokenizer.ggml.{key}"))
    return values


def with_type(number: int, kind: int):
    def change(types):
        types = types.copy()
        types[number] = kind
        return types
    return change


A = MODELS["llama"].piece_to_id("a")
JOINED = next(n for n in range(300, MODELS["llama"].vocab_size()) if len(MODELS["llama"].id_to_piece(n)) > 1)


def with_score(value: float):
    def change(scores):
        scores = scores.copy()
        scores[JOINED] = value
        return scores
    return change


@pytest.mark.parametrize(("key", "change", "match"), [
    ("scores", lambda _: None, "one number for each"), ("scores", lambda s: s[:-1], "one number for each"),
    ("scores", lambda s: s.astype(np.int32), "one number for each"), ("scores", lambda s: s * 0, "no order"),
    ("scores", with_score(np.nan), "no order"), ("token_type", with_type(A, CONTROL), "text could become it"),
    ("token_type", with_type(A, 9), "is of type 9"), ("token_type", with_type(A, BYTE), "is of type 6"),
    ("token_type", with_type(JOINED, UNUSED), "is unused"), ("token_type", with_type(0, CONTROL), None),
    ("token_type", with_type(1, UNKNOWN), "2 unknown tokens"), ("token_type", lambda _: None, "a byte is"),
    ("tokens", lambda t: [("\u4e01q" if n == JOINED else each) for n, each in enumerate(t)], "its character '\u4e01'"),
    ("remove_extra_whitespaces", lambda _: True, "changes the text"),
    ("precompiled_charsmap", lambda _: [1], "changes the text"),
    ("add_bos_token", lambda _: 1, "true or false"), ("bos_token_id", lambda _: 10_000, "it is 10000"),
    ("add_space_prefix", lambda _: "yes", "true or false"),
])
def test_metadata_that_do_not_fit_are_refused(key, change, match):
    if match is None:  # bytes serve for what is unknown
        assert ids(read(changed(key, change)), "漢") == MODELS["llama"].encode("漢")
        return
    with pytest.raises(TritwiseError, match=match):
        tokenizer_json(changed(key, change), 10_000)
