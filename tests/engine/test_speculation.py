"""Speculation never changes a token: whatever is guessed, beside whom, with which settings; and it leaves nothing."""

import zlib

import numpy as np
import pytest
from engine_fakes import CORPUS, FakeBackend, byte_level_tokenizer, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.engine import CpuBackend, Drafter, DraftModel, Model, NgramSpeculation, Speculation, load
from tritwise.engine.speculation import ALLOWED_LOSS, MAX_DRAFT, Acceptance, Outlook, Speculator, StepCosts
from tritwise.formats import write_model
from tritwise.measure.shapes import random_tensors

TOKENIZER = byte_level_tokenizer()
PROMPT = TOKENIZER.encode("".join(CORPUS[:2]) * 2).ids[:40]


class Guesses(Speculation):
    """Proposes what `of(ids, limit)` returns, always; counts what is open."""

    def __init__(self, of, *, adaptive: bool = False) -> None:
        super().__init__(adaptive=adaptive)
        self.of, self.opened, self.closed = of, 0, 0

    def drafter(self, how):
        self.opened += 1
        owner = self

        class Given(Drafter):
            def propose(self, ids, limit):
                return owner.of(ids, limit)

            def close(self):
                owner.closed += 1

        return Given()


def garbage(ids: list[int], limit: int) -> list[int]:
    return [(ids[-1] * 7 + i) % 300 for i in range(limit)]


def oracle(*texts: tuple[int, ...]):
    """Proposes the rest of the one of `texts` that `ids` begin."""
    def of(ids: list[int], limit: int) -> list[int]:
        for text in texts:
            if list(text[:len(ids)]) == ids:
                return list(text[len(ids):len(ids) + limit])
        return []

    return of


def half_right(text: tuple[int, ...]):
    def of(ids: list[int], limit: int) -> list[int]:
        right = list(text[len(ids):len(ids) + limit])
        return [token if (len(ids) + i) % 3 else (token + 1) % 300 for i, token in enumerate(right)]

    return of


def repeating_backend(**settings) -> FakeBackend:
    """Its next token depends on the last two alone, so that its texts repeat themselves."""
    fake = FakeBackend(**settings)
    spread = 9.0

    def logits_after(tokens: list[int]) -> np.ndarray:
        seed = zlib.crc32(np.array([token % 5 for token in tokens[-2:]], dtype=np.int32).tobytes())
        return np.random.default_rng(seed).normal(0, spread, fake.vocab_size).astype(np.float32)

    fake.logits_after = logits_after
    return fake


def fake_model(backend: FakeBackend, speculation=None, *, prefill_chunk: int = 16) -> Model:
    return Model(tiny_config(max_position_embeddings=backend.context), backend, tokenizer=TOKENIZER,
                 prefill_chunk=prefill_chunk, speculation=speculation)


def result(completion):
    return completion.token_ids, completion.text, completion.finish_reason, completion.logprobs


SETTINGS = st.fixed_dictionaries({
    "temperature": st.sampled_from([0.0, 0.7, 1.5]), "top_k": st.sampled_from([0, 20]),
    "top_p": st.sampled_from([1.0, 0.9]), "min_p": st.sampled_from([0.0, 0.05]), "seed": st.integers(0, 2**64 - 1),
    "repetition_penalty": st.sampled_from([1.0, 1.2]), "frequency_penalty": st.sampled_from([0.0, 0.3]),
    "logit_bias": st.sampled_from([{}, {7: 2.0, 40: -5.0}]), "logprobs": st.sampled_from([None, 0, 3]),
    "max_tokens": st.integers(1, 60), "stop": st.sampled_from([(), ("a",), ("in", "e f")])})


@given(st.lists(st.lists(st.integers(5, 299), min_size=1, max_size=50), min_size=1, max_size=5), st.integers(1, 4),
       st.integers(1, 40), SETTINGS, st.sampled_from(["ngram", "adaptive", "garbage", "oracle", "half", "model"]))
@settings(max_examples=120, deadline=None)
def test_tokens_are_those_of_plain_decoding_for_any_guesses_settings_and_batch_mates(prompts, slots, chunk, how, kind):
    plain = [fake_model(repeating_backend(slots=1), prefill_chunk=1000).generate(prompt, **how) for prompt in prompts]
    texts = [(*prompt, *completion.token_ids) for prompt, completion in zip(prompts, plain, strict=True)]
    draft = repeating_backend(slots=2)
    guessing = {"ngram": NgramSpeculation(adaptive=False), "adaptive": NgramSpeculation(), "garbage": Guesses(garbage),
                "oracle": Guesses(oracle(*texts)), "half": Guesses(half_right(texts[0])),
                "model": DraftModel(draft, prefill_chunk=5, adaptive=False)}[kind]
    model = fake_model(repeating_backend(slots=slots), guessing, prefill_chunk=chunk)
    for _ in range(2):  # the second time with what was generated the first time
        for completion, expected in zip(model.generate_batch(prompts, **how), plain, strict=True):
            assert result(completion) == result(expected)
            assert 0 <= completion.accepted <= completion.proposed
    if isinstance(guessing, Guesses):
        assert guessing.opened == guessing.closed
    if isinstance(guessing, DraftModel):
        assert sorted(guessing._free) == [0, 1]


def test_right_guesses_are_all_taken_and_save_their_steps():
    plain = fake_model(repeating_backend(context=200)).generate(PROMPT, max_tokens=100)
    text = (*PROMPT, *plain.token_ids)
    assert len(plain.token_ids) == 100
    model = fake_model(repeating_backend(context=200), Guesses(oracle(text)))
    completion = model.generate(PROMPT, max_tokens=100)
    assert completion.token_ids == plain.token_ids
    assert completion.proposed == completion.accepted
    # 40 ids of the prompt in chunks of 16, the last of which draws a token; then 24 guesses and one more a step.
    assert len(model.backend.batches) == 3 + 4
    assert completion.accepted == 99 - 4


def test_wrong_guesses_cost_no_step_and_no_place_in_the_context():
    plain = fake_model(repeating_backend(context=64))
    expected = plain.generate(PROMPT, max_tokens=500)
    model = fake_model(repeating_backend(context=64), Guesses(garbage))
    completion = model.generate(PROMPT, max_tokens=500)
    assert result(completion) == result(expected)
    assert completion.finish_reason == "length"
    assert completion.accepted <= completion.proposed
    assert len(model.backend.batches) <= len(plain.backend.batches)
    assert max(int(batch.positions.max()) for batch in model.backend.batches) < 64


def test_greedy_guesses_need_no_logits_and_penalised_ones_do():
    for how, wanted in (({}, "best_for"), ({"repetition_penalty": 1.1}, "logits_for"), ({"logprobs": 1}, "logits_for")):
        model = fake_model(repeating_backend(), Guesses(garbage))
        model.generate(PROMPT, max_tokens=10, **how)
        other = {"best_for": "logits_for", "logits_for": "best_for"}[wanted]
        assert all(len(getattr(batch, other)) == 0 for batch in model.backend.batches)
        assert max(len(getattr(batch, wanted)) for batch in model.backend.batches) == 9


def test_cancelling_a_guessing_sequence_frees_its_place_for_the_next():
    guessing = Guesses(garbage)
    model = fake_model(repeating_backend(slots=1), guessing)
    stream = model.stream(PROMPT, max_tokens=50)
    next(stream)
    stream.cancel()
    expected = fake_model(repeating_backend(slots=1)).generate([9, 8, 7], max_tokens=20)
    assert result(model.generate([9, 8, 7], max_tokens=20)) == result(expected)
    assert (guessing.opened, guessing.closed) == (2, 2)


def test_a_drafter_that_fails_ends_its_own_sequence_alone():
    def fail(ids, limit):
        if ids[0] == 9:
            raise RuntimeError("no idea")
        return []

    guessing = Guesses(fail)
    model = fake_model(repeating_backend(slots=2), guessing)
    good, bad = model.stream([5, 6], max_tokens=10), model.stream([9, 9], max_tokens=10)
    with pytest.raises(RuntimeError, match="no idea"):
        list(bad)
    assert "".join(good) == fake_model(repeating_backend()).generate([5, 6], max_tokens=10).text
    assert guessing.opened == guessing.closed == 2


def test_an_interrupted_step_is_repeated_with_the_same_tokens():
    for guessing in (Guesses(garbage), DraftModel(repeating_backend(slots=2), adaptive=False)):
        model = fake_model(repeating_backend(slots=2), guessing)
        stream = model.stream(PROMPT, max_tokens=30)
        pieces = [next(stream)]

        def interrupt(batch, model=model):
            model.backend.before_forward = lambda batch: None
            raise KeyboardInterrupt

        model.backend.before_forward = interrupt
        with pytest.raises(KeyboardInterrupt):
            model.generate([9, 9], max_tokens=20)
        pieces += list(stream)
        assert "".join(pieces) == fake_model(repeating_backend()).generate(PROMPT, max_tokens=30).text


class EvenThenOdd:
    """Allows even ids after an even number of tokens and odd ones after an odd number; remembers what it was told."""

    def __init__(self, vocab: int) -> None:
        self.words = [np.frombuffer(np.packbits(np.arange(-(-vocab // 32) * 32) % 2 == parity, bitorder="little"),
                                    dtype=np.uint32) for parity in (0, 1)]
        self.accepted: list[int] = []

    def mask(self, ids):
        assert list(ids) == self.accepted[:len(ids)]
        return None if len(ids) == 7 else self.words[len(ids) % 2]

    def accept(self, token):
        self.accepted.append(token)


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_constraint_holds_for_guessed_tokens_and_hears_of_each_token_once(temperature):
    how = {"max_tokens": 40, "temperature": temperature, "seed": 3}
    plain_constraint = EvenThenOdd(300)
    plain = fake_model(repeating_backend()).generate(PROMPT, constraint=plain_constraint, **how)
    free = [token for index, token in enumerate(plain.token_ids) if index != 7]
    assert [token % 2 for token in free] == [index % 2 for index in range(40) if index != 7][:len(free)]
    for guessing in (Guesses(garbage), Guesses(oracle((*PROMPT, *plain.token_ids))), NgramSpeculation(adaptive=False)):
        constraint = EvenThenOdd(300)
        completion = fake_model(repeating_backend(), guessing).generate(PROMPT, constraint=constraint, **how)
        assert result(completion) == result(plain)
        assert constraint.accepted == plain_constraint.accepted
        assert completion.proposed > 0


def test_a_constraint_serves_one_text():
    with pytest.raises(TritwiseError, match="cannot serve a batch"):
        fake_model(repeating_backend()).generate_batch([[5], [6]], constraint=EvenThenOdd(300))


def test_ngrams_continue_the_longest_of_the_latest_matches_and_repeat_a_period():
    drafter = NgramSpeculation(shared=False).drafter(None)
    assert drafter.propose([1, 2, 3], 4) == []
    assert drafter.propose([1, 2, 3, 9, 8, 1, 2, 3], 4) == [9, 8, 1, 2]
    assert drafter.evidence(2) == [3, 4]
    # [2, 3, 9, 8, 1] stands once with six tokens of context before it; the later [9, 8, 1] is no longer match.
    text = [5, 2, 3, 9, 8, 1, 7, 7, 4, 9, 8, 1, 6, 0, 2, 3, 9, 8, 1]
    drafter = NgramSpeculation(shared=False).drafter(None)
    assert drafter.propose(text, 3) == [7, 7, 4]
    drafter = NgramSpeculation(shared=False).drafter(None)
    assert drafter.propose([4, *[6, 7] * 6], 7) == [6, 7, 6, 7, 6, 7, 6]


def test_ngrams_of_earlier_texts_are_found_where_shared_and_forgotten_when_old():
    shared, alone = NgramSpeculation(), NgramSpeculation(shared=False)
    for speculation, expected in ((shared, [4, 5, 6]), (alone, [])):
        speculation.finished([1, 2, 3, 4, 5, 6, 7])
        assert speculation.drafter(None).propose([90, 1, 2, 3], 3) == expected
    for number in range(64):
        shared.finished([1000 + number] * 5)
    assert shared.drafter(None).propose([90, 1, 2, 3], 3) == []
    assert {id(text) for text, _ in shared._earlier._places.values()} <= {id(text) for text in shared._texts}


def test_speculation_by_call_takes_the_place_of_the_one_loaded():
    guessing = Guesses(garbage)
    model = fake_model(repeating_backend(), guessing)
    assert model.generate(PROMPT, max_tokens=9, speculation=None).proposed == 0
    assert guessing.opened == 0
    model.generate(PROMPT, max_tokens=9)
    assert guessing.opened == 1
    model.generate(PROMPT, max_tokens=9, speculation="ngram")
    assert guessing.opened == 1
    with pytest.raises(TritwiseError, match="no speculation 'magic'"):
        model.generate(PROMPT, speculation="magic")


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A model, a smaller one with the same tokenizer, and one with another."""
    root = tmp_path_factory.mktemp("models")
    TOKENIZER.save(str(root / "same.json"))
    byte_level_tokenizer(290).save(str(root / "other.json"))
    for name, tokenizer, config in (
            ("model", "same", tiny_config()), ("small", "same", tiny_config(num_hidden_layers=1, hidden_size=32)),
            ("other", "other", tiny_config(vocab_size=300, num_hidden_layers=1))):
        rng = np.random.default_rng(0)
        tensors = {tensor: rng.normal(0, 0.1, shape).astype(np.float32) if len(shape) == 2 else
                   np.ones(shape, dtype=np.float32) for tensor, shape in config.tensor_shapes().items()}
        write_model(root / name, config, tensors, form="packed", tokenizer_file=root / f"{tokenizer}.json")
    return root


@given(SETTINGS, st.lists(st.lists(st.integers(5, 299), min_size=1, max_size=40), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_on_the_native_core_guesses_change_no_token(how, prompts):
    config = tiny_config()
    runner = CpuBackend(config, random_tensors(config, seed=3), slots=2, threads=1)
    draft = CpuBackend(config.with_changes(num_hidden_layers=1), random_tensors(
        config.with_changes(num_hidden_layers=1), seed=3), slots=2, threads=1)
    with Model(config, runner, tokenizer=TOKENIZER, prefill_chunk=8) as model:
        plain = [result(completion) for completion in model.generate_batch(prompts, **how)]
        for guessing in (NgramSpeculation(adaptive=False), DraftModel(draft, adaptive=False), Guesses(garbage)):
            found = model.generate_batch(prompts, speculation=guessing, **how)
            assert [result(completion) for completion in found] == plain
    draft.close()


def test_guesses_give_way_where_pages_are_short_and_all_pages_come_back():
    config = tiny_config()
    prompts = [[5 + i] * (20 + 7 * i) for i in range(5)]
    how = {"max_tokens": 40, "temperature": 0.8, "seed": 2}
    runner = CpuBackend(config, random_tensors(config, seed=3), slots=3, threads=1)
    with Model(config, runner, tokenizer=TOKENIZER) as model:
        plain = [result(completion) for completion in model.generate_batch(prompts, **how)]
    runner = CpuBackend(config, random_tensors(config, seed=3), slots=3, threads=1, cache_tokens=96)
    guessing = Guesses(garbage)
    with Model(config, runner, tokenizer=TOKENIZER, speculation=guessing) as model:
        assert [result(completion) for completion in model.generate_batch(prompts, **how)] == plain
        assert guessing.opened == guessing.closed >= 5


def test_load_opens_ngrams_and_a_draft_model_and_gives_the_draft_back(directories):
    with load(directories / "model") as plain:
        expected = plain.generate("def add", max_tokens=30)
    for speculation in ("ngram", directories / "small", str(directories / "model")):
        with load(directories / "model", speculation=speculation) as model:
            assert result(model.generate("def add", max_tokens=30)) == result(expected)
    with load(directories / "small") as small, load(directories / "model", speculation=small) as model:
        assert result(model.generate("def add", max_tokens=30)) == result(expected)
        model.close()
        assert small.generate("def", max_tokens=2).token_ids


def test_a_draft_model_with_another_tokenizer_is_refused(directories):
    with pytest.raises(TritwiseError, match="tokenizers differ"):
        load(directories / "model", speculation=directories / "other")


def steady_costs(plain: float, per_row: float) -> StepCosts:
    costs = StepCosts()
    for rows in range(1, 40):
        costs.record(rows, plain + per_row * (rows - 1))
    return costs


def simulate(steps: int, right, plain: float, per_row: float) -> tuple[float, float]:
    """(seconds with speculation, seconds without) for a drafter whose guesses are right as `right(position)` says."""
    length, seconds = 1, 0.0

    def of(ids, limit):
        return [1 if right(len(ids) + i) else 0 for i in range(limit)]

    class Free(Drafter):
        def propose(self, ids, limit):
            return of(ids, limit)

        def evidence(self, count):
            return [8] * count

    speculator = Speculator(Free(), Acceptance())
    costs = steady_costs(plain, per_row)
    while length < steps:
        outlook = Outlook(costs, 1, 1)
        draft = speculator.plan([1] * length, 24, outlook)
        taken = next((i for i, token in enumerate(draft) if token != 1), len(draft))
        speculator.learn(len(draft), [1] * (taken + 1), per_row * len(draft), outlook)
        costs.record(1 + len(draft), plain + per_row * len(draft))
        seconds += plain + per_row * len(draft)
        length += taken + 1
    return seconds, plain * (length - 1)


@pytest.mark.parametrize("per_row", [0.02, 0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_text_of_any_predictability_is_never_slower_by_more_than_the_allowed_share(share, per_row):
    drawn = np.random.default_rng(1).random(4000) < share
    guessed, plain = simulate(1000, lambda position: drawn[position], 1.0, per_row)
    assert guessed <= plain * (1 + ALLOWED_LOSS) + 1.0 + per_row
    if share >= 0.8 and per_row <= 0.1:
        assert guessed < 0.5 * plain


def test_a_text_that_turns_unpredictable_loses_no_more_than_the_last_wins():
    guessed, plain = simulate(2000, lambda position: position < 1000, 1.0, 0.2)
    assert guessed < plain
    first, _ = simulate(1000, lambda position: position < 1000, 1.0, 0.2)
    # Behind the change: the share, one token, eight tokens of what was won, and one whole draft.
    assert guessed - first <= 1000 * (1 + ALLOWED_LOSS) + 1 + 8 + 0.2 * MAX_DRAFT


def test_step_costs_are_medians_between_which_a_line_is_drawn_and_old_ones_are_forgotten():
    costs = StepCosts()
    assert costs.seconds(1) is None
    for seconds in (1.0, 9.0, 1.1, 1.2, 0.9):
        costs.record(1, seconds)
    assert costs.seconds(1) == 1.1
    costs.record(5, 1.9)
    assert costs.seconds(3) == pytest.approx(1.5)
    assert costs.seconds(7) > 1.9
    for _ in range(400):
        costs.record(9, 3.0)
    assert costs.seconds(1) is None
    assert costs.seconds(9) == 3.0


class Clock:
    """Time that passes only when a backend says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def timed_backend(clock: Clock, seconds: float, shift: int = 0) -> FakeBackend:
    """A step takes the same time for any number of rows; another shift, another text."""
    fake = FakeBackend()
    choose = fake.logits_after
    fake.logits_after = lambda tokens: np.roll(choose(tokens[-1:]), shift)

    def wait(batch):
        clock.now += seconds

    fake.before_forward = wait
    return fake


def test_a_draft_model_that_is_always_wrong_is_soon_left_alone_and_one_like_the_model_is_used(monkeypatch):
    clock = Clock()
    for module in ("scheduler", "speculation", "drafters", "sequence"):
        monkeypatch.setattr(f"tritwise.engine.{module}.time", clock)
    plain = fake_model(timed_backend(clock, 1.0)).generate([5, 6, 7], max_tokens=80)
    before = clock.now
    for shift, helps in ((7, False), (0, True)):
        began = clock.now
        model = fake_model(timed_backend(clock, 1.0), DraftModel(timed_backend(clock, 0.1, shift)))
        completion = model.generate([5, 6, 7], max_tokens=80)
        assert result(completion) == result(plain)
        if helps:
            assert clock.now - began < before / 2
            assert completion.accepted > 40
        else:
            assert clock.now - began <= before * (1 + ALLOWED_LOSS) + 1
