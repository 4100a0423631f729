"""How large a backend's cache is: what was asked for, checked, in pages."""

from dataclasses import dataclass

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig

# Full sequences that the cache has room for when `cache_tokens` is not given.
_FULL_SEQUENCES = 4
# Finished sequences at most whose beginnings stay in the cache.
_PARKED = 256


@dataclass(frozen=True)
class CacheSizes:
    """`pages` for the tables of `rows` (the slots, and what finished sequences left) of up to `context` positions."""

    slots: int
    context: int
    pages: int
    rows: int


def cache_sizes(config: ModelConfig, *, slots: int, context: int | None, cache_tokens: int | None,
                page_tokens: int) -> CacheSizes:
    """The sizes for `slots` sequences of `context` tokens, `cache_tokens` positions in all (rounded up to pages).

    Without `context` it is that of the model, or `cache_tokens` where this is less; without `cache_tokens` there is
    room for 4 full sequences, fewer with fewer slots. Raises TritwiseError for what cannot be.
    """
    whole = cache_tokens is None
    if context is None:
        context = config.max_position_embeddings if whole else min(cache_tokens, config.max_position_embeddings)
    if whole:
        cache_tokens = min(slots, _FULL_SEQUENCES) * context
    for name, value in (("slots", slots), ("context", context), ("cache_tokens", cache_tokens)):
        if value < 1:
            raise TritwiseError(f"{name} is {value}", why="at least 1 is needed")
    if context > config.longest_context:
        raise TritwiseError(f"the context cannot be {context} tokens long",
                            why=f"the model knows {config.longest_context} positions",
                            fix="stretch them: rope_scaling={'rope_type': 'yarn'}, or --rope-scaling yarn")
    if cache_tokens < context:
        raise TritwiseError(f"a sequence of {context} tokens does not fit into a cache of {cache_tokens}",
                            why="the cache has to hold one full sequence",
                            fix=f"set cache_tokens to {context} or more, or context to {cache_tokens} or less")
    pages = -(-cache_tokens // page_tokens)
    if whole:  # each of them in pages of its own
        pages = min(slots, _FULL_SEQUENCES) * -(-context // page_tokens)
    return CacheSizes(slots, context, pages, slots + min(pages, _PARKED))
