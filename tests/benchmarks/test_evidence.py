"""The evidence: plans, the equal sweep, the order of work, trainings that are stopped and go on, the report."""

import json
import math
import time
from functools import partial
from pathlib import Path

import evidence
import evidence_plan
import evidence_report
import evidence_training
import numpy as np
import pytest
from evidence_plan import Plan, Sweep, Training, load_plan, next_training, recipe_of, sweep_of
from evidence_training import Deadline, Place, Results

from tritwise import TritwiseError
from tritwise.common.errors import Interrupted
from tritwise.config.recipe import CorpusRecipe
from tritwise.data import Document, build
from tritwise.data.flow import run_steps
from tritwise.train import loop

PLANS = sorted((Path(__file__).parents[2] / "benchmarks" / "evidence").glob("*.toml"))
SHAPE = {"warmup": 0.1}
TWO_STAGE = SHAPE | {"shape": "two_stage", "second_peak": 0.5, "floor": 0.02}
SIZE = {"intermediate_size": 32, "num_attention_heads": 2, "batch_size": 2, "tokens": 640}


def plan_of(**changes) -> Plan:
    return Plan.model_validate({
        "name": "tiny", "context": 32, "peaks": [5e-3, 1e-2, 2e-2], "extensions": 1, "points": [0.5],
        "held_out_bytes": 6000, "train": {"dtype": "float32"},
        "sizes": [{"name": "s", "hidden_size": 16, "num_hidden_layers": 1, "sweep_tokens": 192} | SIZE,
                  {"name": "m", "hidden_size": 32, "num_hidden_layers": 2} | SIZE],
        "variants": {"dense": {"model_type": "llama", "linear_type": "dense",
                               "schedule": SHAPE | {"shape": "cosine", "floor": 0.1}},
                     "ternary": {"model_type": "bitnet", "linear_type": "ternary", "schedule": TWO_STAGE}},
        "search": {"size": "s", "changes": [{"name": "no-sub-norms", "model_type": "llama"}]}} | changes)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[CorpusRecipe, Path]:
    """Five small repositories and the data built from them."""
    root = tmp_path_factory.mktemp("corpus")
    for number in range(5):
        repository = root / "repositories" / f"r{number}"
        repository.mkdir(parents=True)
        for name in "abc":
            (repository / f"{name}.py").write_text(
                "\n".join(f"def {name}_{i}(x):\n    return x + {i * number}\n" for i in range(40)))
    recipe = CorpusRecipe.model_validate({
        "name": "tiny", "data": {"sources": {"paths": [str(root / "repositories")]}, "held_out_fraction": 0.4},
        "tokenizer": {"vocab_size": 300}})
    build(recipe, root / "data", run=partial(run_steps, workers=1))
    return recipe, root / "data"


def place_of(corpus: tuple[CorpusRecipe, Path], out: Path, plan: Plan) -> Place:
    return Place(plan, *corpus, out, threads=1)


@pytest.fixture(scope="module")
def done(corpus, tmp_path_factory) -> Place:
    """Everything of the tiny plan, trained."""
    place = place_of(corpus, tmp_path_factory.mktemp("evidence") / "out", plan_of())
    assert evidence.work(place, evidence_plan.KINDS, None)
    return place


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_that_is_shipped_gives_twins_of_the_sizes_that_it_names(path):
    plan = load_plan(path)
    corpus = CorpusRecipe.model_validate({"name": "any", "data": {}, "tokenizer": {"vocab_size": 4096}})
    assert set(plan.variants) == {"dense", "ternary", "binary"}
    for size in plan.sizes:
        named = float(size.name[:-1]) * 1e6
        recipes = {variant: recipe_of(plan, Training("variant", size, variant, 1e-3, size.tokens, 0), corpus)
                   for variant in plan.variants}
        assert len({recipe.train.model_dump_json() for recipe in recipes.values()}) == 1
        for variant, recipe in recipes.items():
            assert recipe.model_config_of(variant).parameter_count().block == pytest.approx(named, rel=0.1)
            shape = recipe.variants[variant].schedule
            assert shape.shape == ("cosine" if variant == "dense" else "two_stage")
            assert shape.peak == 1e-3
    for change in plan.search.changes:  # each is a recipe, and changes something
        size = plan.size(plan.search.size)
        changed, base = (recipe_of(plan, Training("search", size, change.variant, 1e-3, size.tokens, 0, each), corpus)
                         for each in (change, None))
        assert changed != base


def test_a_plan_with_a_mistake_is_refused(tmp_path):
    size = {"name": "s", "hidden_size": 16, "num_hidden_layers": 1, "sweep_tokens": 192} | SIZE
    for change, message in (({"peaks": [2e-3, 1e-3]}, "peaks must rise"), ({"sizes": [size, size]}, "one name"),
                            ({"sizes": [size | {"sweep_tokens": None}]}, "needs sweep_tokens"),
                            ({"search": {"size": "xl", "changes": []}}, "search.size xl is none of s, m"),
                            ({"search": {"size": "s", "changes": [{"name": "x", "schedule": {"hump": 1}}]}}, "hump")):
        with pytest.raises((ValueError, TritwiseError), match=message):
            plan_of(**change)
    (tmp_path / "plan.toml").write_text("name = ")
    with pytest.raises(TritwiseError, match="cannot be read"):
        load_plan(tmp_path / "plan.toml")


def sweep_with(plan: Plan, bits) -> tuple[Sweep, list[tuple[str, float]]]:
    """The sweep of the first size where a training comes to `bits(variant, peak)`, and the order of its trainings."""
    known: dict[str, float] = {}
    order = []
    while isinstance(found := sweep_of(plan, plan.sizes[0], lambda training: known.get(training.name)), Training):
        known[found.name] = bits(found.variant, found.peak)
        order.append((found.variant, found.peak))
    return found, order


def test_the_grid_grows_for_all_variants_while_the_best_peak_of_one_stands_at_its_end():
    inside, order = sweep_with(plan_of(), lambda variant, peak: abs(math.log(peak / 1e-2)))
    assert order == [(variant, peak) for peak in (5e-3, 1e-2, 2e-2) for variant in ("dense", "ternary")]
    assert (inside.grid, inside.at_end) == ((5e-3, 1e-2, 2e-2), ())
    best = {"dense": 1e-2, "ternary": 4e-2}
    grown, order = sweep_with(plan_of(), lambda variant, peak: abs(math.log(peak / best[variant])))
    assert grown.grid == (5e-3, 1e-2, 2e-2, 4e-2)
    assert order[-2:] == [("dense", 4e-2), ("ternary", 4e-2)]
    assert grown.best == best
    assert grown.at_end == ("ternary",)  # one step only, and it is said
    both = {"dense": 1e-3, "ternary": 1.0}
    grown, _ = sweep_with(plan_of(extensions=2), lambda variant, peak: abs(math.log(peak / both[variant])))
    assert grown.grid == (1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2)


def test_a_peak_that_diverged_is_never_the_best_and_all_of_them_are_an_error():
    found, _ = sweep_with(plan_of(), lambda variant, peak: math.inf if peak > 1e-2 else 2 - peak)
    assert found.best == {"dense": 1e-2, "ternary": 1e-2}
    with pytest.raises(TritwiseError, match="every peak diverged for ternary"):
        sweep_with(plan_of(), lambda variant, peak: math.inf if variant == "ternary" else peak)


def test_cheap_and_telling_trainings_come_first():
    names = [training.name for training in evidence.planned(plan_of(seeds=[0, 1]))]
    assert names[:2] == ["sweep-s-dense-0.005-seed0", "sweep-s-ternary-0.005-seed0"]
    assert names[6:] == [f"variant-{size}-{variant}-seed0" for size in "sm" for variant in ("dense", "ternary")] + [
        "variant-s-dense-seed1", "variant-s-ternary-seed1", "search-s-no-sub-norms-seed0", "variant-m-dense-seed1",
        "variant-m-ternary-seed1"]
    assert next_training(plan_of(), lambda training: 1.0) is None


def test_scored_documents_are_whole_fit_and_depend_on_nothing_but_their_names():
    documents = [Document("r", f"{n}.py", "python", "é" * (n + 1), n + 1, str(n), split="held_out", position=n)
                 for n in range(30)]
    chosen = evidence_training.chosen_documents(documents, 100)
    assert 60 < sum(len(d.text.encode()) for d in chosen) <= 100
    assert [d.position for d in chosen] == sorted(d.position for d in chosen)
    assert evidence_training.chosen_documents(documents[::-1], 100) == chosen[::-1]
    with pytest.raises(TritwiseError, match="at most 1 bytes"):
        evidence_training.chosen_documents(documents, 1)


def test_a_second_run_reuses_everything_and_other_settings_nothing_of_theirs(done, monkeypatch):
    monkeypatch.setattr(Results, "train", lambda *_: pytest.fail("something was trained again"))
    assert evidence.work(done, evidence_plan.KINDS, None)
    other = Place(plan_of(held_out_bytes=5000), done.corpus, done.data, done.out)
    assert next_training(other.plan, Results(other).score).name == "sweep-s-dense-0.005-seed0"
    longer = [size.model_dump() for size in plan_of().sizes]
    longer[1]["tokens"] *= 2
    changed = Place(plan_of(sizes=longer), done.corpus, done.data, done.out)
    assert next_training(changed.plan, Results(changed).score).name == "variant-m-dense-seed0"


def test_the_report_has_the_gaps_of_what_was_trained_on_equal_tokens(done):
    report = json.loads((done.out / "results.json").read_text())
    assert report["next"] is None
    ends = {name: json.loads((done.out / name / "result.json").read_text())["held_out"] for name in report["trainings"]}
    for size in ("s", "m"):
        dense, ternary = (f"variant-{size}-{variant}-seed0" for variant in ("dense", "ternary"))
        facts = report["trainings"]
        assert facts[dense]["sample_starts_sha256"] == facts[ternary]["sample_starts_sha256"]
        assert [score["tokens"] for score in facts[ternary]["scores"]] == [320, 640]
        assert facts[ternary]["bits_per_byte"] == ends[ternary]["bits_per_byte"]
        gap = report["sizes"][size]["gaps"]["ternary"]
        assert gap["estimate"] == pytest.approx(ends[ternary]["bits_per_byte"] - ends[dense]["bits_per_byte"])
        assert gap["documents"][0] <= gap["estimate"] <= gap["documents"][1]
        rows = report["sizes"][size]["variants"]
        assert rows["ternary"]["parameters"]["block"] == rows["dense"]["parameters"]["block"]
        assert rows["ternary"]["parameters"]["norm"] > rows["dense"]["parameters"]["norm"]
        assert rows["ternary"]["peak"] == report["sizes"][size]["sweep"]["best"]["ternary"]
    assert report["sizes"]["m"]["sweep"]["of"] == "s"
    change, = report["search"]["changes"]
    assert change["estimate"] == pytest.approx(ends["search-s-no-sub-norms-seed0"]["bits_per_byte"]
                                               - ends["variant-s-ternary-seed0"]["bits_per_byte"])
    assert "Two points always lie on a line" in (done.out / "results.md").read_text()
    assert "sub-norms" in (done.out / "results.md").read_text()
    svg = (done.out / "results.svg").read_text()
    assert svg.startswith("<svg")
    assert "--series-2:" in svg
    assert "ternary, m" in svg


def test_the_trend_is_the_slope_of_gaps_that_lie_on_a_line(tmp_path):
    documents = evidence_report.Documents(tmp_path)
    documents.names, documents.bytes = [("a", "x"), ("b", "y")], np.array([100.0, 300.0])
    share = np.array([10.0, 30.0])  # 0.1 bits a byte in both
    points = [(10.0 ** power, (5 - 2 * power) * share) for power in (1, 2, 4)]
    found = evidence_report.trend_report(documents, points)
    assert found["estimate"] == pytest.approx(-0.2)
    assert found["documents"] == pytest.approx([-0.2, -0.2])
    assert evidence_report.trend_report(documents, points[:1]) is None


def test_twins_that_saw_other_tokens_are_not_compared():
    rows = [{"seed": 0, "name": name, "sample_starts_sha256": name} for name in "ab"]
    with pytest.raises(TritwiseError, match="did not see the same tokens"):
        evidence_report._check_twins(rows)


def test_a_run_that_is_stopped_by_its_time_goes_on_and_ends_with_the_same_bits(done, corpus, monkeypatch, tmp_path):
    place = place_of(corpus, tmp_path / "out", plan_of())
    training = Training("variant", place.plan.sizes[1], "ternary", 1e-2, 640, 0)
    real, rate, stops = evidence_training.Deadline.over, loop.learning_rate, []
    monkeypatch.setattr(evidence_training.Deadline, "over", property(lambda self: False))  # only inside of a training
    monkeypatch.setattr(loop, "learning_rate", lambda *arguments: time.sleep(0.03) or rate(*arguments))
    for _ in range(10):  # as many as steps: each call makes at least one
        try:
            Results(place).train(training, Deadline(0.1))
            break
        except Interrupted as stop:
            stops.append(stop.fix)
    assert stops
    assert all("the same command goes on" in fix for fix in stops)
    monkeypatch.setattr(loop, "learning_rate", rate)
    monkeypatch.setattr(evidence_training.Deadline, "over", real)
    other = place_of(corpus, tmp_path / "other", plan_of())
    Results(other).train(training, Deadline(None))
    one, two = (json.loads((p.out / training.name / "scores.json").read_text()) for p in (place, other))
    assert one == two
    with pytest.raises(Interrupted, match="the time is up"):
        Results(other).train(Training("variant", place.plan.sizes[0], "dense", 1e-2, 640, 0), Deadline(0))


def test_an_unfinished_sweep_is_reported_as_far_as_it_is(corpus, tmp_path):
    place = place_of(corpus, tmp_path / "out", plan_of())
    assert "Nothing is trained yet" in evidence_report.write_report(place, Results(place))
    Results(place).train(next_training(place.plan, Results(place).score), Deadline(None))
    text = evidence_report.write_report(place, Results(place))
    assert "| peak at s | 0.005 |" in text
    assert "This sweep is not finished." in text
    assert "next is sweep-s-ternary-0.005-seed0" in text


def test_a_training_that_diverges_is_a_result(corpus, tmp_path):
    place = place_of(corpus, tmp_path / "out", plan_of(train={"dtype": "float32", "max_grad_norm": 1e30}))
    training = Training("variant", place.plan.sizes[0], "dense", 1e30, 640, 0)
    results = Results(place)
    assert results.score(training) is None
    results.train(training, Deadline(None))
    assert results.score(training) == math.inf
    found = evidence_report.training_report(place.out, training.name)
    assert found["bits_per_byte"] is None
    assert "diverged at step" in found["diverged"]


def test_a_dry_run_lists_what_is_left_and_its_cost(done, corpus, tmp_path):
    fresh = place_of(corpus, tmp_path, plan_of())
    text = evidence.show_plan(fresh, 1e9)
    assert text.count("\n") == 1 + 6 + 4 + 1  # a heading, sweeps, variants, a change; the sum
    # 16 x 16 x 4 + 16 x 32 x 3 parameters of linears, 300 x 16 of the head; 640 tokens.
    assert f"{6 * (2560 + 4800) * 640:.1e}" in text
    assert evidence.show_plan(done, 1e9).count("\n") == 1  # nothing but the head and the sum


def test_other_data_than_the_recipe_says_is_refused(corpus, tmp_path):
    recipe = corpus[0].model_copy(update={"tokenizer": corpus[0].tokenizer.model_copy(update={"vocab_size": 400})})
    with pytest.raises(TritwiseError, match="a vocabulary of 300, the recipe one of 400"):
        Results(Place(plan_of(), recipe, corpus[1], tmp_path))
