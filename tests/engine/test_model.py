"""`Model`: prompts, ends, errors and numbers of a completion, on a backend whose next tokens are known."""

import numpy as np
import pytest
from engine_fakes import FakeBackend, byte_level_tokenizer, tiny_config

from tritwise.common.errors import TritwiseError
from tritwise.config.tokens import END_OF_TEXT, FIM_BEGIN
from tritwise.engine import Model, load

TOKENIZER = byte_level_tokenizer()
END = TOKENIZER.token_to_id(END_OF_TEXT)


def scripted_model(text_ids: list[int], *, tokenizer=TOKENIZER, context: int = 96, vocab_size: int = 300,
                   **config) -> Model:
    """A model whose greedy continuation of any prompt is `text_ids`, counted from the prompt's end."""
    fake = FakeBackend(vocab_size, context=context)
    prompt_length: dict[int, int] = {}

    def logits_after(tokens: list[int]) -> np.ndarray:
        length = prompt_length.setdefault(tokens[0], len(tokens))
        wanted = text_ids[len(tokens) - length] if len(tokens) - length < len(text_ids) else END
        return np.eye(fake.vocab_size, dtype=np.float32)[wanted]

    fake.logits_after = logits_after
    return Model(tiny_config(vocab_size, max_position_embeddings=context, **config), fake, tokenizer=tokenizer)


def test_end_of_text_stops_and_is_not_part_of_the_completion():
    ids = TOKENIZER.encode("return a + b").ids
    completion = scripted_model([*ids, END, 50, 50]).generate("def add", max_tokens=60)
    assert completion.finish_reason == "stop"
    assert completion.token_ids == tuple(ids)
    assert completion.text == "return a + b"
    assert completion.prompt_tokens == 1 + len(TOKENIZER.encode("def add").ids)


def test_the_configurations_end_ids_stop_too():
    completion = scripted_model([50, 51, 77, 52], eos_token_id=(76, 77)).generate([5, 6], max_tokens=60)
    assert completion.token_ids == (50, 51)
    assert completion.finish_reason == "stop"


def test_max_tokens_and_a_full_context_end_with_length():
    model = scripted_model([50] * 200, context=20)
    assert len(model.generate([5, 6], max_tokens=3).token_ids) == 3
    completion = model.generate([7] * 18, max_tokens=60)
    assert completion.finish_reason == "length"
    # Two more fit into the cache, and one is sampled behind the last position.
    assert len(completion.token_ids) == 3
    assert len(model.generate([8] * 20, max_tokens=60).token_ids) == 1


def test_a_stop_string_across_tokens_never_shows_and_cuts_the_text():
    text = "one\n\ntwo END three"
    ids = TOKENIZER.encode(text).ids
    model = scripted_model(ids)
    stream = model.stream("x", max_tokens=90, stop=["\n\ntwo E", "never"])
    assert "".join(stream) == "one"
    completion = stream.completion
    assert (completion.text, completion.finish_reason) == ("one", "stop")
    # The ids tell what was sampled: up to the token that completed the stop string, none behind it.
    decoded = TOKENIZER.decode(completion.token_ids)
    assert text.startswith(decoded)
    assert "\n\ntwo E" in decoded
    assert "\n\ntwo E" not in TOKENIZER.decode(completion.token_ids[:-1])


def test_what_looked_like_a_stop_string_comes_out_when_the_text_ends():
    model = scripted_model(TOKENIZER.encode("almost EN").ids)
    assert model.generate("x", stop="END").text == "almost EN"


def test_a_batch_gives_every_prompt_the_same_settings():
    model = scripted_model(TOKENIZER.encode("one END two").ids)
    completions = model.generate_batch(["x", "y"], max_tokens=90, stop=iter(["END"]))
    assert [completion.text for completion in completions] == ["one ", "one "]


def test_streamed_pieces_join_to_the_completion():
    model = scripted_model(TOKENIZER.encode("naïve café 漢字 \U0001F600!").ids)
    stream = model.stream("x", max_tokens=90)
    with pytest.raises(RuntimeError, match="not finished"):
        _ = stream.completion
    pieces = list(stream)
    assert len(pieces) > 5
    assert "".join(pieces) == stream.completion.text == model.generate("x", max_tokens=90).text


def test_infill_and_its_stream_send_the_control_tokens():
    model = scripted_model(TOKENIZER.encode("middle").ids)
    completion = model.infill("def f(", "): pass", max_tokens=20)
    assert completion.text == "middle"
    assert TOKENIZER.token_to_id(FIM_BEGIN) in model.backend.batches[0].tokens
    assert "".join(model.stream_infill("def f(", "): pass", max_tokens=20)) == "middle"


def test_times_and_rates_are_there_when_there_is_something_to_time():
    completion = scripted_model([50] * 9).generate([5, 6, 7], max_tokens=5)
    assert completion.time_to_first_token > 0
    assert completion.prefill_tokens_per_second > 0
    assert completion.decode_tokens_per_second > 0
    assert scripted_model([50]).generate([5], max_tokens=1).decode_tokens_per_second is None


def test_scores_are_the_negative_logarithms_of_softmax():
    model = Model(tiny_config(), FakeBackend(), tokenizer=TOKENIZER, prefill_chunk=7)
    windows = [(list(range(10, 60)), 1), (list(range(20, 90)), 33), ([5, 6], 1)] * 5
    for (ids, first), nats in zip(windows, model.score(windows), strict=True):
        rows = np.array([FakeBackend().logits_after(ids[:i]) for i in range(first, len(ids))], dtype=np.float64)
        expected = np.log(np.exp(rows).sum(1)) - rows[np.arange(len(rows)), ids[first:]]
        np.testing.assert_allclose(nats, expected, rtol=1e-13)


def test_a_model_without_a_tokenizer_takes_ids_and_says_so_for_text():
    model = scripted_model([50, 51, 52], tokenizer=None)
    completion = model.generate([5], max_tokens=3)
    assert (completion.text, completion.token_ids) == ("", (50, 51, 52))
    for call in (lambda: model.generate("x"), lambda: model.infill("a", "b")):
        with pytest.raises(TritwiseError, match="no tokenizer"):
            call()
    with pytest.raises(TritwiseError, match="need a tokenizer"):
        model.generate([5], stop="x")


@pytest.mark.parametrize(("prompt", "message"), [
    ([5] * 97, r"97 tokens(.|\n)*96"), ([], "no tokens"), ([300], "300 is outside"), ([-1, 4], "-1 is outside")])
def test_prompts_that_cannot_run_are_refused_with_the_numbers(prompt, message):
    model = scripted_model([50])
    for call in (model.generate, model.logits, model.stream):
        with pytest.raises(TritwiseError, match=message):
            call(prompt)


@pytest.mark.parametrize("setting", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 2}, {"stop": [""]}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(TritwiseError):
        scripted_model([50]).generate([5], **setting)


def test_an_unknown_backend_is_an_error_that_names_what_there_is(tmp_path):
    with pytest.raises(TritwiseError, match=r"no backend 'tpu'(.|\n)*cpu"):
        load(tmp_path, backend="tpu")
