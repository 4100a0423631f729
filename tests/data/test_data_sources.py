"""Sources: which files belong to which repository, and their text."""

import os
import sysconfig

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config import DataRecipe
from tritwise.data.sources import UndecodableError, decode, find_files, may_be_held_out, stdlib_repository

STDLIB = DataRecipe(source="python-stdlib")


@pytest.mark.parametrize(("path", "repository"), [
    ("json/decoder.py", "json"),
    ("decimal.py", "decimal"), ("_pydecimal.py", "decimal"), ("_pyio.py", "io"), ("_py_abc.py", "abc"),
    ("collections/abc.py", "collections"), ("_collections_abc.py", "collections"),
    ("sre_parse.py", "sre"), ("sre_compile.py", "sre"), ("__future__.py", "future"),
    ("py_compile.py", "py"), ("pickle.py", "pickle"),
    ("test/test_json/test_decode.py", "test/json"), ("test/json_tests.py", "test/json"),
    ("test/test_urllib.py", "test/urllib"), ("test/test_urllib2_localnet.py", "test/urllib"),
    ("test/support/os_helper.py", "test/support"), ("test/__init__.py", "test/init"),
    ("test/test_123.py", "test/123"), ("test/test___all__.py", "test/all"),
])
def test_a_library_file_belongs_to_its_package_or_group_of_modules(path, repository):
    assert stdlib_repository(path) == repository


def test_the_running_interpreters_library_is_found_whole_and_nothing_else():
    files = find_files(STDLIB)
    assert files == sorted(files)
    paths = {f.path for f in files}
    assert len(paths) == len(files)
    assert {"json/decoder.py", "argparse.py", "_pydecimal.py", "email/mime/text.py"} <= paths
    parts = {part for path in paths for part in path.split("/")[:-1]}
    assert not parts & {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
    assert all(f.language == "python" and f.location.is_file() for f in files)
    assert len({f.repository for f in files}) > 100


def test_a_library_without_its_tests_is_read_too(tmp_path, monkeypatch):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").touch()
    (tmp_path / "config-3.11-x86_64-linux-gnu").mkdir()
    (tmp_path / "config-3.11-x86_64-linux-gnu" / "python-config.py").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert [f.path for f in find_files(STDLIB)] == ["json/__init__.py"]


@pytest.mark.parametrize("place", ["python311.zip", "empty"])
def test_a_library_that_is_not_on_disk_is_refused(place, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / place))
    with pytest.raises(TritwiseError, match="no library files"):
        find_files(STDLIB)


def test_the_librarys_tests_are_for_training_only_and_folders_have_no_such_rule():
    assert may_be_held_out("python-stdlib", "json")
    assert not may_be_held_out("python-stdlib", "test/json")
    assert may_be_held_out("folders", "test/json")


def test_each_directory_below_a_path_is_a_repository(tmp_path):
    for path in ("a/x.py", "a/deep/y.rs", "a/notes.txt", "a/.git/z.py", "a/__pycache__/x.py", "b/x.py", "loose.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "b" / "link.py").symlink_to(tmp_path / "a" / "x.py")
    files = find_files(DataRecipe(paths=(str(tmp_path),)))
    assert [(f.repository, f.path, f.language) for f in files] == [
        ("a", "deep/y.rs", "rust"), ("a", "x.py", "python"), ("b", "x.py", "python")]


def test_the_order_of_the_file_system_does_not_matter(library, monkeypatch):
    recipe, walk = DataRecipe(paths=(str(library),)), os.walk

    def backwards(*arguments, **options):
        for directory, subdirectories, names in walk(*arguments, **options):
            subdirectories.sort(reverse=True)
            yield directory, subdirectories, sorted(names, reverse=True)

    files = find_files(recipe)
    monkeypatch.setattr(os, "walk", backwards)
    assert find_files(recipe) == files == sorted(files)


def test_missing_and_empty_and_ambiguous_folders_are_refused(tmp_path):
    one, two = tmp_path / "one" / "same", tmp_path / "two" / "same"
    with pytest.raises(TritwiseError, match="gives no paths"):
        find_files(DataRecipe())
    with pytest.raises(TritwiseError, match="nowhere is not a directory"):
        find_files(DataRecipe(paths=(str(tmp_path / "nowhere"),)))
    with pytest.raises(TritwiseError, match="holds no directories"):
        find_files(DataRecipe(paths=(str(tmp_path),)))
    one.mkdir(parents=True)
    two.mkdir(parents=True)
    with pytest.raises(TritwiseError, match="two repositories are called same"):
        find_files(DataRecipe(paths=(str(one.parent), str(two.parent))))


def test_python_declares_its_encoding_and_line_ends_stay():
    assert decode("# -*- coding: latin-1 -*-\r\nx = 'é'\r\n".encode("latin-1"), "python").endswith("'é'\r\n")
    assert decode(b"\xef\xbb\xbfx = 1\n", "python") == "x = 1\n"
    assert decode(b"\xef\xbb\xbfint x;\n", "c") == "int x;\n"


@pytest.mark.parametrize(("content", "language"), [
    (b"x = '\xe9'\n", "python"), (b"# coding: no-such-codec\n", "python"), (b"// \xe9\n", "c"),
    (b"# coding: utf-7\nx = '+2AA-'\n", "python"),  # a lone surrogate
])
def test_bytes_that_are_not_text_are_refused(content, language):
    with pytest.raises(UndecodableError):
        decode(content, language)
