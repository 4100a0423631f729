"""Token shards: what is written is read, in datatrove's layout, and damage is refused by name."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.common.files import canonical_json, sha256_bytes
from tritwise.data import TokenShard, write_shard
from tritwise.data.shards import Windows

DOCUMENTS = [np.array([5, 6, 7, 0]), np.array([8, 0]), np.array([299, 1, 0])]


@pytest.fixture
def shard(tmp_path):
    write_shard(tmp_path / "x.ds", DOCUMENTS, vocab_size=300, tokenizer_hash="abc", recipe_hash="r")
    return tmp_path / "x.ds"


@given(documents=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), max_size=9),
       vocab_size=st.sampled_from([100, 1 << 16, (1 << 16) + 1]))
@settings(max_examples=20, deadline=None)  # every file is synced
def test_what_is_written_is_read(tmp_path_factory, documents, vocab_size):
    path = tmp_path_factory.mktemp("shard") / "x.ds"
    written = [np.array(d) for d in documents] + [np.array([vocab_size - 1])]
    write_shard(path, iter(written), vocab_size=vocab_size, tokenizer_hash="h", recipe_hash="r")
    shard = TokenShard.open(path)
    shard.verify()
    assert shard.ids.dtype == ("<u2" if vocab_size <= 1 << 16 else "<u4")
    assert shard.ids.tolist() == np.concatenate(written).tolist()
    assert [shard.document(i).tolist() for i in range(len(shard.ends))] == [d.tolist() for d in written]
    assert (shard.vocab_size, shard.tokenizer_hash, shard.recipe_hash) == (vocab_size, "h", "r")


def test_the_files_are_datatroves(shard):
    assert shard.read_bytes() == np.concatenate(DOCUMENTS).astype("<u2").tobytes()
    assert shard.with_name("x.ds.index").read_bytes() == np.array([4, 6, 9], dtype="<u8").tobytes()


def test_an_empty_shard_is_read_as_empty(tmp_path):
    write_shard(tmp_path / "x.ds", [], vocab_size=10, tokenizer_hash="", recipe_hash="r")
    shard = TokenShard.open(tmp_path / "x.ds")
    shard.verify()
    assert shard.ids.size == shard.ends.size == 0


@pytest.mark.parametrize("document", [[], [[1, 2]], [-1], [300], [0.5]])
def test_what_is_no_list_of_ids_is_not_written(document, tmp_path):
    with pytest.raises(ValueError, match="document 0"):
        write_shard(tmp_path / "x.ds", [np.array(document)], vocab_size=300, tokenizer_hash="", recipe_hash="r")
    with pytest.raises(TritwiseError, match=r"x\.ds\.json does not exist"):
        TokenShard.open(tmp_path / "x.ds")


@pytest.mark.parametrize("name", ["x.ds", "x.ds.index", "x.ds.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "changed"])
def test_a_damaged_file_is_refused_by_name(name, damage, shard):
    file = shard.with_name(name)
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "changed":
        # A digit of the JSON, so that it stays JSON; the lowest byte of the others, so that sizes stay.
        at = content.index(b"300") if name.endswith("json") else 0
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
    else:
        file.write_bytes(content[:-2] if damage == "truncated" else content + b"\0\0")
    with pytest.raises(TritwiseError, match=name.replace(".", r"\.") + " "):
        TokenShard.open(shard).verify()


@pytest.mark.parametrize("change", [{"tokens": "9"}, {"extra": 1}, {"format": "other"}, {"facts_sha256": None}])
def test_facts_that_are_not_ours_are_refused(change, shard):
    file = shard.with_name("x.ds.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(TritwiseError, match=r"x\.ds\.json"):
        TokenShard.open(shard)


def test_ends_that_do_not_rise_are_refused_even_with_the_right_hash(shard):
    """A writer that is not ours can hash what it likes; order and total are checked on their own."""
    index = np.array([6, 4, 9], dtype="<u8").tobytes()
    shard.with_name("x.ds.index").write_bytes(index)
    file = shard.with_name("x.ds.json")
    facts = json.loads(file.read_text()) | {"index_sha256": sha256_bytes(index)}
    del facts["facts_sha256"]
    file.write_text(json.dumps(facts | {"facts_sha256": sha256_bytes(canonical_json(facts).encode())}))
    with pytest.raises(TritwiseError, match="must rise"):
        TokenShard.open(shard)


def test_windows_are_named_in_the_facts_and_leave_the_other_files_as_they_are(tmp_path):
    documents = [np.array([4, 5, 0]), np.array([6, 0]), np.array([7, 8, 9, 7]), np.array([0])]
    for name, windows in (("x.ds", Windows(5, 0)), ("y.ds", None)):
        write_shard(tmp_path / name, documents, vocab_size=300, tokenizer_hash="", recipe_hash="r", windows=windows)
    assert TokenShard.open(tmp_path / "x.ds").windows == Windows(5, 0)
    assert TokenShard.open(tmp_path / "y.ds").windows is None
    for suffix in ("", ".index", ".metadata"):
        assert (tmp_path / f"x.ds{suffix}").read_bytes() == (tmp_path / f"y.ds{suffix}").read_bytes()


@pytest.mark.parametrize(("lengths", "message"), [([3, 3], "document 1 goes over the end"),
                                                   ([3], "not a whole number")])
def test_what_does_not_fill_windows_is_not_written_as_such(lengths, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_shard(tmp_path / "x.ds", [np.ones(length, dtype=int) for length in lengths], vocab_size=300,
                    tokenizer_hash="", recipe_hash="r", windows=Windows(5, 0))


@pytest.mark.parametrize("change", [{"window": 4}, {"window": 0}, {"window": -5}, {"window": "5"}, {"padding": None}])
def test_facts_of_windows_that_documents_do_not_keep_are_refused(change, tmp_path):
    write_shard(tmp_path / "x.ds", [np.ones(5, dtype=int), np.ones(5, dtype=int)], vocab_size=300, tokenizer_hash="",
                recipe_hash="r", windows=Windows(5, 0))
    file = tmp_path / "x.ds.json"
    facts = json.loads(file.read_text()) | change
    del facts["facts_sha256"]
    file.write_text(json.dumps(facts | {"facts_sha256": sha256_bytes(canonical_json(facts).encode())}))
    with pytest.raises(TritwiseError, match=r"x\.ds\.(json|index) is damaged"):
        TokenShard.open(tmp_path / "x.ds")
