"""Pages of a cache that lies on a device: counted as the C++ core counts its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.engine.page_tables import OutOfPages, PageTables

PAGE = 64
CONTEXT = 4 * PAGE


def tables(rows=3, pages=8):
    return PageTables(rows=rows, context=CONTEXT, pages=pages, page_tokens=PAGE)


class Written:
    """What a device's cache would hold: a number a position of every page, copied as `reserve` says."""

    def __init__(self, pages):
        self.tables, self.pages = pages, np.full((pages.pages_total, PAGE), -1)
        self.expected = [[] for _ in range(pages.rows)]
        self.device = np.zeros_like(pages.table)

    def write(self, extents, values):
        copies = self.tables.reserve(extents)
        if copies:
            sources, targets = zip(*copies, strict=True)
            self.pages[list(targets)] = self.pages[list(sources)]
        self.upload()
        for (slot, first, end), value in zip(extents, values, strict=True):
            for position in range(first, end):
                self.pages[self.device[slot, position // PAGE], position % PAGE] = value + position
            self.expected[slot] = self.expected[slot][:first] + [value + position for position in range(first, end)]
            self.tables.set_length(slot, end)

    def upload(self):
        for slot in self.tables.changed:
            self.device[slot] = self.tables.table[slot]
        self.tables.changed.clear()

    def check(self):
        self.upload()
        for slot, expected in enumerate(self.expected):
            found = [self.pages[self.device[slot, i // PAGE], i % PAGE] for i in range(len(expected))]
            assert found == expected


def native_model():
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
    from native_models import config, load, random_weights

    small = config(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, hidden_size=16, head_dim=8,
                   intermediate_size=16)
    return load(small, random_weights(small), context=CONTEXT, cache_type="f16", slots=3, pages=8)


operations = st.lists(st.tuples(st.sampled_from(["write", "write", "write", "share", "reset", "two"]),
                                st.integers(0, 2), st.integers(0, 2), st.integers(0, CONTEXT), st.integers(1, 150)),
                      min_size=5, max_size=25)


@settings(max_examples=40, deadline=None)
@given(operations)
def test_pages_are_counted_and_hold_what_the_core_counts_and_what_was_written(steps):
    pages, core = tables(), native_model()
    written = Written(pages)
    for number, (what, slot, other, first, count) in enumerate(steps):
        held = len(written.expected[slot])
        if what == "reset":
            pages.reset(slot)
            core.reset(slot)
            written.expected[slot] = []
        elif what == "share":
            pages.share(slot, other, min(first, held))
            core.share(slot, other, min(first, held))
            written.expected[other] = written.expected[slot][:min(first, held)]
        else:
            extents = [(each, min(first, len(written.expected[each])),
                        min(CONTEXT, min(first, len(written.expected[each])) + count))
                       for each in ([slot, (slot + 1) % 3] if what == "two" else [slot])]
            extents = [extent for extent in extents if extent[1] < extent[2]]
            for extent in extents:
                assert pages.pages_needed(*extent) == core.pages_needed(*extent)
            rows = [(each, position) for each, begin, end in extents for position in range(begin, end)]
            if not rows:
                continue
            before = pages.table.copy()
            try:
                written.write(extents, [1000 * number + 300 * i for i in range(len(extents))])
            except OutOfPages:
                assert (pages.table == before).all()
                refused = True
            else:
                refused = False
            slots, positions = (np.array(each, np.int32) for each in zip(*rows, strict=True))
            try:
                core.forward(np.zeros(len(rows), np.int32), slots, positions, np.empty(0, np.int32))
            except Exception:
                assert refused
            else:
                assert not refused
        assert pages.pages_in_use == core.pages_in_use
        assert pages.pages_held([0, 2]) == core.pages_held([0, 2])
        written.check()


def test_a_shared_page_is_copied_before_it_is_written_and_only_then():
    pages = tables()
    assert pages.reserve([(0, 0, 100)]) == []
    pages.set_length(0, 100)
    pages.share(0, 1, 100)
    assert pages.pages_in_use == 2
    assert pages.table[0].tolist() == pages.table[1].tolist() == [0, 1, 0, 0]
    assert pages.pages_needed(1, 100, 101) == 1
    assert pages.reserve([(1, 100, 101)]) == [(1, 2)]
    pages.set_length(1, 101)
    assert pages.reserve([(0, 100, 101)]) == []  # the other half is its own now
    pages.set_length(0, 101)
    pages.share(0, 1, 64)
    assert pages.reserve([(1, 64, 65)]) == []  # a whole page that is shared is not touched


def test_what_cannot_be_is_refused():
    pages = tables(pages=2)
    with pytest.raises(OutOfPages, match="3 pages of 64 positions are needed, 2 of 2 are free"):
        pages.reserve([(0, 0, 129)])
    assert pages.pages_in_use == 0
    with pytest.raises(ValueError, match="which holds 0"):
        pages.reserve([(0, 1, 2)])
    with pytest.raises(ValueError, match="not 5"):
        pages.share(0, 1, 5)
    with pytest.raises(TritwiseError, match="0 pages"):
        PageTables(rows=1, context=1, pages=0)


def test_a_page_is_a_slots_own_while_no_other_holds_it():
    tables = PageTables(rows=3, context=64, pages=4, page_tokens=16)
    tables.reserve([(0, 0, 20)])
    tables.set_length(0, 20)
    assert [tables.is_own(0, position) for position in (0, 19, 31, 32)] == [True, True, True, False]
    tables.share(0, 2, 18)
    assert not tables.is_own(0, 15)
    tables.share(2, 2, 16)  # cut back: the second page is let go
    assert [tables.is_own(0, position) for position in (15, 16)] == [False, True]
