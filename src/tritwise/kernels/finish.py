"""The end of every product: partial sums of the splits become one, then the rescaling and the residual.

    splits of one tile          workspace (L2)            the last of them
    acc [BN, BM]  --RED.ADD-->  int32 tile, zero before   reads it, writes zeros back, rescales, stores
                                counter of the tile   --> its ticket is splits - 1

Integer addition has no order, so the sum, and with it every output bit, is the same at any split. A split adds 4 BN BM
bytes in L2; the last one reads and clears as many. Nothing is left behind: sums and counters are zero again.
"""

import triton
import triton.language as tl


@triton.jit
def store(acc, x_scale, x_sums, w_scale, residual, out, rows, tokens, M, N, HAS_RESIDUAL: tl.constexpr):
    """out = (acc - sums) * (x_scale * w_scale) + residual; `acc` is int32 [rows, tokens], `out` float32 [M, N]."""
    inside = (rows < N)[:, None] & (tokens < M)[None, :]
    sums = tl.load(x_sums + tokens, mask=tokens < M, other=0)
    scale_x = tl.load(x_scale + tokens, mask=tokens < M, other=0.0)
    scale_w = tl.load(w_scale + rows, mask=rows < N, other=0.0)
    y = (acc - sums[None, :]).to(tl.float32) * (scale_x[None, :] * scale_w[:, None])
    place = tokens[None, :] * N + rows[:, None]
    if HAS_RESIDUAL:
        y += tl.load(residual + place, mask=inside, other=0.0)
    tl.store(out + place, y, mask=inside)


@triton.jit
def finish(acc, x_scale, x_sums, w_scale, residual, out, sums, counters, tile, rows, tokens, M, N, splits,
           BN: tl.constexpr, BM: tl.constexpr, SPLIT: tl.constexpr, HAS_RESIDUAL: tl.constexpr):
    """`store` of the sum over the splits of tile number `tile`. Every program of the tile calls it once."""
    if not SPLIT:
        store(acc, x_scale, x_sums, w_scale, residual, out, rows, tokens, M, N, HAS_RESIDUAL)
    else:
        place = sums + tile * (BN * BM) + (tl.arange(0, BM)[None, :] * BN + tl.arange(0, BN)[:, None])
        # Columns past M are nobody's: not added, and zero as they were.
        inside = (tokens < M)[None, :] & (rows < N)[:, None]
        tl.atomic_add(place, acc, mask=inside, sem="relaxed")
        # All threads' additions come before the ticket: the barrier orders them before one thread's release, which
        # carries them along (cumulativity), and its acquire orders what the last program reads after them.
        tl.debug_barrier()
        ticket = tl.atomic_add(counters + tile, 1, sem="acq_rel")
        if ticket == splits - 1:
            total = tl.load(place, mask=inside, other=0, cache_modifier=".cg")  # atomics live in L2, not in L1
            tl.store(place, tl.zeros_like(total), mask=inside)
            tl.store(counters + tile, 0)
            store(total, x_scale, x_sums, w_scale, residual, out, rows, tokens, M, N, HAS_RESIDUAL)
