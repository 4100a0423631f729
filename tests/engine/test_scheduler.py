"""Continuous batching on a backend whose logits tell every wrong token, slot or position."""

import threading

import numpy as np
import pytest
from engine_fakes import FakeBackend, byte_level_tokenizer, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.engine import Model, NgramSpeculation, Sampling

TOKENIZER = byte_level_tokenizer()


def fake_model(*, prefill_chunk: int = 8, tokenizer=TOKENIZER, **backend) -> Model:
    fake = FakeBackend(**backend)
    return Model(tiny_config(max_position_embeddings=fake.context), fake, tokenizer=tokenizer,
                 prefill_chunk=prefill_chunk)


def alone(prompt, **settings):
    return fake_model(prefill_chunk=1000, slots=1).generate(prompt, **settings)


@given(st.lists(st.lists(st.integers(5, 299), min_size=1, max_size=40), min_size=1, max_size=6),
       st.integers(1, 4), st.integers(1, 50), st.integers(0, 2**64 - 1))
@settings(max_examples=40, deadline=None)
def test_tokens_are_those_of_a_run_alone_for_any_slots_and_chunk(prompts, slots, chunk, seed):
    how = {"max_tokens": 6, "temperature": 0.9, "top_k": 20, "top_p": 0.95, "seed": seed}
    model = fake_model(prefill_chunk=chunk, slots=slots)
    together = model.generate_batch(prompts, **how)
    for prompt, completion in zip(prompts, together, strict=True):
        expected = alone(prompt, **how)
        assert completion.token_ids == expected.token_ids
        assert (completion.text, completion.finish_reason) == (expected.text, expected.finish_reason)


def test_logits_are_those_of_every_prefix_for_any_chunk():
    ids = list(range(5, 45))
    expected = np.array([FakeBackend().logits_after(ids[:i + 1]) for i in range(len(ids))])
    for chunk in (1, 7, 64):
        np.testing.assert_array_equal(fake_model(prefill_chunk=chunk).logits(ids), expected)


def test_a_decoding_sequence_goes_with_every_step_while_a_long_prompt_is_read():
    model = fake_model(prefill_chunk=4)
    short = model.stream([5], max_tokens=30)
    next(short)
    before = len(model.backend.batches)
    long = model.stream(list(range(10, 70)), max_tokens=1)
    list(long)
    during = model.backend.batches[before:]
    assert len(during) == 15  # 60 tokens in chunks of 4
    slot = during[0].slots[0]
    assert all((batch.slots == slot).sum() == 1 and len(batch.tokens) == 5 for batch in during)


def test_two_prompts_share_a_step_in_equal_parts_and_a_short_one_leaves_its_rest():
    model = fake_model(prefill_chunk=10, slots=3)
    model.generate_batch([list(range(10, 50)), list(range(50, 90)), [5, 6]], max_tokens=1)
    first, second = model.backend.batches[:2]
    assert sorted(np.bincount(first.slots).tolist()) == [2, 4, 4]
    assert np.bincount(second.slots)[:2].tolist() == [5, 5]


def test_slots_are_given_in_the_order_of_submission():
    model = fake_model(slots=1)
    streams = [model.stream([5 + i] * 3, max_tokens=2) for i in range(3)]
    last = streams[2]
    list(last)
    firsts = [int(b.tokens[0]) for b in model.backend.batches if b.positions[0] == 0]
    assert firsts == [5, 6, 7]
    assert [s.completion.finish_reason for s in streams[:2]] == ["length", "length"]


def test_cancelling_frees_the_slot_before_the_next_step_and_keeps_the_text():
    model = fake_model(slots=1)
    stream = model.stream([5, 6], max_tokens=50)
    pieces = [next(stream), next(stream)]
    waiting = model.stream([9, 9, 9], max_tokens=3)
    stream.cancel()
    steps = len(model.backend.batches)
    expected = alone([9, 9, 9], max_tokens=3)
    assert "".join(waiting) == expected.text
    assert len(model.backend.batches) == steps + 3
    pieces += list(stream)
    completion = stream.completion
    assert completion.finish_reason == "cancelled"
    assert "".join(pieces) == completion.text == TOKENIZER.decode(completion.token_ids)
    assert completion.token_ids == alone([5, 6], max_tokens=50).token_ids[:len(completion.token_ids)]


def test_a_sequence_cancelled_while_it_waits_never_runs():
    model = fake_model(slots=1)
    running = model.stream([5], max_tokens=3)
    waiting = model.stream([6], max_tokens=3)
    waiting.cancel()
    assert list(waiting) == []
    assert waiting.completion.time_to_first_token is None
    list(running)
    assert not any((batch.tokens == 6).any() and (batch.positions == 0).any() and batch.tokens[0] == 6
                   for batch in model.backend.batches)


def test_cancellation_during_a_long_prefill_takes_effect_after_the_chunk():
    model = fake_model(prefill_chunk=4)
    stream = model.stream(list(range(5, 85)), max_tokens=3)
    model.backend.before_forward = lambda batch: batch.positions[-1] == 11 and stream.cancel()
    assert list(stream) == []
    assert len(model.backend.batches) == 3
    assert stream.completion.finish_reason == "cancelled"


def test_a_stream_that_is_dropped_frees_its_slot():
    model = fake_model(slots=1)
    next(model.stream([5, 6], max_tokens=90))
    assert model.generate([7, 8], max_tokens=4).token_ids == alone([7, 8], max_tokens=4).token_ids


def test_leaving_a_with_block_cancels_the_stream():
    model = fake_model()
    with model.stream([5, 6], max_tokens=90) as stream:
        next(stream)
    list(stream)
    assert stream.completion.finish_reason == "cancelled"


def test_callers_on_several_threads_each_get_their_own_tokens():
    model = fake_model(slots=2, prefill_chunk=5)
    prompts = [[5 + i, 6, 7 + i] * (i + 1) for i in range(6)]
    results: dict[int, str] = {}

    def call(index: int) -> None:
        results[index] = "".join(model.stream(prompts[index], max_tokens=20, temperature=1, seed=index))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for index, prompt in enumerate(prompts):
        assert results[index] == alone(prompt, max_tokens=20, temperature=1, seed=index).text


def test_an_interrupted_step_is_repeated_and_changes_nothing_for_the_others():
    model = fake_model(slots=2)
    other = model.stream([5, 6, 7], max_tokens=20)
    pieces = [next(other)]

    def interrupt(batch):
        model.backend.before_forward = lambda batch: None
        raise KeyboardInterrupt

    model.backend.before_forward = interrupt
    with pytest.raises(KeyboardInterrupt):
        model.generate([9, 9], max_tokens=20)
    pieces += list(other)
    assert "".join(pieces) == alone([5, 6, 7], max_tokens=20).text
    assert other.completion.finish_reason == "length"


def test_logits_that_are_not_numbers_end_that_sequence_alone():
    model = fake_model(slots=2)
    healthy = FakeBackend().logits_after
    model.backend.logits_after = lambda tokens: healthy(tokens) * (np.nan if tokens[0] == 9 else 1)
    good, bad = model.stream([5, 6], max_tokens=5), model.stream([9, 9], max_tokens=5)
    with pytest.raises(TritwiseError, match="not numbers"):
        list(bad)
    assert "".join(good) == alone([5, 6], max_tokens=5).text


def test_an_error_of_the_backend_reaches_every_caller_and_the_model_stays_usable():
    model = fake_model(slots=2)
    streams = [model.stream([5], max_tokens=5), model.stream([6], max_tokens=5)]

    def fail(batch):
        model.backend.before_forward = lambda batch: None
        raise RuntimeError("out of luck")

    model.backend.before_forward = fail
    for stream in streams:
        with pytest.raises(RuntimeError, match="out of luck"):
            list(stream)
    assert model.generate([5], max_tokens=5).token_ids == alone([5], max_tokens=5).token_ids


def test_closing_ends_what_runs_with_an_error_and_refuses_more():
    model = fake_model()
    stream = model.stream([5], max_tokens=50)
    next(stream)
    model.close()
    with pytest.raises(TritwiseError, match="closed"):
        list(stream)
    with pytest.raises(TritwiseError, match="closed"):
        model.generate([5])
    model.close()


def test_a_backend_that_draws_is_asked_for_tokens_and_gives_the_same_ones():
    """Beside a greedy sequence and one whose settings it does not take; a draft is checked with drawn tokens, too."""
    drawn = Sampling(temperature=0.8, seed=3)
    prompts = [[5, 6, 7, 5, 6], list(range(20, 31)), [9] * 7]
    works = [(prompts[0], {}), (prompts[1], {"temperature": 0.8, "seed": 3}),
             (prompts[2], {"temperature": 0.8, "seed": 4})]
    expected = [alone(prompt, max_tokens=12, **settings).token_ids for prompt, settings in works]
    model = fake_model()
    model.backend.draws_by = {drawn}
    generations = [model._generation(prompt, max_tokens=12, speculation=NgramSpeculation(adaptive=False), **settings)
                   for prompt, settings in works]
    for work in generations:
        model._scheduler.submit(work)
    for work in generations:
        model._scheduler.finish(work)
    assert [work.completion().token_ids for work in generations] == expected
    batches = model.backend.batches
    assert {draw.how for batch in batches for draw in batch.draws} == {drawn}
    assert sum(len(batch.draw_for) for batch in batches) >= 12
    masked = model._generation(prompts[1], max_tokens=2, logprobs=1, temperature=0.8, seed=3)
    before = len(batches)
    model._scheduler.submit(masked)
    model._scheduler.finish(masked)
    assert not any(len(batch.draw_for) for batch in batches[before:])  # its log-probabilities need the logits


class OddTokens:
    """Allows tokens with odd ids; hears what is accepted, and may fail."""

    def __init__(self, fails_after: int = 100) -> None:
        self.accepted, self._fails_after = [], fails_after

    def mask(self, ids):
        if len(ids) >= self._fails_after:
            raise ValueError("the grammar is at its end")
        assert list(ids) == self.accepted
        return np.full(10, 0xAAAAAAAA, np.uint32)

    def accept(self, token):
        self.accepted.append(token)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3, "repetition_penalty": 1.5,
                                           "frequency_penalty": 0.5, "logit_bias": {7: 2.0}}])
def test_masks_and_penalties_go_to_a_backend_that_draws_one_row_at_a_time(sampling):
    prompt = [5, 6, 7, 5, 6]
    expected = alone(prompt, max_tokens=9, constraint=OddTokens(), **sampling).token_ids
    for guesses in (None, NgramSpeculation(adaptive=False)):
        model = fake_model()
        model.backend.draws_by = {Sampling(**sampling)}
        constraint = OddTokens()
        found = model.generate(prompt, max_tokens=9, constraint=constraint, speculation=guesses, **sampling)
        assert found.token_ids == expected == tuple(constraint.accepted)
        assert any(len(batch.draw_for) for batch in model.backend.batches)
        for batch in model.backend.batches:
            assert not len(batch.draw_for) or len(batch.tokens) == len(batch.draw_for) or batch.positions[0] == 0


def test_a_constraint_that_fails_ends_its_own_sequence_where_a_backend_draws():
    model = fake_model()
    model.backend.draws_by = {Sampling()}
    failing = model._generation([5, 6, 7], max_tokens=9, constraint=OddTokens(fails_after=2))
    other = model._generation([8, 9], max_tokens=5)
    for work in (failing, other):
        model._scheduler.submit(work)
    model._scheduler.finish(other)
    assert other.completion().token_ids == alone([8, 9], max_tokens=5).token_ids
    with pytest.raises(ValueError, match="at its end"):
        model._scheduler.finish(failing)
