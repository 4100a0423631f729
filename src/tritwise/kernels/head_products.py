"""The output head: logits, and the most likely id.

    logits [m, V] = states [m, H] x head [V, H]^T        float32

A logit depends on its own state and row of the head, to the bit, whatever m is. Up to 64 states (int8: 128) are
computed for each row of the head that is read; tiles of more run side by side and find it in L2.

- bf16, f16: the state is split into three numbers of the head's type, which together hold all 24 bits of a float32
  (f16: after a division by a power of two that brings the largest near 1); products are exact, sums are float32.
  A product has 16 or 32 states, which is the instruction mma.sync.m16n8k16 on every GPU from sm_80 on: 64 rows would
  become wgmma on sm_90, which may add in another order. Bound by the 2 H V bytes of the head for m <= 64.
- int8: both sides are integers. The state becomes codes hi * 128 + lo of 15 bits, scale = |x|max / (127 * 128); a row
  of the head has codes -127..127 and a scale (absmax). Sums are exact in any tile: logits are those of the CPU core to
  the bit. Bound by the H V bytes of the head for m <= 128.
"""

import triton
import triton.language as tl

from tritwise.kernels.rotary import rounded


@triton.jit
def split_state(states, planes, scales, H: tl.constexpr, BLOCK_H: tl.constexpr, KIND: tl.constexpr,
                PADDED: tl.constexpr):
    """A state as planes [planes, m, PADDED], zero beyond H, and a scale: NaN where a number of it is none."""
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    d = tl.arange(0, BLOCK_H)
    x = tl.load(states + row * H + d, mask=d < H, other=0.0)
    finite = tl.min((tl.abs(x) < float("inf")).to(tl.int32), axis=0) > 0
    x = tl.where(finite, x, 0.0)
    absmax = tl.max(tl.abs(x), axis=0)
    place = row * PADDED + d
    step = rows.to(tl.int64) * PADDED
    inside = d < PADDED
    if KIND == "int8":
        top = tl.maximum(absmax, 1e-5)
        value = rounded(x * tl.div_rn(16256.0, top))
        value = tl.minimum(tl.maximum(value, -16256.0), 16256.0)
        high = rounded(value * 0.0078125)
        tl.store(planes + place, high.to(tl.int8), mask=inside)
        tl.store(planes + step + place, (value - high * 128.0).to(tl.int8), mask=inside)
        scale = tl.div_rn(top, 16256.0)
    else:
        scale = 1.0
        if KIND == "f16":
            # The exponent alone: dividing by it is exact.
            bits = tl.maximum(absmax, 1e-30).to(tl.int32, bitcast=True) & 0x7F800000
            scale = bits.to(tl.float32, bitcast=True)
            x = tl.div_rn(x, scale)
        dtype = planes.dtype.element_ty
        for plane in tl.static_range(3):
            part = x.to(dtype)
            tl.store(planes + plane * step + place, part, mask=inside)
            x = x - part.to(tl.float32)
    tl.store(scales + row, tl.where(finite, scale, float("nan")))


@triton.jit(do_not_specialize=["m"])
def head_rows(planes, scales, head, row_scales, logits, m, vocab, H: tl.constexpr, PADDED: tl.constexpr,
              KIND: tl.constexpr, BLOCK_M: tl.constexpr, PARTS: tl.constexpr, BLOCK_V: tl.constexpr,
              BLOCK_K: tl.constexpr, WIDEN: tl.constexpr):
    """Logits of BLOCK_V rows of the head for PARTS * BLOCK_M states. WIDEN: the interpreter has no bfloat16 product.

    Programs: (tiles of states, tiles of the head), so that those which read the same rows of the head run together.
    """
    v = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    i = tl.program_id(0) * (PARTS * BLOCK_M) + tl.arange(0, BLOCK_M)
    step = m.to(tl.int64) * PADDED
    k = tl.arange(0, BLOCK_K)
    weights = head + v.to(tl.int64)[:, None] * PADDED + k[None, :]
    PLANES: tl.constexpr = 2 if KIND == "int8" else 3
    DTYPE: tl.constexpr = tl.int32 if KIND == "int8" else tl.float32
    sums = (tl.zeros([BLOCK_M, BLOCK_V], DTYPE),) * (PARTS * PLANES)
    for begin in tl.range(0, PADDED, BLOCK_K):
        w = tl.trans(tl.load(weights + begin, mask=(v < vocab)[:, None], other=0))
        if WIDEN:
            w = w.to(tl.float32)
        after = ()
        for at in tl.static_range(PARTS * PLANES):
            rows = i + at // PLANES * BLOCK_M
            state = planes + (at % PLANES) * step + rows.to(tl.int64)[:, None] * PADDED + k[None, :]
            x = tl.load(state + begin, mask=(rows < m)[:, None], other=0)
            if WIDEN:
                x = x.to(tl.float32)
            after = after + (tl.dot(x, w, sums[at], out_dtype=DTYPE),)  # noqa: RUF005
        sums = after
    for part in tl.static_range(PARTS):
        rows = i + part * BLOCK_M
        scale = tl.load(scales + rows, mask=rows < m, other=0.0)[:, None]
        first, second = sums[part * PLANES], sums[part * PLANES + 1]
        if KIND == "int8":
            of_rows = tl.load(row_scales + v, mask=v < vocab, other=0.0)[None, :]
            # 128 hi is exact, so this rounds as the core's fused sum does.
            result = (first.to(tl.float32) * 128.0 + second.to(tl.float32)) * (scale * of_rows)
        else:
            result = (first + (second + sums[part * PLANES + 2])) * scale
        inside = (rows < m)[:, None] & (v < vocab)[None, :]
        tl.store(logits + rows.to(tl.int64)[:, None] * vocab + v[None, :], result, mask=inside)


@triton.jit
def best_of_block(logits, tops, ids, bad, vocab, blocks, BLOCK: tl.constexpr):
    """The largest of BLOCK logits of a row, the lowest id that has it, and whether one is NaN or +infinity."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    id = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * vocab + id, mask=id < vocab, other=float("-inf"))
    wrong = tl.max((~(x < float("inf"))).to(tl.int32), axis=0)
    x = tl.where(x < float("inf"), x, float("-inf"))
    top = tl.max(x, axis=0)
    at = row * blocks + block
    tl.store(tops + at, top)
    tl.store(ids + at, tl.min(tl.where(x == top, id, 2147483647), axis=0))
    tl.store(bad + at, wrong)


@triton.jit
def best_of_blocks(tops, ids, bad, best, largest_of, blocks, BLOCK: tl.constexpr):
    """A row's most likely id from its blocks, -1 where its largest logit is NaN or infinite; and that logit."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCK)
    inside = block < blocks
    top = tl.load(tops + row * blocks + block, mask=inside, other=float("-inf"))
    wrong = tl.max(tl.load(bad + row * blocks + block, mask=inside, other=0), axis=0)
    largest = tl.max(top, axis=0)
    id = tl.load(ids + row * blocks + block, mask=inside, other=2147483647)
    first = tl.min(tl.where(top == largest, id, 2147483647), axis=0)
    tl.store(largest_of + row, largest)
    tl.store(best + row, tl.where((wrong > 0) | (largest == float("-inf")), -1, first))
