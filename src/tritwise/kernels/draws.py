"""The sampler's arithmetic on the device, operation for operation that of native/src/sampling.cpp: Triton functions.

Weights are doubles: exp((logit - largest) / temperature) by the core's own polynomial, added up in the core's order
(blocks of 256: sixteen lanes, then the tree 8, 4, 2, 1), drawn with Philox-4x64-10 (Salmon et al. 2011). So the same
logits, seed and position give the same token as on the CPU. Launches pass enable_fp_fusion=False.

Reads 4 V bytes of logits and writes and reads 8 V bytes of weights a row; bound by the doubles, about 40 operations a
logit, on GPUs that have few of them.
"""

import triton
import triton.language as tl

BLOCK = 256
LANES = 16
GROUP = 4  # blocks of a program


@triton.jit
def exp_negative(x):
    """e^x for doubles x <= 0, 0 below -708."""
    inside = tl.where(x < -708.0, -708.0, x)
    shifted = inside * 1.4426950408889634 + 6755399441055744.0
    n = shifted - 6755399441055744.0
    r = (inside - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0)
    p = p * r + (1.0 / 39916800.0)
    p = p * r + (1.0 / 3628800.0)
    p = p * r + (1.0 / 362880.0)
    p = p * r + (1.0 / 40320.0)
    p = p * r + (1.0 / 5040.0)
    p = p * r + (1.0 / 720.0)
    p = p * r + (1.0 / 120.0)
    p = p * r + (1.0 / 24.0)
    p = p * r + (1.0 / 6.0)
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    power = ((shifted.to(tl.int64, bitcast=True) + 1023) << 52).to(tl.float64, bitcast=True)
    return tl.where(x < -708.0, 0.0, p * power)


@triton.jit
def uniform(seed, position):
    """[0, 1): the upper 53 bits of the first word of Philox-4x64-10 at counter 1, keyed by uint64 seed and position."""
    zero = seed ^ seed
    c0, c1, c2, c3 = zero + 1, zero, zero, zero
    key0, key1 = seed, position
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, zero + 0xD2E7470EE14C6C93), c0 * 0xD2E7470EE14C6C93
        high1, low1 = tl.umulhi(c2, zero + 0xCA5A826395121157), c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0 = key0 + 0x9E3779B97F4A7C15
        key1 = key1 + 0xBB67AE8584CAA73B
    return (c0 >> 11).to(tl.float64) * 1.1102230246251565e-16


@triton.jit
def store_sums(weights, sums, begin, vocab, blocks, BLOCK: tl.constexpr, LANES: tl.constexpr, GROUP: tl.constexpr):
    """Stores the sums of GROUP blocks of weights in memory, from token `begin` on; each sixteen lanes, then the tree.

    A program that stored the weights itself has a barrier before this.
    """
    block = tl.arange(0, GROUP)
    at = begin + block[:, None] * BLOCK + tl.arange(0, LANES)[None, :]
    x = tl.zeros([GROUP, LANES], tl.float64)
    for _ in tl.static_range(BLOCK // LANES):
        x += tl.load(weights + at, mask=at < vocab, other=0.0)
        at += LANES
    x = tl.sum(tl.reshape(x, [GROUP, 2, 8]), axis=1)
    x = tl.sum(tl.reshape(x, [GROUP, 2, 4]), axis=1)
    x = tl.sum(tl.reshape(x, [GROUP, 2, 2]), axis=1)
    block += begin // BLOCK
    tl.store(sums + block, tl.sum(x, axis=1), mask=block < blocks)


@triton.jit
def weigh_blocks(logits, largest, inverse_temperatures, min_p, weights, sums, wanted, cut, vocab, blocks,
                 BLOCK: tl.constexpr, LANES: tl.constexpr, GROUP: tl.constexpr):
    """Weights of GROUP blocks of a wanted row, those below min_p as 0, and the blocks' sums.

    Rows that are `cut` keep all of them: min-p comes behind the cut (cuts.py).
    """
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK * GROUP
    if tl.load(wanted + row) > 0:
        id = begin + tl.arange(0, BLOCK * GROUP)
        weights += row * vocab
        top = tl.load(largest + row).to(tl.float64)
        x = tl.load(logits + row * vocab + id, mask=id < vocab, other=float("-inf")).to(tl.float64)
        weight = exp_negative((x - top) * tl.load(inverse_temperatures + row))
        least = tl.where(tl.load(cut + row) > 0, 0.0, tl.load(min_p + row))
        tl.store(weights + id, tl.where(weight >= least, weight, 0.0), mask=id < vocab)
        # What other threads of the program stored.
        tl.debug_barrier()
        store_sums(weights, sums + row * blocks, begin, vocab, blocks, BLOCK, LANES, GROUP)


@triton.jit
def draw_rows(weights, sums, seeds, positions, drawn, wanted, vocab, blocks, BLOCK: tl.constexpr,
              AT_ONCE: tl.constexpr):
    """The token of a wanted row at which the weights below it reach a uniform share of the total."""
    row = tl.program_id(0).to(tl.int64)
    one = tl.arange(0, 1)
    if tl.load(wanted + row) > 0:
        weights += row * vocab
        total = tl.zeros([1], tl.float64)
        begin = 0
        while begin < blocks:
            for j in tl.static_range(AT_ONCE):
                total += tl.load(sums + row * blocks + begin + j + one, mask=begin + j + one < blocks, other=0.0)
            begin += AT_ONCE
        share = uniform(tl.load(seeds + row + one).to(tl.uint64), tl.load(positions + row + one).to(tl.uint64))
        target = share * total
        mass = tl.zeros([1], tl.float64)
        at = tl.zeros([1], tl.int32)
        begin = 0
        while begin < blocks - 1:
            for j in tl.static_range(AT_ONCE):
                block = begin + j + one
                next = mass + tl.load(sums + row * blocks + block, mask=block < blocks, other=0.0)
                go = (at == block) & (block + 1 < blocks) & (next <= target)
                mass = tl.where(go, next, mass)
                at = tl.where(go, at + 1, at)
            begin += AT_ONCE
        # A sum may be rounded up beyond the last token of its block: then that token is the one, or, where the block
        # holds none, one behind it.
        last = one * 0 - 1
        open = one * 0 + 1
        i = tl.max(at, axis=0) * BLOCK
        end = i + BLOCK
        while (i < vocab) & (tl.max(open, axis=0) > 0):
            for j in tl.static_range(AT_ONCE):
                place = i + j + one
                weight = tl.load(weights + place, mask=place < vocab, other=0.0)
                some = weight > 0.0
                open = tl.where(some & (place >= end) & (last >= 0), 0, open)
                here = some & (open > 0)
                last = tl.where(here, place, last)
                mass = tl.where(here, mass + weight, mass)
                open = tl.where(here & (mass > target), 0, open)
            i += AT_ONCE
        i = vocab - 1
        while (i >= 0) & (tl.max(last, axis=0) < 0):
            last = tl.where(tl.load(weights + i + one) > 0.0, i + one, last)
            i -= 1
        tl.store(drawn + row + one, last)
