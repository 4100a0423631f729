"""Mask, bias and penalties on the device: drawn tokens are those that the CPU core draws, step after step."""

import numpy as np
import pytest
import torch

from tritwise.common.errors import TritwiseError
from tritwise.engine.sampling import History, Sampling, sample
from tritwise.kernels.adjustments import adjust_rows, adjustments, count_drawn, set_mask, set_slot
from tritwise.kernels.device_sampling import draw_room, row_settings, sample_rows
from tritwise.kernels.head import head_room, make_head

VOCAB = 70
# numpy warns where the hardware gives an infinity or NaN, which are expected here.
pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")



def mask_of(allowed):
    """uint32 words of a bool [vocab]."""
    bits = np.zeros(-(-VOCAB // 32) * 32, bool)
    bits[:VOCAB] = allowed
    return np.packbits(bits, bitorder="little").view(np.uint32)


def test_four_steps_of_penalties_biases_and_masks_are_the_cores(random):
    """Slots are not the rows' numbers; one row has none. The tensors live on and get new contents, as in a graph."""
    how = [Sampling(temperature=0.0, repetition_penalty=1.7),
           Sampling(temperature=0.0, frequency_penalty=2.5, presence_penalty=0.3, repetition_penalty=0.8),
           Sampling(temperature=1.5, logit_bias={3: 4.5, 69: -np.inf, 5: -2.25}, seed=5),
           Sampling(temperature=0.0), Sampling(temperature=0.9, presence_penalty=-0.4, logit_bias={9: 1.0}, seed=9)]
    slots, prompts = [4, 0, 2, -1, 1], [[1, 2, 3], [7], [5, 5, 8], [2], [11, 12]]
    of = adjustments(5, VOCAB)
    for slot, each, prompt in zip(slots, how, prompts, strict=True):
        if slot >= 0:
            set_slot(of, slot, bias=each.logit_bias, repetition=each.repetition_penalty,
                     frequency=each.frequency_penalty, presence=each.presence_penalty,
                     history=np.array(prompt, np.int32), prompt=len(prompt))
    settings = row_settings([(each.temperature, 0, 1.0, 0.0, each.seed) for each in how], VOCAB)
    m, head = len(how), head_room(make_head(torch.zeros(VOCAB, 8)), len(how))
    rows, room, changed = torch.tensor(slots, dtype=torch.int32), draw_room(m, VOCAB), torch.empty(m, VOCAB)
    out, histories = torch.empty(m, dtype=torch.int32), [History(prompt) for prompt in prompts]
    favourites = random.normal(size=(m, VOCAB)) * 2
    found, plain = [], []
    for step in range(4):
        logits = (favourites + random.normal(size=(m, VOCAB)) * 0.3).astype(np.float32)
        plain.append(int(logits[1].argmax()))
        allowed = random.random(VOCAB) < 0.5
        set_mask(of, 2, mask_of(allowed))
        adjust_rows(torch.from_numpy(logits), rows, of, changed)
        sample_rows(changed, settings, torch.full((m,), 10 + step), head, room, out, top_k=False,
                    top_p=False)
        count_drawn(out, rows, of)
        expected = [sample(row, each, 10 + step, history, mask_of(allowed) if slot == 2 else None)
                    for row, each, history, slot in zip(logits, how, histories, slots, strict=True)]
        found.append(out.tolist())
        assert found[-1] == expected
        for history, token in zip(histories, expected, strict=True):
            history.append(token)
    assert any(tokens[1] != best for tokens, best in zip(found, plain, strict=True))  # what was drawn is penalised
    assert of.counts[3].eq(0).all()


def test_adjusted_logits_are_the_formulas_to_the_bit_and_the_rest_is_left_alone(random):
    logits = torch.from_numpy((random.normal(size=(3, VOCAB)) * 5).astype(np.float32))
    of = adjustments(2, VOCAB)
    history = random.integers(0, VOCAB, 40).astype(np.int32)
    set_slot(of, 1, bias=[(4, 0.1)], repetition=1.3, frequency=0.7, presence=0.2, history=history, prompt=15)
    out = torch.empty_like(logits)
    adjust_rows(logits, torch.tensor([0, 1, -1], dtype=torch.int32), of, out)
    assert torch.equal(out[[0, 2]], logits[[0, 2]])
    expected = logits[1].numpy().copy()
    expected[4] += np.float32(0.1)
    for token in set(history.tolist()):
        x, count = expected[token], int((history[15:] == token).sum())
        x = x * np.float32(1.3) if x < 0 else x / np.float32(1.3)
        if count:
            x = x - np.float32(count) * np.float32(0.7) - np.float32(0.2)
        expected[token] = x
    assert np.array_equal(out[1].numpy(), expected)


def test_what_is_no_number_does_not_hide_behind_a_mask():
    logits = torch.zeros(3, VOCAB)
    logits[0, 9], logits[1, 9] = float("nan"), float("inf")
    of = adjustments(3, VOCAB)
    for slot in range(3):
        set_mask(of, slot, mask_of(np.arange(VOCAB) == (3 if slot < 2 else VOCAB)))
    adjust_rows(logits, torch.arange(3, dtype=torch.int32), of, logits)
    out = torch.empty(3, dtype=torch.int32)
    sample_rows(logits, row_settings([(1.0, 0, 1.0, 0.0, 0)] * 3, VOCAB), torch.zeros(3, dtype=torch.int64),
                head_room(make_head(torch.zeros(VOCAB, 8)), 3), draw_room(3, VOCAB), out, draws=False)
    assert out.tolist() == [-1, -1, -1]  # and the third has no token that is allowed


def test_a_slot_that_is_set_again_forgets_what_was_in_it():
    of = adjustments(1, VOCAB)
    set_slot(of, 0, bias=[(1, 2.0)], repetition=2.0, history=np.array([5], np.int32), prompt=0)
    set_mask(of, 0, mask_of(np.zeros(VOCAB, bool)))
    set_slot(of, 0)
    fresh = adjustments(1, VOCAB)
    assert all(torch.equal(mine, new) for mine, new in zip(vars(of).values(), vars(fresh).values(), strict=True))


@pytest.mark.parametrize(("settings", "what"), [
    ({"bias": [(VOCAB, 1.0)]}, "outside the vocabulary"), ({"bias": [(3, 1.0), (3, 2.0)]}, "twice"),
    ({"history": np.array([-1], np.int32)}, "history: id -1")])
def test_ids_that_cannot_be_are_refused(settings, what):
    with pytest.raises(TritwiseError, match=what):
        set_slot(adjustments(1, VOCAB), 0, **settings)
