"""Pages between sequences: shared beginnings, waiting and giving way when they run short, and nothing left behind."""

import random

import numpy as np
import pytest
from engine_fakes import FakeBackend, byte_level_tokenizer, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.engine import CpuBackend, Model
from tritwise.engine.prefix import PrefixTree
from tritwise.measure.shapes import random_tensors

TOKENIZER = byte_level_tokenizer()
SAMPLED = {"max_tokens": 12, "temperature": 1.0, "seed": 5}


def fake_model(*, prefill_chunk: int = 16, **backend) -> Model:
    fake = FakeBackend(**backend)
    return Model(tiny_config(max_position_embeddings=fake.context), fake, tokenizer=None, prefill_chunk=prefill_chunk)


def alone(prompt, **how):
    return fake_model(slots=1).generate(prompt, **how).token_ids


def fed(model) -> int:
    return sum(len(batch.tokens) for batch in model.backend.batches)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=8),
       st.integers(1, 5), st.integers(6, 20), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_tokens_are_those_of_a_run_alone_however_few_pages_there_are(requests, slots, pages, chunk):
    # Prompts of one kind begin alike; 6 pages of 16 hold one full context of 96, so sequences have to give way.
    model = fake_model(slots=slots, pages=pages, prefill_chunk=chunk)
    prompts = [[5 + 40 * kind + i % 40 for i in range(length)] for kind, length, _ in requests]
    streams = [model.stream(prompt, max_tokens=count, temperature=1.0, seed=count)
               for prompt, (_, _, count) in zip(prompts, requests, strict=True)]
    for stream in streams:
        list(stream)
    for prompt, stream, (_, _, count) in zip(prompts, streams, requests, strict=True):
        assert stream.completion.token_ids == alone(prompt, max_tokens=count, temperature=1.0, seed=count)
    model._scheduler._pages.clear()
    assert model.backend.cache.pages_in_use == 0


def test_a_prompt_that_begins_as_a_finished_one_did_computes_the_rest_only():
    model = fake_model()
    prompt = list(range(5, 75))
    first = model.generate(prompt, **SAMPLED)
    before = fed(model)
    again = model.generate([*prompt[:50], 9, 9, 9], **SAMPLED)
    assert (first.shared_tokens, again.shared_tokens) == (0, 48)  # three pages of 16
    assert fed(model) - before == 53 - 48 + len(again.token_ids) - 1
    assert again.token_ids == alone([*prompt[:50], 9, 9, 9], **SAMPLED)


def test_a_prompt_that_is_repeated_feeds_its_last_token_again():
    model = fake_model()
    prompt = list(range(5, 69))
    model.generate(prompt, **SAMPLED)
    again = model.generate(prompt, **SAMPLED)
    assert again.shared_tokens == 63
    assert again.token_ids == alone(prompt, **SAMPLED)


def test_what_a_sequence_drew_is_found_by_the_next_turn_of_a_conversation():
    model = fake_model(context=200)
    prompt = list(range(5, 40))
    first = model.generate(prompt, max_tokens=60, temperature=1.0)
    turn = [*prompt, *first.token_ids, 7, 7]
    assert model.generate(turn, max_tokens=1).shared_tokens == (len(turn) - 3) // 16 * 16


def test_prompts_that_come_together_and_begin_alike_compute_their_beginning_once():
    model = fake_model(slots=4, prefill_chunk=32)
    prompts = [[*range(5, 69), 100 + i] for i in range(4)]
    completions = model.generate_batch(prompts, max_tokens=1)
    assert fed(model) == 65 + 3
    assert sum(completion.shared_tokens for completion in completions) == 3 * 64


def test_a_long_scoring_shares_only_what_nobody_asks_the_logits_of():
    model = fake_model()
    ids = list(range(5, 85))
    expected = next(iter(fake_model().score([(ids, 40)])))
    model.generate(ids, max_tokens=1)
    before = fed(model)
    np.testing.assert_array_equal(next(iter(model.score([(ids, 40)]))), expected)
    assert fed(model) - before == 79 - 39


def test_the_sequence_that_came_last_gives_way_and_goes_on_later():
    model = fake_model(slots=2, pages=6)
    streams = [model.stream([5 + i] * 30, max_tokens=60, temperature=1.0, seed=i) for i in range(2)]
    for i, stream in reversed(list(enumerate(streams))):
        list(stream)
        assert stream.completion.token_ids == alone([5 + i] * 30, max_tokens=60, temperature=1.0, seed=i)
    # Ids that were drawn and cached once pass again, several at a time as those of a prompt.
    later = model.backend.batches[4:]
    assert any(np.bincount(batch.slots).max() > 1 for batch in later)


def test_ten_thousand_random_requests_with_random_cancellations_leave_no_page_behind():
    rng = random.Random(3)
    model = fake_model(slots=5, context=64, page_tokens=8, pages=14, vocab_size=40, parked=5, prefill_chunk=24)
    logits = np.random.default_rng(0).normal(0, 3, (64, 40)).astype(np.float32)
    model.backend.logits_after = lambda tokens: logits[(7 * len(tokens) + 3 * tokens[0] + tokens[-1]) % 64]
    running, count = [], 0
    while count < 10_000 or running:
        while count < 10_000 and len(running) < 12:
            kind, length = rng.randrange(4), rng.randrange(1, 40)
            prompt = [5 + (kind * 7 + i) % 30 for i in range(length)]
            running.append(model.stream(prompt, max_tokens=rng.randrange(1, 12), temperature=1.0, seed=count))
            count += 1
        stream = rng.choice(running)
        if rng.random() < 0.3:
            stream.cancel()
        model._advance(stream._generation)
        running = [stream for stream in running if not stream._generation.finished]
        assert model.backend.cache.pages_in_use <= 14
    assert not model._scheduler._running
    model._scheduler._pages.clear()
    assert model.backend.cache.pages_in_use == 0
    assert not any(model.backend.cache.held)


def test_a_failed_step_leaves_no_page_of_its_sequences():
    model = fake_model()

    def fail(batch):
        raise RuntimeError("out of luck")

    model.backend.before_forward = fail
    with pytest.raises(RuntimeError, match="out of luck"):
        model.generate(list(range(5, 60)))
    assert model.backend.cache.pages_in_use == 0


def test_the_tree_finds_whole_pages_by_all_ids_before_them():
    tree = PrefixTree(4)
    tree.extend(0, list(range(10)), 10)
    tree.extend(1, [0, 1, 2, 3, 9, 9, 9, 9], 8)
    assert tree.longest(list(range(20)), 19) == (0, 8)
    assert tree.longest(list(range(20)), 6) == (0, 6)
    assert tree.longest([0, 1, 2, 3, 9, 9, 9, 9, 4], 8) == (1, 8)
    assert tree.longest([4, 5, 6, 7], 4)[1] == 0  # a page of slot 0, behind another beginning
    tree.move(0, 5)
    assert tree.longest(list(range(8)), 8) == (5, 8)
    tree.forget(5)
    assert tree.longest(list(range(8)), 8) == (1, 4)
    tree.forget(1)
    assert tree.longest(list(range(8)), 8)[1] == 0
    assert not tree._root.children


@pytest.mark.parametrize("cache_type", ["f32", "f16", "int8", "int4"])
def test_shared_pages_give_the_same_bits_on_the_native_core(cache_type):
    config = tiny_config(max_position_embeddings=256)

    def native(**how):
        return Model(config, CpuBackend(config, random_tensors(config, seed=3), cache_type=cache_type, **how),
                     tokenizer=TOKENIZER)

    prompt = [5 + i % 200 for i in range(150)]
    with native(slots=1) as model:
        expected = [model.generate(ids, **SAMPLED).token_ids for ids in ([*prompt, 7], [*prompt[:100], 9])]
    with native(slots=4, cache_tokens=256) as model:
        model.generate(prompt, **SAMPLED)
        found = model.generate_batch([[*prompt, 7], [*prompt[:100], 9], [*prompt, 7]], **SAMPLED)
        assert [completion.shared_tokens for completion in found] == [128, 64, 128]
        assert [completion.token_ids for completion in found] == [*expected, expected[0]]
        model._scheduler._pages.clear()
        assert model.backend.cache.pages_in_use == 0


def test_many_sequences_share_a_cache_of_one_context():
    config = tiny_config()
    with Model(config, CpuBackend(config, random_tensors(config, seed=3), slots=64, cache_tokens=96), tokenizer=None,
               ) as model:
        prompts = [[5 + i, 6, 7] for i in range(64)]
        together = model.generate_batch(prompts, max_tokens=70)
    with Model(config, CpuBackend(config, random_tensors(config, seed=3), slots=1), tokenizer=None) as model:
        for i in (0, 20, 63):
            assert together[i].token_ids == model.generate(prompts[i], max_tokens=70).token_ids


def test_a_cache_that_holds_no_full_sequence_is_refused_and_bounds_the_context():
    config = tiny_config()
    with pytest.raises(TritwiseError, match=r"96 tokens does not fit into a cache of 50(.|\n)*set cache_tokens to 96"):
        CpuBackend(config, random_tensors(config, seed=3), context=96, cache_tokens=50)
    with pytest.raises(TritwiseError, match=r"no cache type 'int2'(.|\n)*f16, f32, int8, int4"):
        CpuBackend(config, random_tensors(config, seed=3), cache_type="int2")
    with Model(config, CpuBackend(config, random_tensors(config, seed=3), cache_tokens=50), tokenizer=None) as model:
        assert model.context == 50
        with pytest.raises(TritwiseError, match=r"60 tokens(.|\n)*holds 50(.|\n)*cache_tokens"):
            model.generate([5] * 60)
