"""Beginnings of sequences that are in the cache already: found by their token ids, a whole page at a time."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class _Node:
    """One page after those of its parents: the slots that hold it, and what follows it by the next page's ids."""

    parent: "_Node | None" = None
    block: bytes = b""
    holders: dict[int, None] = field(default_factory=dict)  # a set in order: the oldest holder is named
    children: dict[bytes, "_Node"] = field(default_factory=dict)


class PrefixTree:
    """Which slots hold which whole pages. A page is known by all ids up to its end, compared as such, not by a hash."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._root = _Node()
        self._paths: dict[int, list[_Node]] = {}

    def block(self, ids: list[int], page: int) -> bytes:
        """The ids of a page as bytes; shorter where the ids end before the page does."""
        return np.array(ids[page * self._page_tokens:(page + 1) * self._page_tokens], dtype=np.int32).tobytes()

    def extend(self, slot: int, ids: list[int], held: int) -> None:
        """Tell that `slot` holds ids[:held]; what was told of it before is a beginning of that."""
        path = self._paths.setdefault(slot, [])
        while (len(path) + 1) * self._page_tokens <= held:
            parent = path[-1] if path else self._root
            block = self.block(ids, len(path))
            node = parent.children.setdefault(block, _Node(parent, block))
            node.holders[slot] = None
            path.append(node)

    def forget(self, slot: int) -> None:
        """Tell that `slot` holds nothing any more."""
        for node in reversed(self._paths.pop(slot, [])):
            del node.holders[slot]
            if not node.holders:  # then nobody holds a longer one either
                del node.parent.children[node.block]

    def move(self, source: int, target: int) -> None:
        """Tell that `target` holds what `source` held, and `source` nothing."""
        path = self._paths.pop(source, [])
        self._paths[target] = path
        for node in path:
            node.holders[target] = node.holders.pop(source)

    def companions(self, slot: int) -> list[int]:
        """The other slots that hold all pages of this one."""
        path = self._paths.get(slot)
        return [other for other in path[-1].holders if other != slot] if path else []

    def longest(self, ids: list[int], limit: int) -> tuple[int, int]:
        """(slot, n): a slot that holds the longest known beginning of ids[:limit], n tokens of it; n may be 0.

        The last page counts as far as `limit` reaches into it.
        """
        node, pages = self._root, 0
        while pages * self._page_tokens < limit:
            child = node.children.get(self.block(ids, pages))
            if child is None:
                break
            node, pages = child, pages + 1
        return next(iter(node.holders), -1), min(limit, pages * self._page_tokens)
