"""The page of a data directory: all of its numbers, nothing from outside unescaped, arcs that say what stands first."""

import re

from tritwise.measure.arcs import arc_diagram
from tritwise.measure.data_page import data_page

HOSTILE = "<script>alert('x')</script>&\""


def report(**changes) -> dict:
    split = {"tokens": 1234, "bytes_per_token": 3.5}
    return {
        "name": "corpus", "vocab_size": 32000, "splits": {"train": split, "held_out": split},
        "repositories": {"found": 3, "kept": 2},
        "funnel": [{"name": "all files", "files": 10, "bytes": 5_000_000},
                   {"name": "filters", "files": 7, "bytes": 2_000_000}],
        "languages": [{"language": "python", "before": [5, 3_000_000], "after": [4, 1_500_000],
                       "paper_percent": 15.12}],
        "rules": [{"rule": "xml", "why": "an XML declaration", "stage": "rules", "files": 3, "bytes": 100,
                   "languages": {"python": [3, 100]},
                   "samples": [{"repository": "r", "path": "a.py", "language": "python", "size": 5, "detail": "7",
                                "text": "<?xml"}]}],
        "clusters": {"files with equal text": [{"members": 5, "kept": 1, "listed": ["r: a.py", "s: b.py"]}]},
        "graphs": [{"repository": "r", "folder": "", "language": "python", "order": ["b.py", "a.py"],
                    "dependencies": {"a.py": ["b.py"], "b.py": []}}],
        "redacted": {"email": 3}, "licences": {"MIT": [4, 1_500_000], "": [3, 500_000]},
        "steps": [{"name": "read", "tasks": 4, "seconds": 2.0, "bytes": 5_000_000}],
        "hashes": {"tokenizer.json": "ab"}, "command": "tritwise data build recipe.toml"} | changes


def test_the_page_holds_the_numbers():
    page = data_page(report())
    text = re.sub(r"<[^>]*>", " ", page)
    for expected in ("2.00 MB", "40.0\u00a0%", "15.12 %", "2.5", "2 files, 1 dependencies", "32 000",
                     "Found: 3 repositories", "Kept: 2 repositories", "5 alike, 1 kept", "and 3 more"):
        assert re.search(re.escape(expected).replace("\\ ", "."), text), expected
    assert page.count("<section>") == 8


def test_stored_windows_have_a_section_of_their_own():
    split = {"tokens": 960, "bytes_per_token": 3.5, "windows": 10, "padding": 40, "cut_documents": 3,
             "cut_if_concatenated": 17}
    page = data_page(report(splits={"train": split, "held_out": split | {"windows": 0}}))
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "Windows of the training windows 10 tokens of padding 40, 4.0" in text
    assert "3 documents" in text
    assert "17 documents" in text
    assert page.count("<section>") == 9


def test_nothing_that_comes_from_files_is_markup():
    base = report()
    graph = {"repository": HOSTILE, "folder": f"{HOSTILE}/", "language": HOSTILE, "order": [HOSTILE, "a"],
             "dependencies": {HOSTILE: ["a"], "a": []}}
    sample = dict.fromkeys(("repository", "path", "language", "detail", "text"), HOSTILE) | {"size": 1}
    page = data_page(report(
        name=HOSTILE, graphs=[graph], command=HOSTILE, redacted={HOSTILE: 1}, licences={HOSTILE: [1, 1]},
        rules=[base["rules"][0] | {"rule": HOSTILE, "why": HOSTILE, "samples": [sample],
                                   "languages": {HOSTILE: [1, 1]}}],
        languages=[base["languages"][0] | {"language": HOSTILE}],
        clusters={HOSTILE: [{"members": 1, "kept": 1, "listed": [HOSTILE]}]},
        funnel=[base["funnel"][0], base["funnel"][1] | {"name": HOSTILE}],
        steps=[base["steps"][0] | {"name": HOSTILE}], hashes={HOSTILE: HOSTILE}))
    assert "<script" not in page
    assert "alert" in page


def test_an_empty_corpus_has_a_page():
    nothing = [{"name": "all files", "files": 0, "bytes": 0}]
    page = data_page(report(funnel=nothing, repositories={"found": 0, "kept": 0}, languages=[], rules=[], clusters={},
                            graphs=[], redacted={}, licences={}, steps=[],
                            splits={"train": {"tokens": 0, "bytes_per_token": None}}))
    assert "<h1>corpus: data</h1>" in page


def test_an_arc_runs_from_a_dependency_to_its_dependent_and_upwards_ones_stand_out():
    drawing = arc_diagram(["base.py", "user.py"], {"user.py": {"base.py", "elsewhere.py"}, "base.py": {"user.py"}})
    arcs = re.findall(r'stroke="var\(--series-(\d)\)".*?<title>(.*?)</title>', drawing)
    assert arcs == [("2", "user.py \u2192 base.py"), ("1", "base.py \u2192 user.py")]
    assert drawing == arc_diagram(["base.py", "user.py"], {"base.py": {"user.py"}, "user.py": {"base.py"}})
