"""How far apart the predictions of two models lie, on logits that are made up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.evaluate.agreement import CLOSE, agree

IDS = [0, 1, 2, 3, 4]


def logits_of(rows):
    return lambda ids: np.asarray(rows, dtype=np.float32)[:len(ids)]


def test_ids_that_are_as_likely_may_change_places_and_others_may_not():
    a = np.log([[0.5, 0.45, 0.03, 0.01, 0.01], [0.5, 0.30, 0.1, 0.05, 0.05], [0.6, 0.1, 0.1, 0.1, 0.1],
                [0.5, 0.45, 0.03, 0.01, 0.01]])
    b = a.copy()
    b[0, [0, 1]] = b[0, [1, 0]]  # 0.45 for 0.5: as likely
    b[1, [0, 1]] = b[1, [1, 0]]  # 0.30 for 0.5: another answer
    found = agree(logits_of(a), logits_of(b), IDS, context=8)
    assert found.agreement == 2 / 4
    assert found.close_agreement == 3 / 4
    assert found.largest_difference == pytest.approx(np.log(0.5 / 0.3), rel=1e-5)


@given(seed=st.integers(0, 1000), noise=st.floats(0, 3))
def test_close_agreement_is_the_share_of_answers_within_the_limit(seed, noise):
    random = np.random.default_rng(seed)
    a = random.normal(size=(4, 7)).astype(np.float32)
    b = (a + noise * random.normal(size=a.shape)).astype(np.float32)
    found = agree(logits_of(a), logits_of(b), IDS, context=8)
    gaps = [row.max() - row[answer] for row, answer in zip(a.astype(np.float64), b.argmax(axis=1), strict=True)]
    assert found.close_agreement == np.mean([gap <= CLOSE for gap in gaps])
    assert found.agreement <= found.close_agreement <= 1
