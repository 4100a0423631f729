"""Which sequence holds which page of a cache whose pages lie somewhere else, as on a GPU: `PagedCache` in plain Python.

The CPU core has the same in C++ (native/src/kv_cache.cpp), page for page.
"""

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError


class OutOfPages(TritwiseError):  # noqa: N818 (as in the core)
    """Every page is in use; nothing has changed."""


class PageTables:
    """`pages` pages of `page_tokens` positions for `rows` rows of at most `context` positions each.

    `table` int32 [rows, most pages] names the pages of each row in order, 0 beyond what it holds; `changed` are the
    rows whose part of it a device has not seen yet: whoever copies them empties the set.
    """

    def __init__(self, *, rows: int, context: int, pages: int, page_tokens: int = 64) -> None:
        if min(rows, context, pages, page_tokens) < 1:
            raise TritwiseError(f"a cache of {pages} pages of {page_tokens} tokens for {rows} rows of {context} "
                                "tokens cannot be", why="at least one of each is needed")
        self.page_tokens, self.rows, self.context, self.pages_total = page_tokens, rows, context, pages
        self.table: NDArray[np.int32] = np.zeros((rows, self._pages_of(context)), np.int32)
        self.changed: set[int] = set()
        self.lengths = [0] * rows
        self._held: list[list[int]] = [[] for _ in range(rows)]
        self._references = [0] * pages
        self._free = list(range(pages - 1, -1, -1))  # the last one is taken first

    def _pages_of(self, positions: int) -> int:
        return -(-positions // self.page_tokens)

    @property
    def pages_in_use(self) -> int:
        return self.pages_total - len(self._free)

    def pages_needed(self, slot: int, first: int, end: int) -> int:
        """Free pages that `reserve` of this extent alone takes; below zero: gives back."""
        self._check(slot, first, end)
        held, last = self._held[slot], self._pages_of(end)
        inside = range(first // self.page_tokens, min(last, len(held)))
        return (max(0, last - len(held)) + sum(self._references[held[i]] > 1 for i in inside)
                - sum(self._references[page] == 1 for page in held[last:]))

    def pages_held(self, slots: list[int]) -> int:
        """Pages that these slots hold together, each counted once."""
        return len({page for slot in slots for page in self._held[slot]})

    def reserve(self, extents: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Make the positions [first, end) of each (slot, first, end) writable and drop what lies beyond.

        At most one extent a slot, none beyond what the slot holds. Gives the (source, target) pages that the cache has
        to copy, all before anything is written. Raises OutOfPages.
        """
        needed = sum(self.pages_needed(*extent) for extent in extents)
        if needed > len(self._free):
            raise OutOfPages("the cache is full", why=f"{needed} pages of {self.page_tokens} positions are needed, "
                             f"{len(self._free)} of {self.pages_total} are free")
        # What is given back first: it may be what another extent takes.
        for slot, _, end in extents:
            self._truncate(slot, self._pages_of(end))
        copies = []
        for slot, first, end in extents:
            held = self._held[slot]
            for i in range(first // self.page_tokens, self._pages_of(end)):
                if i == len(held):
                    held.append(self._take())
                elif self._references[held[i]] > 1:
                    page = self._take()
                    # Of the first page the positions before the extent stay.
                    if i * self.page_tokens < first:
                        copies.append((held[i], page))
                    self._drop(held[i])
                    held[i] = page
                else:
                    continue
                self.table[slot, i] = held[i]
                self.changed.add(slot)
            self.lengths[slot] = first
        return copies

    def is_own(self, slot: int, position: int) -> bool:
        """Whether a slot holds the page of this position, and no other does."""
        held, index = self._held[slot], position // self.page_tokens
        return index < len(held) and self._references[held[index]] == 1

    def set_length(self, slot: int, length: int) -> None:
        """Tell what a slot holds after its positions were written."""
        self.lengths[slot] = length

    def share(self, source: int, target: int, positions: int) -> None:
        """Make `target` hold the first positions of `source`, and nothing else, without a copy."""
        if not 0 <= positions <= self.lengths[source]:
            raise ValueError(f"slot {source} holds {self.lengths[source]} positions, not {positions}")
        if source == target:
            self._truncate(target, self._pages_of(positions))
        else:
            shared = self._held[source][:self._pages_of(positions)]
            for page in shared:
                self._references[page] += 1
            self._truncate(target, 0)
            self._held[target] = shared
            self.table[target, :len(shared)] = shared
            self.changed.add(target)
        self.lengths[target] = positions

    def reset(self, slot: int) -> None:
        """Make a slot hold nothing."""
        self._truncate(slot, 0)
        self.lengths[slot] = 0

    def _check(self, slot: int, first: int, end: int) -> None:
        if not 0 <= first <= self.lengths[slot] or not first <= end <= self.context:
            raise ValueError(f"positions {first} to {end} of slot {slot}, which holds {self.lengths[slot]} "
                             f"of at most {self.context}")

    def _take(self) -> int:
        page = self._free.pop()
        self._references[page] = 1
        return page

    def _drop(self, page: int) -> None:
        self._references[page] -= 1
        if not self._references[page]:
            self._free.append(page)

    def _truncate(self, slot: int, pages: int) -> None:
        held = self._held[slot]
        if len(held) > pages:
            self.table[slot, pages:len(held)] = 0
            self.changed.add(slot)
        while len(held) > pages:
            self._drop(held.pop())
