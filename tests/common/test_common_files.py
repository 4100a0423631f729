"""Files are whole or absent."""

import json
import os
import stat

import pytest

from tritwise import TritwiseError
from tritwise.common.files import (
    atomic_directory,
    atomic_write,
    atomic_write_json,
    canonical_json,
    read_json,
    sha256_bytes,
    sha256_file,
)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    atomic_write(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    usual, ours = tmp_path / "usual", tmp_path / "ours"
    usual.write_text("x")
    atomic_write(ours, "x")
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_an_interrupted_directory_leaves_the_old_one(tmp_path):
    path = tmp_path / "model"
    with atomic_directory(path) as partial:
        (partial / "a").write_text("old")

    def interrupted():
        with atomic_directory(path) as partial:
            (partial / "a").write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("first", "second"):
        with atomic_directory(path) as partial:
            (partial / name).write_text(name)
    assert [entry.name for entry in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_equal_values_have_one_canonical_text():
    expected = '{"a":"é","b":[1,2.5]}'
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == canonical_json({"a": "é", "b": [1, 2.5]}) == expected


def test_hashes_are_those_of_sha256sum(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-4, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == sha256_bytes(b"abc") == expected


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(TritwiseError, match=r"config\.json is not readable as a model configuration"):
        read_json(path, what="a model configuration")


def test_a_missing_json_file_says_what_was_expected(tmp_path):
    with pytest.raises(TritwiseError, match=r"(?s)does not exist.*a manifest was expected"):
        read_json(tmp_path / "manifest.json", what="a manifest")
    atomic_write_json(tmp_path / "manifest.json", {"é": 1})
    assert read_json(tmp_path / "manifest.json", what="a manifest") == {"é": 1}
    assert json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8")) == {"é": 1}


def test_files_of_an_atomic_directory_get_the_usual_permissions(tmp_path):
    with atomic_directory(tmp_path / "out") as partial:
        (partial / "secretive").touch(mode=0o600)
        (partial / "plain").touch()
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes["secretive"] == modes["plain"]
