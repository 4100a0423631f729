"""The tokenizer: lossless, safe against control tokens in the text, and the same in transformers."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.config.tokens import END_OF_TEXT, SPECIAL_TOKENS
from tritwise.data import Encoder, load_documents, load_tokenizer, train_tokenizer
from tritwise.data.tokenizer import sample_evenly

CODE = "".join(f"def function_{i}(self, value={i}):\n    return self.value_{i} + value\n\n\n" for i in range(50))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([CODE], 300)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer)


@given(st.one_of(st.text(), st.text(alphabet="ab_1 \t\r\n(.:é\u0301\u2028", max_size=60)))
def test_any_text_comes_back_from_its_ids(tokenizer, encoder, text):
    ids = encoder.encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "x", " ", "\n"])).map("".join))
def test_no_text_gives_a_special_token(tokenizer, encoder, text):
    ids = encoder.encode(text)
    assert all(i >= len(SPECIAL_TOKENS) for i in ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_special_tokens_are_the_first_ids_and_every_byte_is_a_token(tokenizer):
    assert [tokenizer.id_to_token(i) for i in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)
    singles = {len(tokenizer.id_to_token(i)) for i in range(len(SPECIAL_TOKENS), len(SPECIAL_TOKENS) + 256)}
    assert singles == {1}
    assert tokenizer.get_vocab_size() == 300


def test_pieces_end_where_prompts_end(tokenizer):
    text = "def f(self):\n\n        return x.y_1 + 1234"
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == [
        "def", "Ġf", "(self", "):", "ĊĊĠĠĠĠĠĠĠĠ", "return", "Ġx", ".y_1", "Ġ+", "Ġ123", "4"]


def test_a_saved_tokenizer_is_read_back_equal(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    for text in (CODE, END_OF_TEXT):
        assert Encoder(loaded).encode(text).tolist() == Encoder(tokenizer).encode(text).tolist()


def test_transformers_reads_the_same_ids_and_text(built):
    from transformers import PreTrainedTokenizerFast

    directory, _, _ = built
    ours = load_tokenizer(directory / "tokenizer.json")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    assert len(theirs) == ours.get_vocab_size()
    assert theirs.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    texts = [d.text for d in load_documents(directory)] + ["é 漢字 \r\n\t x", ""]
    for text, ids in zip(texts, Encoder(ours).encode_all(texts), strict=True):
        assert theirs(text, add_special_tokens=True)["input_ids"] == ids.tolist()
        assert theirs.decode(ids) == text


def test_training_does_not_depend_on_hash_seeds_or_threads():
    script = ("from tritwise.data import train_tokenizer; import hashlib, sys; "
              "t = train_tokenizer(sys.stdin.read().split('\\n\\n'), 320); "
              "print(hashlib.sha256(t.to_str().encode()).hexdigest())")
    hashes = set()
    for seed, threads in (("0", "1"), ("1", "2"), ("2", "4")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        hashes.add(subprocess.run([sys.executable, "-c", script], input=CODE, env=environment, capture_output=True,
                                  text=True, check=True).stdout)
    assert len(hashes) == 1


def test_too_little_text_for_the_vocabulary_is_refused():
    with pytest.raises(TritwiseError, match=r"tokenizer\.vocab_size = "):
        train_tokenizer(["ab ab"], 1000)


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(TritwiseError, match="does not exist"):
        load_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TritwiseError, match="not readable as a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")


@given(st.lists(st.text("aé", min_size=1, max_size=20), min_size=1), st.integers(1, 300))
def test_a_sample_is_within_its_limit_and_in_order(texts, limit):
    total = sum(len(t.encode()) for t in texts)
    sample = list(sample_evenly(texts, total, limit))
    if total <= limit:
        assert sample == texts
    else:
        assert sum(len(t.encode()) for t in sample) <= limit
        rest = iter(texts)
        assert all(any(text == other for other in rest) for text in sample)


def test_a_sample_is_spread_over_all_texts():
    texts = [f"{i:04}" for i in range(1000)]
    assert list(sample_evenly(texts, 4000, 400)) == texts[9::10]
