"""Parquet files of code datasets: their layouts, and rows of a repository brought together out of many files."""

import os

import pyarrow
import pytest
from pyarrow import parquet

from tritwise.common.errors import TritwiseError
from tritwise.config.data_sources import SourceSettings
from tritwise.data.sources import RawFile, bucket_of, find_repositories, gather, read_files, scatter, shuffle

FILES = [("b/one", "b.py", "b\n"), ("a/two", "x.c", "int x;\n"), ("b/one", "a.py", "a\n"), ("c/three", "é.py", "é\n")]


def write(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def stack_v2(path, rows):
    names, paths, contents = zip(*rows, strict=True)
    return write(path, {"blob_id": ["0" * 40] * len(rows), "repo_name": names, "path": paths, "content": contents,
                        "detected_licenses": [["MIT", "ISC"]] * len(rows)})


def gathered(scattered, buckets):
    """Everything, with the bucket in which it was."""
    return {repository.name: (bucket, list(files)) for bucket in range(buckets)
            for repository, files in gather(scattered, bucket)}


@pytest.mark.parametrize("columns", [
    ("max_stars_repo_name", "max_stars_repo_path", "content"), ("repo_name", "path", "code"),
    ("repository", "path", "text")])
def test_rows_of_every_layout_become_files_of_repositories(columns, tmp_path):
    path = write(tmp_path / "in" / "x.parquet", dict(zip(columns, zip(*FILES, strict=True), strict=True)))
    found = gathered([scatter(path, tmp_path / "out", 3, max_bytes=100)], 3)
    assert {name: files for name, (_, files) in found.items()} == {
        "a/two": [RawFile("x.c", b"int x;\n", 7)], "b/one": [RawFile("a.py", b"a\n", 2), RawFile("b.py", b"b\n", 2)],
        "c/three": [RawFile("é.py", "é\n".encode(), 3)]}
    assert all(bucket == bucket_of(name, 3) for name, (bucket, _) in found.items())


def test_a_row_that_lists_files_is_read_as_they_are(tmp_path):
    path = write(tmp_path / "x.parquet", {
        "repo_name": ["a/b", "c/d"],
        "files": [[{"blob_id": "1", "path": "z.py", "content": "z", "detected_licenses": ["MIT"]},
                   {"blob_id": "2", "path": "a.py", "content": None, "detected_licenses": []}], []]})
    found = gathered([scatter(path, tmp_path / "out", 1, max_bytes=10)], 1)
    assert found == {"a/b": (0, [RawFile("a.py", None, 0, "no_content"), RawFile("z.py", b"z", 1, None, "MIT")])}


def test_rows_of_a_repository_come_together_whatever_file_and_order_they_are_in(tmp_path):
    rows = [(f"r{i % 7}", f"{i:03}.py", f"{i}\n" * i) for i in range(60)]
    parts = [stack_v2(tmp_path / f"{k}.parquet", rows[k::3]) for k in range(3)]
    other = [stack_v2(tmp_path / "other" / f"{k}.parquet", rows[::-1][k::2]) for k in range(2)]
    first = gathered([scatter(p, tmp_path / "out", 4, max_bytes=10_000) for p in parts], 4)
    again = gathered([scatter(p, tmp_path / "again", 4, max_bytes=10_000) for p in other[::-1]], 4)
    assert first == again
    assert first["r3"][1] == [RawFile(path, text.encode(), len(text), None, "MIT AND ISC")
                              for name, path, text in rows if name == "r3"]


def test_runs_smaller_than_a_file_change_nothing(tmp_path, monkeypatch):
    path = stack_v2(tmp_path / "x.parquet", FILES)
    whole = gathered([scatter(path, tmp_path / "a", 2, max_bytes=100)], 2)
    monkeypatch.setattr(shuffle, "_RUN_BYTES", 1)
    monkeypatch.setattr(shuffle, "_GROUP", 1)
    assert gathered([scatter(path, tmp_path / "b", 2, max_bytes=100)], 2) == whole


def test_what_cannot_be_a_file_of_a_repository_is_named(tmp_path):
    path = stack_v2(tmp_path / "x.parquet", [
        ("r", "../x.py", "x"), ("r", "/etc/x", "x"), ("r", "a\nb.py", "x"), ("r", "large.py", "x" * 11),
        ("r", "n.py", None), ("r", "a.py", "2"), ("r", "a.py", "1"), ("", "x.py", "x"), ("r", "", "x")])
    found = gathered([scatter(path, tmp_path / "out", 1, max_bytes=10)], 1)["r"][1]
    assert [(f.path, f.skipped) for f in found] == [
        ("", "path"), ("../x.py", "path"), ("/etc/x", "path"), ("a.py", None), ("a.py", "duplicate_path"),
        ("a\\nb.py", "path"), ("large.py", "too_large"), ("n.py", "no_content")]


def test_a_finished_scatter_is_not_done_again_and_a_changed_input_is(tmp_path):
    path = stack_v2(tmp_path / "x.parquet", FILES)
    done = scatter(path, tmp_path / "out", 2, max_bytes=100)
    before = os.stat(done / "index.parquet").st_mtime_ns
    assert scatter(path, tmp_path / "out", 2, max_bytes=100) == done
    assert os.stat(done / "index.parquet").st_mtime_ns == before
    assert scatter(path, tmp_path / "out", 3, max_bytes=100) != done
    stack_v2(path, [*FILES, ("x", "y.py", "z")])
    assert scatter(path, tmp_path / "out", 2, max_bytes=100) != done


def test_a_scatter_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no Parquet")
    with pytest.raises(TritwiseError, match="not readable as Parquet"):
        scatter(path, tmp_path / "out", 2, max_bytes=100)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("columns", "message"), [
    ({"repo_name": ["r"], "path": ["p"], "blob_id": ["0"]}, "has no contents"),
    ({"repo_name": ["r"], "files": [[{"blob_id": "0", "path": "p"}]]}, "has no contents"),
    ({"text": ["x"]}, "no table of repositories"),
    ({"repo_name": ["r"], "content": ["x"]}, "no column for a path")])
def test_a_table_without_what_is_needed_is_refused_with_what_is_missing(columns, message, tmp_path):
    path = write(tmp_path / "x.parquet", columns)
    with pytest.raises(TritwiseError, match=message):
        scatter(path, tmp_path / "out", 2, max_bytes=100)


def test_damaged_contents_are_not_given(tmp_path):
    done = scatter(stack_v2(tmp_path / "x.parquet", FILES), tmp_path / "out", 1, max_bytes=100)
    content = (done / "contents.bin").read_bytes()
    (done / "contents.bin").write_bytes(content[:-1] + b"?")
    with pytest.raises(TritwiseError, match="is damaged"):
        gathered([done], 1)


def test_parquet_files_are_found_with_their_folders_and_are_not_read_as_one_repository(tmp_path):
    for language in ("c", "python"):
        stack_v2(tmp_path / "data" / language / "train-0.parquet", FILES)
    found = find_repositories(SourceSettings(paths=(str(tmp_path / "data"),)))
    assert [(r.name, r.kind) for r in found] == [("c/train-0", "parquet"), ("python/train-0", "parquet")]
    with pytest.raises(TritwiseError, match="scatter and gather"):
        list(read_files(found[0], max_bytes=10))


def test_more_inputs_than_may_be_open_at_once_are_brought_together_all_the_same(tmp_path, monkeypatch):
    done = [scatter(stack_v2(tmp_path / f"{number}.parquet", [("r", f"{place}{number}.py", f"{place}{number}")
                                                              for place in "abc"]), tmp_path / "out", 1, max_bytes=100)
            for number in range(4)]
    wanted = gathered(done, 1)
    monkeypatch.setattr(shuffle, "_OPEN_FILES", 2)
    assert gathered(done, 1) == wanted
    assert len(str(wanted).split(".py")) == 13
