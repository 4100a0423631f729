"""Attention of single rows over the paged cache: flash-decoding, a program a (row, key-value head, chunk).

All query heads of a key-value head are the rows of one product, padded to 16, so keys and values are read once.

Reads, for a row that sees n positions: 2 n * kv heads * (bytes of a key), the queries, 4 n / page bytes of the table;
writes and reads again heads * chunks * (width + 2) * 4 bytes of states, together 1/126 of an f16 cache's bytes a query
head of a key-value head at head size 128. Bound by memory: an f16 cache's byte takes part in heads / kv heads
multiply-adds, 16 with the padding.
"""

import triton
import triton.language as tl

from tritwise.kernels.attention_tiles import attend_chunk, load_query, merge_weights, store_outputs


@triton.jit
def attend_chunks(q, positions, slots, tables, table_width, keys, key_scales, values, value_scales, tops, totals,
                  states, out, score_scale, chunks,
                  TYPE: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
                  PAGE: tl.constexpr, STORED: tl.constexpr, GROUPS: tl.constexpr, BLOCK_D: tl.constexpr,
                  BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
                  ALONE: tl.constexpr):
    """The state of one chunk; where there is only one (ALONE), the row's output."""
    row = tl.program_id(0).to(tl.int64)
    kv_head, chunk = tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots + row)
    end = tl.load(positions + row) + 1
    if (slot >= 0) & (chunk * CHUNK < end):
        GROUP: tl.constexpr = HEADS // KV_HEADS
        index = tl.arange(0, BLOCK_M)
        wanted = index < GROUP
        rows = row * HEADS + kv_head * GROUP + index
        q_low = load_query(q, rows, wanted, TYPE, HEAD_DIM, BLOCK_D, False)
        q_high = q_low
        if TYPE == "int4":
            q_high = load_query(q, rows, wanted, TYPE, HEAD_DIM, BLOCK_D, True)
        seen = tl.full([BLOCK_M], 0, tl.int32) + end
        top, total, low, high = attend_chunk(
            q_low, q_high, seen, chunk * CHUNK, end, tables + slot.to(tl.int64) * table_width, kv_head,
            keys, key_scales, values, value_scales, score_scale, TYPE, KV_HEADS, PAGE, STORED, GROUPS,
            BLOCK_D, BLOCK_M, BLOCK_N, COLUMNS, CHUNK // BLOCK_N)
        if ALONE:
            store_outputs(out, rows, wanted, low, high, total, TYPE, HEAD_DIM, BLOCK_D)
        else:
            d = tl.arange(0, BLOCK_D)
            PARTS: tl.constexpr = 2 if TYPE == "int4" else 1
            state = rows * chunks + chunk
            tl.store(tops + state, top, mask=wanted)
            tl.store(totals + state, total, mask=wanted)
            place = states + state[:, None] * (PARTS * STORED) + d[None, :]
            inside = wanted[:, None] & (d < STORED)[None, :]
            tl.store(place, low, mask=inside)
            if TYPE == "int4":
                tl.store(place + STORED, high, mask=inside)


@triton.jit
def merge_chunks(positions, slots, tops, totals, states, out, chunks,
                 TYPE: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, STORED: tl.constexpr,
                 BLOCK_D: tl.constexpr, CHUNK: tl.constexpr, AT_ONCE: tl.constexpr):
    """One head of one row: its chunks' states in order."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if tl.load(slots + row) >= 0:
        count = tl.load(positions + row) // CHUNK + 1
        d = tl.arange(0, BLOCK_D)
        inside = (d < STORED)[None, :]
        PARTS: tl.constexpr = 2 if TYPE == "int4" else 1
        # One-element tensors, so that merging is the same code as for many rows.
        one = tl.arange(0, 1)
        first = (row * HEADS + head) * chunks + one
        top = tl.full([1], float("-inf"), tl.float32)
        total = tl.zeros([1], tl.float32)
        low = tl.zeros([1, BLOCK_D], tl.float32)
        high = tl.zeros([1, BLOCK_D], tl.float32)
        chunk = 0
        while chunk < count:
            # Loads do not depend on what is merged: those of AT_ONCE chunks are under way together.
            for i in tl.static_range(AT_ONCE):
                there = chunk + i < count + one * 0
                state = first + chunk + i
                place = states + state[:, None] * (PARTS * STORED) + d[None, :]
                other = tl.load(tops + state, mask=there, other=float("-inf"))
                higher, mine, theirs = merge_weights(top, other)
                top = higher
                total = total * mine + tl.load(totals + state, mask=there, other=0.0) * theirs
                low = low * mine[:, None] + tl.load(place, mask=there[:, None] & inside, other=0.0) * theirs[:, None]
                if TYPE == "int4":
                    high = high * mine[:, None] + tl.load(place + STORED, mask=there[:, None] & inside,
                                                          other=0.0) * theirs[:, None]
            chunk += AT_ONCE
        rows = row * HEADS + head + one
        store_outputs(out, rows, one == 0, low, high, total, TYPE, HEAD_DIM, BLOCK_D)
