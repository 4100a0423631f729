"""Token healing: the last tokens of a prompt are written anew, by every token that spells them and no other."""

import numpy as np
import pytest
from engine_fakes import FakeBackend, byte_level_tokenizer, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tritwise import TritwiseError
from tritwise.config.tokens import FIM_END, FIM_HOLE, SPECIAL_TOKENS
from tritwise.engine.healing import Spelled, TokenTexts
from tritwise.engine.model import Model
from tritwise.engine.text import TextCodec

TOKENIZER = byte_level_tokenizer(340)
SIZE = TOKENIZER.get_vocab_size()
CODEC = TextCodec(TOKENIZER, tiny_config(SIZE))
TEXTS = TokenTexts(TOKENIZER, CODEC.control_ids)
PROMPTS = st.text(alphabet="def ad(,b):\n return+ 漢ö", min_size=1, max_size=30)


def bytes_of(id_: int) -> bytes:
    """A token's bytes by GPT-2's table of stand-ins for bytes, written down anew."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = dict(zip(map(chr, plain), plain, strict=True))
    table |= {chr(256 + i): byte for i, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    return bytes(table[character] for character in TOKENIZER.id_to_token(id_))


CANDIDATES = {id_: bytes_of(id_) for id_ in range(len(SPECIAL_TOKENS), SIZE)}


def allowed(text: bytes) -> set[int]:
    """What may come while `text` is to be spelled, of whole characters."""
    return {id_ for id_, spelled in CANDIDATES.items()
            if (spelled.startswith(text) or text.startswith(spelled)) and is_text(spelled)}


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def ids_of(mask: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


@given(PROMPTS)
@settings(max_examples=200, deadline=None)
def test_what_is_kept_and_what_is_to_be_spelled_join_to_the_prompt_and_some_token_goes_on(prompt):
    ids = TOKENIZER.encode(prompt).ids
    kept, text = TEXTS.split(ids, keep=0)
    assert kept == ids[:len(kept)]
    assert TOKENIZER.decode(kept) + text == TOKENIZER.decode(ids)
    if text:
        assert any(spelled != text.encode() and spelled.startswith(text.encode()) for spelled in CANDIDATES.values())


@given(PROMPTS, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_every_way_through_the_masks_spells_the_text(prompt, random):
    text = prompt[-6:]
    spelled = Spelled(TEXTS, text)
    written = ""
    while (mask := spelled.mask([])) is not None:
        choices = ids_of(mask)
        assert choices <= allowed(text[len(written):].encode())
        if not choices:  # no token has such a character as its own text
            assert not written
            return
        token = random.choice(sorted(choices))
        spelled.accept(token)
        written += CANDIDATES[token].decode()
    assert written.startswith(text)


@pytest.mark.parametrize("prompt", ["def add(a, b):\n ", "for i in ra", "x = add(a, b)\n  ", "retu", "class Gr"])
def test_a_healed_text_is_the_likeliest_that_continues_the_characters(prompt):
    backend = FakeBackend(SIZE)
    result = Model(tiny_config(SIZE), backend, tokenizer=TOKENIZER).generate(prompt, max_tokens=12, heal=True)
    ids = CODEC.document(prompt)
    kept, text = TEXTS.split(ids)
    assert text
    expected, rest = list(kept), text.encode()
    while len(expected) < len(kept) + 12:
        logits = FakeBackend(SIZE).logits_after(expected)
        best = max(allowed(rest), key=logits.__getitem__) if rest else int(logits.argmax())
        if best in CODEC.end_ids:
            break
        expected.append(best)
        rest = rest[len(CANDIDATES[best]):] if rest else rest
    assert list(result.token_ids) == expected[len(kept):]
    assert TOKENIZER.decode(expected[len(kept):]) == text + result.text
    assert result.prompt_tokens == len(kept)


def test_a_stop_string_is_looked_for_behind_the_prompt_only():
    stream = Model(tiny_config(SIZE), FakeBackend(SIZE), tokenizer=TOKENIZER).stream(
        "def add(a, b):\n ", max_tokens=40, stop="\n ", heal=True)
    pieces = "".join(stream)
    assert len(stream.completion.token_ids) > 1
    assert "\n " not in pieces


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_the_end_of_a_prefix_is_healed_wherever_it_stands(order):
    config, backend = tiny_config(SIZE, fim_order=order), FakeBackend(SIZE)
    model = Model(config, backend, tokenizer=TOKENIZER)
    result = model.infill("def add(a, b):\n ", "\n", max_tokens=9, heal=True)
    kept, text = TEXTS.split(TOKENIZER.encode("def add(a, b):\n ").ids, keep=0)
    asked = TextCodec(TOKENIZER, config).infill(kept, "\n")
    assert backend.batches[0].tokens.tolist() == asked
    assert asked[-1] == (TOKENIZER.token_to_id(FIM_END) if order == "psm" else kept[-1])
    assert TOKENIZER.token_to_id(FIM_HOLE) in asked
    assert TOKENIZER.decode(list(result.token_ids)) == text + result.text
    assert "".join(model.stream_infill("def add(a, b):\n ", "\n", max_tokens=9, heal=True)) == result.text


def test_a_space_before_a_word_is_kept_where_decoders_strip_it():
    """Metaspace, as SentencePiece's tokenizers have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(["a word and another word in a line"] * 9, trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<unk>"], show_progress=False))
    texts = TokenTexts(tokenizer, set())
    word = tokenizer.token_to_id("▁word")
    assert texts.text(word) == " word"
    assert word in texts.beginning(" wo")
    kept, text = texts.split(tokenizer.encode("in a wo").ids)
    assert tokenizer.decode(kept) == "in a"
    assert text == " wo"
    backend = FakeBackend(60)
    backend.logits_after = lambda _: np.eye(60, dtype=np.float32)[word]
    assert Model(tiny_config(60), backend, tokenizer=tokenizer).generate(
        "in a wo", max_tokens=2, heal=True).text == "rd word"


def test_healing_is_refused_where_it_cannot_be():
    model = Model(tiny_config(SIZE), FakeBackend(SIZE), tokenizer=TOKENIZER)
    with pytest.raises(TritwiseError, match="heal and a constraint"):
        model.generate("x", heal=True, constraint=Spelled(TEXTS, "x"))
    with pytest.raises(TritwiseError, match="no tokenizer"):
        Model(tiny_config(SIZE), FakeBackend(SIZE), tokenizer=None).generate([5, 6], heal=True)
