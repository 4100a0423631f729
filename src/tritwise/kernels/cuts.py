"""Top-k and top-p on the device, without sorting: the logit at which a cut falls, exactly, and what lies behind it.

The order is the core's (falling logit, then rising id). A cut is a key, the bits of a float as a whole number, and how
many of the tokens that have it are kept, those of the lowest ids. It is found by radix selection, 11, 11 and 10 bits:

    add_digits      how many tokens, and how much mass, each value of the next digit has among the keys found so far
    narrow_top_k    the digit of the k-th token; behind the last one, the mass of the first k
    narrow_top_p    the digit of the token that reaches top-p's mass; behind the last one, how many of its equals do
    cut_blocks      weights behind the cut and below min-p become 0; the sums of the blocks anew

Masses are weights as whole numbers, as in native/src/sampling.cpp (Masses, target_of), so sums have no order and may be
added by atomics. Top-p of what top-k leaves: the target is of the first k's mass, the tokens before it are the same.

A digit reads 4 V bytes of logits, and of tokens with the prefix the weights; its sums lie in L2. The first digit is
bound by atomics on the few bins where the logits are, the others by launches.
"""

import triton
import triton.language as tl

from tritwise.kernels.draws import store_sums

BINS = 2048
STAGES = 5  # sums of the first digit, of top-k's other two, of top-p's other two
DIGITS = ((21, 11), (10, 11), (0, 10))  # shift and bits


@triton.jit
def ordered(x):
    """Whole numbers in [0, 2^32) as int64 that rise with x; -0 as 0."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648


@triton.jit
def _mass(weight, SCALE: tl.constexpr):
    """round(weight * SCALE) as int64, half to even: adding 1.5 * 2^52 leaves the nearest integer in the low bits."""
    return (weight * SCALE + 6755399441055744.0).to(tl.int64, bitcast=True) - 4843621399236968448


@triton.jit
def add_digits(logits, weights, cuts, wanted, bins, vocab, SHIFT: tl.constexpr, BITS: tl.constexpr,
               STAGE: tl.constexpr, STAGES: tl.constexpr, BINS: tl.constexpr, COUNTS: tl.constexpr,
               MASSES: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr):
    """A block's tokens whose key begins with the row's prefix, added to the bins of their next digit.

    `cuts` int64 [m, 4]: prefix, what is left to find among its keys; `bins` int64 [m, STAGES, 2, BINS]: tokens, masses.
    """
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if tl.load(wanted + row) > 0:
        id = block * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(logits + row * vocab + id, mask=id < vocab, other=float("-inf"))
        key = ordered(x)
        # What is at -infinity is never drawn, and masks leave most tokens there.
        here = x > float("-inf")
        if STAGE > 0:
            here = here & ((key >> (SHIFT + BITS)) == tl.load(cuts + row * 4))
        digit = (key >> SHIFT) & ((1 << BITS) - 1)
        place = bins + (row * STAGES + STAGE) * 2 * BINS + digit
        if COUNTS:
            tl.atomic_add(place, tl.full([BLOCK], 1, tl.int64), mask=here, sem="relaxed")
        if MASSES:
            weight = tl.load(weights + row * vocab + id, mask=here, other=0.0)
            mass = _mass(weight, SCALE)
            tl.atomic_add(place + BINS, mass, mask=here & (mass > 0), sem="relaxed")


@triton.jit
def _reaches(amounts, left, BINS: tl.constexpr):
    """The bin, from the last one down, in which the sum reaches `left` (at least 1, at most the sum of all); the sum
    before it."""
    above = tl.sum(amounts, axis=0) - tl.cumsum(amounts, axis=0)
    here = (above < left) & (left <= above + amounts)
    found = tl.sum(tl.where(here, tl.arange(0, BINS), 0).to(tl.int64), axis=0)
    return found, tl.sum(tl.where(here, above, 0), axis=0)


@triton.jit
def narrow_top_k(top_k, cuts, wanted, bins, STAGE: tl.constexpr, BITS: tl.constexpr, STAGES: tl.constexpr,
                 BINS: tl.constexpr):
    """The next digit of the k-th key. `cuts`: prefix, its tokens among the k, of how many, mass of the first k."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(wanted + row) > 0:
        bin = tl.arange(0, BINS)
        place = bins + (row * STAGES + STAGE) * 2 * BINS + bin
        tokens, masses = tl.load(place), tl.load(place + BINS)
        cut = cuts + row * 4
        if STAGE == 0:
            prefix = tl.full([], 0, tl.int64)
            mass = tl.full([], 0, tl.int64)
            left = tl.minimum(tl.load(top_k + row).to(tl.int64), tl.sum(tokens, axis=0))
        else:
            prefix, left, mass = tl.load(cut), tl.load(cut + 1), tl.load(cut + 3)
        found, above = _reaches(tokens, left, BINS)
        left -= above
        mass += tl.sum(tl.where(bin > found, masses, 0), axis=0)
        if STAGE == 2:
            # One key, so equal masses.
            among = tl.sum(tl.where(bin == found, tokens, 0), axis=0)
            mass += tl.sum(tl.where(bin == found, masses, 0), axis=0) // among * left
            tl.store(cut + 2, among)
        tl.store(cut, (prefix << BITS) + found)
        tl.store(cut + 1, left)
        tl.store(cut + 3, mass)


@triton.jit
def narrow_top_p(top_p, cuts, wanted, listed, bins, STAGE: tl.constexpr, FIRST: tl.constexpr, BITS: tl.constexpr,
                 STAGES: tl.constexpr, BINS: tl.constexpr):
    """The next digit of the key that reaches top-p's mass; `cuts` at last: key, its tokens that are kept, of how many.

    FIRST: the first digit, with the target from the row's mass or, where it is `listed`, that of its first k.
    """
    row = tl.program_id(0).to(tl.int64)
    if tl.load(wanted + row) > 0:
        bin = tl.arange(0, BINS)
        place = bins + (row * STAGES + STAGE) * 2 * BINS + bin
        masses = tl.load(place + BINS)
        cut = cuts + row * 4
        if FIRST:
            prefix = tl.full([], 0, tl.int64)
            total = tl.where(tl.load(listed + row) > 0, tl.load(cut + 3), tl.sum(masses, axis=0))
            product = tl.load(top_p + row) * total.to(tl.float64)
            left = product.to(tl.int64)
            left = tl.minimum(tl.where(left.to(tl.float64) < product, left + 1, left), total)
        else:
            prefix, left = tl.load(cut), tl.load(cut + 1)
        found, above = _reaches(masses, left, BINS)
        left -= above
        if STAGE == STAGES - 1:
            among = tl.sum(tl.where(bin == found, tl.load(place), 0), axis=0)
            each = tl.sum(tl.where(bin == found, masses, 0), axis=0) // among
            left = (left + each - 1) // each
            tl.store(cut + 2, among)
        tl.store(cut, (prefix << BITS) + found)
        tl.store(cut + 1, left)


@triton.jit
def cut_blocks(logits, weights, sums, min_p, cuts, wanted, vocab, blocks, BLOCK: tl.constexpr, LANES: tl.constexpr,
               GROUP: tl.constexpr):
    """Weights of GROUP blocks of a wanted row, those behind its cut or below min-p as 0, and the blocks' sums."""
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK * GROUP
    if tl.load(wanted + row) > 0:
        logits += row * vocab
        weights += row * vocab
        id = begin + tl.arange(0, BLOCK * GROUP)
        key = ordered(tl.load(logits + id, mask=id < vocab, other=float("-inf")))
        cut, kept, among = tl.load(cuts + row * 4), tl.load(cuts + row * 4 + 1), tl.load(cuts + row * 4 + 2)
        equal = ((id < vocab) & (key == cut)).to(tl.int32)
        # Of equals beyond those that are kept, how many come before these blocks: seldom asked, so counted anew.
        before = tl.full([], 0, tl.int64)
        if (kept < among) & (tl.sum(equal, axis=0) > 0):
            at = begin * 0
            while at < begin:
                same = ordered(tl.load(logits + at + tl.arange(0, BLOCK * GROUP))) == cut
                before += tl.sum(same.to(tl.int32), axis=0)
                at += BLOCK * GROUP
        behind = (key < cut) | ((equal > 0) & (before + tl.cumsum(equal, axis=0) > kept))
        weight = tl.load(weights + id, mask=id < vocab, other=0.0)
        weight = tl.where(behind | (weight < tl.load(min_p + row)), 0.0, weight)
        tl.store(weights + id, weight, mask=id < vocab)
        tl.debug_barrier()
        store_sums(weights, sums + row * blocks, begin, vocab, blocks, BLOCK, LANES, GROUP)
