"""Counts of documents: sums of parts are the counts of the whole."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tritwise.config.data_rules import SecretSettings
from tritwise.data.documents import Document
from tritwise.data.stages import write_part
from tritwise.data.tally import add_tallies, sample_key, sum_of, tally

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
    assert sorted((s["path"], s["detail"], len(s["text"])) for s in result["samples"]["min_bytes"]) == [
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
    assert parts == whole


def test_samples_are_drawn_from_all_parts_and_no_order_decides_them():
    documents = [replace(DOCUMENT, repository=f"r{part}", path=f"{number}.py", text="", dropped_by="xml")
                 for part in range(20) for number in range(40)]
    parts = [[d for d in documents if d.repository == f"r{part}"] for part in range(20)]
    tallies = [tally(part) for part in parts]
    found = add_tallies(tallies)["samples"]["xml"]
    assert found == add_tallies(reversed(tallies))["samples"]["xml"]
    assert found == tally(reversed(documents))["samples"]["xml"]
    assert found == add_tallies([add_tallies(tallies[:7]), add_tallies(tallies[7:])])["samples"]["xml"]
    names = [(sample["repository"], sample["path"]) for sample in found]
    assert names == sorted(((d.repository, d.path) for d in documents), key=lambda name: sample_key(*name))[:5]
    assert len({repository for repository, _ in names}) > 1
    # Over many rules the parts are shown about as often as they have files: 100 draws of 5 among 20 parts.
    shown = Counter(sample["repository"] for rule in range(100) for sample in tally(
        replace(d, path=f"{rule}/{d.path}") for d in documents)["samples"]["xml"])
    assert set(shown) == {f"r{part}" for part in range(20)}
    assert max(shown.values()) < 25 + 5 * 25 ** 0.5


def test_a_tally_holds_no_more_samples_than_are_shown():
    documents = (replace(DOCUMENT, path=str(number), dropped_by="xml") for number in range(500))
    assert len(tally(documents)["samples"]["xml"]) == 5


def test_every_sample_of_a_stage_has_the_beginning_of_its_text(tmp_path):
    documents = [replace(DOCUMENT, path=f"{number}.py", text=f"x = {number}\n" * 100) for number in range(40)]

    def drop_all(documents):
        return (replace(document, text="", dropped_by="xml") for document in documents)

    samples = write_part(tmp_path / "0.parquet", documents, [drop_all], SecretSettings())["samples"]["xml"]
    assert [sample["text"] for sample in samples] == [
        (f"x = {sample['path'].removesuffix('.py')}\n" * 100)[:400] for sample in samples]
    assert len(samples) == 5
