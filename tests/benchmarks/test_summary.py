import pytest
import summary


def row(system, values, bandwidths=None, **more):
    bandwidths = bandwidths or [0.0] * len(values)
    return {"system": system, "bytes_per_token": 10,
            "samples": [{"value": value, "others": 0.0, "bandwidth": bandwidth}
                        for value, bandwidth in zip(values, bandwidths, strict=True)], **more}


def result(*rows, unit="tok/s"):
    return {"shape": "2b4t", "left_out": {"bitnet.cpp": "no --bitnet-cpp"},
            "works": [{"work": "decode", "unit": unit, "threads": 2, "rows": list(rows)}]}


def test_a_ratio_is_taken_within_each_round_before_the_median():
    # The medians' ratio would be 20 / 10; the machine was twice as fast in the second round for both.
    assert summary.ratios([10, 40, 20], [5, 20, 20]) == {"median": 2.0, "min": 1.0, "max": 2.0}


def test_the_share_of_bandwidth_uses_the_bandwidth_around_each_sample():
    work = summary.finish(result(row("tritwise", [3.0, 6.0], [60.0, 120.0])))["works"][0]
    assert work["rows"][0]["share"] == {"median": 0.5, "min": 0.5, "max": 0.5}


@pytest.mark.parametrize(("unit", "winner"), [("tok/s", "fast"), ("MiB", "slow"), ("s", "slow")])
def test_the_best_peer_is_the_largest_speed_but_the_smallest_memory_and_time(unit, winner):
    work = summary.finish(result(row("tritwise", [9]), row("slow", [1]), row("fast", [3]), unit=unit))["works"][0]
    assert work["best_peer"] == winner


def test_ours_is_never_the_best_peer_and_has_no_ratio():
    work = summary.finish(result(row("tritwise", [9])))["works"][0]
    assert work["best_peer"] is None
    assert "ratio" not in work["rows"][0]


def test_a_refusal_and_what_is_left_out_stand_in_the_table_with_their_reasons():
    text = summary.table(summary.finish(result(row("tritwise", [9]), {"system": "ik", "refused": "blocks of 64"})))
    assert "| ik | refused: blocks of 64 | | |" in text
    assert "Left out: bitnet.cpp (no --bitnet-cpp)." in text


def test_the_table_shows_medians_ranges_and_ratios():
    text = summary.table(summary.finish(result(row("tritwise", [10, 30, 20]), row("ik", [5, 10, 10]))))
    assert "| tritwise | 20.0 (10.0-30.0) |  |  |" in text
    assert "| **ik** | 10.0 (5.0-10.0) | 2.00 (2.00-3.00) |  |" in text
