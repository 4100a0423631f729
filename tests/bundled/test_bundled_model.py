"""The model in the package is the one that its facts describe, opens, and predicts what was recorded."""

import json
import math
import shutil
from pathlib import Path

import pytest

from tritwise import TritwiseError, load
from tritwise.bundled import EXAMPLES, FACTS, MODEL, limits, model_path, read_facts, write
from tritwise.bundled.show import middle_rate
from tritwise.common.files import sha256_file
from tritwise.config import load_recipe
from tritwise.data.token_steps import recipe_hash
from tritwise.evaluate import perplexity
from tritwise.formats import open_model
from tritwise.measure.inspection import inspect_model
from tritwise.train.loop import run_key

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    with load(model_path()) as opened:
        yield opened


def test_the_files_are_those_of_the_facts_and_about_five_megabytes():
    facts = read_facts()
    assert {path.name for path in MODEL.iterdir()} == {*facts.files, FACTS, "README.md"}
    assert {name: (MODEL / name).stat().st_size for name in facts.files} == {
        name: file.bytes for name, file in facts.files.items()}
    assert 4.5e6 < facts.bytes < 5.6e6
    assert facts.name == MODEL.name


def test_parameters_context_and_bits_are_as_claimed():
    facts, found = read_facts(), inspect_model(MODEL)
    assert (facts.parameters, facts.context) == (found.parameters, found.config.max_position_embeddings)
    assert facts.bits_per_weight == pytest.approx(found.bits_per_weight, abs=1e-4)
    assert facts.bits_per_quantised_weight == pytest.approx(found.bits_per_quantised_weight, abs=1e-4)
    zeros = sum(tensor.zero for tensor in found.quantised)
    assert facts.zeros == pytest.approx(zeros / sum(math.prod(t.shape) for t in found.quantised), abs=1e-4)
    assert found.config.linear_type == "ternary"


def test_the_reference_text_has_the_recorded_bits_a_byte(model):
    # Softmax and sums are float64; only their order differs between versions of numpy.
    reference = read_facts().reference
    assert perplexity(model, reference.text).bits_per_byte == pytest.approx(reference.bits_per_byte, abs=1e-8)


def test_the_claims_about_training_fit_each_other():
    facts = read_facts()
    training = facts.training
    assert training.step <= training.steps
    assert training.tokens % training.step == 0
    assert training.data_bytes / training.data_tokens == pytest.approx(3.6, abs=0.5)
    assert facts.held_out.bits_per_byte < 8
    assert facts.infilling is None or facts.infilling.exact <= facts.infilling.tasks
    assert f"{facts.parameters / 1e6:.1f} million parameters" in limits(facts)


def test_it_was_trained_with_the_recipe_that_is_in_the_repository():
    facts, recipe = read_facts(), load_recipe(ROOT / "recipes" / "python-small.toml")
    assert facts.training.recipe_hash == recipe_hash(recipe)
    assert facts.training.run_key == run_key(recipe, "ternary", sha256_file(MODEL / "tokenizer.json"))
    assert facts.training.steps == recipe.train.steps
    assert facts.training.tokens == facts.training.step * recipe.train.batch_size * recipe.train.sequence_length
    trained = recipe.model_config_of("ternary")
    assert open_model(MODEL).config.model_dump(include={"hidden_size", "num_hidden_layers", "linear_type"}) == \
        trained.model_dump(include={"hidden_size", "num_hidden_layers", "linear_type"})


def test_the_card_names_every_package_with_a_licence_and_repeats_the_scores():
    facts, card = read_facts(), (MODEL / "README.md").read_text()
    rows = [line.split(" | ") for line in card.split("| package |")[1].splitlines()[2:] if line.startswith("| ")]
    assert sum(row[-1] == "training |" for row in rows) == facts.training.packages
    assert all(row[2] in {"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "MIT OR Apache-2.0"} for row in rows)
    assert f"{facts.held_out.bits_per_byte:.4f}" in card
    assert "pass@1" in card


def test_it_completes_and_fills_in_every_example_and_the_same_again(model):
    for example in EXAMPLES:
        first, second = write(model, example), write(model, example)
        assert first.text == second.text
        assert (first.prompt, first.suffix, first.left_out) == (example.prompt, example.suffix, 0)
        assert first.finish_reason in ("stop", "length")
        assert first.tokens <= example.max_tokens
    assert middle_rate([]) is None


def test_a_damaged_or_missing_file_is_refused(tmp_path):
    shutil.copytree(MODEL, tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(TritwiseError, match="damaged"):
        model_path(tmp_path / "copy")
    weights.unlink()
    with pytest.raises(TritwiseError, match="not whole"):
        model_path(tmp_path / "copy")
    (tmp_path / "copy" / FACTS).unlink()
    with pytest.raises(TritwiseError, match="no bundled model"):
        model_path(tmp_path / "copy")


@pytest.mark.parametrize("change", [{"parameters": 0}, {"other": 1}, {"files": {}}, {"training": {}}, {"context": "x"},
                                    {"held_out": None}])
def test_facts_of_another_form_are_refused(tmp_path, change):
    values = json.loads((MODEL / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps(values | change))
    with pytest.raises(TritwiseError, match=next(iter(change))):
        read_facts(tmp_path)


def test_it_opens_like_any_other_directory():
    directory = open_model(MODEL)
    assert directory.tokenizer_json()
    assert directory.config.vocab_size == 4096
