"""Plain folders and archives: files in the order of their paths, hostile entries as named skips; what is found."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config.data_sources import SourceSettings
from tritwise.data.sources import RawFile, files, find_repositories, fingerprint, read_files

TREE = {"src/b.py": b"b\n", "src/a.py": b"a\n", "README.md": b"# x\n", "src/a/c.py": b"c\n"}


def found(path, **settings):
    return find_repositories(SourceSettings(paths=(str(path),), **settings))


def only(path, *, max_bytes=100, wanted=None, broken="stop", **settings):
    (repository,) = found(path, **settings)
    return list(read_files(repository, max_bytes=max_bytes, wanted=wanted, broken=broken))


def member(name, content=b"", **values):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def tar_bytes(members, **options):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zstd(data):
    import pyarrow

    out = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


def write_tree(root, tree):
    for path, content in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


@pytest.mark.parametrize(("suffix", "compress"), [
    (".tar", bytes), (".tar.gz", gzip.compress), (".tgz", gzip.compress), (".tar.bz2", bz2.compress),
    (".tar.xz", lzma.compress), (".tar.zst", zstd)])
def test_an_archive_gives_the_same_files_however_it_is_packed(suffix, compress, tmp_path):
    path = tmp_path / f"name-1.0{suffix}"
    path.write_bytes(compress(tar_bytes([member(f"top-1.0/{name}", content) for name, content in TREE.items()])))
    (repository,) = found(path)
    assert (repository.name, repository.kind, repository.size) == ("name-1.0", "tar", path.stat().st_size)
    assert only(path) == [RawFile(name, TREE[name], len(TREE[name])) for name in sorted(TREE)]


def test_a_folder_gives_the_same_files_as_its_archive(tmp_path):
    write_tree(tmp_path / "in" / "r", TREE)
    write_tree(tmp_path / "in" / "r" / ".git-not" / "x", {"a": b"1"})
    write_tree(tmp_path / "in" / "r" / ".svn", {"a": b"1"})
    (tmp_path / "r.tar").write_bytes(tar_bytes([
        member(f"./{name}", content) for name, content in [*TREE.items(), (".git-not/x/a", b"1"), (".git/x", b"")]]))
    assert only(tmp_path / "in") == only(tmp_path / "r.tar")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_hostile_members_are_named_and_never_extracted(compress, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.tar"
    path.write_bytes(compress(tar_bytes([
        member("../up.py", b"1"), member("/abs.py", b"1"), member("a/../../b.py", b"1"), member("a//b.py", b"1"),
        member("new\nline", b"1"), member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard", type=tarfile.LNKTYPE, linkname="ok.py"), member("dev", type=tarfile.CHRTYPE),
        member("pipe", type=tarfile.FIFOTYPE), member("large.py", b"x" * 101), member("ok.py", b"old"),
        member("directory", type=tarfile.DIRTYPE), member("ok.py", b"new"), member("bad\udcff", b"1"),
        member("x" * 300 + ".py", b"long")], errors="surrogateescape")))
    assert {(f.path, f.content, f.skipped) for f in only(path)} == {
        ("../up.py", None, "path"), ("/abs.py", None, "path"), ("a/../../b.py", None, "path"),
        ("a//b.py", None, "path"), ("new\\nline", None, "path"),
        ("link", None, "symbolic_link"), ("hard", None, "symbolic_link"),
        ("dev", None, "special_file"), ("pipe", None, "special_file"), ("large.py", None, "too_large"),
        ("ok.py", None, "duplicate_path"), ("ok.py", b"new", None), ("bad\\xff", None, "path"),
        ("x" * 300 + ".py", b"long", None)}
    assert os.listdir(tmp_path) == ["x.tar"]


def test_an_archive_that_unpacks_to_too_much_is_broken_in_little_time_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ARCHIVE_BYTES", 1 << 22)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes([member("a.py", b"1"), member("zeros", bytes(1 << 23))])))
    with pytest.raises(TritwiseError, match="unpacks to more than"):
        only(path)
    monkeypatch.setattr(files, "MAX_ARCHIVE_FILES", 3)
    path.write_bytes(gzip.compress(tar_bytes([member(f"{i}.py") for i in range(4)])))
    with pytest.raises(TritwiseError, match="more than 3 members"):
        only(path)


def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(TritwiseError, match="header"):
        only(path)
    assert only(path, broken="skip") == [RawFile(".", None, 0, "broken_repository")]


def test_a_member_with_a_negative_size_does_not_lead_backwards(tmp_path):
    first, second = tarfile.TarInfo("a.py"), tarfile.TarInfo("b.py")
    second.size = -1536
    path = tmp_path / "x.tar"
    path.write_bytes(first.tobuf(tarfile.GNU_FORMAT) + second.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert only(path, broken="skip") == [RawFile(".", None, 0, "broken_repository")]


def test_damaged_archives_give_their_files_or_are_broken_and_never_anything_else(tmp_path):
    good = tar_bytes([member(f"top/{name}", content * 300) for name, content in TREE.items()])
    draw = random.Random(0)
    for number in range(150):
        data = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        data = bytes(data[:draw.randrange(len(data))] if number % 3 == 0 else data)
        path = tmp_path / "x.tar"
        path.write_bytes(gzip.compress(data) if number % 2 else data)
        for file in only(path, max_bytes=2000, broken="skip"):
            assert (file.content is None) == (file.skipped is not None)
            assert file.skipped is None or file.skipped in files.SKIPS


def test_what_a_folder_holds_besides_files_is_named(tmp_path):
    root = tmp_path / "in" / "r"
    write_tree(root, {"a.py": b"a", "deep/b.py": b"b", "large.py": b"x" * 101})
    (root / "loop").symlink_to(root)
    (root / "deep" / "link.py").symlink_to(root / "a.py")
    (root / "dead").symlink_to("nothing")
    os.mkfifo(root / "pipe")
    (root / "new\nline.py").write_bytes(b"x")
    with open(os.fsencode(root) + b"/\xff.py", "wb") as file:
        file.write(b"x")
    assert [(f.path, f.skipped) for f in only(tmp_path / "in")] == [
        ("\\xff.py", "path"), ("a.py", None), ("dead", "symbolic_link"), ("deep/b.py", None),
        ("deep/link.py", "symbolic_link"), ("large.py", "too_large"), ("loop", "symbolic_link"),
        ("new\\nline.py", "path"), ("pipe", "special_file")]


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_tree(tmp_path / "in" / "r", {"a.py": b"a", "b.py": b"b", "shut/c.py": b"c"})
    scan, open_file = os.scandir, os.open

    def refuse(function, name):
        def call(path, *arguments, **options):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied")
            return function(path, *arguments, **options)

        return call

    repositories = found(tmp_path / "in")
    monkeypatch.setattr(os, "scandir", refuse(scan, "shut"))
    monkeypatch.setattr(os, "open", refuse(open_file, "a.py"))
    assert list(read_files(repositories[0], max_bytes=100)) == [
        RawFile("a.py", None, 1, "unreadable"), RawFile("b.py", b"b", 1), RawFile("shut", None, 0, "unreadable")]


def test_a_file_of_four_gigabytes_is_named_without_being_read(tmp_path):
    root = tmp_path / "in" / "r"
    root.mkdir(parents=True)
    with (root / "large.bin").open("wb") as file:
        file.truncate(1 << 32)
    assert only(tmp_path / "in") == [RawFile("large.bin", None, 1 << 32, "too_large")]


def test_a_file_that_is_not_wanted_is_not_read(tmp_path):
    write_tree(tmp_path / "in" / "r", TREE)
    (tmp_path / "r.tar").write_bytes(tar_bytes([member(name, content) for name, content in TREE.items()]))
    for path in (tmp_path / "in", tmp_path / "r.tar"):
        assert [(f.path, f.skipped) for f in only(path, wanted=lambda name: name.startswith("src/a"))] == [
            ("README.md", "not_wanted"), ("src/a.py", None), ("src/a/c.py", None), ("src/b.py", "not_wanted")]


def test_repositories_of_all_kinds_are_found_below_a_directory(tmp_path):
    write_tree(tmp_path, {"plain/a.py": b"", ".hidden/a.py": b"", "loose.py": b"", "empty/x/y/z.py": b""})
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(tar_bytes([])))
    for bare in ("bare.git", "owner/one.git", "host/owner/two.git"):
        write_tree(tmp_path / bare, {"HEAD": b"ref: refs/heads/main\n"})
        (tmp_path / bare / "objects").mkdir()
        (tmp_path / bare / "refs").mkdir()
    assert [(r.name, r.kind, r.revision) for r in found(tmp_path, broken_repository="skip")] == [
        ("b", "tar", None), ("bare", "git", None), ("empty", "folder", None), ("host/owner/two", "git", None),
        ("owner/one", "git", None), ("plain", "folder", None)]


def test_a_plain_folder_can_be_one_repository(tmp_path):
    write_tree(tmp_path / "r", TREE)
    (repository,) = find_repositories(SourceSettings(folders=(str(tmp_path / "r"),)))
    assert (repository.name, repository.size) == ("r", sum(map(len, TREE.values())))
    assert [f.path for f in read_files(repository, max_bytes=100)] == sorted(TREE)


def test_a_repository_of_the_standard_library_has_the_size_of_its_files():
    repositories = find_repositories(SourceSettings(python_stdlib=True))
    json = next(r for r in repositories if r.name == "json")
    assert json.size == sum(f.size for f in read_files(json, max_bytes=1 << 20))


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "no sources"), ({"paths": ("{0}/nothing",)}, "does not exist"),
    ({"paths": ("{0}/r",)}, "holds no repositories"),
    ({"paths": ("{0}/r/a.py",)}, "holds no repositories"), ({"folders": ("{0}/r/a.py",)}, "not a directory"),
    ({"paths": ("{0}", "{0}/r.tar")}, "two repositories are called r\\nwhy: they are .*/r and .*/r.tar")])
def test_sources_that_cannot_be_meant_are_refused(settings, message, tmp_path):
    write_tree(tmp_path, {"r/a.py": b""})
    if "r.tar" in str(settings):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "r.tar").write_bytes(tar_bytes([]))
        settings = {"paths": ("{0}", "{0}/x/r.tar")}
    settings = {key: tuple(value.format(tmp_path) for value in values) for key, values in settings.items()}
    with pytest.raises(TritwiseError, match=message):
        find_repositories(SourceSettings(**settings))


def test_the_fingerprint_changes_with_what_is_read_and_not_with_where_it_lies(tmp_path):
    for place in ("one", "two"):
        write_tree(tmp_path / place / "r", {"a.py": b"a"})
        os.utime(tmp_path / place / "r" / "a.py", ns=(1, 1))
        (tmp_path / place / "t.tar").write_bytes(tar_bytes([]))
        os.utime(tmp_path / place / "t.tar", ns=(1, 1))
    key = fingerprint(found(tmp_path / "one"))
    assert fingerprint(found(tmp_path / "two")) == key
    seen = {key}
    for change in (lambda: (tmp_path / "one" / "r" / "a.py").write_bytes(b"b"),
                   lambda: write_tree(tmp_path / "one" / "r", {"b.py": b""}),
                   lambda: os.utime(tmp_path / "one" / "t.tar", ns=(2, 2))):
        change()
        seen.add(fingerprint(found(tmp_path / "one")))
    assert len(seen) == 4
