"""Fill-in-the-middle: nothing is lost, the rate holds, and the result is a pure function of its inputs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.config import FimSettings, ModelConfig
from tritwise.config.tokens import KNOWN_FIM_TOKENS, SPECIAL_TOKENS
from tritwise.data import Encoder, train_tokenizer
from tritwise.data.fim import (
    FimIds,
    Plain,
    Turned,
    cut_at_line_ends,
    document_ids,
    known_fim_ids,
    restore,
    turn,
)
from tritwise.data.tokenizer import empty_tokenizer
from tritwise.engine.text import TextCodec

END, FIM = 0, FimIds(1, 2, 3)
TEXTS = st.text(alphabet="ab \n", min_size=1, max_size=200)


def whole(document: Plain | Turned) -> str:
    if isinstance(document, Plain):
        return document.text
    return document.prefix + document.middle + document.suffix


@given(TEXTS, st.integers(1, 40))
def test_pieces_join_to_the_text_and_are_cut_at_line_ends(text, limit):
    pieces = cut_at_line_ends(text, limit)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.endswith("\n") or (len(piece) == limit and "\n" not in piece)


def test_a_piece_takes_as_many_lines_as_fit():
    assert cut_at_line_ends("aa\nbb\ncc\n", 6) == ["aa\nbb\n", "cc\n"]
    assert cut_at_line_ends("aa\nbb\ncc\n", 8) == ["aa\nbb\n", "cc\n"]
    assert cut_at_line_ends("aa\nbb\ncc\n", 9) == ["aa\nbb\ncc\n"]


@given(TEXTS, st.floats(0, 1), st.integers(1, 40), st.integers(0, 9), st.text())
def test_turning_loses_nothing(text, rate, limit, seed, key):
    recipe = FimSettings(rate=rate, max_document_chars=limit)
    documents = turn(text, recipe, seed=seed, key=key)
    assert "".join(map(whole, documents)) == text
    assert documents == turn(text, recipe, seed=seed, key=key)
    # Plain neighbours are one text.
    assert not any(isinstance(a, Plain) and isinstance(b, Plain) for a, b in pairwise(documents))


@given(TEXTS, st.integers(0, 10))
def test_the_path_comment_stays_in_the_prefix(text, seed):
    [document] = turn("# a.py\n" + text, FimSettings(rate=1, max_document_chars=1000), seed=seed, key="", header=7)
    assert document.prefix.startswith("# a.py\n")


def test_rate_zero_leaves_the_text_and_rate_one_turns_every_piece():
    text = "line\n" * 100
    assert turn(text, FimSettings(rate=0, max_document_chars=50), seed=0, key="k") == [Plain(text)]
    turned = turn(text, FimSettings(rate=1, max_document_chars=50), seed=0, key="k")
    assert len(turned) == 10
    assert all(isinstance(document, Turned) for document in turned)


def test_half_the_pieces_are_turned_and_cuts_are_uniform():
    text = "0123456789" * 10
    counts, cuts = 0, []
    trials = 4000
    for key in range(trials):
        [document] = turn(text, FimSettings(rate=0.5), seed=3, key=str(key))
        if isinstance(document, Turned):
            counts += 1
            cuts.append(len(document.prefix))
    # Binomial: five standard deviations of sqrt(n p q).
    assert abs(counts - trials / 2) < 5 * (trials / 4) ** 0.5
    # The smaller of two uniform integers in 0..100: mean 33.17 (sum of P(min > k) = ((100 - k) / 101)^2), sd < 24.
    expected = sum(((100 - k) / 101) ** 2 for k in range(100))
    assert abs(sum(cuts) / len(cuts) - expected) < 5 * 24 / len(cuts) ** 0.5
    assert {0, 1, 2, 3} < set(cuts)


@pytest.mark.parametrize("change", [{"seed": 1}, {"key": "other"}])
def test_another_seed_or_content_turns_other_pieces(change):
    recipe = FimSettings(max_document_chars=50)
    assert turn("line\n" * 200, recipe, **({"seed": 0, "key": "k"} | change)) != turn(
        "line\n" * 200, recipe, seed=0, key="k")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer(["".join(f"def f_{i}(a, b):\n    return a_{i} + b\n" for i in range(60))], 300))


def encoded(document: Plain | Turned, encoder: Encoder) -> list[int]:
    return document_ids(document, [encoder.encode(part) for part in document.parts], END, FIM).tolist()


def test_psm_and_spm_put_the_three_parts_where_the_papers_do(encoder):
    """arXiv 2401.14196, section 3.1.2, and the second variant of arXiv 2207.14255, section 3."""
    prefix, suffix, middle = (encoder.encode(text).tolist() for text in ("def ", "\n", "f(a)"))
    assert encoded(Turned("def ", "\n", "f(a)"), encoder) == [1, *prefix, 2, *suffix, 3, *middle, 0]
    assert encoded(Turned("def ", "\n", "f(a)", spm=True), encoder) == [1, 2, *suffix, 3, *prefix, *middle, 0]
    assert encoded(Plain("def "), encoder) == [*prefix, 0]


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_the_engine_asks_for_a_gap_with_the_ids_that_training_put_before_one(encoder, order):
    turned = Turned("def f(", "\n    pass\n", "a):", spm=order == "spm")
    config = ModelConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=1, fim_order=order)
    codec = TextCodec(encoder.tokenizer, config)
    asked = codec.infill(turned.prefix, turned.suffix)[len(codec.before):]
    assert encoded(turned, encoder) == [*asked, *codec.encode(turned.middle), END]


@given(st.one_of(TEXTS, st.text(min_size=1)), st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.5, 1]),
       st.sampled_from(["document", "piece"]), st.integers(1, 40), st.integers(0, 9))
def test_every_document_is_restored_from_its_ids(encoder, text, rate, spm_rate, level, limit, seed):
    recipe = FimSettings(rate=rate, spm_rate=spm_rate, level=level, max_document_chars=limit)
    documents = turn(text, recipe, seed=seed, key="k")
    assert level == "piece" or len(documents) == 1

    def decode(ids):
        return encoder.tokenizer.decode(ids, skip_special_tokens=False)

    assert "".join(restore(encoded(document, encoder), END, FIM, decode) for document in documents) == text


@pytest.mark.parametrize("ids", [[7, 8], [1, 7, 0], [1, 7, 2, 8, 0], [1, 2, 7, 3, 8, 3, 0], [7, 1, 2, 3, 0],
                                 [1, 3, 7, 2, 8, 0], [7, 0, 8, 0], [0, 0]])
def test_ids_that_are_no_training_document_are_refused(ids):
    with pytest.raises(TritwiseError, match="no training document"):
        restore(ids, END, FIM, str)


def test_the_share_of_spm_is_kept_and_changes_no_cut():
    text, plain = "0123456789" * 10, FimSettings(rate=0.5)
    mixed = [turn(text, FimSettings(rate=0.5, spm_rate=0.3), seed=3, key=str(key)) for key in range(4000)]
    turned = [document for [document] in mixed if isinstance(document, Turned)]
    spm = sum(document.spm for document in turned)
    assert abs(spm - 0.3 * len(turned)) < 5 * (0.21 * len(turned)) ** 0.5
    for key, [document] in enumerate(mixed):
        [without] = turn(text, plain, seed=3, key=str(key))
        assert document.parts == without.parts
        assert not (isinstance(without, Turned) and without.spm)


@pytest.mark.parametrize("names", KNOWN_FIM_TOKENS)
def test_the_tokens_of_each_known_set_are_found(names):
    tokenizer = empty_tokenizer()
    tokenizer.add_special_tokens(["<other>", *names])
    assert known_fim_ids(tokenizer) == FimIds(*map(tokenizer.token_to_id, names))


def test_ours_are_the_ids_that_tests_and_trained_tokenizers_use(encoder):
    assert known_fim_ids(encoder.tokenizer) == FIM
    assert encoder.tokenizer.token_to_id(SPECIAL_TOKENS[0]) == END
    assert known_fim_ids(empty_tokenizer()) is None
