"""The tool that puts a training into the package: a tiny run goes in, its facts are true, and mistakes are refused."""

import gzip
import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import try_model
import try_model_infilling
import try_model_sources

from tritwise import TritwiseError, load
from tritwise.bundled import model_path, read_facts
from tritwise.common.files import read_json
from tritwise.config import load_recipe
from tritwise.data import build
from tritwise.formats import open_model
from tritwise.train import train

RECIPE = """name = "tiny"
seed = 0
[data]
held_out_fraction = 0.2   # of three
[data.sources]
paths = ["{repositories}"]
[data.dedup]
repositories = false
files = false
[tokenizer]
vocab_size = 300
[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
hidden_act = "silu"
tie_word_embeddings = true
[train]
steps = {steps}
batch_size = 1
sequence_length = 192
[variants.ternary]
model_type = "bitnet"
linear_type = "ternary"
schedule = {{ shape = "two_stage", peak = 3e-3, second_peak = 2e-3, floor = 6e-5, warmup_steps = 1 }}
"""
NAMES = ("one", "two", "three")


def wheel(path: Path, headers: str, licence: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.dist-info/METADATA", f"Metadata-Version: 2.1\nName: x\n{headers}\n\nLicense: GPL\n")
        if licence is not None:
            archive.writestr("x.dist-info/LICENSE", licence)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A recipe, packages with their wheels and list, data, a training that is one step short of its end, and tasks."""
    root = tmp_path_factory.mktemp("home")
    (root / "wheels").mkdir()
    lines = []
    for number, name in enumerate(NAMES):
        folder = root / "repositories" / name / name
        folder.mkdir(parents=True)
        for part in range(4):
            (folder / f"part_{part}.py").write_text("".join(
                f"def {name}_{part}_{line}(first, second):\n    total = first * {number + part} + second\n"
                f"    return total - {line}\n\n\n" for line in range(14)))
        file = wheel(root / "wheels" / f"{name}-1.{number}-py3-none-any.whl", "License-Expression: MIT")
        lines.append(f"{name}==1.{number} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}")
    (root / "packages.txt").write_text("# a list\n" + "\n".join(lines) + "\n")
    (root / "recipe.toml").write_text(RECIPE.format(repositories=root / "repositories", steps=3))
    recipe = load_recipe(root / "recipe.toml")
    build(recipe, root / "data")
    train(recipe, "ternary", root / "data", root / "run", stop_after=2)
    task = {"prompt": "def f(a):\n", "canonical_solution": "    return a\n", "suffix": "\n", "task_id": "0"}
    long = task | {"prompt": "x = 1\n" * 200}
    (root / "lines.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, (task, long))).encode()))
    return root


def put_in(home, out, *changes):
    arguments = {"--data": home / "data", "--recipe": home / "recipe.toml", "--packages": home / "packages.txt",
                 "--wheels": home / "wheels", "--infilling": home / "lines.jsonl.gz", "--out": out} | dict(changes)
    return try_model.main([str(home / "run"), *(str(part) for pair in arguments.items() for part in pair)])


def test_a_training_goes_in_with_true_facts_and_the_same_bytes_again(home, tmp_path, capsys):
    assert put_in(home, tmp_path / "tiny") == 0
    assert "step 2 of 3" in capsys.readouterr().out
    facts = read_facts(model_path(tmp_path / "tiny"))
    report = read_json(home / "data" / "report.json", what="a report")
    training = facts.training
    assert (facts.name, training.step, training.steps, training.tokens) == ("tiny", 2, 3, 2 * 192)
    assert (training.packages, training.data_tokens) == (2, report["train"]["tokens"])
    assert facts.held_out.documents == report["held_out"]["files"] == 4
    assert (facts.infilling.tasks, facts.infilling.cut) == (2, 1)
    assert facts.parameters == open_model(tmp_path / "tiny").config.parameter_count().total
    with load(tmp_path / "tiny") as model:
        assert try_model.measure(model, home / "data", home / "lines.jsonl.gz") == facts.model_dump(
            mode="json", include={"held_out", "infilling", "reference"})
    card = (tmp_path / "tiny" / "README.md").read_text()
    for number, name in enumerate(NAMES):
        assert f"| {name} | 1.{number} | MIT | 4 |" in card
    assert card.count("| held out |") == 1
    assert "**Unfinished**: step 2 of 3." in card
    assert "Nothing was done to keep test sets out" in card
    assert "held_out_fraction = 0.2\n" in card
    assert str(home) not in card.split("```")[0]
    # Again, over what stands there.
    before = {file.name: file.read_bytes() for file in (tmp_path / "tiny").iterdir()}
    (tmp_path / "tiny" / "stray").write_text("x")
    assert put_in(home, tmp_path / "tiny") == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "tiny").iterdir()} == before


def test_another_recipe_data_package_or_wheel_is_refused_and_nothing_is_written(home, tmp_path, capsys):
    (tmp_path / "steps.toml").write_text(RECIPE.format(repositories=home / "repositories", steps=4))
    (tmp_path / "seed.toml").write_text((home / "recipe.toml").read_text().replace("seed = 0", "seed = 1"))
    list_of = (home / "packages.txt").read_text()
    (tmp_path / "short.txt").write_text(list_of.replace("\ntwo==", "\n# two=="))
    (tmp_path / "hash.txt").write_text(list_of[:-2] + ("0" if list_of[-2] != "0" else "1") + "\n")
    (tmp_path / "version.txt").write_text("one>=1\n")
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "x"}\n')
    for change, said in ((("--recipe", tmp_path / "steps.toml"), "is no training of this recipe"),
                         (("--recipe", tmp_path / "seed.toml"), "was not made with this recipe"),
                         (("--packages", tmp_path / "short.txt"), "two is neither a listed package nor"),
                         (("--packages", tmp_path / "hash.txt"), "does not hold the listed wheel of three"),
                         (("--packages", tmp_path / "version.txt"), "names no version and hash"),
                         (("--infilling", tmp_path / "tasks.jsonl"), "not readable as infilling tasks")):
        assert put_in(home, tmp_path / "out", change) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("headers", "file", "licence"), [
    ("License-Expression: MIT OR Apache-2.0\nLicense: other", None, "MIT OR Apache-2.0"),
    ("License: BSD-3-Clause", None, "BSD-3-Clause"),
    ("License: Copyright (c) 2013, somebody\nClassifier: License :: OSI Approved :: MIT License", None, "MIT"),
    ("License: Apache\nClassifier: License :: OSI Approved :: Apache Software License", None, "Apache-2.0"),
    ("Classifier: Topic :: Software", "a licence file", "MIT"),
])
def test_the_licence_is_that_of_the_metadata_or_of_the_licence_file(tmp_path, headers, file, licence):
    text = None if file is None else MIT_TEXT
    assert try_model_sources.licence_of(wheel(tmp_path / "x.whl", headers, text)) == licence


def test_a_wheel_without_a_licence_or_metadata_is_refused(tmp_path):
    with pytest.raises(TritwiseError, match="does not say its licence"):
        try_model_sources.licence_of(wheel(tmp_path / "x.whl", "Version: 1"))
    (tmp_path / "y.whl").write_bytes(b"PK")
    with pytest.raises(TritwiseError, match="no readable metadata"):
        try_model_sources.licence_of(tmp_path / "y.whl")


def test_a_line_counts_when_it_is_the_one_that_was_taken_out(tmp_path):
    texts = iter([" return a ", "return b", ""])

    class Codec:
        infill = staticmethod(lambda before, behind: [0, *before.encode(), 1, *behind.encode(), 2])
        encode = staticmethod(lambda text: list(text.encode()))

    class Model:
        context, codec = 512, Codec()

        def stream_infill(self, prefix, suffix, *, max_tokens, stop, heal):
            assert (prefix, suffix, max_tokens, stop, heal) == ("p\n", "s", 64, "\n", True)
            return next(texts)

    rows = [{"prompt": "p\n", "canonical_solution": "    return a\n", "suffix": "s"} for _ in range(3)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scores = try_model_infilling.line_scores(Model(), tmp_path / "x.jsonl")
    assert (scores["tasks"], scores["exact"], scores["cut"]) == (3, 1, 0)


MIT_TEXT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
