"""The cost model: bytes of what the CUDA backend allocates, batches and times of a table computed elsewhere."""

import pytest

from tritwise.measure import gpu_cost
from tritwise.measure.gpu_cost import CARDS, cache_bytes_per_token, largest_batch, step_seconds, weight_bytes
from tritwise.measure.shapes import random_tensors, shape_config

pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")


@pytest.mark.parametrize("cache_type", ["f16", "int8", "int4"])
@pytest.mark.parametrize(("changes", "head"), [
    ({}, "int8"), ({"linear_type": "binary"}, "f16"), ({"model_type": "llama", "linear_type": "dense"}, "stored"),
    ({"tie_word_embeddings": True}, "int8")])
def test_bytes_are_those_that_the_backend_allocates(changes, head, cache_type):
    from tritwise.engine.cuda import CudaBackend

    config = shape_config("paper-700m").with_changes(
        vocab_size=320, hidden_size=72, intermediate_size=100, num_hidden_layers=2, num_attention_heads=3, head_dim=24,
        num_key_value_heads=1, max_position_embeddings=128, **changes)
    backend = CudaBackend(config, random_tensors(config), device="cpu", head=head, cache_type=cache_type)
    assert backend.info.weight_bytes == weight_bytes(config, head)
    assert backend.info.cache_bytes_per_token == cache_bytes_per_token(config, cache_type)


def test_weights_and_caches_of_the_70b_shape_are_those_computed_by_hand():
    """68.45e9 block weights; 2 x 80 layers x 8 heads x 128 in 16 bits."""
    config = shape_config("paper-70b")
    assert round(sum(n * k for n, k in config.linear_shapes().values()) * 80 / 1e9, 2) == 68.45
    dense = shape_config("paper-70b-dense")
    assert weight_bytes(dense, "stored") / 1e9 == pytest.approx(138.0, abs=0.1)
    assert weight_bytes(config, "stored") / 1e9 == pytest.approx(18.2, abs=0.1)
    assert cache_bytes_per_token(config, "f16") == 2 * 80 * 8 * 128 * 2
    assert weight_bytes(dense, "stored") / weight_bytes(config, "stored") > 7.16


@pytest.mark.parametrize(("shape", "batch"), [("paper-70b-dense", 163), ("paper-70b", 877)])
def test_batches_on_two_cards_of_80_gib_are_those_of_a_table_computed_apart(shape, batch):
    settings = {"cards": 2, "sequence": 512, "cache_type": "f16", "head": "stored"}
    assert largest_batch(shape_config(shape), CARDS["A100"], **settings) == pytest.approx(batch, abs=4)


def test_a_step_is_bound_by_bytes_for_few_rows_and_by_operations_for_many():
    config, card = shape_config("paper-70b"), CARDS["H200"]
    settings = {"cards": 1, "sequence": 512, "cache_type": "int8", "head": "int8"}
    launches = (11 * 80 + 8) * card.node_gap
    one, many = (step_seconds(config, card, batch=batch, **settings) - launches for batch in (1, 176))
    assert one == pytest.approx(4.06e-3, rel=0.01)
    assert many == pytest.approx(15.35e-3, rel=0.02)
    dense = step_seconds(shape_config("paper-70b-dense"), card, batch=1, cards=2, sequence=512, cache_type="f16",
                         head="stored") - launches
    assert dense == pytest.approx(16.0e-3, rel=0.01)


def test_what_does_not_fit_gives_no_tokens():
    dense = shape_config("paper-70b-dense")
    found = gpu_cost.throughput(dense, CARDS["H100"], cards=1, sequence=512, cache_type="f16", head="stored")
    assert (found.batch, found.tokens_per_second) == (0, 0.0)
    fits = gpu_cost.throughput(shape_config("paper-70b"), CARDS["H100"], cards=1, sequence=512, cache_type="f16",
                               head="int8")
    assert fits.batch > 100
    assert fits.tokens_per_second == pytest.approx(fits.batch / fits.seconds)
