"""The table of tiles: what the tuner writes is what is read, and a damaged table is an error, not a slow kernel."""

import json

import pytest

from tritwise import TritwiseError
from tritwise.kernels import Tile
from tritwise.kernels.tiles import bucket, default_tile, read_table, write_table

TILE = Tile("small_batch", 64, 16, 128, 3, 4, 4)


def test_a_written_table_is_read_as_it_was(tmp_path):
    table = {"NVIDIA H200": {"2560x6912": {1: Tile("gemv", 4, 1, 128, 8, 1, 2), 16: TILE}}}
    write_table(table, tmp_path / "tiles.json")
    assert read_table(tmp_path / "tiles.json") == table
    assert read_table(tmp_path / "missing.json") == {}


@pytest.mark.parametrize("change", [{"kernel": "fast"}, {"bn": 48}, {"splits": 0}, {"bm": 512}, {"warps": 64},
                                    {"bk": "x"}, {"more": 1}])
def test_a_damaged_table_is_refused(tmp_path, change):
    tile = {"kernel": "small_batch", "bn": 64, "bm": 16, "bk": 128, "splits": 3, "warps": 4, "stages": 4}
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps({"device": {"64x64": {"1": tile | change}}}))
    with pytest.raises(TritwiseError):
        read_table(path)
    path.write_text("{")
    with pytest.raises(TritwiseError, match="cannot read the table"):
        read_table(path)


def test_buckets_are_powers_of_two_up_to_4096():
    assert [bucket(m) for m in (1, 2, 3, 16, 17, 64, 65, 4096, 9999)] == [1, 2, 4, 16, 32, 64, 128, 4096, 4096]


def test_the_rule_follows_its_docstring():
    assert default_tile(1, 2560, 640).kernel == "gemv"
    assert default_tile(16, 2560, 640).bm == 16
    assert default_tile(33, 2560, 640).kernel == "small_batch"
    assert default_tile(65, 2560, 640).kernel == "prefill"
    assert default_tile(4096, 57344, 2048).bm == 256
    assert default_tile(4096, 57344, 2048, capability=8).bm == 128
    small, large = default_tile(16, 2560, 1728), default_tile(16, 57344, 2048)
    assert small.splits > 1 == large.splits  # few rows are split until the GPU is full
