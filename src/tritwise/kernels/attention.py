"""Attention over the paged cache for any mix of rows: which rows go through which kernel, and the launches.

    plan = plan_attention(slots, positions, group=heads // kv_heads, device=device)
    attend(q, layer_cache, tables, plan, workspace, out)

    plan = decode_plan(rows, chunks_of(longest), device)      # for a captured graph: made once,
    fill_plan(plan, slots, positions)                         # and filled before every replay

A row's output depends on its own query and its sequence's keys and values, to the bit: not on other rows, on how a
prompt was cut into steps, on the kernel, the page size, or the number of chunks that the launch has room for.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritwise.kernels.cache import INT4_GROUP, LayerCache

# Rows of a product in prefill; 64 would change the instruction on sm_90 (attention_tiles.py).
PREFILL_ROWS = 32
# From so many neighbouring rows of a sequence on they go through the prefill kernel: keys are read once for them.
_PREFILL_FROM = 2
_MERGED_AT_ONCE = 8


@dataclass(frozen=True)
class AttentionPlan:
    """How the rows of a batch go through attention; the same for all layers.

    `slots` and `positions` int32 [n] of all rows; `decode_slots` int32 [n] has -1 for those that prefill computes;
    `tiles` int32 [t, 2]: (first row, rows) of each prefill tile. `chunks` that decode rows have at most, 0 for none.
    A captured graph keeps the tensors and gets new contents; its `chunks` are those of the longest context it serves.
    """

    slots: Tensor
    decode_slots: Tensor
    positions: Tensor
    tiles: Tensor
    chunks: int


def block_rows(group: int, least: int) -> int:
    """Rows of a product for `group` query heads a key-value head."""
    return max(least, 1 << (group - 1).bit_length())


def prefill_tiles(slots: NDArray[np.int32], positions: NDArray[np.int32], group: int) -> NDArray[np.int32]:
    """Tiles [t, 2] of (first row, rows) that cover all neighbouring rows of one sequence; single rows are in none.

    Tiles with the most positions come first, so that no processor is left with one at the end.
    """
    each = block_rows(group, PREFILL_ROWS) // group
    tiles = []
    begin = 0
    while begin < len(slots):
        end = begin + 1
        while end < len(slots) and slots[end] == slots[begin] and positions[end] == positions[end - 1] + 1:
            end += 1
        if end - begin >= _PREFILL_FROM and slots[begin] >= 0:
            tiles += [(first, min(each, end - first)) for first in range(begin, end, each)]
        begin = end
    tiles.sort(key=lambda tile: -int(positions[tile[0] + tile[1] - 1]))
    return np.array(tiles, np.int32).reshape(-1, 2)


def chunks_of(context: int) -> int:
    """Chunks of a sequence of `context` positions."""
    from tritwise.kernels.attention_tiles import CHUNK

    return -(-context // CHUNK)


def plan_attention(slots: NDArray[np.int32], positions: NDArray[np.int32], *, group: int,
                   device: torch.device | str = "cpu", prefill: bool = True) -> AttentionPlan:
    """The plan for rows as `tritwise.engine.Batch` describes them; a slot of -1 is a row that nothing is computed for.

    Without `prefill` all rows go through the decode kernel.
    """
    tiles = prefill_tiles(slots, positions, group) if prefill else np.empty((0, 2), np.int32)
    single = np.array(slots, np.int32)
    for first, count in tiles:
        single[first:first + count] = -1
    longest = int(np.max(positions + 1, where=single >= 0, initial=0))
    tensors = (torch.from_numpy(np.ascontiguousarray(each, np.int32)).to(device)
               for each in (slots, single, positions, tiles))
    return AttentionPlan(*tensors, chunks_of(longest))


def decode_plan(rows: int, chunks: int, device: torch.device | str = "cpu") -> AttentionPlan:
    """A plan for up to `rows` rows of up to `chunks` chunks, all through the decode kernel; empty until it is filled.

    Its tensors stay where they are, so a graph may hold them: `slots` and `decode_slots` are one, and it begins, as
    `positions` does, at a multiple of 16 bytes, whatever `rows` is.
    """
    inputs = torch.zeros(2, -(-rows // 4) * 4, dtype=torch.int32, device=device)
    inputs[0].fill_(-1)
    slots, positions = inputs[0, :rows], inputs[1, :rows]
    return AttentionPlan(slots, slots, positions, torch.empty(0, 2, dtype=torch.int32, device=device), chunks)


def fill_plan(plan: AttentionPlan, slots: NDArray[np.int32], positions: NDArray[np.int32]) -> None:
    """The rows of the next step in a `decode_plan`: int32 [n] each, n at most its rows; the others get slot -1.

    Such a row costs an empty program in rotate_and_cache and attend, and nothing is written for it: neither to the
    cache nor to their outputs, whose rows keep what they held. Not for captures: it copies from the host.
    Raises ValueError for more rows, and for positions beyond the plan's chunks.
    """
    n, rows = len(slots), len(plan.slots)
    if n > rows or positions.shape != slots.shape:
        raise ValueError(f"{n} slots and {len(positions)} positions do not fit a plan of {rows} rows")
    longest = int(np.max(positions + 1, where=slots >= 0, initial=0))
    if chunks_of(longest) > plan.chunks:
        raise ValueError(f"a context of {longest} positions does not fit a plan of {plan.chunks} chunks")
    padded = np.zeros((2, rows), np.int32)
    padded[0] = -1
    padded[:, :n] = slots, positions
    # From pageable memory: when this returns, the driver has read it.
    plan.slots.copy_(torch.from_numpy(padded[0]))
    plan.positions.copy_(torch.from_numpy(padded[1]))


@dataclass(frozen=True)
class Workspace:
    """Chunks' states of decode rows: tops and totals float32 [n, heads, chunks], values [n, heads, chunks, width]."""

    tops: Tensor
    totals: Tensor
    states: Tensor


def workspace(rows: int, heads: int, chunks: int, width: int, device: torch.device | str = "cpu") -> Workspace:
    """Room for `rows` decode rows of up to `chunks` chunks."""
    shape = (rows, heads, chunks)
    return Workspace(torch.empty(shape, device=device), torch.empty(shape, device=device),
                     torch.empty(*shape, width, device=device))


def layout_constants(cache: LayerCache, heads: int, chunk: int | None = None) -> dict:
    """What both kernels are compiled for."""
    from tritwise.kernels import attention_tiles

    packed = cache.type == "int4"
    stored = cache.width // 2 if packed else cache.width
    return {"TYPE": cache.type, "HEADS": heads, "KV_HEADS": cache.kv_heads, "HEAD_DIM": cache.head_dim,
            "PAGE": cache.page_tokens, "STORED": stored, "GROUPS": cache.width // INT4_GROUP,
            "BLOCK_D": max(16, 1 << (stored - 1).bit_length()),
            "BLOCK_N": attention_tiles.block_positions(cache.head_dim), "COLUMNS": attention_tiles.SUM_COLUMNS,
            "CHUNK": chunk or attention_tiles.CHUNK}


def _check(q: Tensor, cache: LayerCache, tables: Tensor, plan: AttentionPlan, out: Tensor) -> None:
    n, heads, head_dim = q.shape
    assert q.dtype == torch.float32, q.dtype
    assert out.dtype in (torch.float32, torch.bfloat16, torch.float16), out.dtype
    assert out.shape == q.shape, (q.shape, out.shape)
    assert (head_dim, heads % cache.kv_heads) == (cache.head_dim, 0), q.shape
    assert (tables.dtype, tables.dim()) == (torch.int32, 2), "tables are int32 [rows, pages]"
    assert all(each.is_contiguous() for each in (q, out, tables)), "strides are those of contiguous tensors"
    assert plan.positions.shape == plan.slots.shape == (n,), (plan.positions.shape, n)


def attend(q: Tensor, cache: LayerCache, tables: Tensor, plan: AttentionPlan, room: Workspace | None,
           out: Tensor) -> None:
    """Causal attention of all rows: q float32 [n, heads, head_dim] to `out`, alike or rounded to 16 bits.

    `tables` int32 [slots, most pages]: the pages of each sequence, in order. The keys and values of the rows are in the
    cache already (rotary.py). `room` is needed when a decode row has more than one chunk.
    """
    from tritwise.kernels.decode_attention import attend_chunks, merge_chunks
    from tritwise.kernels.prefill_attention import attend_rows

    _check(q, cache, tables, plan, out)
    n, heads, _ = q.shape
    constants = layout_constants(cache, heads)
    group = heads // cache.kv_heads
    # In bits: exp2 is what the hardware has.
    score_scale = math.log2(math.e) / math.sqrt(cache.head_dim)
    stored = (cache.keys, cache.key_scales, cache.values, cache.value_scales)
    if plan.chunks:
        alone = plan.chunks == 1
        if alone:
            room = Workspace(out, out, out)
        assert alone or _fits(room, n, heads, plan.chunks, cache.width), "the workspace is too small"
        attend_chunks[n, cache.kv_heads, plan.chunks](
            q, plan.positions, plan.decode_slots, tables, tables.shape[1], *stored, room.tops, room.totals,
            room.states, out, score_scale, plan.chunks, **constants, BLOCK_M=block_rows(group, 16), ALONE=alone,
            num_warps=4, num_stages=3, enable_fp_fusion=False)
        if not alone:
            merge = {name: constants[name] for name in ("TYPE", "HEADS", "HEAD_DIM", "STORED", "BLOCK_D", "CHUNK")}
            merge_chunks[n, heads](plan.positions, plan.decode_slots, room.tops, room.totals, room.states, out,
                                   plan.chunks, **merge, AT_ONCE=_MERGED_AT_ONCE, num_warps=1, enable_fp_fusion=False)
    if len(plan.tiles):
        attend_rows[len(plan.tiles), cache.kv_heads](
            q, plan.positions, plan.slots, plan.tiles, tables, tables.shape[1], *stored, out, score_scale,
            **constants, BLOCK_M=block_rows(group, PREFILL_ROWS), num_warps=8, num_stages=2, enable_fp_fusion=False)


def _fits(room: Workspace | None, rows: int, heads: int, chunks: int, width: int) -> bool:
    states = rows * heads * chunks
    return room is not None and room.tops.numel() >= states and room.states.numel() >= states * width
