"""The first tokens of a row in the core's order (falling logit, then rising id), without sorting the row.

    four passes of 8 bits      the k-th largest logit, exactly (radix selection on the bits of the float)
    one pass                   ids above it, and of its equals those of the lowest ids, by rising id
    one bitonic sort of 256    their ranks

A program takes a row, so nothing is added up between programs, and k may differ from row to row. Not torch.sort or
torch.topk: the first sorts the whole vocabulary with its ids (12 V bytes several times), the second promises no order
among equal logits.

Reads 20 V bytes a row, all but the first 4 V from L2; writes 2.5 KB. Bound by the histogram, one row a multiprocessor.
"""

import triton
import triton.language as tl


@triton.jit
def ordered(x):
    """Whole numbers in [0, 2^32) as int64 that rise with x; -0 as 0."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648


@triton.jit
def first_tokens(logits, top_k, wanted, values, ids, ranks, vocab, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """The min(top_k, SIZE) first tokens of a wanted row.

    `values` [m, SIZE] are their logits in order, `ids` the tokens by rising id, `ranks` where each of those stands in
    the order. Behind them -infinity, `vocab`, and their own places.
    """
    row = tl.program_id(0).to(tl.int64)
    if tl.load(wanted + row) > 0:
        logits += row * vocab
        k = tl.minimum(tl.minimum(tl.load(top_k + row), SIZE), vocab)
        lane = tl.arange(0, BLOCK)
        # The digits of the k-th largest key so far, and how many of the keys that begin so are among the k.
        prefix = tl.zeros([1], tl.int64)
        left = tl.zeros([1], tl.int32) + k
        for digit in tl.static_range(4):
            counts = tl.zeros([256], tl.int32)
            begin = 0
            while begin < vocab:
                id = begin + lane
                key = ordered(tl.load(logits + id, mask=id < vocab, other=float("-inf")))
                same = (id < vocab) & ((key >> (32 - 8 * digit)) == prefix)
                bins = ((key >> (24 - 8 * digit)) & 255).to(tl.int32)
                counts += tl.histogram(bins, 256, mask=same)
                begin += BLOCK
            above = tl.sum(counts, axis=0) - tl.cumsum(counts, axis=0)
            here = (above < left) & (left <= above + counts)
            found = tl.sum(tl.where(here, tl.arange(0, 256), 0), axis=0)
            left -= tl.sum(tl.where(here, above, 0), axis=0)
            prefix = prefix * 256 + found
        place = tl.arange(0, SIZE)
        tl.store(ids + row * SIZE + place, tl.zeros([SIZE], tl.int32) + vocab)
        tl.debug_barrier()
        taken = tl.zeros([1], tl.int32)
        equals = tl.zeros([1], tl.int32)
        begin = 0
        while begin < vocab:
            id = begin + lane
            key = ordered(tl.load(logits + id, mask=id < vocab, other=float("-inf")))
            equal = ((id < vocab) & (key == prefix)).to(tl.int32)
            among = equals + tl.cumsum(equal, axis=0) <= left
            keep = (id < vocab) & ((key > prefix) | ((equal > 0) & among))
            count = keep.to(tl.int32)
            tl.store(ids + row * SIZE + taken + tl.cumsum(count, axis=0) - 1, id, mask=keep)
            taken += tl.sum(count, axis=0)
            equals += tl.sum(equal, axis=0)
            begin += BLOCK
        # What other threads of the program stored.
        tl.debug_barrier()
        kept = place < taken
        id = tl.load(ids + row * SIZE + place)
        x = tl.load(logits + id, mask=kept, other=float("-inf"))
        key = tl.where(kept, 4294967295 - ordered(x), 4294967296)
        order = tl.sort((key * SIZE) + place)
        at = (order % SIZE).to(tl.int32)
        tl.store(ranks + row * SIZE + at, place)
        id = tl.load(ids + row * SIZE + at)
        tl.store(values + row * SIZE + place, tl.load(logits + id, mask=kept, other=float("-inf")))
