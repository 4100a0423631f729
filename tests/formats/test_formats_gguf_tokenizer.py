"""Tokenizers from GGUF metadata: the ids that transformers' own tokenizers give for the same vocabulary and merges."""

import json
import unicodedata

import gguf
import numpy as np
import pytest
import regex
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2TokenizerFast, Qwen2TokenizerFast

from tritwise import TritwiseError
from tritwise.config.pre_tokenizers import GGUF_STEPS as STEPS
from tritwise.config.pre_tokenizers import pre_tokenizer
from tritwise.formats.gguf_tokenizer import tokenizer_json

# One letter, digit, mark, space or sign of many kinds from every plane that has any.
PLANES = "".join(chr(code) for code in range(0x20, 0x110000, 61)
                 if unicodedata.category(chr(code)) not in ("Cs", "Cn"))
CORPUS = ["def area(r):\n    return 3.14159 * r ** 2\n\n\n", "I'll DON'T we'Re 12345 67  \t x\r\n\r\n  ",
          "naïve café 東京 مرحبا", "a\u0301\u0323 \U0001F468\u200D\U0001F469\u200D\U0001F467",
          " " * 40 + "end", "", PLANES]
SPECIAL = ["<|end|>", "<|turn|>"]


@pytest.fixture(scope="module")
def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens by id and merges of a small BPE, with two control tokens behind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator([text * 3 for text in CORPUS[:5]] + ["return the area of 123 1234 12"] * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens + SPECIAL, [" ".join(pair) for pair in model["merges"]]


def metadata(vocabulary, pre: str) -> dict:
    tokens, merges = vocabulary
    types = np.ones(len(tokens), np.int32)
    types[-len(SPECIAL):] = 3
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": merges, "tokenizer.ggml.token_type": types}


def read(values: dict) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json(values, len(values["tokenizer.ggml.tokens"])))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize(("pre", "theirs"), [("gpt-2", GPT2TokenizerFast), ("qwen2", Qwen2TokenizerFast)])
def test_ids_are_those_of_transformers(vocabulary, pre, theirs):
    tokens, merges = vocabulary
    own = tokens[:-len(SPECIAL)]
    expected = theirs(vocab={token: number for number, token in enumerate(own)},
                      merges=[tuple(merge.split(" ")) for merge in merges], unk_token=None)
    found = read(metadata(vocabulary, pre))
    for text in CORPUS:
        text = unicodedata.normalize("NFC", text)  # Qwen2's tokenizer does so, llama.cpp's does not
        assert found.encode(text, add_special_tokens=False).ids == expected.encode(text, add_special_tokens=False)
        assert found.decode(found.encode(text).ids) == text


def test_ids_of_llama3_are_those_of_transformers_for_the_same_file(vocabulary, tmp_path):
    tokens, merges = vocabulary
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types([1] * (len(tokens) - 2) + [3] * 2)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    found = read(metadata(vocabulary, "llama-bpe"))
    for text in CORPUS:
        assert found.encode(text).ids == expected.encode(text, add_special_tokens=False)


# As their publishers' tokenizer.json files have them: starcoder, SmolLM2, Refact-1.6B, deepseek-coder-6.7b, falcon-7b.
DIGITS = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
PUBLISHED = {
    "starcoder": DIGITS, "smollm": DIGITS, "refact": DIGITS,
    "deepseek-coder": [
        *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (
            "[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")), DIGITS[0],
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
    "falcon": [pre_tokenizers.Punctuation("contiguous"), DIGITS[1], pre_tokenizers.Digits(individual_digits=False),
               pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")],
}
# As llama.cpp has them (src/llama-vocab.cpp); cut one after the other, what does not match stays as it is.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    **{name: [r"\p{N}", WORDS] for name in ("starcoder", "refact", "smollm", "command-r", "codeshell")},
    **{name: [WORDS] for name in ("gpt-2", "mpt", "olmo")},
    "qwen2": [CONTRACTIONS + "|" + REST.replace("DIGITS", r"\p{N}")],
    **{name: [CONTRACTIONS + "|" + REST.replace("DIGITS", r"\p{N}{1,3}")] for name in ("llama-bpe", "falcon3")},
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "deepseek-llm": ["[\r\n]", r"\s?[A-Za-zà-ÿÀ-ÖA-Ω\u1f00-\u1f15\u2126\u212a]+",
                     "\\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"],
}
# Without letters of scripts that deepseek-llm's pattern lists; the test's own pattern has a few of them.
SIMPLE = ["def area(r):\n    return 3.14159 * r ** 2\n\n\n", "I'll DON'T we'Re 12345 67  \t x\r\n\r\n  ",
          "naïve café 東京 여기 여", "x\u2126\u212ay 12 345", "a  ", "  !!. ？！ ‘a’", "漢字 12漢3"]


def pieces(pre: str, text: str) -> list[str]:
    steps = pre_tokenizer(pre)
    empty = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "post_processor": None, "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    splitter = Tokenizer.from_str(json.dumps(empty | {"pre_tokenizer": steps})).pre_tokenizer
    return [decoders.ByteLevel().decode([piece]) for piece, _ in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("pre", PUBLISHED)
def test_words_and_ids_are_those_of_the_published_structure(vocabulary, pre):
    tokens, merges = vocabulary
    own = {token: number for number, token in enumerate(tokens[:-len(SPECIAL)])}
    published = Tokenizer(models.BPE(own, [tuple(merge.split(" ")) for merge in merges]))
    published.pre_tokenizer = pre_tokenizers.Sequence(PUBLISHED[pre])
    found = read(metadata(vocabulary, pre))
    for text in [*CORPUS, *SIMPLE]:
        assert found.pre_tokenizer.pre_tokenize_str(text) == published.pre_tokenizer.pre_tokenize_str(text)
        assert found.encode(text, add_special_tokens=False).ids == published.encode(text).ids
        assert found.decode(found.encode(text).ids) == text


@pytest.mark.parametrize("pre", PATTERNS)
def test_words_are_those_of_the_patterns_of_llama_cpp(pre):
    for text in SIMPLE if pre == "deepseek-llm" else [*SIMPLE, *CORPUS]:
        expected = [text]
        for pattern in PATTERNS[pre]:
            expected = [part for whole in expected for part in regex.split(f"({pattern})", whole) if part]
        assert [part for part in pieces(pre, text) if part] == expected


def test_the_letters_of_deepseek_llm_are_cased_letters():
    letters = STEPS["deepseek-llm"][1]["pattern"]["Regex"].removeprefix(r"\s?")
    cased = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt")]
    listed = [character for character in map(chr, range(0x110000)) if regex.fullmatch(letters, character)]
    assert set(listed) <= set(cased)
    assert {"\u1f7d", "\u1fd3", "\u1fdb", "\u1fbe", "\u2126", "\u212a", "\U0001E943"} <= set(listed)
    assert not set(listed) & set("\u01bb\u0294\u10d0")  # letters without case, and Georgian's


def test_a_text_begins_and_ends_as_the_file_says(vocabulary):
    number = len(vocabulary[0]) - 2
    ends = {"tokenizer.ggml.bos_token_id": number, "tokenizer.ggml.eos_token_id": number + 1}
    text = read(metadata(vocabulary, "gpt-2")).encode("area").ids
    both = {"add_bos_token": True, "add_eos_token": True}
    for pre, changes, expected in (("gpt-2", {}, text), ("llama-bpe", {}, [number, *text]), ("qwen2", {}, text),
                                   ("gpt-2", {"add_bos_token": True}, [number, *text]),
                                   ("llama-bpe", {"add_bos_token": False}, text),
                                   ("qwen2", both, [number, *text, number + 1])):
        stated = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
        assert read(metadata(vocabulary, pre) | ends | stated).encode("area").ids == expected
    with pytest.raises(TritwiseError, match="bos_token_id"):
        read(metadata(vocabulary, "gpt-2") | {"tokenizer.ggml.add_bos_token": True})


def test_control_tokens_as_text_are_text(vocabulary):
    found = read(metadata(vocabulary, "llama-bpe"))
    ids = found.encode("a<|end|>b").ids
    assert found.token_to_id("<|end|>") not in ids
    assert found.decode(ids) == "a<|end|>b"


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
@pytest.mark.parametrize("at", [0, 300])
def test_control_tokens_before_others_keep_their_ids_and_are_not_written_as_text(vocabulary, pre, at):
    tokens, merges = vocabulary
    moved = tokens[:at] + SPECIAL + tokens[at:-len(SPECIAL)]
    types = np.ones(len(moved), np.int32)
    types[at:at + len(SPECIAL)] = 3
    values = metadata((moved, merges), pre) | {"tokenizer.ggml.token_type": types}
    found, behind = read(values), read(metadata(vocabulary, pre))
    assert [found.token_to_id(token) for token in moved] == list(range(len(moved)))
    for text in [*CORPUS, "a<|end|>b", "<|turn|>"]:
        written = found.encode(text)
        assert written.tokens == behind.encode(text).tokens
        assert not any(at <= number < at + len(SPECIAL) for number in written.ids)
        assert found.decode(written.ids) == text
    found.encode_special_tokens = False
    assert found.encode("a<|turn|>").ids[-1] == at + 1


def test_a_control_token_that_is_a_word_is_refused_where_words_are_looked_up(vocabulary):
    tokens, merges = vocabulary
    moved = ["pad", *tokens]
    types = np.ones(len(moved), np.int32)
    types[[0, -2, -1]] = 3
    values = metadata((moved, merges), "llama-bpe") | {"tokenizer.ggml.token_type": types}
    with pytest.raises(TritwiseError, match="'pad' is a control token, and text could become it"):
        tokenizer_json(values, 10_000)
    assert 0 not in read(values | {"tokenizer.ggml.pre": "gpt-2"}).encode("pad").ids


def test_a_user_defined_token_that_merges_make_is_found_both_ways(vocabulary):
    tokens, merges = vocabulary
    values = metadata(([*tokens, "zq"], [*merges, "z q"]), "gpt-2")
    types = np.ones(len(tokens) + 1, np.int32)
    types[-3:] = (3, 3, 4)
    assert read(values | {"tokenizer.ggml.token_type": types}).encode("azq").ids[-1] == len(tokens)


def test_more_tokens_than_embeddings_are_refused(vocabulary):
    values = metadata(vocabulary, "gpt-2")
    with pytest.raises(TritwiseError, match="embeddings for 360"):
        tokenizer_json(values, len(vocabulary[0]) - 1)


def test_metadata_without_a_tokenizer_have_none():
    assert tokenizer_json({}, 100) is None


@pytest.mark.parametrize(("key", "value", "match"), [
    ("model", "rwkv", "it is 'rwkv'; gpt2"), ("add_space_prefix", True, "adds no space"),
    ("model", [1], "has to be a string"), ("pre", np.ones(2), "has to be a string"),
    ("pre", "poro-chat", "known are llama-bpe"), ("pre", None, "it is None"),
    ("tokens", [], "not a list of strings"), ("tokens", ["a", "a"], "token_type"), ("merges", None, "not a list"),
    ("merges", ["a b c"], "'a b c' does not join"), ("merges", ["zz qq"], "does not join"),
    ("merges", ["< |"], "does not join"),
    ("token_type", np.ones(3, np.int32), "one number for each"), ("token_type", "x", "one number for each"),
])
def test_metadata_that_do_not_fit_are_refused(vocabulary, key, value, match):
    with pytest.raises(TritwiseError, match=match):
        tokenizer_json(metadata(vocabulary, "llama-bpe") | {f"tokenizer.ggml.{key}": value}, 10_000)


def test_a_merge_that_makes_a_control_token_is_refused(vocabulary):
    tokens, merges = vocabulary
    values = metadata(([*tokens[:-1], "zq"], [*merges, "z q"]), "gpt-2")
    with pytest.raises(TritwiseError, match="'z q' makes a control token of text"):
        tokenizer_json(values, 10_000)


def test_a_token_that_is_there_twice_is_named(vocabulary):
    values = metadata(vocabulary, "gpt-2")
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"][:-1], "<|end|>"]
    with pytest.raises(TritwiseError, match=r"'<\|end\|>' is there twice"):
        tokenizer_json(values, 10_000)


def test_bytes_that_are_no_text_are_refused(vocabulary):
    values = metadata(vocabulary, "gpt-2")
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"][:-1], "\udcff"]
    with pytest.raises(TritwiseError, match="is not UTF-8"):
        tokenizer_json(values, 10_000)
