"""Attention over the paged cache: within the derived bound of scaled_dot_product_attention in float64, and the same
bits whatever stands beside a row and however a prompt was cut."""

import numpy as np
import pytest
import torch
from kernel_caches import attended, filled_cache, tables_of

from tritwise.common.errors import TritwiseError
from tritwise.kernels.attention import (
    AttentionPlan,
    Workspace,
    attend,
    decode_plan,
    fill_plan,
    plan_attention,
    prefill_tiles,
    workspace,
)
from tritwise.kernels.attention_twins import attend_twin, cached, output_error
from tritwise.kernels.cache import CACHE_TYPES, KVCache

# numpy warns, in the interpreter, where the hardware gives NaN.
pytestmark = pytest.mark.filterwarnings("ignore:.*NaN.*:RuntimeWarning", "ignore:invalid value:RuntimeWarning")


def queries(n, heads, head_dim, seed=3):
    return torch.randn(n, heads, head_dim, generator=torch.Generator().manual_seed(seed))


def rows_off(out, q, layer, tables, slots, positions):
    """Rows of attention that are further from the exact one than the bound, or whose bound says nothing."""
    off = []
    exact = attend_twin(q, layer, tables, torch.tensor(slots), torch.tensor(positions))
    for row, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        keys, values = cached(layer, tables[slot], position + 1)
        bound = output_error(q[row].double(), keys, values, layer.type)
        error = (out[row].double() - exact[row]).abs().max().item()
        if not error <= bound < 0.12 * values.abs().max():
            off.append((row, error, bound))
    return off


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"),
                         [(2, 2, 64), (4, 1, 100), (8, 1, 128), (3, 1, 16), (2, 1, 256)])
def test_ragged_rows_are_within_the_bound_of_exact_attention(cache_type, heads, kv_heads, head_dim):
    lengths = [1, 64, 300]
    layer = filled_cache(cache_type, kv_heads=kv_heads, head_dim=head_dim, pages=30)
    tables = tables_of(lengths, 16, 30)
    # Two rows that decode, and the end of a prompt.
    slots, positions = [0, 1, 2, 2, 2], [0, 63, 297, 298, 299]
    q = queries(5, heads, head_dim)
    assert rows_off(attended(q, layer, tables, slots, positions), q, layer, tables, slots, positions) == []


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_the_kernels_and_the_cuts_of_a_prompt_never_change_a_bit(cache_type):
    """One row at a time, all rows in one step, and steps of several sizes: through decode, prefill, or both."""
    length, heads, kv_heads, head_dim = 270, 2, 1, 64
    layer = filled_cache(cache_type, kv_heads=kv_heads, head_dim=head_dim, pages=20)
    tables = tables_of([length], 16, 20)
    first = 236
    q = queries(length - first, heads, head_dim)
    positions = list(range(first, length))
    whole = attended(q, layer, tables, [0] * len(q), positions)
    assert not whole.isnan().any()
    single = attended(q[::16].contiguous(), layer, tables, [0] * len(q[::16]), positions[::16], prefill=False)
    assert torch.equal(single, whole[::16])
    for cut in (1, 21):
        parts = [attended(part.contiguous(), layer, tables, [0] * len(part), positions[at:at + len(part)])
                 for part, at in ((q[:cut], 0), (q[cut:], cut))]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_both_kernels_give_the_same_bits_for_large_heads(cache_type):
    """Their tiles are smaller."""
    layer = filled_cache(cache_type, kv_heads=1, head_dim=160, pages=20)
    tables, q = tables_of([270], 16, 20), queries(3, 2, 160)
    whole = attended(q, layer, tables, [0] * 3, [267, 268, 269])
    assert torch.equal(attended(q, layer, tables, [0] * 3, [267, 268, 269], prefill=False), whole)


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_batch_mates_and_room_for_more_chunks_never_change_a_bit(cache_type):
    lengths = [40, 257, 129]
    layer = filled_cache(cache_type, kv_heads=1, head_dim=64, pages=40)
    tables = tables_of(lengths, 16, 40)
    slots, positions = [0, 1, 2], [39, 256, 128]
    q = queries(3, 2, 64)
    together = attended(q, layer, tables, slots, positions)
    for row in (0, 2):  # alone there is one chunk and no merge, beside row 1 there are two
        assert torch.equal(attended(q[row:row + 1], layer, tables, [slots[row]], [positions[row]])[0], together[row])


def test_the_page_size_and_shared_pages_never_change_a_bit():
    q = queries(2, 2, 64)
    small = filled_cache("int8", kv_heads=2, head_dim=64, pages=12, page_tokens=16)
    tables = torch.tensor([[3, 7, 1, 9, 4, 5], [3, 7, 1, 9, 0, 11]], dtype=torch.int32)  # 64 positions are shared
    out = attended(q, small, tables, [0, 1], [90, 70])
    assert rows_off(out, q, small, tables, [0, 1], [90, 70]) == []
    large = filled_cache("int8", kv_heads=2, head_dim=64, pages=4, page_tokens=64)
    for row in range(2):
        for i, page in enumerate(tables[row].tolist()):
            target, place = 2 * row + i // 4, i % 4 * 16
            for name in ("keys", "key_scales", "values", "value_scales"):
                getattr(large, name)[target, :, place:place + 16] = getattr(small, name)[page]
    assert torch.equal(attended(q, large, torch.tensor([[0, 1], [2, 3]], dtype=torch.int32), [0, 1], [90, 70]), out)


def test_what_lies_beyond_a_row_is_not_read():
    """Later positions hold what would spoil every sum, were it read."""
    layer = filled_cache("f16", kv_heads=1, head_dim=32, pages=3)
    tables = tables_of([40], 16, 3)
    q = queries(1, 2, 32)
    before = attended(q, layer, tables, [0], [20])
    layer.keys[tables[0, 1].item(), :, 5:] = float("nan")
    layer.values[tables[0, 1].item(), :, 5:] = float("nan")
    layer.values[tables[0, 2].item()] = float("inf")
    assert torch.equal(attended(q, layer, tables, [0], [20]), before)
    assert attended(q, layer, tables, [0], [21]).isnan().all()


def test_an_infinite_query_gives_no_number_and_a_large_one_does():
    layer = filled_cache("f16", kv_heads=1, head_dim=32, pages=3)
    tables = tables_of([40], 16, 3)
    q = queries(1, 1, 32) * 1e5
    assert attended(q, layer, tables, [0], [20]).isfinite().all()
    q[0, 0, 3] = float("nan")
    assert attended(q, layer, tables, [0], [20]).isnan().all()


def test_rows_without_a_slot_are_left_alone():
    layer = filled_cache("f16", kv_heads=1, head_dim=32, pages=3)
    tables = tables_of([40], 16, 3)
    q = queries(3, 1, 32)
    out = attended(q, layer, tables, [0, -1, -1], [20, 0, 0])
    assert out[0].isfinite().all()
    assert out[1:].isnan().all()


def test_tiles_cover_the_neighbours_of_a_sequence_once_and_longest_first():
    slots = np.array([4] * 40 + [1, 2, 2, 2, 1], np.int32)
    positions = np.concatenate([np.arange(40), [9, 100, 101, 103, 10]]).astype(np.int32)
    tiles = prefill_tiles(slots, positions, group=4)
    assert tiles.tolist() == [[41, 2], [32, 8], [24, 8], [16, 8], [8, 8], [0, 8]]
    assert prefill_tiles(slots[:1], positions[:1], 4).shape == (0, 2)


def test_a_workspace_that_is_too_small_is_refused():
    layer = filled_cache("f16", kv_heads=1, head_dim=32, pages=20)
    plan = plan_attention(np.array([0], np.int32), np.array([299], np.int32), group=1)
    assert isinstance(plan, AttentionPlan)
    assert plan.chunks == 2
    q = queries(1, 1, 32)
    with pytest.raises(AssertionError, match="workspace"):
        attend(q, layer, tables_of([300], 16, 20), plan, Workspace(q, q, q), q)


@pytest.mark.parametrize(("settings", "what"), [
    ({"cache_type": "f32"}, "no cache type 'f32'"), ({"page_tokens": 48}, "48 tokens"), ({"pages": 0}, "0 pages"),
    ({"head_dim": 33}, "heads of 33"), ({"head_dim": 512}, "heads of 512")])
def test_a_cache_that_cannot_be_is_refused(settings, what):
    with pytest.raises(TritwiseError, match=what):
        KVCache(**{"cache_type": "f16", "layers": 1, "pages": 1, "kv_heads": 1, "head_dim": 32} | settings)


@pytest.mark.parametrize("rows", [4, 7])
def test_a_plan_that_is_filled_again_and_again_gives_the_bits_of_a_plan_made_for_the_rows(rows):
    """As in a captured graph: the same tensors, room for more rows and more chunks than there are."""
    layer = filled_cache("int8", kv_heads=1, head_dim=32, pages=40)
    tables = tables_of([40, 300, 129], 16, 40)
    plan, room = decode_plan(rows, 3), workspace(rows, 2, 3, 32)
    places = [each.data_ptr() for each in (plan.slots, plan.decode_slots, plan.positions)]
    assert plan.positions.data_ptr() % 16 == plan.slots.data_ptr() % 16
    q = queries(rows, 2, 32)
    steps = [([0, 1, 2], [39, 299, 128]), ([], []), ([1, -1], [13, 5]), ([2, 0, 1, 1], [9, 1, 280, 281])]
    for slots, positions in steps:
        fill_plan(plan, np.array(slots, np.int32), np.array(positions, np.int32))
        out = torch.full_like(q, float("nan"))
        attend(q, layer, tables, plan, room, out)
        n = len(slots)
        expected = attended(q[:n], layer, tables, slots, positions) if n else q[:0]
        assert torch.equal(out[:n].nan_to_num(7.0), expected.nan_to_num(7.0))
        assert out[n:].isnan().all()  # rows without a slot keep what they held
    assert places == [each.data_ptr() for each in (plan.slots, plan.decode_slots, plan.positions)]


def test_what_does_not_fit_a_decode_plan_is_refused():
    plan = decode_plan(2, 1)
    with pytest.raises(ValueError, match="3 slots"):
        fill_plan(plan, np.zeros(3, np.int32), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="257 positions"):
        fill_plan(plan, np.zeros(1, np.int32), np.array([256], np.int32))
    fill_plan(plan, np.array([-1, 0], np.int32), np.array([256, 255], np.int32))
