"""Many tokens (M > 64): an int8 tensor-core GEMM with one accumulator tile, whatever the field of the weights.

Four accumulators as for few tokens would not fit in registers at 128 x 256. So the fields come one after the other,
highest first, and the sum is shifted between them, as in Horner's scheme:

    acc = sum of 64 w3 x3;  acc >>= 2;  acc += 16 (w2 + 1) x2;  acc >>= 2;  acc += 4 (w1 + 1) x1;  acc >>= 2;
    acc += (w0 + 1) x0;     y = acc - sum of x0, x1, x2          (multiples of 64, 16 and 4: every shift is exact)

Reads for each tile: its weight bytes four times (BN K, what an int8 GEMM reads) and BM K of codes. Writes: 4 M N bytes.
Unpacking: one AND for four weights, once for BM tokens. Bound: the rate of the int8 tensor cores.
"""

import triton
import triton.language as tl

from tritwise.kernels.finish import finish


@triton.jit(do_not_specialize=["M", "steps", "splits"])
def prefill(x, x_scale, x_sums, w, w_scale, residual, out, sums, counters, M, N, K4, steps, splits,
            BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, STEPS: tl.constexpr, SPLIT: tl.constexpr,
            EVEN: tl.constexpr, HAS_RESIDUAL: tl.constexpr, GROUP: tl.constexpr):
    """Tile (rows, tokens) and its split of K. x int8 [M, 4 K4], w int8 [N, K4]; out float32 [M, N].

    Programs: tiles * splits; `steps` of BK bytes in a split (also STEPS, in the interpreter; else 0). EVEN: splits *
    steps * BK = K4. Tiles go in groups of GROUP token tiles by all row tiles, so that what runs at the same time shares
    weights and codes in L2.
    """
    split = tl.program_id(0) % splits
    tile = tl.program_id(0) // splits
    tiles_n = tl.cdiv(N, BN)
    tiles_m = tl.cdiv(M, BM)
    first_m = tile // (GROUP * tiles_n) * GROUP
    group = tl.minimum(tiles_m - first_m, GROUP)
    tile_m = first_m + tile % (GROUP * tiles_n) % group
    tile_n = tile % (GROUP * tiles_n) // group
    rows = tile_n * BN + tl.arange(0, BN)
    tokens = tile_m * BM + tl.arange(0, BM)
    # Rows and tokens past the end read the last one's bytes: their sums are not stored, and no load needs a mask.
    w_rows = w + tl.minimum(rows, N - 1)[:, None] * K4
    x_rows = x + tl.minimum(tokens, M - 1)[None, :] * (K4 * 4)
    acc = tl.zeros((BN, BM), dtype=tl.int32)
    for done in tl.static_range(4):
        x_field = x_rows + K4 * (3 - done)
        for step in range(STEPS if STEPS > 0 else steps):  # a constant unrolls, but the interpreter needs it
            k = (split * steps + step) * BK + tl.arange(0, BK)
            if EVEN:
                bytes4 = tl.load(w_rows + k[None, :])
                codes = tl.load(x_field + k[:, None])
            else:
                # A byte of zeros is 0 in every field: what is past the end adds nothing.
                bytes4 = tl.load(w_rows + k[None, :], mask=k[None, :] < K4, other=0)
                codes = tl.load(x_field + k[:, None], mask=k[:, None] < K4, other=0)
            if done == 0:
                acc = tl.dot(bytes4 & -0x40, codes, acc, out_dtype=tl.int32)
            elif done == 1:
                acc = tl.dot(bytes4 & 0x30, codes, acc, out_dtype=tl.int32)
            elif done == 2:
                acc = tl.dot(bytes4 & 0x0C, codes, acc, out_dtype=tl.int32)
            else:
                acc = tl.dot(bytes4 & 0x03, codes, acc, out_dtype=tl.int32)
        if done < 3:
            acc = acc >> 2
    finish(acc, x_scale, x_sums, w_scale, residual, out, sums, counters, tile, rows, tokens, M, N, splits,
           BN, BM, SPLIT, HAS_RESIDUAL)
