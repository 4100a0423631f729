"""Recipes: those of the paper's sizes count as published, and mistakes are refused by name."""

from pathlib import Path

import pytest

from tritwise import TritwiseError
from tritwise.config import load_data_recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = """
name = "tiny"
[data]
sources.python_stdlib = true
[tokenizer]
vocab_size = 512
[model]
hidden_size = 64
intermediate_size = 96
num_attention_heads = 2
num_hidden_layers = 2
[train]
steps = 4
batch_size = 4
sequence_length = 32
[variants.ternary]
model_type = "bitnet"
linear_type = "ternary"
schedule = { shape = "two_stage", peak = 1e-3, second_peak = 6e-4, floor = 1e-5, warmup_steps = 1 }
"""


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


# Block parameters in billions as the training notes print them; totals for 32 000 entries, untied, by hand:
# block + 2 * 32000 * hidden + norms: (2 * layers + 1) * hidden, for sub-norms layers * (hidden + intermediate) more.
@pytest.mark.parametrize(("size", "published", "dense_total", "ternary_total"), [
    ("700m", 0.679, 777_856_512, 777_991_680),
    ("1.3b", 1.208, 1_338_935_296, 1_339_115_488),
    ("3b", 3.222, 3_426_473_600, 3_426_781_440),
    ("3.9b", 4.260, 4_464_809_600, 4_465_225_600),
])
def test_the_papers_sizes_count_their_parameters_as_published(size, published, dense_total, ternary_total):
    recipe = load_recipe(RECIPES / f"paper-{size}.toml")
    assert recipe.name == f"paper-{size}"
    for variant, total in (("dense", dense_total), ("ternary", ternary_total)):
        count = recipe.model_config_of(variant).parameter_count()
        assert round(count.block / 1e9, 3) == published
        assert count.total == total


@pytest.mark.parametrize("size", ["700m", "1.3b", "3b", "3.9b"])
def test_the_papers_training_settings_stand_as_published(size):
    recipe = load_recipe(RECIPES / f"paper-{size}.toml")
    assert recipe.train.batch_size * recipe.train.sequence_length == 1 << 20
    assert recipe.train.steps * recipe.train.batch_size * recipe.train.sequence_length == pytest.approx(100e9, rel=0.05)
    assert recipe.train.betas == (0.9, 0.95)
    ternary, dense = recipe.variants["ternary"].schedule, recipe.variants["dense"].schedule
    assert (ternary.peak, ternary.second_peak) == ((1.5e-3, 1e-3) if size == "700m" else (1.2e-3, 8e-4))
    assert dense.peak == (2.5e-4 if size == "700m" else 2e-4)
    assert dense.floor == pytest.approx(0.1 * dense.peak)
    for schedule in (ternary, dense):
        assert (schedule.warmup_steps, schedule.weight_decay) == (375, 0.1)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_carries_its_file_name(path):
    assert load_recipe(path).name == path.stem


def test_a_recipe_fills_in_the_vocabulary_and_the_context(tmp_path):
    config = load_recipe(write(tmp_path, TINY)).model_config_of("ternary")
    assert (config.vocab_size, config.max_position_embeddings) == (512, 32)
    assert (config.model_type, config.linear_type) == ("bitnet", "ternary")


@pytest.mark.parametrize(("fim", "order"), [
    ("", "psm"), ("spm_rate = 0.5", "psm"), ("spm_rate = 0.6", "spm"), ("rate = 0.0, spm_rate = 1.0", "psm"),
])
def test_gaps_are_asked_for_in_the_order_of_most_turned_documents(tmp_path, fim, order):
    text = TINY.replace("[tokenizer]", f"fim = {{ {fim} }}\n[tokenizer]")
    assert load_recipe(write(tmp_path, text)).model_config_of("ternary").fim_order == order
    own = text.replace("hidden_size = 64", 'hidden_size = 64\nfim_order = "psm"')
    assert load_recipe(write(tmp_path, own)).model_config_of("ternary").fim_order == "psm"


@pytest.mark.parametrize(("old", "new", "reason"), [
    ("steps = 4", "step = 4", r"train\.step: this key is unknown"),
    ("hidden_size = 64", "hidden_sise = 64", "hidden_sise"),
    ("hidden_size = 64", "hidden_size = 63", "not a multiple"),
    ("[tokenizer]", 'packing = { method = "best_fit", window = 64 }\n[tokenizer]', "window is 64, and train"),
    ("hidden_size = 64", 'hidden_size = 64\nmodel_type = "llama"', r"model\.model_type belongs into \[variants"),
    ("steps = 4", "steps = 0", r"train\.steps"),
    ("batch_size = 4", "batch_size = 4\nmicro_batch_size = 3", "not a multiple of micro_batch_size 3"),
    ("second_peak = 6e-4, ", "", "second_peak"),
    ("second_peak = 6e-4", "second_peak = 2e-3", "floor <= second_peak <= peak"),
    ('shape = "two_stage"', 'shape = "cosine"', "second_peak"),
    ('shape = "two_stage"', 'shape = "linear"', "shape"),
    ("sources.python_stdlib = true", 'sources.revision = "--upload-pack=x"', "data.sources.revision"),
    ('linear_type = "ternary"', 'linear_type = "quaternary"', "linear_type"),
    ('name = "tiny"', 'name = "../tiny"', "name"),
    ("vocab_size = 512", "vocab_size = 12", r"tokenizer\.vocab_size"),
    ("[variants.ternary]", "[variantss.ternary]", "variants"),
])
def test_a_mistake_is_refused_with_its_place_and_the_file(tmp_path, old, new, reason):
    assert old in TINY
    with pytest.raises(TritwiseError, match=rf"(?s)recipe\.toml.*{reason}"):
        load_recipe(write(tmp_path, TINY.replace(old, new)))


def test_a_missing_recipe_says_what_to_type(tmp_path):
    with pytest.raises(TritwiseError, match=r"(?s)does not exist.*try: tritwise run"):
        load_recipe(tmp_path / "no.toml")


def test_what_is_no_toml_is_refused(tmp_path):
    with pytest.raises(TritwiseError, match="is not TOML"):
        load_recipe(write(tmp_path, "name = = 1"))


def test_a_variant_that_the_recipe_lacks_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(TritwiseError, match=r"(?s)no variant 'dense'.*it has ternary"):
        load_recipe(write(tmp_path, TINY)).model_config_of("dense")


def test_a_recipe_of_data_alone_serves_the_data_and_no_training(tmp_path):
    data_alone = 'name = "mine"\n[data.sources]\npaths = ["repositories"]\n'
    recipe = load_data_recipe(write(tmp_path, data_alone))
    assert (recipe.name, recipe.data.sources.paths, recipe.tokenizer.vocab_size) == ("mine", ("repositories",), 32_000)
    with pytest.raises(TritwiseError, match="model"):
        load_recipe(write(tmp_path, data_alone))
    whole = write(tmp_path, TINY)
    assert load_data_recipe(whole) == load_recipe(whole)
    with pytest.raises(TritwiseError, match=r"data\.colour"):
        load_data_recipe(write(tmp_path, data_alone + "[data.colour]\n"))
