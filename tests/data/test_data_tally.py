"""Counts of documents: sums of parts are the counts of the whole."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tritwise.data.documents import Document
from tritwise.data.tally import add_tallies, sum_of, tally

DOCUMENT = Document("r", "a.py", "python", "x = 1\n", 6, "00")


def test_kept_and_dropped_files_are_counted_by_language_and_rule():
    documents = [
        replace(DOCUMENT, licence="MIT", redacted=2), replace(DOCUMENT, path="b.c", language="c", size=10),
        replace(DOCUMENT, path="c.py", text="", dropped_by="min_bytes", detail="3"),
        replace(DOCUMENT, path="d.py", text="", dropped_by="min_bytes", detail="4"),
        replace(DOCUMENT, repository="s", path="e.c", text="", language="c", dropped_by="xml")]
    result = tally(documents, {("r", "c.py"): "y" * 1000})
    assert result["kept"] == {"python": [1, 6], "c": [1, 10]}
    assert result["dropped"] == {"min_bytes": {"python": [2, 12]}, "xml": {"c": [1, 6]}}
    assert [(s["path"], s["detail"], len(s["text"])) for s in result["samples"]["min_bytes"]] == [
        ("c.py", "3", 400), ("d.py", "4", 0)]
    assert result["licences"] == {"MIT": [1, 6], "": [1, 10]}
    assert (result["redacted"], result["repositories"]) == ({}, 1)
    assert sum_of(result["kept"]) == (2, 16)


@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["python", "c"]),
                               st.sampled_from([None, "xml", "path"]), st.integers(0, 100)), max_size=20))
def test_the_tallies_of_repositories_add_up_to_the_tally_of_all(rows):
    documents = [replace(DOCUMENT, repository=name, path=str(number), language=language, dropped_by=rule, size=size)
                 for number, (name, language, rule, size) in enumerate(rows)]
    whole = tally(documents) | {"redacted": {"key": 3, "email": 4}}
    found = {"a": {"key": 1, "email": 4}, "b": {}, "c": {"key": 2}}
    parts = add_tallies([tally([d for d in documents if d.repository == name]) | {"redacted": found[name]}
                         for name in "abc"])
    for key in ("kept", "dropped", "licences", "redacted", "repositories"):
        assert parts[key] == whole[key]
    assert {rule: min(len(s), 3) for rule, s in parts["samples"].items()} == {
        rule: len(s) for rule, s in whole["samples"].items()}
