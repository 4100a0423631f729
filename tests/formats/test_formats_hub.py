"""Models by name: what is fetched, checked, kept and refused, against a hub on loopback."""

import builtins
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from fake_hub import FIRST, SECOND, FakeHub, serving
from huggingface_hub import constants

from tritwise import TritwiseError
from tritwise.formats import open_model, write_model
from tritwise.formats.hub import fetch, parse_name

NAME = "maker/small-model"
OTHERS = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x02}q.", "README.md": b"# x",
          "a.safetensors": b"x", "generation_config.json": b"{}", "tokenizer.model": b"x",
          "onnx/model.onnx": b"x", ".gitattributes": b"x"}


@pytest.fixture
def files(make_directory):
    """A model's files as they lie on the hub."""
    path = make_directory()
    found = {each.name: each.read_bytes() for each in path.iterdir()}
    return found | OTHERS | {"tokenizer_config.json": b'{"chat_template": "x"}', "chat_template.jinja": b"y"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the library in this process asks, with a cache of its own."""
    hub = FakeHub()
    with serving(hub) as endpoint:
        hub.endpoint = endpoint
        use(monkeypatch, endpoint, tmp_path / "cache")
        yield hub


def use(monkeypatch, endpoint, cache=None):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as it may be set for all other tests
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    if cache is not None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))


def away(monkeypatch):
    use(monkeypatch, "http://127.0.0.1:9")  # nothing listens on the discard port


def test_a_model_is_fetched_whole_and_read_like_a_directory(hub, files, make_config, make_tensors, capsys):
    hub.add(NAME, files)
    model = open_model(NAME)
    tensors = make_tensors(make_config())
    assert np.array_equal(model.read("model.norm.weight"), tensors["model.norm.weight"])
    assert model.path.name == FIRST
    expected = {"config.json", "model.safetensors", "tokenizer_config.json", "chat_template.jinja"}
    assert sorted(hub.fetched()) == sorted(expected)
    assert {each.name for each in model.path.iterdir()} == expected
    assert f"{NAME}: commit {FIRST} (4 files, " in capsys.readouterr().err


def test_shards_are_those_that_the_index_names(hub, files):
    content = files.pop("model.safetensors")
    files |= {"model-00001-of-00002.safetensors": content, "model-00002-of-00002.safetensors": content,
              "model-00003-of-00003.safetensors": content, "consolidated.safetensors": content}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).encode()
    hub.add(NAME, files)
    path = fetch(NAME)
    assert {each.name for each in path.glob("*.safetensors")} == {
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert len(hub.fetched()) == len(set(hub.fetched()))


@pytest.mark.parametrize("shard", ["../../../etc/passwd", "/etc/passwd", "sub/x.safetensors", "pytorch_model.bin", 3,
                                   "missing.safetensors"])
def test_an_index_cannot_name_another_kind_of_file(hub, files, shard):
    del files["model.safetensors"]
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.add(NAME, files)
    with pytest.raises(TritwiseError, match=r"is not readable|has no missing\.safetensors"):
        fetch(NAME)
    assert set(hub.fetched()) == {"model.safetensors.index.json"}


def test_one_gguf_file_is_fetched_alone(hub, files):
    hub.add(NAME, files | {"sub/model.gguf": b"GGUF....", "other.gguf": b"x"})
    path = fetch(f"{NAME}/sub/model.gguf")
    assert (path.name, path.read_bytes(), hub.fetched()) == ("model.gguf", b"GGUF....", ["sub/model.gguf"])
    with pytest.raises(TritwiseError, match=r"model\.gguf"):  # and it is opened as one
        open_model(f"{NAME}/sub/model.gguf")
    with pytest.raises(TritwiseError, match=r"has no absent\.gguf"):
        fetch(f"{NAME}/absent.gguf")


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, files, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # 10 MB, so that no small file arrives in parts
    hub.add(NAME, files)
    hub.cut_after["model.safetensors"] = 1000
    path = fetch(NAME)
    assert (path / "model.safetensors").read_bytes() == files["model.safetensors"]
    ranges = [span for method, name, span in hub.requests if method == "GET" and name.endswith("/model.safetensors")]
    assert ranges == [None, "bytes=1000-"]


def test_what_is_complete_is_kept_when_the_rest_fails(hub, files):
    hub.add(NAME, files)
    hub.sent_instead["model.safetensors"] = files["model.safetensors"][:-1]
    with pytest.raises(TritwiseError, match=r"model\.safetensors"):
        fetch(NAME)
    before = len(hub.fetched())
    hub.sent_instead.clear()
    fetch(NAME)
    assert set(hub.fetched()[before:]) == {"model.safetensors"}


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_with_another_hash_is_refused_and_deleted(hub, files, file, tmp_path):
    hub.add(NAME, files)
    content = files[file]
    hub.sent_instead[file] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(TritwiseError, match=rf"{file} is not what the hub says(.|\n)*its hash is"):
        fetch(NAME)
    kept = [each.read_bytes() for each in (tmp_path / "cache").rglob("*") if each.is_file()]
    assert hub.sent_instead[file] not in kept
    hub.sent_instead.clear()
    assert (fetch(NAME) / file).read_bytes() == content


def test_a_second_use_works_without_the_network_and_fetches_nothing(hub, files, monkeypatch, capsys):
    hub.add(NAME, files)
    path = fetch(NAME)
    before = len(hub.fetched())
    assert fetch(NAME) == path
    assert len(hub.fetched()) == before
    away(monkeypatch)
    capsys.readouterr()
    assert fetch(NAME) == path
    assert "the hub does not answer; what was fetched before is used" in capsys.readouterr().err
    with pytest.raises(TritwiseError, match="hub does not answer"):
        fetch(f"{NAME}@other")
    with pytest.raises(TritwiseError, match="there is no such path here, and the hub does not answer"):
        fetch("maker/unknown")


def test_a_damaged_cache_is_not_believed(hub, files, monkeypatch):
    hub.add(NAME, files)
    weights = (fetch(NAME) / "model.safetensors").resolve()
    weights.write_bytes(b"x" + files["model.safetensors"][1:])
    with pytest.raises(TritwiseError, match="its hash is"):
        fetch(NAME)
    assert (fetch(NAME) / "model.safetensors").read_bytes() == files["model.safetensors"]
    record = weights.parent.parent / "tritwise.json"
    for broken in ("{", "[]", '{"revisions": 3, "commits": {}}', '{"revisions": {}, "commits": {"x": 3}}'):
        record.write_text(broken)
        fetch(NAME)
        assert json.loads(record.read_text())["revisions"] == {"main": FIRST}
    (fetch(NAME) / "config.json").unlink()
    away(monkeypatch)
    with pytest.raises(TritwiseError, match="does not answer"):
        fetch(NAME)


def test_a_revision_stays_what_it_was_and_a_commit_asks_nobody(hub, files, monkeypatch):
    hub.add(NAME, files)
    hub.add(NAME, files, revision="v1.0")
    assert fetch(f"{NAME}@v1.0").name == FIRST
    hub.add(NAME, files | {"config.json": files["config.json"] + b"\n"}, commit=SECOND)
    assert fetch(NAME).name == SECOND
    assert fetch(f"{NAME}@v1.0").name == FIRST
    asked = len(hub.requests)
    assert fetch(f"{NAME}@{FIRST}").name == FIRST
    assert len(hub.requests) == asked
    away(monkeypatch)
    assert [fetch(each).name for each in (NAME, f"{NAME}@v1.0", f"{NAME}@{SECOND}")] == [SECOND, FIRST, SECOND]


def test_what_is_not_there_is_named(hub, files):
    hub.add(NAME, files)
    hub.add("maker/pickles", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.add("maker/quantised", {"a.gguf": b"x"})
    hub.add("maker/closed", files)
    hub.gated.add("maker/closed")
    for name, match in (("maker/nothing", "does not exist(.|\n)*no such model"), (f"{NAME}@v9", "has no revision 'v9'"),
                        ("maker/pickles", "pickle files are never read"), ("maker/closed", "asks for an agreement"),
                        ("maker/quantised", "maker/quantised/a.gguf")):
        with pytest.raises(TritwiseError, match=match):
            open_model(name)
    assert hub.fetched() == []


def test_without_the_library_the_command_that_installs_it_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TritwiseError, match=r"maker/model does not exist here(.|\n)*pip install 'tritwise\[hub\]'"):
        open_model("maker/model")


def test_a_path_that_exists_is_never_a_name(hub, files, tmp_path, monkeypatch, make_config, make_tensors):
    monkeypatch.chdir(tmp_path)
    hub.add(NAME, files)
    write_model(tmp_path / NAME, make_config(), make_tensors(make_config()), form="packed")
    assert str(open_model(NAME).path) == NAME
    assert hub.requests == []


@pytest.mark.parametrize(("text", "expected"), [
    ("a/b", ("a/b", "main", None)), ("a/b@v1", ("a/b", "v1", None)), ("a/b@refs/pr/1", ("a/b", "refs/pr/1", None)),
    ("a/b/c.gguf", ("a/b", "main", "c.gguf")), ("a/b@v1/d/c.gguf", ("a/b", "v1", "d/c.gguf")),
    ("a-1/b.2_c", ("a-1/b.2_c", "main", None)),
    *((text, None) for text in (
        "a", "/a/b", "a/b/c", "./a/b", "../a", "a/..", "a/b@", "a/b@../c", "a/b/../c.gguf", "a/b/c.bin", "a//b", "a/b ",
        "a b/c", "~/b", "a/b\n", "http://x/y", "a/b?x", "a/-b", "")),
])
def test_names_are_told_from_paths(text, expected):
    found = parse_name(text)
    assert (found and (found.repository, found.revision, found.file)) == expected


def test_the_command_line_and_load_take_names(hub, tmp_path, make_directory):
    path = make_directory(tie_word_embeddings=True)
    hub.add(NAME, {each.name: each.read_bytes() for each in path.iterdir()})
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"),
                                "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "tritwise.cli.app", "inspect", NAME, "--json"]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert f"commit {FIRST}" in first.stderr
    second = subprocess.run(command, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
                            check=False)
    assert second.stdout == first.stdout
    assert json.loads(first.stdout)["parameters"] > 0
