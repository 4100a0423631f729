"""Which repositories are held out, and in which order the others are trained on: both by seeded hashes of names."""

import hashlib
from collections.abc import Iterable, Mapping

from tritwise.common.errors import TritwiseError

# A few lines of code say nothing about a model; a repository below this size is trained on.
MIN_HELD_OUT_BYTES = 4096
# A repository may exceed what is still missing by this factor, so that one giant does not eat the split.
_MAX_OVERSHOOT = 1.5


def seeded_order(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Names in an order that depends on nothing but them, the seed and the purpose."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode()).digest(), name))


def choose_held_out(sizes: Mapping[str, int], fraction: float, seed: int) -> list[str]:
    """Names of the repositories to hold out, sorted.

    In seeded order, a repository is taken until `fraction` of all bytes is reached; one larger than 1.5 times what is
    then still missing, or smaller than 4 KiB, is passed over. When none fits, the smallest of at least 4 KiB (or the
    largest there is) is taken: at least one is held out unless `fraction` is 0, and at least one is left to train on.

    Raises TritwiseError when there is only one repository to split.
    """
    if fraction == 0:
        return []
    if len(sizes) < 2:
        raise TritwiseError("nothing can be held out", why=f"whole repositories are, and there is {len(sizes)}",
                            fix="data.held_out_fraction = 0, or more repositories")
    target = fraction * sum(sizes.values())
    eligible = [name for name in seeded_order(sizes, seed, "held out") if sizes[name] >= MIN_HELD_OUT_BYTES]
    chosen: list[str] = []
    missing = target
    for name in eligible:
        if missing > 0 and sizes[name] <= _MAX_OVERSHOOT * missing and len(chosen) < len(sizes) - 1:
            chosen.append(name)
            missing -= sizes[name]
    if not chosen:
        chosen = [min(eligible, key=lambda n: (sizes[n], n))] if eligible else [max(sizes, key=lambda n: (sizes[n], n))]
    return sorted(chosen)
