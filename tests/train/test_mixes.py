"""Mixes: shares are kept at every moment, every source is read in its own order, and nothing depends on the past."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.config import MixSettings, Recipe, load_recipe
from tritwise.data import write_shard
from tritwise.data.shard_parts import write_split_index
from tritwise.train import SampleOrder
from tritwise.train.mixes import (
    MixedOrder,
    integer_weights,
    mix_key,
    open_order,
    pattern,
    repeated,
    source_shards,
    source_use,
)
from tritwise.train.samples import SampleOrder as Order

LENGTH = 8
PAPER, V15 = (0.87, 0.10, 0.03), (70, 10, 7, 7, 6)
WEIGHTS = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)


def orders(sizes=(4000, 900, 500)) -> list[SampleOrder]:
    """Sources whose ids say where they come from: source i counts up from i million."""
    return [SampleOrder(np.arange(size, dtype=np.uint32) + i * 10**6, LENGTH, seed=i) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(("weights", "expected"), [
    (PAPER, [87, 10, 3]), (V15, [70, 10, 7, 7, 6]), ((0.5, 0.25, 0.25), [2, 1, 1]), ((3.0,), [1]),
    ((0, 2, 0), [0, 1, 0]), ((0.1, 0.2), [1, 2]), ((0.9999, 0.0001), [9999, 1])])
def test_weights_become_the_smallest_whole_numbers(weights, expected):
    assert integer_weights(weights) == expected


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3))
def test_odd_weights_are_near_and_none_is_lost(weights):
    counts = integer_weights(weights)
    total = sum(map(Fraction, weights))
    for weight, count in zip(weights, counts, strict=True):
        assert (count > 0) == (weight > 0)
        assert abs(Fraction(weight) / total - Fraction(count, sum(counts))) < Fraction(len(weights) + 2, 10_000)


@given(WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_a_pattern_keeps_every_prefix_within_one_sample_of_the_shares(counts):
    places = pattern(counts)
    period, present = sum(counts), sum(count > 0 for count in counts)
    bound = 1 - Fraction(1, 2 * present - 2) if present > 1 else 0
    taken = [0] * len(counts)
    for k, source in enumerate(places, start=1):
        taken[source] += 1
        assert max(abs(Fraction(k * count, period) - got) for count, got in zip(counts, taken, strict=True)) <= bound
    assert taken == counts


@given(WEIGHTS, WEIGHTS, st.integers(1, 400), st.integers(0, 1200))
@settings(max_examples=60, deadline=None)
def test_shares_hold_and_each_source_is_read_in_its_own_order_through_all_stages(first, second, switch, samples):
    count = max(len(first), len(second))
    weights = [[*each, *[0] * (count - len(each))] for each in (first, second)]
    order = MixedOrder(orders([300] * count), [(0, weights[0]), (switch, weights[1])])
    sources, numbers = order.locate(np.arange(samples))
    for source in range(count):
        assert numbers[sources == source].tolist() == list(range(int((sources == source).sum())))
    assert np.bincount(sources, minlength=count).tolist() == order.taken(samples).tolist()
    for source in range(count):
        parts = [(min(samples, switch), weights[0]), (max(0, samples - switch), weights[1])]
        wanted = sum(Fraction(k * w[source], sum(w)) for k, w in parts)
        assert abs(wanted - order.taken(samples)[source]) < 2  # less than one a stage


@given(step=st.integers(0, 10**6), world=st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=50, deadline=None)
def test_the_union_over_ranks_is_the_global_batch_at_any_world_size(step, world):
    order = MixedOrder(orders(), [(0, PAPER), (1000, (1, 1, 1))])
    whole = order.batch(step, 8)
    parts = [order.batch(step, 8, rank=rank, world=world) for rank in range(world)]
    assert np.array_equal(np.stack(parts, axis=1).reshape(whole.shape), whole)


def test_a_row_is_the_sample_of_its_source_and_no_step_knows_of_another():
    order = MixedOrder(orders(), [(0, PAPER), (320, V15[:3])])
    for step in (90, 3, 39, 40, 3):
        rows = order.batch(step, 8)
        sources, numbers = order.locate(np.arange(step * 8, step * 8 + 8))
        for row, source, number in zip(rows, sources, numbers, strict=True):
            assert row[0] // 10**6 == source
            assert np.array_equal(row, orders()[source].rows(np.array([number]))[0])
        assert np.array_equal(MixedOrder(orders(), [(0, PAPER), (320, V15[:3])]).batch(step, 8), rows)


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(TritwiseError, match="cannot be shared by 3 ranks"):
        MixedOrder(orders(), [(0, PAPER)]).batch(0, 8, rank=0, world=3)


def recipe_of(mix, steps=100) -> Recipe:
    schedule = {"shape": "cosine", "peak": 1e-3, "floor": 1e-4, "warmup_steps": 1}
    return Recipe.model_validate({
        "name": "small", "seed": 5, "data": {"sources": {"paths": ["x"]}}, "tokenizer": {"vocab_size": 600},
        "model": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
        "train": {"steps": steps, "batch_size": 4, "sequence_length": LENGTH},
        "variants": {"dense": {"model_type": "llama", "linear_type": "dense", "schedule": schedule}},
    } | ({} if mix is None else {"mix": mix}))


def shard(path, first, count, tokenizer="t"):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, [np.arange(first, first + count)], vocab_size=600, tokenizer_hash=tokenizer, recipe_hash="r")
    if path.name.startswith("train-"):
        write_split_index(path.parent, "train", len(list(path.parent.glob("train-*.ds"))))


@pytest.fixture
def corpora(tmp_path):
    shard(tmp_path / "data" / "train.ds", 0, 200)
    shard(tmp_path / "english" / "train-00000.ds", 200, 60)
    shard(tmp_path / "english" / "train-00001.ds", 260, 60)
    shard(tmp_path / "chinese.ds", 400, 40)
    return tmp_path


def mix_of(root, **changes):
    return {"sources": [{"name": "code", "weight": 0.87},
                        {"name": "english", "weight": 0.10, "paths": [str(root / "english")]},
                        {"name": "chinese", "weight": 0.03, "paths": [str(root / "chinese.ds")]}]} | changes


def test_a_recipe_without_a_mix_reads_its_own_shard_as_ever(corpora):
    order, tokenizer = open_order(recipe_of(None), corpora / "data")
    assert tokenizer == "t"
    assert np.array_equal(order.batch(7, 4), Order(np.arange(200), LENGTH, 5).batch(7, 4))


def test_a_recipes_mix_takes_its_shares_from_where_its_sources_lie(corpora):
    recipe = recipe_of(mix_of(corpora, stages=[{"start": 0.5, "weights": {"code": 70, "english": 30}}]))
    order, _ = open_order(recipe, corpora / "data")
    rows = np.concatenate([order.batch(step, 4) for step in range(100)])
    source = np.digitize(rows[:, 0], [200, 400])
    assert np.bincount(source[:200], minlength=3).tolist() == [174, 20, 6]
    assert np.bincount(source[200:], minlength=3).tolist() == [140, 60, 0]
    assert (np.diff(rows) == 1).all()  # a window runs over the border of two parts
    assert any(row[0] < 260 <= row[-1] for row in rows)
    use = source_use(recipe.mix, order, 400)
    assert [(each.name, each.samples, each.tokens) for each in use] == [
        ("code", 314, 200), ("english", 80, 120), ("chinese", 6, 40)]
    assert [each.epochs for each in use] == [314 / 23, 80 / 13, 6 / 3]
    assert [warning.split(" is ")[0] for warning in repeated(recipe.mix, use)] == ["the source code",
                                                                                  "the source english"]
    assert not repeated(recipe.mix.model_copy(update={"max_epochs": 14}), use)


def test_a_mix_is_written_in_a_recipe_as_tables(corpora):
    text = """
        name = "mixed"
        model = {hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 1}
        data = {sources = {paths = ["repositories"]}, fim = {rate = 0.5, spm_rate = 0.5, level = "document"}}
        tokenizer = {vocab_size = 600}
        train = {steps = 10, batch_size = 4, sequence_length = 8}
        [[mix.sources]]
        name = "code"                  # no paths: this recipe's own data
        weight = 87
        [[mix.sources]]
        name = "english"
        weight = 10
        paths = ["runs/english/data"]
        [[mix.sources]]
        name = "instructions"          # in the second half only
        weight = 0
        paths = ["instructions.ds"]
        [[mix.stages]]
        start = 0.5
        weights = {code = 70, english = 20, instructions = 10}
        [variants.dense]
        model_type = "llama"
        linear_type = "dense"
        schedule = {shape = "cosine", peak = 1e-3, floor = 1e-4, warmup_steps = 1}
    """
    (corpora / "recipe.toml").write_text(text)
    assert load_recipe(corpora / "recipe.toml").mix.weights_by_stage() == [(87, 10, 0), (70, 20, 10)]


def test_another_source_does_not_change_the_order_of_one(corpora):
    two = mix_of(corpora, sources=mix_of(corpora)["sources"][:2])
    starts = [open_order(recipe_of(mix), corpora / "data")[0].orders[1].starts(np.arange(50))
              for mix in (two, mix_of(corpora))]
    assert np.array_equal(*starts)


def test_a_changed_shard_or_weight_is_another_mix(corpora):
    keys = [json.dumps(mix_key(MixSettings.model_validate(mix_of(corpora))))]
    keys.append(json.dumps(mix_key(MixSettings.model_validate(mix_of(corpora, max_epochs=9)))))
    assert keys[0] == keys[1]  # a warning changes no sample
    shard(corpora / "english" / "train-00001.ds", 261, 60)
    keys.append(json.dumps(mix_key(MixSettings.model_validate(mix_of(corpora)))))
    keys.append(json.dumps(mix_key(MixSettings.model_validate(mix_of(corpora, stages=[
        {"start": 0.5, "weights": {"code": 1}}])))))
    assert len(set(keys)) == 3


def test_sources_of_another_tokenizer_and_missing_or_small_ones_are_refused_by_name(corpora):
    shard(corpora / "english" / "train-00000.ds", 200, 60, tokenizer="u")
    with pytest.raises(TritwiseError, match=r"english.train-00001\.ds has another tokenizer than .*train-00000"):
        open_order(recipe_of(mix_of(corpora)), corpora / "data")
    (corpora / "chinese.ds.json").unlink()
    with pytest.raises(TritwiseError, match=r"chinese\.ds\.json does not exist"):
        mix_key(MixSettings.model_validate(mix_of(corpora)))
    shard(corpora / "english" / "train-00000.ds", 200, 60)
    shard(corpora / "chinese.ds", 400, 9)
    with pytest.raises(TritwiseError, match=r"source chinese cannot be used: .* holds 9 tokens, too few"):
        open_order(recipe_of(mix_of(corpora)), corpora / "data")


def test_paths_are_data_directories_or_shards(corpora):
    assert [path.name for path in source_shards([str(corpora / "english"), str(corpora / "chinese.ds")])] == [
        "train-00000.ds", "train-00001.ds", "chinese.ds"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"sources": []}, "at least 1"),
    ({"sources": [{"name": "a", "weight": 1}, {"name": "a", "weight": 1, "paths": ["x"]}]}, "two sources are called a"),
    ({"sources": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]}, "only one source"),
    ({"sources": [{"name": "a", "weight": 0}]}, "some source needs a weight"),
    ({"sources": [{"name": "a", "weight": 1}, {"name": "b", "weight": 0, "paths": ["x"]}]}, "b has weight 0 in every"),
    ({"sources": [{"name": "a", "weight": -1}]}, "greater than or equal to 0"),
    ({"sources": [{"name": "a", "weight": math.nan}]}, "weight"),
    ({"sources": [{"name": "a", "weight": math.inf}]}, "finite"),
    ({"stages": [{"start": 0.5, "weights": {"z": 1}}]}, "a weight for 'z'"),
    ({"stages": [{"start": 0.5, "weights": {"a": 1}}, {"start": 0.5, "weights": {"a": 1}}]}, "order of their start"),
    ({"stages": [{"start": 1.0, "weights": {"a": 1}}]}, "less than 1"),
    ({"blocks": 3}, "Extra inputs")])
def test_settings_that_make_no_mix_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MixSettings.model_validate({"sources": [{"name": "a", "weight": 1}]} | changes)
