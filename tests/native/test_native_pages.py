"""Pages of the cache: counted as a model of ten lines counts them, shared, copied before a write, given back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_models import config, ints, load, random_weights, run

from tritwise import _native

PAGE = _native.page_positions
CONTEXT = 4 * PAGE
CONFIG = config(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, hidden_size=16, head_dim=8,
                intermediate_size=16)
WEIGHTS = random_weights(CONFIG)


def small_model(**settings):
    return load(CONFIG, WEIGHTS, **{"context": CONTEXT, "cache_type": "f16"} | settings)


REFERENCE = small_model(slots=1)


def last_logits(tokens):
    return run(REFERENCE, np.array(tokens, np.int32))[-1].tobytes()


class Pages:
    """What the contract says: a page is a list object, a slot a list of them, shared by identity."""

    def __init__(self, slots, total):
        self.tables, self.tokens, self.total = [[] for _ in range(slots)], [[] for _ in range(slots)], total

    @property
    def in_use(self):
        return len({id(page) for table in self.tables for page in table})

    def shared(self, page):
        return sum(page is other for table in self.tables for other in table) > 1

    def needed(self, slot, first, end):
        table, last = self.tables[slot], -(-end // PAGE)
        return (max(0, last - len(table)) + sum(self.shared(page) for page in table[first // PAGE:last])
                - sum(not self.shared(page) for page in table[last:]))

    def write(self, slot, first, tokens):
        end = first + len(tokens)
        table = self.tables[slot][:-(-end // PAGE)]
        self.tables[slot] = table
        for i in range(first // PAGE, -(-end // PAGE)):
            if i == len(table):
                table.append([])
            elif self.shared(table[i]):
                table[i] = []
        self.tokens[slot] = self.tokens[slot][:first] + tokens

    def share(self, source, target, positions):
        self.tables[target] = self.tables[source][:-(-positions // PAGE)]
        self.tokens[target] = self.tokens[source][:positions]


SLOTS = 3
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, SLOTS - 1), st.floats(0, 1), st.integers(1, 2 * PAGE + 3)),
    st.tuples(st.just("share"), st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1), st.floats(0, 1)),
    st.tuples(st.just("reset"), st.integers(0, SLOTS - 1)))


@given(st.lists(OPERATIONS, max_size=25), st.integers(1, 3 * 4))
@settings(max_examples=60, deadline=None)
def test_any_writes_rewinds_shares_and_resets_use_the_pages_that_a_simple_model_uses(operations, total):
    model, pages, count = small_model(slots=SLOTS, pages=total), Pages(SLOTS, total), 0
    for name, slot, *rest in operations:
        held = len(pages.tokens[slot])
        if name == "write":
            first = round(rest[0] * held)
            tokens = [(count + i * 7) % 70 for i in range(min(rest[1], CONTEXT - first))]
            count += 1
            if not tokens:
                continue
            needed = pages.needed(slot, first, first + len(tokens))
            assert model.pages_needed(slot, first, first + len(tokens)) == needed
            if needed > total - pages.in_use:
                with pytest.raises(_native.OutOfPages, match="positions are needed"):
                    run(model, np.array(tokens, np.int32), slot=slot, start=first)
            else:
                pages.write(slot, first, tokens)
                found = run(model, np.array(tokens, np.int32), slot=slot, start=first)
                assert found[-1].tobytes() == last_logits(pages.tokens[slot])
        elif name == "share":
            positions = round(rest[1] * held)
            pages.share(slot, rest[0], positions)
            model.share(slot, rest[0], positions)
        else:
            pages.tables[slot], pages.tokens[slot] = [], []
            model.reset(slot)
        assert model.pages_in_use == pages.in_use
        assert [model.length(i) for i in range(SLOTS)] == [len(tokens) for tokens in pages.tokens]
    # What each slot still holds is intact: its last token, computed again, sees all that stood before it.
    for slot, tokens in enumerate(pages.tokens):
        if tokens and pages.needed(slot, len(tokens) - 1, len(tokens)) <= total - pages.in_use:
            found = run(model, np.array(tokens[-1:], np.int32), slot=slot, start=len(tokens) - 1)
            pages.write(slot, len(tokens) - 1, tokens[-1:])
            assert found[-1].tobytes() == last_logits(tokens)
    for slot in range(SLOTS):
        model.reset(slot)
    assert model.pages_in_use == 0


@pytest.mark.parametrize("cache_type", ["f32", "f16", "int8", "int4"])
def test_a_shared_page_is_copied_before_it_is_written(cache_type):
    model = small_model(cache_type=cache_type)
    tokens = np.arange(PAGE + 9, dtype=np.int32) % 70
    expected = run(small_model(cache_type=cache_type), np.append(tokens, 3).astype(np.int32))[-1]
    run(model, tokens)
    model.share(0, 1, len(tokens))
    assert model.pages_in_use == 2
    other = run(model, ints(5), slot=1, start=len(tokens))
    assert model.pages_in_use == 3  # the half-filled page only
    assert run(model, ints(3), slot=0, start=len(tokens))[-1].tobytes() == expected.tobytes()
    assert other.tobytes() != expected.tobytes()
    model.share(0, 1, PAGE + 2)
    rewound = run(model, ints(8), slot=1, start=PAGE - 1)  # into the page that both share
    again = np.append(tokens[:PAGE - 1], 8).astype(np.int32)
    assert rewound[-1].tobytes() == run(small_model(cache_type=cache_type), again)[-1].tobytes()
    assert model.length(0) == len(tokens) + 1
    assert run(model, ints(3), slot=0, start=len(tokens))[-1].tobytes() == expected.tobytes()


def test_out_of_pages_changes_nothing_for_any_slot_of_the_call():
    model = small_model(slots=2, pages=2)
    tokens = np.arange(PAGE, dtype=np.int32) % 70
    first = run(model, tokens)
    rows = np.arange(PAGE + 1, dtype=np.int32)
    slots, positions = np.append(np.ones(PAGE, np.int32), 0), np.append(rows[:PAGE], PAGE)
    with pytest.raises(_native.OutOfPages, match=r"2 pages of 64 positions are needed, 1 of 2 are free"):
        model.forward(np.append(tokens, 1).astype(np.int32), slots.astype(np.int32), positions.astype(np.int32), rows)
    assert (model.pages_in_use, model.length(0), model.length(1)) == (1, PAGE, 0)
    assert run(model, tokens).tobytes() == first.tobytes()
    model.reset(0)
    assert run(model, tokens, slot=1).tobytes() == first.tobytes()


def test_a_trace_needs_none_of_the_pages():
    model = small_model(slots=1, pages=1)
    run(model, np.arange(PAGE, dtype=np.int32))
    assert len(model.trace(np.arange(CONTEXT, dtype=np.int32) % 70)["logits"]) == CONTEXT
    assert model.pages_in_use == model.pages_total == 1


def test_what_cannot_be_shared_or_written_next_is_an_index_error():
    model = small_model(slots=2)
    run(model, ints(1, 2, 3))
    for arguments in ((0, 2, 1), (2, 0, 0), (0, 1, 4), (0, 1, -1), (-1, 1, 0)):
        with pytest.raises(IndexError):
            model.share(*arguments)
    for arguments in ((2, 0, 1), (0, 4, 5), (0, -1, 1), (0, 2, 1), (0, 0, CONTEXT + 1)):
        with pytest.raises(IndexError):
            model.pages_needed(*arguments)
    assert (model.length(0), model.length(1)) == (3, 0)


def test_a_reset_gives_the_memory_back():
    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    c = config(num_hidden_layers=8, head_dim=128, num_attention_heads=4, num_key_value_heads=4, model_type="llama")
    model = load(c, random_weights(c), context=2048, slots=1, cache_type="f32")
    run(model, np.zeros(8, np.int32))
    before = resident()
    size = 2048 * model.cache_bytes_per_token
    assert size == 2**26
    model.forward(np.zeros(2048, np.int32), np.zeros(2048, np.int32), np.arange(2048, dtype=np.int32), ints())
    assert resident() - before > 0.9 * size
    model.reset(0)
    assert resident() - before < 0.1 * size
