"""Context level: every window is whole, every turned text stands in one, and every byte comes back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from tritwise import TritwiseError
from tritwise.config import FimSettings
from tritwise.data import Encoder, train_tokenizer
from tritwise.data.context import Piece, Room, TokenBytes, context_pieces, restore_window, window_pieces
from tritwise.data.fim import FimIds

END, FIM = 0, FimIds(1, 2, 3)
TEXTS = st.lists(st.one_of(st.text(alphabet="ab \n\u00e9\u6f22\U0001f600", min_size=1, max_size=120),
                           st.text(min_size=1, max_size=40), st.just("def f(a, b):\n    return a + b\n" * 9)),
                 min_size=1, max_size=6)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer(["".join(f"def f_{i}(a, b):\n    return a_{i} + b\n" for i in range(60))], 300))


def entries_of(texts, encoder, size, recipe, *, seed=0, header=0):
    """The pieces and paddings of texts that follow one another, the last window filled up."""
    room, token_bytes, found = Room.of(size), TokenBytes(encoder.tokenizer), []
    for number, text in enumerate(texts):
        found += context_pieces(text, encoder.encode, token_bytes, room, recipe, seed=seed, key=str(number),
                                header=header, end_of_text=END, fim=FIM)
    left = room.close()
    return [*found, left] if left else found


def ids_of(entry):
    return entry.ids if isinstance(entry, Piece) else np.full(entry, END)


@given(TEXTS, st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.5]), st.integers(33, 90), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_windows_are_whole_and_give_back_every_byte(encoder, texts, rate, spm_rate, size, seed):
    recipe = FimSettings(rate=rate, spm_rate=spm_rate, level="context")
    entries = entries_of(texts, encoder, size, recipe, seed=seed)
    place = 0
    for entry in map(ids_of, entries):  # no piece goes over the end of a window
        assert place % size + len(entry) <= size
        place += len(entry)
    stream = np.concatenate([ids_of(entry) for entry in entries])
    assert len(stream) % size == 0

    def decode(ids):
        return encoder.tokenizer.decode(ids, skip_special_tokens=False)

    restored = [text for start in range(0, len(stream), size)
                for text in restore_window(stream[start:start + size], END, FIM, decode)]
    assert "".join(restored) == "".join(texts)
    assert [p.is_last for p in entries if isinstance(p, Piece)].count(True) == len(texts)


@given(TEXTS, st.integers(33, 90))
@settings(max_examples=50, deadline=None)
def test_all_is_turned_at_rate_one_and_control_tokens_stand_in_order_in_their_window(encoder, texts, size):
    entries = entries_of(texts, encoder, size, FimSettings(rate=1, level="context"))
    for piece in (entry for entry in entries if isinstance(entry, Piece)):
        controls = [id_ for id_ in piece.ids.tolist() if id_ <= max(FIM)]
        assert controls == [*FIM, END] if piece.is_turned else controls in ([], [END])
    # What cannot be turned is a piece that no window holds in three parts; these windows hold all.
    assert all(entry.is_turned for entry in entries if isinstance(entry, Piece))


def test_without_turning_only_ends_stand_between_texts_and_nothing_where_a_text_is_cut(encoder):
    texts = ["a = 1\n" * 30, "b = 2\n" * 3, "c"]
    entries = entries_of(texts, encoder, 40, FimSettings(rate=0, level="context"))
    stream = [id_ for entry in entries for id_ in ids_of(entry).tolist()]
    plain = [id_ for text in texts for id_ in [*encoder.encode(text).tolist(), END]]
    assert stream[:len(plain)] == plain
    assert set(stream[len(plain):]) <= {END}


def test_a_text_that_ends_with_its_window_leaves_a_token_for_the_next_so_that_no_end_stands_alone(encoder):
    ids = encoder.encode("a = 1\n" * 20)
    for size in range(33, len(ids) + 2):
        entries = entries_of(["a = 1\n" * 20], encoder, size, FimSettings(rate=0, level="context"))
        assert all(len(entry.ids) > 1 for entry in entries if isinstance(entry, Piece))


def test_half_of_the_pieces_are_turned_and_the_path_comment_stays_in_front(encoder):
    texts = [f"# {number:03}.py\n" + "x = y + 1\n" * 40 for number in range(300)]
    pieces = [e for e in entries_of(texts, encoder, 64, FimSettings(rate=0.5, level="context"), header=9)
              if isinstance(e, Piece)]
    share = sum(piece.is_turned for piece in pieces) / len(pieces)
    assert abs(share - 0.5) < 5 * (0.25 / len(pieces)) ** 0.5
    for text, opening in zip(texts, [p for p, before in zip(pieces, [None, *pieces], strict=False)
                                     if before is None or before.is_last], strict=True):
        begin = 1 if opening.is_turned else 0
        shown = encoder.tokenizer.decode(opening.ids[begin:].tolist(), skip_special_tokens=False)
        assert shown.startswith(text[:9]) or len(encoder.tokenizer.decode(opening.ids.tolist())) < 9


def test_padding_is_less_than_a_few_ids_a_window(encoder):
    texts = ["".join(f"def f_{i}(a):\n    return a_{i}\n" for i in range(200))] * 10
    entries = entries_of(texts, encoder, 512, FimSettings(rate=0.5, level="context"))
    padding = sum(entry for entry in entries[:-1] if not isinstance(entry, Piece))
    assert padding < 0.01 * sum(len(ids_of(entry)) for entry in entries)


def test_a_tokenizer_whose_tokens_are_not_the_bytes_of_a_text_is_refused():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c": 2}, merges=[]))
    with pytest.raises(TritwiseError, match="turning at context level"):
        TokenBytes(tokenizer).ends(b"ab ", np.array([0, 1]))


def test_pieces_of_a_window_are_read_without_its_padding():
    assert window_pieces([5, 6, 0, 7, 8, 0, 0, 0], 0) == [[5, 6, 0], [7, 8, 0]]
    assert window_pieces([5, 6, 0, 7, 8], 0) == [[5, 6, 0], [7, 8]]
