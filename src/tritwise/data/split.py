"""Which repositories are held out, and in which order the others are trained on: both by seeded hashes of names."""

import hashlib
from collections.abc import Callable, Iterable, Mapping

from tritwise.common.errors import TritwiseError

# A few lines of code say nothing about a model; a repository below this size is trained on.
MIN_HELD_OUT_BYTES = 4096
# No repository may be more than this share of what is to be held out, so that one giant does not become the split.
MAX_SHARE = 0.25


def seeded_order(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Names in an order that depends on nothing but them, the seed and the purpose."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode()).digest(), name))


def choose_held_out(sizes: Mapping[str, int], fraction: float, seed: int, *,
                    may_be_held_out: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Names of the repositories to hold out, sorted.

    In seeded order, repositories are taken until `fraction` of all bytes is reached. Those smaller than 4 KiB, or
    larger than a quarter of what is asked for, are passed over. When none fits, the smallest of at least 4 KiB is
    taken, or the largest there is. So at least one is held out, unless `fraction` is 0, and one is left to train on.

    Args:
        sizes: bytes of each repository's kept files.
        may_be_held_out: whether a repository may be chosen at all.

    Raises TritwiseError when there are fewer than two repositories, or none that may be held out.
    """
    if fraction == 0:
        return []
    allowed = [name for name in seeded_order(sizes, seed, "held out") if may_be_held_out(name)]
    if len(sizes) < 2 or not allowed:
        raise TritwiseError("nothing can be held out",
                            why=f"whole repositories are; of {len(sizes)}, {len(allowed)} may be",
                            fix="data.held_out_fraction = 0, or more repositories")
    target = fraction * sum(sizes.values())
    large_enough = [name for name in allowed if sizes[name] >= MIN_HELD_OUT_BYTES]
    chosen: list[str] = []
    held = 0
    for name in large_enough:
        if held < target and sizes[name] <= MAX_SHARE * target and len(chosen) < len(sizes) - 1:
            chosen.append(name)
            held += sizes[name]
    if not chosen:
        by_size = sorted(large_enough or allowed, key=lambda name: (sizes[name], name))
        chosen = [by_size[0] if large_enough else by_size[-1]]
    return sorted(chosen)
