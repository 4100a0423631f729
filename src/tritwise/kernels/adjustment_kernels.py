"""Logits as mask, bias and penalties leave them, and the count of what was drawn: Triton functions (adjustments.py).

Reads 4 V bytes of logits a row and, of a row that has adjustments, V / 8 bytes of its mask, 4 V of its bias and 4 V of
its counts; writes 4 V. Bound by those bytes.
"""

import triton
import triton.language as tl


@triton.jit
def adjust_block(logits, out, slots, on, masks, biases, counts, penalties, vocab, words, BLOCK: tl.constexpr):
    """BLOCK logits of a row, operation for operation as the core's `adjusted` in native/src/sampling.cpp."""
    row = tl.program_id(0).to(tl.int64)
    id = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = id < vocab
    x = tl.load(logits + row * vocab + id, mask=inside, other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    if tl.load(on + slot, mask=slot >= 0, other=0) > 0:
        word = tl.load(masks + slot * words + id // 32, mask=inside, other=0)
        y = tl.where((word >> (id % 32)) & 1 > 0, x, float("-inf"))
        y = y + tl.load(biases + slot * vocab + id, mask=inside, other=0.0)
        seen = tl.load(counts + slot * vocab + id, mask=inside, other=0)
        repetition, frequency = tl.load(penalties + slot * 3), tl.load(penalties + slot * 3 + 1)
        presence = tl.load(penalties + slot * 3 + 2)
        repeated = tl.where(y < 0, y * repetition, tl.div_rn(y, repetition))
        y = tl.where(seen != 0, repeated, y)
        count = seen & 0x7FFFFFFF
        y = tl.where(count > 0, y - count.to(tl.float32) * frequency - presence, y)
        # What is no number, or infinite, must not hide behind the mask.
        x = tl.where(x < float("inf"), y, x)
    tl.store(out + row * vocab + id, x, mask=inside)


@triton.jit
def count_token(drawn, slots, on, counts, vocab):
    """One more of the token that was drawn for a row; bit 31 says that the text holds it."""
    row = tl.program_id(0)
    slot, token = tl.load(slots + row).to(tl.int64), tl.load(drawn + row)
    if (token >= 0) & (tl.load(on + slot, mask=slot >= 0, other=0) > 0):
        place = counts + slot * vocab + token
        tl.store(place, (tl.load(place) | -2147483648) + 1)
