"""Sources: which files belong to which repository, and their text."""

import sysconfig

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config.data_sources import SourceSettings
from tritwise.data.sources import (
    Repository,
    UndecodableError,
    decode,
    find_repositories,
    read_files,
    stdlib_repository,
    trained_only,
)

STDLIB = SourceSettings(python_stdlib=True)


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


def library_files() -> list[tuple[str, str]]:
    """(repository, path) of the running interpreter's library."""
    return [(repository.name, file.path) for repository in find_repositories(STDLIB)
            for file in read_files(repository, max_bytes=1, wanted=lambda _: False)]


def test_the_running_interpreters_library_is_found_whole_and_nothing_else():
    files = library_files()
    assert files == sorted(files)
    paths = {path for _, path in files}
    assert len(paths) == len(files)
    assert {"json/decoder.py", "argparse.py", "_pydecimal.py", "email/mime/text.py"} <= paths
    parts = {part for path in paths for part in path.split("/")[:-1]}
    assert not parts & {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
    assert all(path.endswith(".py") for path in paths)
    assert len({repository for repository, _ in files}) > 100


def test_a_library_without_its_tests_is_read_too(tmp_path, monkeypatch):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").touch()
    (tmp_path / "config-3.11-x86_64-linux-gnu").mkdir()
    (tmp_path / "config-3.11-x86_64-linux-gnu" / "python-config.py").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert library_files() == [("json", "json/__init__.py")]


@pytest.mark.parametrize("place", ["python311.zip", "empty"])
def test_a_library_that_is_not_on_disk_is_refused(place, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / place))
    with pytest.raises(TritwiseError, match="no library files"):
        find_repositories(STDLIB)


def test_the_librarys_tests_are_for_training_only_and_folders_have_no_such_rule():
    found = [Repository("json", "stdlib", "", None, 1), Repository("test/json", "stdlib", "", None, 1),
             Repository("test/other", "folder", "", None, 1)]
    assert trained_only(found) == {"test/json"}


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
