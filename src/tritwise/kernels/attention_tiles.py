"""What decode and prefill attention share, so that a row gets the same bits from both: Triton functions.

The positions a row sees are read in chunks that begin at position 0, a chunk in tiles of BLOCK_N positions. A chunk
gives a state: the largest score (in bits, that is scores times log2 e), the sum of the weights below it, and the
weighted values (online softmax, arXiv 1805.02867; FlashAttention-2, arXiv 2307.08691, section 3.1). States are merged
in the order of the chunks (FlashDecoding). Which program computes a chunk, and what other rows stand beside a row,
changes nothing:

- Both kernels go through the same functions, with the same BLOCK_N and CHUNK.
- A row of a product depends on its own row of the left operand. Decode has 16 rows and prefill 32 in a product, which
  keeps both on the instruction mma.sync.m16n8k16 on every GPU from sm_80 on (64 rows would become wgmma on sm_90).
- Sums over positions are products with a column of ones, because the order of a reduction depends on how a tile lies
  over warps; maxima are exact in any order.
- A chunk or tile of which a row sees nothing leaves its state as it is.
- Launches pass enable_fp_fusion=False: a multiply and an add are never contracted in one kernel and not in another.

Roundings: queries, int4 keys and values after their scale, and weights are float16; everything else is float32.
The scale of an int8 key multiplies the score, that of an int8 value the weight, relative to the largest the row sees in
the tile, by which the product is multiplied afterwards.
"""

import triton
import triton.language as tl

CHUNK = 256
SUM_COLUMNS = 16  # the narrowest right operand of a product


def block_positions(head_dim: int) -> int:
    """BLOCK_N, for both kernels: 64 positions of more than 128 dimensions and their codes do not fit in registers."""
    return 64 if head_dim <= 128 else 32


@triton.jit
def half_dims(TYPE: tl.constexpr, BLOCK_D: tl.constexpr, upper: tl.constexpr):
    """The dimensions of the lower or upper four bits of int4's bytes; all of them for the other types."""
    index = tl.arange(0, BLOCK_D)
    if TYPE == "int4":
        index = index // 16 * 32 + index % 16
        if upper:
            index += 16
    return index


@triton.jit
def small_codes(bits, offset: tl.constexpr):
    """Unsigned integers below 256, minus `offset`, as float16: 0x6400 is 1024, whose last place is 1."""
    return (bits.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True) - (1024.0 + offset)


@triton.jit
def group_scales(scales, at, valid, GROUPS: tl.constexpr, BLOCK_G: tl.constexpr):
    """[positions, 16 BLOCK_G]: int4's scale of each byte."""
    group = tl.arange(0, BLOCK_G)
    loaded = tl.load(scales + at[:, None] * GROUPS + group[None, :],
                     mask=valid[:, None] & (group < GROUPS)[None, :], other=0.0)
    count: tl.constexpr = at.shape[0]
    return tl.reshape(tl.broadcast_to(loaded[:, :, None], [count, BLOCK_G, 16]), [count, BLOCK_G * 16])


@triton.jit
def load_query(q, rows, wanted, TYPE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
               upper: tl.constexpr):
    """Queries float32 at q + rows * HEAD_DIM, as float16 [rows, BLOCK_D]; NaN stays NaN."""
    dims = half_dims(TYPE, BLOCK_D, upper)
    x = tl.load(q + rows[:, None] * HEAD_DIM + dims[None, :], mask=wanted[:, None] & (dims < HEAD_DIM)[None, :],
                other=0.0)
    return within_half(x).to(tl.float16)


@triton.jit
def within_half(x):
    """Clamped to float16's range; NaN stays NaN."""
    return tl.where(x > 65504.0, 65504.0, tl.where(x < -65504.0, -65504.0, x))


@triton.jit
def attend_chunk(q_low, q_high, seen, first, end, table, kv_head, keys, key_scales, values, value_scales, score_scale,
                 TYPE: tl.constexpr, KV_HEADS: tl.constexpr, PAGE: tl.constexpr, STORED: tl.constexpr,
                 GROUPS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                 COLUMNS: tl.constexpr, TILES: tl.constexpr):
    """The state (top [M], sum [M, COLUMNS], low [M, D], high [M, D]) of positions first + [0, TILES * BLOCK_N).

    Row i sees positions below seen[i] <= end. `table` points to the pages of the sequence.
    """
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M, COLUMNS], tl.float32)
    low = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    high = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    ones = tl.full([BLOCK_N, COLUMNS], 1.0, tl.float16)
    d = tl.arange(0, BLOCK_D)
    for tile in tl.range(0, TILES):
        position = first + tile * BLOCK_N + tl.arange(0, BLOCK_N)
        valid = position < end
        page = tl.load(table + position // PAGE, mask=valid, other=0).to(tl.int64)
        at = (page * KV_HEADS + kv_head) * PAGE + position % PAGE
        place = at[:, None] * STORED + d[None, :]
        inside = valid[:, None]
        if STORED != BLOCK_D:
            inside = inside & (d < STORED)[None, :]
        stored = tl.load(keys + place, mask=inside, other=0)
        if TYPE == "f16":
            scores = tl.dot(q_low, tl.trans(stored)) * score_scale
        elif TYPE == "int8":
            scales = tl.load(key_scales + at, mask=valid, other=0.0)
            scores = tl.dot(q_low, tl.trans(small_codes(stored, 128))) * scales[None, :] * score_scale
        else:
            scales = group_scales(key_scales, at, valid, GROUPS, BLOCK_D // 16)
            scores = tl.dot(q_low, tl.trans(small_codes(stored & 15, 8) * scales))
            scores = tl.dot(q_high, tl.trans(small_codes(stored >> 4, 8) * scales), scores) * score_scale
        visible = position[None, :] < seen[:, None]
        scores = tl.where(visible, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp2(top - shift)
        weights = tl.exp2(scores - shift[:, None])
        top = higher
        halves = weights.to(tl.float16)
        total = tl.dot(halves, ones, total * shrink[:, None])
        stored = tl.load(values + place, mask=inside, other=0)
        low = low * shrink[:, None]
        if TYPE == "f16":
            low = tl.dot(halves, stored, low)
        elif TYPE == "int8":
            scales = tl.load(value_scales + at, mask=valid, other=0.0)
            own = tl.where(visible, scales[None, :], 0.0)
            largest = tl.maximum(tl.max(own, axis=1), 1e-30)
            scaled = (weights * (own * (1.0 / largest)[:, None])).to(tl.float16)
            low += tl.dot(scaled, small_codes(stored, 128)) * largest[:, None]
        else:
            scales = group_scales(value_scales, at, valid, GROUPS, BLOCK_D // 16)
            low = tl.dot(halves, small_codes(stored & 15, 8) * scales, low)
            high = tl.dot(halves, small_codes(stored >> 4, 8) * scales, high * shrink[:, None])
    return top, tl.max(total, axis=1), low, high  # the columns of the sum are equal


@triton.jit
def merge_weights(top, other):
    """Both tops' maximum, and what the sums below them are multiplied by."""
    higher = tl.maximum(top, other)
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    return higher, tl.exp2(top - shift), tl.exp2(other - shift)


@triton.jit
def store_outputs(out, rows, wanted, low, high, total, TYPE: tl.constexpr, HEAD_DIM: tl.constexpr,
                  BLOCK_D: tl.constexpr):
    """Weighted means float32 to out + rows * HEAD_DIM."""
    # Rows that pad a product have seen nothing.
    inverse = tl.div_rn(1.0, tl.where(total == 0.0, 1.0, total))[:, None]
    dims = half_dims(TYPE, BLOCK_D, False)
    place = rows[:, None] * HEAD_DIM
    tl.store(out + place + dims[None, :], low * inverse, mask=wanted[:, None] & (dims < HEAD_DIM)[None, :])
    if TYPE == "int4":
        dims = half_dims(TYPE, BLOCK_D, True)
        tl.store(out + place + dims[None, :], high * inverse, mask=wanted[:, None] & (dims < HEAD_DIM)[None, :])
