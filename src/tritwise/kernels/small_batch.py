"""Few tokens (M <= 64, and any M by tiles): weights are the tensor cores' M operand, tokens their N operand.

    weights [BN, BK] bytes --LDSM--> registers --4 x AND--> 4 int8 operands --> 4 dots with 4 slices of x
    a0 += (w & 0x03) x[0:K4]    a1 += (w & 0x0C) x[K4:2K4]    a2 += (w & 0x30) x[2K4:3K4]    a3 += (w & 0xC0) x[3K4:]

Reads: N K / 4 bytes of weights once (for each tile of tokens), and M K bytes of codes for each tile of rows, from L2.
Writes: 4 M N bytes. One AND for four weights is all the unpacking there is: 0.25 instructions a weight.
Bound: the bytes of the weights, while the tokens' codes that a tile reads (BM K) are fewer than its weights (BN K / 4).
"""

import triton
import triton.language as tl

from tritwise.kernels.finish import finish


@triton.jit(do_not_specialize=["M", "steps", "splits"])
def small_batch(x, x_scale, x_sums, w, w_scale, residual, out, sums, counters, M, N, K4, steps, splits,
                BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, STEPS: tl.constexpr, SPLIT: tl.constexpr,
                EVEN: tl.constexpr, HAS_RESIDUAL: tl.constexpr):
    """Tile (rows, tokens) and its split of K. x int8 [M, 4 K4], w int8 [N, K4]; out float32 [M, N].

    Programs: (row tiles * splits, token tiles); `steps` of BK bytes in a split (also STEPS, in the interpreter; else
    0). EVEN: splits * steps * BK = K4.
    """
    tile_n = tl.program_id(0) // splits
    split = tl.program_id(0) % splits
    tile_m = tl.program_id(1)
    rows = tile_n * BN + tl.arange(0, BN)
    tokens = tile_m * BM + tl.arange(0, BM)
    # Rows past the end read the last one's bytes; their sums are not stored. Tokens past the end are not read: they can
    # be fifteen of sixteen, as many bytes from L2 as the weights.
    w_rows = w + tl.minimum(rows, N - 1)[:, None] * K4
    x_rows = x + tokens[None, :] * (K4 * 4)
    real = (tokens < M)[None, :]
    a0 = tl.zeros((BN, BM), dtype=tl.int32)
    a1 = tl.zeros((BN, BM), dtype=tl.int32)
    a2 = tl.zeros((BN, BM), dtype=tl.int32)
    a3 = tl.zeros((BN, BM), dtype=tl.int32)
    for step in range(STEPS if STEPS > 0 else steps):  # a constant unrolls, but the interpreter needs it
        k = (split * steps + step) * BK + tl.arange(0, BK)
        if EVEN:
            bytes4 = tl.load(w_rows + k[None, :])
            x0 = tl.load(x_rows + k[:, None], mask=real, other=0)
            x1 = tl.load(x_rows + (k[:, None] + K4), mask=real, other=0)
            x2 = tl.load(x_rows + (k[:, None] + K4 * 2), mask=real, other=0)
            x3 = tl.load(x_rows + (k[:, None] + K4 * 3), mask=real, other=0)
        else:
            # A byte of zeros is 0 in every field: what is past the end adds nothing.
            inside = real & (k < K4)[:, None]
            bytes4 = tl.load(w_rows + k[None, :], mask=k[None, :] < K4, other=0)
            x0 = tl.load(x_rows + k[:, None], mask=inside, other=0)
            x1 = tl.load(x_rows + (k[:, None] + K4), mask=inside, other=0)
            x2 = tl.load(x_rows + (k[:, None] + K4 * 2), mask=inside, other=0)
            x3 = tl.load(x_rows + (k[:, None] + K4 * 3), mask=inside, other=0)
        a0 = tl.dot(bytes4 & 0x03, x0, a0, out_dtype=tl.int32)
        a1 = tl.dot(bytes4 & 0x0C, x1, a1, out_dtype=tl.int32)
        a2 = tl.dot(bytes4 & 0x30, x2, a2, out_dtype=tl.int32)
        a3 = tl.dot(bytes4 & -0x40, x3, a3, out_dtype=tl.int32)
    acc = a0 + (a1 >> 2) + (a2 >> 4) + (a3 >> 6)
    tile = tile_m * (tl.num_programs(0) // splits) + tile_n
    finish(acc, x_scale, x_sums, w_scale, residual, out, sums, counters, tile, rows, tokens, M, N, splits,
           BN, BM, SPLIT, HAS_RESIDUAL)
