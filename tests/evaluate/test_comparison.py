"""Comparing two ways of opening a model, against sums written out here."""

import numpy as np
import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine import load
from tritwise.evaluate import compare, perplexity
from tritwise.formats import write_quantised
from tritwise.measure.shapes import random_tensors

CONFIG = ModelConfig(vocab_size=260, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=64)
IDS = np.random.default_rng(0).integers(0, 260, 150).tolist()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    tensors = dict(random_tensors(CONFIG))
    head = np.random.default_rng(1).normal(0, 0.3, (260, 64))  # far from a uniform distribution
    tensors["lm_head.weight"] = head.astype(np.float32)
    write_quantised(path, CONFIG, tensors, dtype="float32")
    return path


def test_divergence_agreement_and_perplexity_are_those_of_the_logits(directory):
    found = compare(directory, IDS[:40], [{"head": "int4"}], against={"head": "stored"})[0]
    logits = []
    for head in ("int4", "stored"):
        with load(directory, head=head) as model:
            rows = model.logits(IDS[:39]).astype(np.float64)
            logits.append(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))
    q, p = logits
    assert found.tokens == 39
    assert found.divergence == pytest.approx((np.exp(p) * (p - q)).sum() / 39, rel=1e-9)
    assert found.agreement == (q.argmax(axis=1) == p.argmax(axis=1)).mean()
    assert found.perplexity == pytest.approx(np.exp(-q[np.arange(39), IDS[1:40]].mean()))
    assert 0 < found.divergence < found.largest_divergence


def test_a_setting_against_itself_costs_nothing_and_more_bits_cost_less(directory):
    rows = compare(directory, IDS, [{"head": head} for head in ("stored", "f16", "int8", "int4")],
                   against={"head": "stored"}, context=48)
    assert (rows[0].divergence, rows[0].perplexity_change, rows[0].agreement) == (0, 0, 1)
    assert rows[0].divergence < rows[1].divergence < rows[2].divergence < rows[3].divergence
    assert rows[2].to_json()["perplexity_change"] == rows[2].perplexity / rows[2].perplexity_against - 1


def test_the_perplexity_is_that_of_the_other_command(directory):
    with load(directory, head="int8") as model:
        expected = perplexity(model, IDS, 48)
    found = compare(directory, IDS, [{"head": "int8"}], against={"head": "stored"}, context=48)[0]
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-12)
    assert found.tokens == expected.tokens


def test_what_cannot_be_compared_is_an_error(directory):
    with pytest.raises(TritwiseError, match="cannot be opened with"):
        compare(directory, IDS, [{"heads": "int8"}], against={})
    with pytest.raises(TritwiseError, match="no head 'int3'"):
        compare(directory, IDS, [{"head": "int3"}], against={})
    with pytest.raises(TritwiseError, match="nothing to score"):
        compare(directory, [1], [{"head": "int8"}], against={})
