"""The report of a built directory: it says what the documents say, and draws folders with their dependencies."""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config import Recipe
from tritwise.data import build, load_documents
from tritwise.data.documents import Document
from tritwise.data.flow import run_steps
from tritwise.data.imports import extract
from tritwise.measure.data_graphs import densest_folder, drawn_graphs
from tritwise.measure.data_report import data_report, write_data_report


def module(name: str, needs: tuple[str, ...] = ()) -> str:
    lines = [f"import {need}" for need in needs]
    lines += [f"\n\ndef {name}_{i}(value):\n    return value + {i} * len('{name}')" for i in range(12)]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data directory of three repositories: a chain of six modules, a copy of one of them, a file with secrets."""
    home = tmp_path_factory.mktemp("report")
    names = [f"link{i}" for i in range(6)]
    files = {f"chain/{name}.py": module(name, (names[i + 1],) if i < 5 else ()) for i, name in enumerate(names)}
    files |= {"copy/link.py": files["chain/link0.py"], "copy/again.py": files["chain/link0.py"],
              "copy/own.py": module("own"), "copy/tiny.py": "\n", "copy/data.bin": "\0" * 100,
              "mail/mail.py": module("mail") + "A = 'a.person@company-mail.com'\nB = 'an.other@company-mail.com'\n"
                                               "C = '81.2.69.142'\nD = 'AKIAIOSFODNN7QUXZKLM'\n"}
    for path, text in files.items():
        (home / "repositories" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "repositories" / path).write_text(text)
    schedule = {"shape": "cosine", "peak": 1e-3, "floor": 1e-4, "warmup_steps": 1}
    recipe = Recipe.model_validate({
        "name": "three", "tokenizer": {"vocab_size": 350},
        "data": {"sources": {"paths": [str(home / "repositories")]}, "held_out_fraction": 0, "partitions": 1},
        "model": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
        "train": {"steps": 1, "batch_size": 1, "sequence_length": 16},
        "variants": {"dense": {"model_type": "llama", "linear_type": "dense", "schedule": schedule}}})
    build(recipe, home / "data", run=partial(run_steps, workers=1))
    return home / "data"


def test_counts_are_those_of_the_documents(built):
    report = data_report(built)
    rows = load_documents(built, None)
    kept = [d for d in rows if d.is_kept]
    assert report["name"] == "three"
    assert report["repositories"] == {"found": 3, "kept": len({d.repository for d in kept})}
    first, last = report["funnel"][0], report["funnel"][-1]
    assert (first["files"], first["bytes"]) == (len(rows), sum(d.size for d in rows))
    assert (last["files"], last["bytes"]) == (len(kept), sum(d.size for d in kept))
    assert {rule["rule"]: rule["files"] for rule in report["rules"]} == Counter(
        d.dropped_by for d in rows if d.dropped_by)
    (python,) = (each for each in report["languages"] if each["language"] == "python")
    assert python["after"] == [len(kept), last["bytes"]]
    assert sum(files for files, _ in report["licences"].values()) == len(kept)


def test_what_was_replaced_is_counted_by_kind(built):
    report = data_report(built)
    assert report["redacted"] == {"email": 2, "key": 1, "password": 0, "ip_address": 1}
    assert sum(report["redacted"].values()) == sum(d.redacted for d in load_documents(built, None))


def test_the_first_of_a_group_of_duplicates_is_the_one_that_was_kept(built):
    (group,) = data_report(built)["clusters"]["files with equal text"]
    assert (group["members"], group["kept"]) == (3, 1)
    fates = {f"{d.repository}: {d.path}": d.dropped_by for d in load_documents(built, None)}
    assert [fates[member] for member in group["listed"]] == [None, "duplicate", "duplicate"]


def test_the_page_and_its_data_stand_in_the_directory(built):
    page = write_data_report(built, name="other", command="make it")
    assert page.name == "data-report.html"
    text = re.sub(r"<[^>]*>", "", page.read_text())
    for expected in ("other: data", "make it", "3 alike, 1 kept", "6 files, 5 dependencies", "e-mail addresses"):
        assert expected in text, expected
    stored = json.loads((built / "data-report.json").read_text())
    assert stored == json.loads(json.dumps(data_report(built, name="other", command="make it")))
    assert write_data_report(built, name="other", command="make it").read_text() == page.read_text()


def test_a_graph_has_the_order_of_the_documents(built):
    (graph,) = drawn_graphs(built)
    assert (graph["repository"], graph["folder"], graph["language"]) == ("chain", "", "python")
    assert graph["order"] == [f"link{i}.py" for i in range(5, -1, -1)]
    assert graph["dependencies"]["link0.py"] == ["link1.py"]
    assert graph["dependencies"]["link5.py"] == []


def test_of_a_large_repository_the_folder_with_the_most_dependencies_is_drawn():
    names = [f"wide/{i:02}.h" for i in range(60)] + [f"deep/a/{i}.h" for i in range(6)] + ["deep/b.h"]
    document = Document("r", "", "c", "x", 1, "00", split="train")
    facts = dict.fromkeys(names) | {f"deep/a/{i}.h": extract("c", f"deep/a/{i}.h", f'#include "{i + 1}.h"\n'.encode()
                                                            ).to_json() for i in range(5)}
    documents = [replace(document, path=path, position=i, facts=facts[path]) for i, path in enumerate(names)]
    graph = densest_folder("r", documents)
    assert graph["folder"] == "deep/a/"
    assert graph["order"] == [f"deep/a/{i}.h" for i in range(6)]
    assert densest_folder("r", documents[:60]) is None


def test_a_directory_without_a_report_is_refused(tmp_path):
    with pytest.raises(TritwiseError, match="report"):
        data_report(tmp_path)
