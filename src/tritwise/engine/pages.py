"""Who holds which pages of the cache: admission by what is free, sharing of beginnings, eviction of what is idle.

    running slots 0 .. slots-1      a sequence each; their pages are needed
    parked slots  slots .. rows-1   what finished sequences left: beginnings that others may share, least recently
                                    used first to go when pages are needed
"""

from collections import OrderedDict
from collections.abc import Iterable

from tritwise.engine.backend import PagedCache
from tritwise.engine.prefix import PrefixTree
from tritwise.engine.sequence import Sequence


class Pages:
    """The scheduler's view of a paged cache. Never changes a token: only what is computed again, and when."""

    def __init__(self, cache: PagedCache, slots: int) -> None:
        self._cache = cache
        self._tree = PrefixTree(cache.page_tokens)
        self._empty = list(range(cache.rows - 1, slots - 1, -1))
        self._parked: OrderedDict[int, None] = OrderedDict()

    def admit(self, slot: int, sequence: Sequence, running: dict[int, Sequence]) -> bool:
        """Give `sequence` the free `slot` if all of its ids, and one more for each that runs, find room.

        What another slot holds of its beginning is shared. A sequence always fits when nothing else runs.
        """
        sequence.fed = sequence.shared = 0
        self.share(slot, sequence)
        together = running | {slot: sequence}
        growth = sum(self._growth(i, each) for i, each in together.items())
        if running and self._cache.pages_held(list(together)) + growth > self._cache.pages_total:
            self.forget(slot)
            return False
        return True

    def share(self, slot: int, sequence: Sequence) -> None:
        """Let `slot` begin with what another slot holds of the ids, when that is more than it has fed.

        Ids whose logits are wanted pass through the model themselves.
        """
        source, positions = self._tree.longest(sequence.ids, sequence.first_row(0, len(sequence.ids)))
        if positions <= sequence.fed:
            return
        if source in self._parked:
            self._parked.move_to_end(source)
        self._tree.forget(slot)
        self._cache.share(source, slot, positions)
        self._tree.extend(slot, sequence.ids, positions)
        sequence.shared += positions - sequence.fed
        sequence.fed = positions

    def leaders(self, prompts: Iterable[int], running: dict[int, Sequence]) -> list[int]:
        """The prompts that go on in this step. One whose next page another of them computes waits and shares it."""
        going, computed = [], set()
        size = self._cache.page_tokens
        for slot in prompts:
            sequence = running[slot]
            self.share(slot, sequence)
            if sequence.fed % size == 0 and sequence.fed + size <= sequence.first_row(0, len(sequence.ids)):
                page = tuple(sequence.ids[:sequence.fed + size])
                if page in computed:
                    continue
                computed.add(page)
            going.append(slot)
        return going

    def make_room(self, extents: list[tuple[int, int, int]]) -> bool:
        """Evict until the positions [start, stop) of each slot can be written; False when all is evicted in vain."""
        while True:
            # What one slot gives back by a rewind may come too late for another that is written before it.
            needed = sum(max(0, self._cache.pages_needed(*extent)) for extent in extents)
            if needed <= self._cache.pages_total - self._cache.pages_in_use:
                return True
            if not self._parked:
                return False
            self._evict()

    def settle(self, slot: int, sequence: Sequence) -> None:
        """Tell what `slot` holds after a step."""
        self._tree.extend(slot, sequence.ids, sequence.fed)

    def leave(self, slot: int, sequence: Sequence) -> None:
        """The sequence goes; its whole pages stay as beginnings for others until the room is needed."""
        held = sequence.fed // self._cache.page_tokens * self._cache.page_tokens
        kept = [other for other in self._tree.companions(slot) if other in self._parked]
        if kept:
            self._parked.move_to_end(kept[0])
        if kept or not held:
            self.forget(slot)
            return
        if not self._empty:
            self._evict()
        parked = self._empty.pop()
        self._cache.share(slot, parked, held)
        self._cache.reset(slot)
        self._tree.move(slot, parked)
        self._parked[parked] = None

    def forget(self, slot: int) -> None:
        """Give the pages of a slot back."""
        self._tree.forget(slot)
        self._cache.reset(slot)

    def clear(self) -> None:
        """Give everything back that no running sequence holds."""
        while self._parked:
            self._evict()

    def _growth(self, slot: int, sequence: Sequence) -> int:
        """Pages that its ids and the next one take."""
        end = max(sequence.fed, min(len(sequence.ids) + 1, self._cache.context))
        return max(0, self._cache.pages_needed(slot, sequence.fed, end))

    def _evict(self) -> None:
        slot, _ = self._parked.popitem(last=False)
        self.forget(slot)
        self._empty.append(slot)
