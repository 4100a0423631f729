"""Shards in the hands of others: datatrove's writer and reader, Megatron's layout, parts as one stream."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise import TritwiseError
from tritwise.data import TokenShard, export_megatron, open_shards, write_shard
from tritwise.data.shard_parts import JoinedIds, part_path, split_index, write_split_index
from tritwise.data.shards import _for_people

DOCUMENTS = [np.array([5, 6, 7, 0]), np.array([8, 0]), np.array([299, 1, 0]), np.arange(40)]
BOTH_TYPES = pytest.mark.parametrize("vocab_size", [300, 70_000])


def written(path, documents=DOCUMENTS, *, vocab_size=300, tokenizer="abc", recipe="r"):
    write_shard(path, documents, vocab_size=vocab_size, tokenizer_hash=tokenizer, recipe_hash=recipe)
    return TokenShard.open(path)


def parts(directory, *contents):
    """A split of these parts, with its index."""
    for number, documents in enumerate(contents):
        written(part_path(directory, "train", number), documents)
    write_split_index(directory, "train", len(contents))


@BOTH_TYPES
def test_the_bytes_are_those_of_datatroves_own_writer(vocab_size, tmp_path):
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    shard = written(tmp_path / "x.ds", vocab_size=vocab_size)
    theirs = TokenizedFile(str(tmp_path / "theirs"), "x.ds", save_final_metadata=True, tokenizer_name_or_path="abc",
                           token_size=shard.ids.dtype.itemsize)
    for document in DOCUMENTS:
        theirs.write(document.tolist(), None)
    theirs.close()
    for name in ("x.ds", "x.ds.index", "x.ds.metadata"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


@BOTH_TYPES
def test_datatroves_reader_gives_our_ids_and_document_starts(vocab_size, tmp_path):
    from datatrove.utils.dataset import DatatroveFolderDataset

    (tmp_path / "data").mkdir()
    shard = written(tmp_path / "data" / "x.ds", vocab_size=vocab_size)
    theirs = DatatroveFolderDataset(str(tmp_path / "data"), seq_len=6, filename_pattern="*.ds",
                                    token_size=shard.ids.dtype.itemsize, return_positions=True)
    assert len(theirs) == len(shard.ids) // 7
    starts = {0, *map(int, shard.ends)}
    for number in range(len(theirs)):
        window = theirs[number]
        assert window["input_ids"].tolist() == shard.ids[number * 7:number * 7 + 7].tolist()
        at_start = {number * 7 + i for i, place in enumerate(window["positions"].tolist()) if place == 0}
        assert at_start - {number * 7} == {start for start in starts if number * 7 < start < number * 7 + 7}


@given(st.integers(0, 10**15))
def test_counts_for_people_are_humanizes(count):
    import humanize  # datatrove's

    assert _for_people(count) == humanize.metric(count, unit="T")


@pytest.mark.parametrize(("count", "text"), [(0, "0.00 T"), (9, "9.00 T"), (999, "999 T"), (1000, "1.00 kT"),
                                             (9_996, "10.0 kT"), (999_999, "1.00 MT"), (2_345_678_901, "2.35 GT")])
def test_counts_for_people_have_three_digits(count, text):
    assert _for_people(count) == text


def read_megatron(stem):
    """The documents of a Megatron dataset, read from the layout that its own reader states."""
    index = stem.with_suffix(".idx").read_bytes()
    magic, version, code, sequences, documents = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version) == (b"MMIDIDX\0\0", 1)
    dtype = np.dtype({8: "<u2", 4: "<i4"}[code])
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    ends = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert ends.tolist() == list(range(sequences + 1))
    content = stem.with_suffix(".bin").read_bytes()
    assert len(content) == int(lengths.sum()) * dtype.itemsize
    return [np.frombuffer(content, dtype, int(n), int(at)).tolist() for n, at in zip(lengths, pointers, strict=True)]


@BOTH_TYPES
def test_an_export_for_megatron_holds_the_documents(vocab_size, tmp_path):
    shard = written(tmp_path / "x.ds", vocab_size=vocab_size)
    assert export_megatron(shard, tmp_path / "out") == (tmp_path / "out.bin", tmp_path / "out.idx")
    assert read_megatron(tmp_path / "out") == [document.tolist() for document in DOCUMENTS]


@BOTH_TYPES
def test_an_export_for_megatron_has_the_bytes_of_datatroves_writer(vocab_size, tmp_path):
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronTokenizedFile

    shard = written(tmp_path / "x.ds", vocab_size=vocab_size)
    export_megatron(shard, tmp_path / "ours")
    theirs = MegatronTokenizedFile(str(tmp_path), "theirs", token_size=shard.ids.dtype.itemsize)
    for document in DOCUMENTS:
        theirs.write(document.tolist())
    theirs.close()
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def test_all_parts_of_a_split_become_one_megatron_dataset(tmp_path):
    parts(tmp_path, DOCUMENTS[:1], DOCUMENTS[1:])
    export_megatron(open_shards(tmp_path, "train"), tmp_path / "out")
    assert read_megatron(tmp_path / "out") == [document.tolist() for document in DOCUMENTS]


def test_an_empty_shard_is_an_empty_megatron_dataset(tmp_path):
    export_megatron(written(tmp_path / "x.ds", []), tmp_path / "out")
    assert read_megatron(tmp_path / "out") == []


def test_what_megatrons_numbers_do_not_hold_is_refused(tmp_path):
    shard = written(tmp_path / "x.ds", vocab_size=2**31 + 1)
    with pytest.raises(TritwiseError, match="ids up to 2147483648 are too large"):
        export_megatron(shard, tmp_path / "out")
    long = shard._replace(vocab_size=300, ends=np.array([2**31], dtype=np.uint64))
    with pytest.raises(TritwiseError, match="document of 2147483648 tokens is too long"):
        export_megatron(long, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=6), st.integers(0, 40),
       st.integers(0, 40))
@settings(deadline=None)
def test_joined_ids_slice_as_one_array(arrays, start, stop):
    arrays = [np.array(array, dtype=np.uint16) for array in arrays]
    joined, whole = JoinedIds(arrays), np.concatenate(arrays)
    assert len(joined) == len(whole)
    assert np.array_equal(joined[start:stop], whole[start:stop])
    assert joined[start:stop].dtype == np.uint16


def test_parts_follow_one_another_by_number(tmp_path):
    parts(tmp_path, *([np.array([number, number])] for number in range(11)))
    stream = open_shards(tmp_path, "train")
    stream.verify()
    assert stream.ids[:].tolist() == [number for number in range(11) for _ in range(2)]
    assert len(stream.shards) == 11


def test_a_split_of_one_shard_is_that_shard(tmp_path):
    shard = written(tmp_path / "train.ds")
    stream = open_shards(tmp_path, "train")
    assert isinstance(stream.ids, np.memmap)
    assert stream.ids.tolist() == shard.ids.tolist()


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    parts(tmp_path, *[DOCUMENTS] * 3)
    written(tmp_path / "train.ds")
    with pytest.raises(TritwiseError, match="two forms of the split train"):
        open_shards(tmp_path, "train")
    (tmp_path / "train.ds").unlink()
    written(part_path(tmp_path, "train", 2), recipe="other")
    with pytest.raises(TritwiseError, match=r"train-00002\.ds was made with another recipe than train-00000\.ds"):
        open_shards(tmp_path, "train")
    written(part_path(tmp_path, "train", 2), tokenizer="other")
    with pytest.raises(TritwiseError, match=r"train-00002\.ds has another tokenizer"):
        open_shards(tmp_path, "train")
    written(part_path(tmp_path, "train", 2), DOCUMENTS[:2])
    with pytest.raises(TritwiseError, match=r"train-00002\.ds is not the part that was written under this name"):
        open_shards(tmp_path, "train")
    with pytest.raises(TritwiseError, match=r"held_out\.ds\.json does not exist"):
        open_shards(tmp_path, "held_out")


@pytest.mark.parametrize("number", range(4))
def test_a_missing_part_is_named_with_what_to_do_be_it_the_first_or_the_last(number, tmp_path):
    parts(tmp_path, *[DOCUMENTS] * 4)
    part_path(tmp_path, "train", number).unlink()
    with pytest.raises(TritwiseError, match=rf"train-0000{number}\.ds does not exist") as error:
        open_shards(tmp_path, "train")
    assert "has 4 parts, train.parts.json says" in error.value.why
    assert f"move {tmp_path} away" in error.value.fix


def test_with_all_parts_missing_the_first_and_their_number_are_named(tmp_path):
    parts(tmp_path, *[DOCUMENTS] * 3)
    for number in range(3):
        part_path(tmp_path, "train", number).unlink()
    with pytest.raises(TritwiseError, match=r"train-00000\.ds does not exist, and 2 others do not either"):
        open_shards(tmp_path, "train")


@pytest.mark.parametrize("number", [0, 3])
def test_a_truncated_part_is_named(number, tmp_path):
    parts(tmp_path, *[DOCUMENTS] * 4)
    path = part_path(tmp_path, "train", number)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(TritwiseError, match=rf"train-0000{number}\.ds is truncated"):
        open_shards(tmp_path, "train")


def test_a_part_of_another_build_and_two_that_changed_places_are_refused(tmp_path):
    parts(tmp_path, DOCUMENTS[:1], DOCUMENTS[1:2])
    written(part_path(tmp_path, "train", 2))
    with pytest.raises(TritwiseError, match=r"train-00002\.ds is no part of the split train"):
        open_shards(tmp_path, "train")
    parts(tmp_path, DOCUMENTS[1:2], DOCUMENTS[:1])
    stated = split_index(tmp_path, "train").read_bytes()
    parts(tmp_path, DOCUMENTS[:1], DOCUMENTS[1:2])
    part_path(tmp_path, "train", 2).unlink()
    split_index(tmp_path, "train").write_bytes(stated)
    with pytest.raises(TritwiseError, match=r"train-00000\.ds is not the part"):
        open_shards(tmp_path, "train")


def test_parts_without_their_index_are_an_unfinished_split(tmp_path):
    written(part_path(tmp_path, "train", 0))
    with pytest.raises(TritwiseError, match=r"train\.parts\.json does not exist") as error:
        open_shards(tmp_path, "train")
    assert "written when all are there" in error.value.why
    with pytest.raises(TritwiseError, match=r"train-00001\.ds\.json does not exist"):
        write_split_index(tmp_path, "train", 2)


@pytest.mark.parametrize(("change", "message"), [
    ({"format": "other"}, "does not describe"), ({"parts": []}, "does not describe"),
    ({"extra": 1}, "does not describe"),
    ({"tokens": 3}, "it says 3 tokens, its parts have 98"), ({"documents": True}, "does not describe"),
    ({"documents": 9}, "it says 9 documents, its parts have 8")])
def test_an_index_that_is_damaged_is_refused(change, message, tmp_path):
    parts(tmp_path, DOCUMENTS, DOCUMENTS)
    index = split_index(tmp_path, "train")
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(TritwiseError, match=r"train\.parts\.json") as error:
        open_shards(tmp_path, "train")
    assert message in str(error.value)


def test_a_damaged_part_is_found_by_reading_every_id(tmp_path):
    parts(tmp_path, DOCUMENTS, DOCUMENTS)
    content = bytearray(part_path(tmp_path, "train", 1).read_bytes())
    content[0] ^= 1
    part_path(tmp_path, "train", 1).write_bytes(content)
    with pytest.raises(TritwiseError, match=r"train-00001\.ds is damaged"):
        open_shards(tmp_path, "train").verify()


def test_a_failed_write_leaves_no_shard_behind(tmp_path):
    written(tmp_path / "x.ds")
    with pytest.raises(ValueError, match="document 1"):
        write_shard(tmp_path / "x.ds", [np.array([1]), np.array([-1])], vocab_size=300, tokenizer_hash="",
                    recipe_hash="")
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]
    with pytest.raises(TritwiseError, match=r"x\.ds\.json does not exist"):
        TokenShard.open(tmp_path / "x.ds")
