"""The encoder: ids equal to those of `tokenizers`, whichever library computes them."""

import json
import pickle
import random
import sys
from functools import cache

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tritwise.common.errors import TritwiseError
from tritwise.config.pre_tokenizers import STEPS, pre_tokenizer
from tritwise.config.tokens import SPECIAL_TOKENS
from tritwise.data import Encoder, train_tokenizer
from tritwise.data.encoder import FAST_PATTERNS, byte_of_character, single_pattern, token_ranks

SLOW = [STEPS[name] for name in ("starcoder", "deepseek-coder", "deepseek-llm", "falcon")]
# What the patterns tell apart: letters of several cases and widths, marks, digits, signs, every kind of white space,
# contractions with letters that fold to s and k, emoji with joiners, a private and an unassigned character.
SIGNS = ("aZ_\u00e9\u00df\u4e2d\uac00\u0301\u0e33\u200d19\u0662\u00b2\u216b.,:(=-'\"<|> \t\n\r\x0b\x1c\u0085\u00a0"
         "\u2028\u3000\u200b\x00\x7fstdmrevlLSK\u017f\u212a\U0001f600\U0001f468\U00020000\ue000\U000e0fff")
TEXTS = st.one_of(st.text(), st.text(alphabet=SIGNS, max_size=80),
                  st.lists(st.sampled_from(["  ", "\n\n", "\r\n", " \n ", "'s", "'LL", "abc", " x", "123", "==", "é"]),
                           max_size=20).map("".join))


@cache
def learned() -> dict:
    """A tokenizer.json with merges learned over whole texts of `SIGNS`: they join what stands side by side."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    texts = ["".join(rng.choice(SIGNS[:30] if rng.random() < 0.7 else SIGNS) for _ in range(30)) for _ in range(400)]
    learner.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1500, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS)))
    return json.loads(learner.to_str())


def cutting_tokenizer(name: str) -> str:
    """A tokenizer.json that cuts as `name` does; a piece that is cut otherwise has other ids."""
    return json.dumps(learned() | {"pre_tokenizer": pre_tokenizer(name)})


@cache
def encoders(name: str) -> tuple[Encoder, Tokenizer]:
    """Ours and theirs of the same tokenizer.json."""
    theirs = Tokenizer.from_str(cutting_tokenizer(name))
    theirs.encode_special_tokens = True
    return Encoder(cutting_tokenizer(name)), theirs


def merged(merges: list[tuple[str, str]]) -> str:
    """A tokenizer.json with every byte and these merges, in an order of ids that is not the order of merges."""
    tokens = [*byte_of_character(), *dict.fromkeys(map("".join, reversed(merges)))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    return json.dumps(json.loads(tokenizer.to_str()) | {"pre_tokenizer": pre_tokenizer("code")})


def assert_equal(encoder: Encoder, text: str) -> None:
    theirs = Tokenizer.from_str(encoder.tokenizer.to_str())
    theirs.encode_special_tokens = True
    assert encoder.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", FAST_PATTERNS.values())
@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_ids_are_those_of_tokenizers(name, text):
    ours, theirs = encoders(name)
    assert ours.reason is None
    assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_every_kind_that_cuts_once_is_a_fast_one():
    assert {name for name in STEPS if single_pattern(pre_tokenizer(name)) is None} == {
        name for name, steps in STEPS.items() if steps in SLOW}


@pytest.mark.parametrize("name", ["starcoder", "deepseek-coder", "deepseek-llm", "falcon"])
def test_kinds_that_cut_in_several_steps_are_left_to_tokenizers_and_say_so(name):
    ours, theirs = encoders(name)
    assert "regular expressions" in ours.reason
    text = "def f(x):\r\n\treturn x_1 + 1234  # don't, 漢字 é\u2028" * 3
    assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", FAST_PATTERNS.values())
def test_ids_are_equal_beside_the_characters_of_all_scripts(name):
    ours, theirs = encoders(name)
    # Of ideographs and syllables every 16th: those of the class test below are all.
    characters = [chr(c) for c in range(0x20000) if not 0xD800 <= c <= 0xDFFF and (
        c < 0x3400 or 0xA000 <= c < 0xAC00 or 0xF900 <= c < 0x12000 or c % 16 == 0)]
    for around in ("a{}1 {}", " {}'s{}\n"):
        text = "".join(around.replace("{}", c) for c in characters)
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("pattern", [r"\p{L}", r"\p{N}", r"\p{M}", r"\s"])
def test_both_engines_have_the_same_characters_in_a_class(pattern):
    """What a pattern does not match, tiktoken drops and `Split` keeps. Of planes without characters a sample."""
    bytes_only = tiktoken.Encoding("bytes", pat_str=pattern, mergeable_ranks={bytes([b]): b for b in range(256)},
                                   special_tokens={})
    split = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed")
    for start in range(0, 0x110000, 1 << 16):
        step = 1 if start >> 16 in (0, 1, 2, 3, 14) else 97
        text = "".join(chr(c) for c in range(start, start + (1 << 16), step) if not 0xD800 <= c <= 0xDFFF)
        matched = set(bytes(bytes_only.encode_ordinary(text)).decode())
        kept = set("".join(piece for piece, _ in split.pre_tokenize_str(text)))
        assert matched | kept == set(text)
        assert not matched & kept


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_list_of_merges_gives_the_ids_of_tokenizers(data):
    """Merges that no trainer would learn, too: tokens of two merges, tokens that their own text does not become."""
    tokens, merges = ["a", "b", "c"], []
    for _ in range(data.draw(st.integers(0, 7))):
        pair = data.draw(st.tuples(st.sampled_from(tokens), st.sampled_from(tokens)))
        if pair not in merges and len("".join(pair)) <= 6:
            merges.append(pair)
            tokens.append("".join(pair))
    encoder = Encoder(merged(merges))
    for text in data.draw(st.lists(st.text("abc", max_size=24), min_size=5, max_size=5)):
        assert_equal(encoder, text)


def test_a_token_that_its_own_text_does_not_become_is_not_left_to_tiktoken():
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    assert token_ranks(merges) == {"bc": 0, "ab": 1, "abc": None}
    encoder = Encoder(merged(merges))
    assert "'abc'" in encoder.reason
    assert len(encoder.encode("abc")) == 2


def test_a_token_of_two_merges_has_the_rank_of_the_one_that_its_text_takes():
    merges = [("a", "b"), ("a", "bc"), ("b", "c"), ("ab", "c"), ("c", "d")]
    assert token_ranks(merges)["abc"] == 3
    encoder = Encoder(merged(merges))
    assert encoder.reason is None
    for text in ("abc", "abcd", "bcd", "aabcbcab"):
        assert_equal(encoder, text)


@pytest.mark.parametrize(("change", "reason"), [
    ({"normalizer": {"type": "NFC"}}, "normalizer"),
    ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}}, "cut"),
    ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
     "cut"),
    ({"added_tokens": [{"id": 256, "content": "ab", "single_word": False, "lstrip": False, "rstrip": False,
                        "normalized": False, "special": False}]}, "added_tokens"),
])
def test_what_was_not_compared_is_left_to_tokenizers_with_a_reason(change, reason):
    encoder = Encoder(json.dumps(json.loads(merged([("a", "b")])) | change))
    assert reason in encoder.reason
    assert_equal(encoder, "abab éx")


@pytest.mark.parametrize("text", ["", " ", *SPECIAL_TOKENS, " " * 70_000 + "x", "\n" * 70_000, "=" * 50_000,
                                  "a" * 50_000, "x" + "\u3000" * 66_000])
def test_empty_texts_control_tokens_and_long_runs_are_encoded_alike(text):
    ours, theirs = encoders("code")
    assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_a_text_that_tiktoken_gives_up_on_is_encoded_all_the_same():
    encoder = Encoder(cutting_tokenizer("code"))
    expected = encoder.encode("def f(x):\n")

    class PanicException(BaseException):  # pyo3's name
        pass

    class Overflows:
        def encode_to_numpy(self, text, disallowed_special):
            raise PanicException("StackOverflow")

    encoder._fast = Overflows()
    assert np.array_equal(encoder.encode("def f(x):\n"), expected)


@pytest.mark.parametrize("engine", ["auto", "tokenizers"])
def test_half_a_surrogate_pair_is_refused_with_its_place(engine):
    with pytest.raises(TritwiseError, match="character 2 is half of a surrogate pair"):
        Encoder(cutting_tokenizer("code"), engine=engine).encode("ab\ud800")


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_many_texts_come_in_their_order_on_any_number_of_threads(threads):
    encoder, _ = encoders("code")
    texts = [f"def f_{i}():\n    return {'x' * (i % 7)}\n" for i in range(300)]
    encoded = list(encoder.encode_all(iter(texts), threads=threads))
    assert [ids.tolist() for ids in encoded] == [encoder.encode(text).tolist() for text in texts]
    assert encoded[0].dtype == np.uint32


def test_an_error_in_one_of_many_texts_is_raised():
    encoder, _ = encoders("code")
    with pytest.raises(TritwiseError, match="surrogate"):
        list(encoder.encode_all(["a"] * 50 + ["\udfff"], threads=2))


def test_an_encoder_can_be_sent_to_another_process():
    encoder, _ = encoders("code")
    assert pickle.loads(pickle.dumps(encoder)).encode("def f(x):").tolist() == encoder.encode("def f(x):").tolist()


def test_a_trained_tokenizer_is_one_that_tiktoken_can_encode_with():
    tokenizer = train_tokenizer(["".join(f"def function_{i}(self):\n    return {i}\n" for i in range(99))], 320)
    encoder = Encoder(tokenizer)
    assert encoder.reason is None
    assert encoder._id_of is None  # ids and ranks in one order: nothing to look up
    assert tokenizer.decode(encoder.encode("def f(self):\n")) == "def f(self):\n"


def test_without_tiktoken_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(TritwiseError, match=r"pip install 'tritwise\[data\]'"):
        Encoder(cutting_tokenizer("code"))
    assert Encoder(cutting_tokenizer("code"), engine="tokenizers").encode("ab").size
