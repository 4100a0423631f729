"""The order experiment: its recipe, its report on scores whose answer is known, and how packages are unpacked."""

import argparse
import zipfile
from pathlib import Path

import fetch_packages
import order_payoff
import pytest
from order_payoff_report import make_report, show
from order_payoff_score import held_out_bits

from tritwise import TritwiseError
from tritwise.config import ModelConfig
from tritwise.data import Document, document_text, train_tokenizer
from tritwise.engine import load
from tritwise.evaluate import bits_per_byte
from tritwise.formats import write_model
from tritwise.measure.shapes import random_tensors

ROOT = Path(__file__).parents[2]


def line(bits: float, exact: bool | None) -> dict:
    generated = {"generated": "x", "exact": exact, "edit_similarity": 0.5, "identifiers_exact": exact,
                 "identifier_f1": 0.25} if exact is not None else {}
    return {"bits": bits, "name_bits": bits / 2} | generated


def scores(shift: float) -> dict:
    """Four tasks of two repositories; `shift` more bits with every one's dependencies."""
    arms = {"alone": [line(10 + n, False) for n in range(4)],
            "dependencies": [line(8 + n + shift, n < 1) for n in range(4)],
            "others": [line(10 + n + shift, None) for n in range(4)]}
    return {"cross_file": {"tasks": ["a/x:1", "a/x:2", "b/y:1", "b/y:2"], "repositories": ["a", "a", "b", "b"],
                           "bytes": [10, 20, 10, 20], "name_bytes": [5, 5, 5, 5], "arms": arms},
            "held_out": {"files": ["a/x", "b/y"], "repositories": ["a", "b"], "bytes": [100, 300],
                         "bits": {"alone": [200 + shift, 600 + shift], "path": [150.0, 450.0]}}}


def test_the_report_has_means_and_paired_differences_over_tasks_and_repositories():
    report = make_report({("topological", 0): scores(0), ("path", 0): scores(3)}, unseen={"a/x:1", "b/y:1"})
    assert report["tasks"] == {"all": 4, "name not in the file": 2, "name in an import": 2}
    every = report["cross_file"]["all"]
    assert every["means"]["topological"]["alone"]["bits"] == (10 + 11 + 12 + 13) / 60
    assert every["means"]["topological"]["dependencies"]["exact"] == 0.25
    assert "exact" not in every["means"]["topological"]["others"]
    # Three bits more in every task: 12 bits over 60 bytes, less for the first order.
    change = every["orders"]["topological - path"]["dependencies"]["bits"]
    assert change["difference"] == pytest.approx(-12 / 60)
    assert change["repositories"] == [pytest.approx(-0.2)] * 2  # both have the same bytes
    assert change["tasks"][0] <= -0.2 <= change["tasks"][1]
    assert every["orders"]["topological - path"]["alone"]["bits"]["difference"] == 0
    assert every["controls"]["topological"]["dependencies - alone"]["bits"]["difference"] == pytest.approx(-8 / 60)
    assert report["held_out"]["bits_per_byte"]["path"] == {"alone": 806 / 400, "path": 600 / 400}
    assert report["held_out"]["orders"]["topological - path"]["alone"]["difference"] == pytest.approx(-6 / 400)
    text = show(report)
    assert "cross-file tasks, name not in the file: 2" in text
    assert "-0.2000" in text


def test_several_seeds_are_means_of_each_task():
    report = make_report({("topological", 0): scores(0), ("topological", 1): scores(4)}, unseen=set())
    assert report["seeds"] == 2
    assert report["by_seed"]["topological-1"]["cross_file"]["dependencies"]["bits_per_byte"] == pytest.approx(54 / 60)
    assert "topological-1" in show(report)
    assert report["cross_file"]["all"]["means"]["topological"]["dependencies"]["bits"] == pytest.approx(46 / 60)


def arguments(**changes) -> argparse.Namespace:
    values = {"recipe": ROOT / "recipes" / "quickstart.toml", "variant": "ternary", "source": [Path("there")],
              "held_out_fraction": 0.4, "max_file_bytes": 8192, "fim_rate": 0.0, "steps": 7, "sequence_length": 1024,
              "batch_size": 1, "set": []}
    return argparse.Namespace(**values | changes)


def test_orders_differ_in_the_order_and_the_given_tokenizer_alone():
    recipe = order_payoff.derived(arguments(set=["model.hidden_size=128", "train.checkpoint_every=9"]))
    assert recipe.model_config_of("ternary").hidden_size == 128
    assert recipe.model_config_of("ternary").max_position_embeddings == 1024
    assert (recipe.train.checkpoint_every, recipe.train.steps, recipe.data.fim.rate) == (9, 7, 0)
    assert tuple(recipe.variants) == ("ternary",)
    other = order_payoff.with_order(recipe, "random", Path("t.json"))
    assert other.data.order == "random"
    assert order_payoff.with_order(other, "topological", Path("t.json")) == order_payoff.with_order(
        recipe, "topological", Path("t.json"))
    with pytest.raises(TritwiseError, match="no variant 'sparse'"):
        order_payoff.derived(arguments(variant="sparse"))
    for change, message in (("train.steps", "says nothing"), ("nowhere.steps=1", "says nothing"),
                            ("train.steps=-1", "the changed recipe")):
        with pytest.raises(TritwiseError, match=message):
            order_payoff.derived(arguments(set=[change]))


def document(repository: str, path: str, text: str) -> Document:
    return Document(repository, path, "python", text, len(text), path, split="held_out", position=0)


def test_files_alone_are_scored_as_bits_per_byte_does_and_streams_see_what_stands_before(tmp_path):
    files = [document("a", "x.py", "x = 1\ny = 22\n" * 4), document("a", "y.py", "x = 1\nz = 'é'\n"),
             document("b", "z.py", "z = 3\n" * 9)]
    tokenizer = train_tokenizer([document_text(d) for d in files], 270)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = ModelConfig(vocab_size=270, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                         num_attention_heads=2, max_position_embeddings=32, linear_type="dense", model_type="llama",
                         tie_word_embeddings=False, eos_token_id=0)
    write_model(tmp_path / "model", config, dict(random_tensors(config)), form="float", dtype="float32",
                tokenizer_file=tmp_path / "tokenizer.json")
    with load(tmp_path / "model") as model:
        found = held_out_bits(model, {"path": files, "random": [files[1], files[0], files[2]]}, 32)
        alone = [bits_per_byte(model, [document_text(d)], 32, 16).total_nats / 0.6931471805599453 for d in files]
    assert found["files"] == ["a/x.py", "a/y.py", "b/z.py"]
    assert found["bytes"] == [len(d.text.encode()) for d in files]
    assert found["bits"]["alone"] == pytest.approx(alone, rel=1e-12)
    # What comes first in a stream is scored as alone; what comes second is not.
    for mode, same in (("path", [True, False, True]), ("random", [False, True, True])):
        assert [a == pytest.approx(b, rel=1e-12) for a, b in zip(found["bits"][mode], alone, strict=True)] == same


def wheel(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__DIR__", "/"), text)
    return path


def test_only_python_files_of_a_wheel_are_unpacked_and_none_outside_its_folder(tmp_path):
    good = wheel(tmp_path / "some_pkg-1.0-py3-none-any.whl",
                 **{"some/__init__.py": "", "some/a.py": "a = 1\n", "some/data.json": "{}"})
    assert fetch_packages.unpack(good, tmp_path / "out") == 2
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.*")) == ["__init__.py", "a.py"]
    for name in ("../evil.py", "/evil.py", "a\\..\\evil.py"):
        with pytest.raises(TritwiseError, match="outside"):
            fetch_packages.unpack(wheel(tmp_path / "bad.whl", **{"ok.py": "", name: "x"}), tmp_path / "bad")
    (tmp_path / "cut.whl").write_bytes(good.read_bytes()[:-40])
    with pytest.raises(TritwiseError, match="cannot be unpacked"):
        fetch_packages.unpack(tmp_path / "cut.whl", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    assert not (tmp_path / "evil.py").exists()


def test_every_listed_package_has_a_version_and_a_hash():
    listed = ROOT / "benchmarks" / "data" / "order_payoff_packages.txt"
    lines = [text for text in listed.read_text().splitlines() if not text.startswith("#")]
    assert all("==" in text and " --hash=sha256:" in text for text in lines)
    names = fetch_packages.names_of(listed)
    assert len(set(names)) == len(names) == len(lines) > 50
