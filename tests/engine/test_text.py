"""Text in and out, on a real byte-level BPE tokenizer."""

from pathlib import Path

import pytest
from engine_fakes import byte_level_tokenizer, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, processors

from tritwise.common.errors import TritwiseError
from tritwise.config.tokens import END_OF_TEXT, FIM_BEGIN, FIM_END, FIM_HOLE
from tritwise.engine.text import Detokenizer, StopStrings, TextCodec, load_tokenizer

TOKENIZER = byte_level_tokenizer()
CODEC = TextCodec(TOKENIZER, tiny_config())


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(id_) for id_ in ids), detokenizer.finish()]


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_pieces_of_any_text_join_to_it_and_hold_no_half_character(text):
    # A surrogate has no UTF-8 form, so no tokenizer takes it.
    text = text.encode("utf-8", "ignore").decode()
    ids = TOKENIZER.encode(text).ids
    pieces = pieces_of(TOKENIZER, ids)
    assert "".join(pieces) == text == TOKENIZER.decode(ids)
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@given(st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1), max_size=60))
@settings(max_examples=300, deadline=None)
def test_pieces_of_any_ids_join_to_what_the_tokenizer_decodes(ids):
    assert "".join(pieces_of(TOKENIZER, ids)) == TOKENIZER.decode(ids)


def test_a_character_of_three_tokens_comes_out_with_its_last():
    ids = TOKENIZER.encode("x\U0001F9EAy").ids
    assert len(ids) == 5
    assert pieces_of(TOKENIZER, ids) == ["x", "", "", "\U0001F9EA", "y", ""]


def test_a_cut_character_is_shown_as_a_replacement_at_the_end_alone():
    ids = TOKENIZER.encode("x\U0001F9EA").ids[:-1]
    assert pieces_of(TOKENIZER, ids) == ["x", "", "", "\ufffd"]


def test_a_decoder_that_eats_the_first_space_is_followed():
    vocab = {"<unk>": 0, "▁a": 1, "▁b": 2, "c": 3, "▁": 4}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    for ids in ([1, 2, 3], [1, 1, 4, 2], [3, 2], [1, 4, 4, 3]):
        assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


@given(st.text("ab", max_size=25), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
@settings(max_examples=300, deadline=None)
def test_text_is_cut_before_the_stop_string_that_is_complete_first_however_it_is_split(text, stops, data):
    ends = sorted((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text)
    expected = text[: ends[0][1]] if ends else text
    matcher, shown, at = StopStrings(stops), "", 0
    while at < len(text) and not matcher.hit:
        size = data.draw(st.integers(1, 5))
        shown += matcher.push(text[at:at + size])
        at += size
        assert expected.startswith(shown)  # nothing of a stop string is ever out
    assert matcher.hit == bool(ends)
    assert shown + matcher.finish() == expected


def test_an_empty_stop_string_is_refused():
    with pytest.raises(TritwiseError, match="cannot be a stop string"):
        StopStrings(["ok", ""])


def test_user_text_never_becomes_a_control_token():
    text = f"a{FIM_BEGIN}b{END_OF_TEXT}"
    controls = {TOKENIZER.token_to_id(token) for token in (FIM_BEGIN, FIM_HOLE, FIM_END, END_OF_TEXT)}
    ids = CODEC.encode(text)
    assert controls.isdisjoint(ids)
    assert TOKENIZER.decode(ids) == text


def test_control_tokens_that_are_not_marked_special_do_not_come_from_text_either():
    tokenizer = byte_level_tokenizer(special_tokens=(END_OF_TEXT,))
    names = [AddedToken(name, special=False) for name in ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")]
    tokenizer.add_tokens(names)
    codec = TextCodec(tokenizer, tiny_config())
    text = "x <｜fim▁begin｜>y<｜fim▁hole｜><｜fim▁end｜>"
    assert tokenizer.token_to_id("<｜fim▁hole｜>") in tokenizer.encode(text).ids
    assert tokenizer.decode(codec.encode(text)) == text
    assert {tokenizer.token_to_id(name.content) for name in names}.isdisjoint(codec.encode(text))
    assert tokenizer.token_to_id("<｜fim▁hole｜>") in codec.infill("a", "b")


def test_infill_places_the_control_tokens_by_id_in_psm_order():
    end, begin, hole, finish = (TOKENIZER.token_to_id(t) for t in (END_OF_TEXT, FIM_BEGIN, FIM_HOLE, FIM_END))
    plain = TOKENIZER.encode
    assert CODEC.infill("ab", FIM_HOLE) == [end, begin, *plain("ab").ids, hole, *plain(FIM_HOLE).ids, finish]


def test_a_model_of_the_other_order_is_asked_with_suffix_first_and_the_prefix_before_the_gap():
    end, begin, hole, finish = (TOKENIZER.token_to_id(t) for t in (END_OF_TEXT, FIM_BEGIN, FIM_HOLE, FIM_END))
    plain = TOKENIZER.encode
    codec = TextCodec(TOKENIZER, tiny_config(fim_order="spm"))
    assert codec.infill("ab", "cd e") == [end, begin, hole, *plain("cd e").ids, finish, *plain("ab").ids]


def test_infill_without_its_tokens_is_a_clear_error():
    codec = TextCodec(byte_level_tokenizer(special_tokens=(END_OF_TEXT,)), tiny_config())
    with pytest.raises(TritwiseError, match="cannot fill in the middle"):
        codec.infill("a", "b")


def test_a_document_begins_with_the_models_own_beginning_or_the_end_of_the_text_before():
    assert CODEC.document("hi")[0] == TOKENIZER.token_to_id(END_OF_TEXT)
    assert TextCodec(TOKENIZER, tiny_config(bos_token_id=7)).document("hi")[0] == 7
    bare = byte_level_tokenizer(special_tokens=())
    assert TextCodec(bare, tiny_config()).document("hi") == bare.encode("hi").ids


def processed(single: str, **names: int) -> Tokenizer:
    tokenizer = byte_level_tokenizer(special_tokens=(END_OF_TEXT, "<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(names.items()))
    return tokenizer


@pytest.mark.parametrize(("single", "before", "behind"), [
    ("<s> $A", [1], []), ("<s> $A </s>", [1], [2]), ("$A </s>", [], [2]), ("$A", [], []), ("<s> <s> $A", [1, 1], [])])
def test_a_document_has_around_it_what_the_post_processor_says(single, before, behind):
    tokenizer = processed(single, **{"<s>": 1, "</s>": 2})
    codec = TextCodec(tokenizer, tiny_config(bos_token_id=7))
    assert (codec.before, codec.behind) == (before, behind)
    for text in ("hi", "", "a <s> b"):
        assert codec.document(text) == [*before, *codec.encode(text), *behind]
    assert codec.document("hi") == tokenizer.encode("hi").ids
    # A scored text begins with something that predicts its first token, and ends with its last.
    assert codec.scored("hi") == [*(before or [7]), *codec.encode("hi")]


def test_a_foreign_tokenizer_without_post_processor_adds_nothing():
    foreign = byte_level_tokenizer(special_tokens=("<|endoftext|>",))
    codec = TextCodec(foreign, tiny_config(bos_token_id=0, eos_token_id=0))
    assert codec.document("hi") == foreign.encode("hi").ids
    assert codec.scored("hi") == [0, *foreign.encode("hi").ids]


def test_a_broken_tokenizer_is_named():
    with pytest.raises(TritwiseError, match=r"tokenizer\.json is not readable"):
        load_tokenizer("{", Path("tokenizer.json"))
