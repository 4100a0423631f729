"""One to four tokens without tensor cores: dp4a on words of four bytes, each word sixteen weights.

    word & 0x03030303 --dp4a with 4 codes of x[0:K4]--> a0     (and so on: 4 ANDs and, a token, 4 dp4a for 16 weights)

Reads: N K / 4 bytes of weights once, M K bytes of codes for each tile of rows (L1, L2). Writes: 4 M N bytes.
Bound: the bytes of the weights for one or two tokens; at four, dp4a's rate (64 a clock and SM) is as tight.
A thread holds 4 words of each of BN rows: all its loads are 128 bits wide and in flight together.
"""

import triton
import triton.language as tl

from tritwise.kernels.finish import finish


@triton.jit
def dp4a(w, x, acc, ASM: tl.constexpr):
    """acc + the product of four signed bytes with four signed bytes, in every int32; exact in both ways."""
    if ASM:
        return tl.inline_asm_elementwise("dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [w, x, acc], dtype=tl.int32,
                                         is_pure=True, pack=1)
    # What the interpreter runs: the bytes one after the other.
    for byte in tl.static_range(4):
        acc += ((w << (24 - 8 * byte)) >> 24) * ((x << (24 - 8 * byte)) >> 24)
    return acc


@triton.jit(do_not_specialize=["M", "steps", "splits"])
def gemv(x, x_scale, x_sums, w, w_scale, residual, out, sums, counters, M, N, K64, steps, splits,
         BN: tl.constexpr, TOKENS: tl.constexpr, BK: tl.constexpr, STEPS: tl.constexpr, SPLIT: tl.constexpr,
         EVEN: tl.constexpr, HAS_RESIDUAL: tl.constexpr, ASM: tl.constexpr):
    """Rows of a tile, its split of K, all tokens (M <= TOKENS). x int32 [M, 16 K64], w int32 [N, 4 K64] (words).

    Programs: row tiles * splits; `steps` of BK words in a split (also STEPS, in the interpreter; else 0). EVEN:
    splits * steps * BK = 4 K64. K64 = K padded / 64 is the argument because 4 K64 shows the compiler that a row begins
    at a multiple of 16 bytes. A thread has 4 BN TOKENS BK / threads accumulators; the launch keeps them at 128, so
    BN TOKENS <= 8 at BK = 4 threads.
    """
    tile = tl.program_id(0) // splits
    split = tl.program_id(0) % splits
    rows = tile * BN + tl.arange(0, BN)
    plane = K64 * 4
    w_rows = w + tl.minimum(rows, N - 1)[:, None] * plane
    zero = tl.zeros((BN, BK), dtype=tl.int32)
    accs = (zero,) * (4 * TOKENS)
    for step in range(STEPS if STEPS > 0 else steps):  # a constant unrolls, but the interpreter needs it
        k = ((split * steps + step) * BK + tl.arange(0, BK))[None, :]
        # A word of zeros is 0 in every field: what is past the end adds nothing.
        words = tl.load(w_rows + k) if EVEN else tl.load(w_rows + k, mask=k < plane, other=0)
        fields = (words & 0x03030303, words & 0x0C0C0C0C, words & 0x30303030, words & -0x3F3F3F40)
        after = ()
        for at in tl.static_range(4 * TOKENS):
            place = x + tl.minimum(at // 4, M - 1) * (plane * 4) + plane * (at % 4) + k
            codes = tl.load(place) if EVEN else tl.load(place, mask=k < plane, other=0)
            after = after + (dp4a(fields[at % 4], codes, accs[at], ASM),)  # noqa: RUF005
        accs = after
    for token in tl.static_range(TOKENS):
        a = accs[4 * token] + (accs[4 * token + 1] >> 2) + (accs[4 * token + 2] >> 4) + (accs[4 * token + 3] >> 6)
        finish(tl.sum(a, axis=1)[:, None], x_scale, x_sums, w_scale, residual, out, sums, counters,
               tile * TOKENS + token, rows, token + tl.arange(0, 1), M, N, splits, BN, 1, SPLIT,
               HAS_RESIDUAL)
