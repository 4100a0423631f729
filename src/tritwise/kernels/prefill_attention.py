"""Causal attention of the rows of prompts over the paged cache, which holds what stands before them and themselves.

A program takes neighbouring rows of one sequence and the query heads of one key-value head: BLOCK_M rows of a product.
It reads every chunk that its last row sees; a row's result is that of decode_attention.py, to the bit.

Reads, for BLOCK_M / (heads / kv heads) rows that see n positions: 2 n * (bytes of a key), mostly from the L2 cache.
Bound by the tensor cores: 4 n * head size operations a row and head.
"""

import triton
import triton.language as tl

from tritwise.kernels.attention_tiles import attend_chunk, load_query, merge_weights, store_outputs


@triton.jit
def attend_rows(q, positions, slots, tiles, tables, table_width, keys, key_scales, values, value_scales, out,
                score_scale,
                TYPE: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
                PAGE: tl.constexpr, STORED: tl.constexpr, GROUPS: tl.constexpr, BLOCK_D: tl.constexpr,
                BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr):
    """Rows tiles[i, 0] .. + tiles[i, 1] - 1 of the batch, which follow each other in one sequence."""
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    begin, count = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    if count > 0:
        GROUP: tl.constexpr = HEADS // KV_HEADS
        index = tl.arange(0, BLOCK_M)
        wanted = index < count * GROUP
        token = begin + index // GROUP
        rows = token.to(tl.int64) * HEADS + kv_head * GROUP + index % GROUP
        seen = tl.load(positions + token, mask=wanted, other=-1) + 1
        end = tl.load(positions + begin + count - 1) + 1
        slot = tl.load(slots + begin).to(tl.int64)
        q_low = load_query(q, rows, wanted, TYPE, HEAD_DIM, BLOCK_D, False)
        q_high = q_low
        if TYPE == "int4":
            q_high = load_query(q, rows, wanted, TYPE, HEAD_DIM, BLOCK_D, True)
        top = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        low = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        high = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        first = 0
        while first < end:
            other, added, more_low, more_high = attend_chunk(
                q_low, q_high, seen, first, end, tables + slot * table_width, kv_head, keys, key_scales, values,
                value_scales, score_scale, TYPE, KV_HEADS, PAGE, STORED, GROUPS, BLOCK_D, BLOCK_M, BLOCK_N, COLUMNS,
                CHUNK // BLOCK_N)
            top, mine, theirs = merge_weights(top, other)
            total = total * mine + added * theirs
            low = low * mine[:, None] + more_low * theirs[:, None]
            if TYPE == "int4":
                high = high * mine[:, None] + more_high * theirs[:, None]
            first += CHUNK
        store_outputs(out, rows, wanted, low, high, total, TYPE, HEAD_DIM, BLOCK_D)
