"""What of the texts around a gap a model sees: what is nearest, in whole lines, and never more than fits."""

import json.decoder
import random
from pathlib import Path

import pytest

from tritwise import ModelConfig, TritwiseError
from tritwise.bundled import fit_gap, fit_prompt, gap_at
from tritwise.data import train_tokenizer
from tritwise.engine.text import TextCodec

SOURCE = Path(json.decoder.__file__).read_text()


@pytest.fixture(scope="module")
def codec():
    config = ModelConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                         num_attention_heads=2, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=0)
    return TextCodec(train_tokenizer([SOURCE], 300), config)


def test_a_gap_is_at_the_end_of_its_line_and_its_two_texts_join():
    text = "a\r\n  b\n\rc"
    assert [gap_at(text, line) for line in (1, 2, 3, 4)] == [
        ("a", "\r\n  b\n\rc"), ("a\r\n  b", "\n\rc"), ("a\r\n  b\n", "\rc"), (text, "")]
    assert gap_at("", 1) == ("", "")
    assert gap_at("a\n", 2) == ("a\n", "")
    # Only what ends a line of a source file does: no form feed, no other signs of Unicode.
    assert gap_at("a\fb\x85c\u2028d\ne", 1) == ("a\fb\x85c\u2028d", "\ne")


@pytest.mark.parametrize("line", [0, -1, 5])
def test_a_line_that_is_not_there_is_refused_with_those_that_are(line):
    with pytest.raises(TritwiseError, match=rf"no line {line}\nwhy: the text has the lines 1 to 4"):
        gap_at("a\nb\nc\n", line)


def test_texts_that_fit_stay_whole(codec):
    before, behind = "def add(a, b):\n    return ", "\n\nx = 1\n"
    exactly = len(codec.infill(before, behind))
    assert fit_gap(codec, before, behind, exactly) == (before, behind)
    assert fit_gap(codec, before, behind, exactly - 1) != (before, behind)
    exactly = len(codec.document(before))
    assert fit_prompt(codec, before, exactly) == before
    assert fit_prompt(codec, before, exactly - 1) == "    return "


def test_what_is_kept_is_nearest_to_the_gap_fits_and_is_cut_at_line_ends(codec):
    draw = random.Random(0)
    for _ in range(60):
        before, behind = gap_at(SOURCE, draw.randrange(1, SOURCE.count("\n") + 1))
        room = draw.randrange(8, 300)
        kept_before, kept_behind = fit_gap(codec, before, behind, room)
        assert before.endswith(kept_before)
        assert behind.startswith(kept_behind)
        assert len(codec.infill(kept_before, kept_behind)) <= room
        # The last line that is not empty.
        line = before[before.rfind("\n", 0, max(0, len(before) - 1)) + 1:]
        if kept_before and kept_before != before and len(codec.encode(line)) <= (room - 4) * 2 // 3:
            assert before[:-len(kept_before)].endswith("\n")
        prompt = fit_prompt(codec, before, room)
        assert before.endswith(prompt)
        assert len(codec.document(prompt)) <= room


def test_no_further_line_would_have_fitted(codec):
    before, behind = gap_at(SOURCE, 120)
    for room in (60, 100, 250):
        kept, ahead = fit_gap(codec, before, behind, room)
        longer = before[before.rfind("\n", 0, len(before) - len(kept) - 1) + 1:]
        assert len(codec.infill(longer, ahead)) > room
        longer = behind[:behind.index("\n", len(ahead)) + 1]
        assert len(codec.infill(kept, longer)) > room


def test_a_short_text_leaves_its_room_to_the_other(codec):
    long = "x = y + 1\n" * 200
    before, _ = fit_gap(codec, long, "\nz", 100)
    assert len(codec.infill(before, "\nz")) > 100 - len(codec.encode("x = y + 1\n"))
    _, behind = fit_gap(codec, "z = ", "\n" + long, 100)
    assert len(codec.infill("z = ", behind)) > 100 - len(codec.encode("x = y + 1\n"))


def test_a_line_that_is_too_long_is_cut_beside_the_gap(codec):
    before, behind = fit_gap(codec, "import a\n" + "abcdefgh" * 100, "ijklmnop" * 100 + "\n", 40)
    assert before
    assert ("abcdefgh" * 100).endswith(before)
    assert behind
    assert ("ijklmnop" * 100).startswith(behind)
    assert 38 <= len(codec.infill(before, behind)) <= 40


def test_megabytes_of_text_are_cut_without_encoding_them(codec):
    class Counting:
        seen = 0
        document, infill = codec.document, codec.infill

        def encode(self, text):
            self.seen += len(text)
            return codec.encode(text)

    counting = Counting()
    before, behind = fit_gap(counting, "x = 1\n" * 500_000, "\ny = 2" * 500_000, 200)
    assert before.endswith("x = 1\n")
    assert behind.startswith("\ny = 2")
    assert counting.seen < 400_000


def test_no_room_at_all_is_an_error(codec):
    for room in (-5, 0, 1):
        with pytest.raises(TritwiseError, match="no room"):
            fit_prompt(codec, "a", room)
        with pytest.raises(TritwiseError, match="no room"):
            fit_gap(codec, "a", "b", room)
