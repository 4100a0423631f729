"""The head on the device: int8 equal to exact integers, bf16 and f16 within float32's rounding, any batch the same."""

import numpy as np
import pytest
import torch

from tritwise.common.errors import TritwiseError
from tritwise.kernels.head import best_of, head_room, head_tile, logits_of, make_head


def logits_by(head, states):
    out = torch.empty(len(states), head.vocab)
    logits_of(states, head, head_room(head, len(states)), out)
    return out


@pytest.fixture
def matrix(random):
    return torch.from_numpy(random.normal(size=(150, 200)).astype(np.float32))


@pytest.fixture
def states(random):
    x = random.normal(size=(18, 200)) * np.exp(random.normal(size=(18, 1)) * 3)
    return torch.from_numpy(x.astype(np.float32))


def test_the_int8_head_is_the_integer_product_of_rounded_rows_and_15_bit_states(matrix, states):
    head = make_head(matrix, "int8")
    top = states.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    codes = torch.round(states * (torch.full_like(top, 16256) / top)).clamp(-16256, 16256).long()
    sums = codes @ head.matrix[:, :200].long().T
    assert sums.abs().max() < 2**24 * 128
    high = torch.round(codes / 128).long()
    low_sums = (codes - high * 128) @ head.matrix[:, :200].long().T
    exact = ((sums - low_sums).double() + low_sums.double()).float() * (top / 16256 * head.scales)
    assert torch.equal(logits_by(head, states), exact)


def test_the_int8_head_gives_the_bits_of_the_cpu_core(matrix, states):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
    from test_native_head import head_model

    rows = matrix[:, :192].contiguous()
    trace = head_model(rows.numpy()).trace(np.arange(8, dtype=np.int32))
    normed = torch.from_numpy(np.array(trace["norm"], np.float32)).reshape(8, 192)
    expected = torch.from_numpy(np.array(trace["logits"], np.float32)).reshape(8, 150)
    assert torch.equal(logits_by(make_head(rows, "int8"), normed), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_head_multiplies_by_its_weights_within_float32_rounding(matrix, states, dtype):
    head = make_head(matrix.to(dtype), "stored")
    exact = states.double() @ head.matrix[:, :200].double().T
    terms = states.double().abs() @ head.matrix[:, :200].double().T.abs()
    # Three sums of 256 products, and a state's rest below 2^-24 of its largest number.
    largest = states.double().abs().amax(-1, keepdim=True) * head.matrix.double().abs().sum(-1)
    assert ((logits_by(head, states).double() - exact).abs() <= 260 * 2.0 ** -24 * terms + 2.0 ** -24 * largest).all()


@pytest.mark.parametrize("kind", ["int8", "f16"])
def test_batch_mates_never_change_a_logit(matrix, states, kind):
    """Through every tile: of 16, 32, 64 and 128 states, and two of them."""
    head = make_head(matrix, kind)
    many = torch.cat([states * 2.0 ** i for i in range(8)])
    whole = logits_by(head, many)
    assert len(whole) == 144
    for begin, end in ((143, 144), (3, 8), (20, 45), (70, 130)):
        assert torch.equal(logits_by(head, many[begin:end].contiguous()), whole[begin:end])


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_the_head_is_read_once_for_64_states(kind):
    sizes = {m: head_tile(kind, m).states * head_tile(kind, m).parts for m in (1, 16, 17, 32, 33, 64, 65, 1000)}
    assert [sizes[m] for m in (1, 16, 17, 32, 33, 64)] == [16, 16, 32, 32, 64, 64]
    assert sizes[65] == sizes[1000] == (128 if kind == "int8" else 64)


def test_a_state_that_is_no_number_gives_none_and_harms_no_other(matrix, states):
    head = make_head(matrix, "int8")
    expected = logits_by(head, states[:2])
    states[2, 5], states[3, 7] = float("nan"), float("inf")
    found = logits_by(head, states[:4])
    assert torch.equal(found[:2], expected)
    assert found[2:].isnan().all()


def test_best_is_the_lowest_id_of_the_largest_and_minus_one_for_what_is_no_number():
    logits = torch.randn(6, 2500, generator=torch.Generator().manual_seed(0))
    logits[0, [2300, 1500, 1501]] = 9
    logits[1, 2400] = float("nan")
    logits[2, 0] = float("inf")
    logits[3, :] = float("-inf")
    logits[4, :] = float("-inf")
    logits[4, 2499] = -5
    room = head_room(make_head(torch.zeros(2500, 8), "int8"), 6)
    best = torch.empty(6, dtype=torch.int32)
    best_of(logits, room, best)
    assert best.tolist() == [1500, -1, -1, -1, 2499, int(logits[5].argmax())]
    assert room.largest[0] == 9


@pytest.mark.parametrize(("weight", "kind", "what"), [
    (torch.zeros(2, 2), "stored", "float32 cannot be kept"), (torch.zeros(2, 2), "int4", "no head 'int4'"),
    (torch.full((2, 2), 1e6), "f16", "beyond the range"), (torch.full((2, 2), float("nan")), "int8", "not finite")])
def test_a_head_that_cannot_be_is_refused(weight, kind, what):
    with pytest.raises(TritwiseError, match=what):
        make_head(weight, kind)
