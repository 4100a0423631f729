import time
from contextlib import contextmanager

import compare
import ours
import pytest
import quiet
from tokenizers import Tokenizer
from works import Opened, RefusedError, Work, works

from tritwise.common.errors import TritwiseError
from tritwise.engine import load
from tritwise.measure.shapes import SHAPES


class Fake:
    """A system that logs its bursts and can refuse."""

    def __init__(self, name, log, refuses_at=None):
        self.name, self._log, self._refuses_at = name, log, refuses_at

    def does(self, work):
        return True

    def open(self, work):
        @contextmanager
        def opened():
            if self._refuses_at == "open":
                raise RefusedError("cannot open")
            yield Opened(self._burst, 1)
        return opened()

    def _burst(self):
        self._log.append(self.name)
        if self._refuses_at == self._log.count(self.name):
            raise RefusedError("stopped")
        return 1.0


def measured(rows, rounds):
    options = compare.argument_parser().parse_args(["--rounds", str(rounds)])
    return compare.measure(Work("prefill", "prefill", 8, 1), rows, options)["rows"]


def test_bursts_take_turns_in_every_round():
    log = []
    measured([Fake("a", log), Fake("b", log)], rounds=3)
    assert log == ["a", "b", "a", "b", "a", "b"]


def test_a_system_that_refuses_becomes_a_row_that_says_why_and_the_others_go_on():
    log = []
    rows = measured([Fake("a", log), Fake("b", log, refuses_at="open"), Fake("c", log, refuses_at=2)], rounds=3)
    assert [row.get("refused") for row in rows] == [None, "cannot open", "stopped"]
    assert len(rows[0]["samples"]) == 3
    assert log == ["a", "c", "a", "c", "a"]


def test_peers_that_are_not_at_hand_are_named(tmp_path):
    rows, left_out = compare.systems(compare.argument_parser().parse_args(["--cache", str(tmp_path)]))
    assert [row.name for row in rows] == ["tritwise", "tritwise dense bfloat16"]
    assert left_out == {"ik_llama.cpp": "no --ik", "bitnet.cpp": "no --bitnet-cpp",
                        "llama.cpp": "no --llama-cpp-python"}


def test_an_unknown_work_is_refused_with_the_known_ones():
    with pytest.raises(TritwiseError, match=r"no work 'decod'(.|\n)*prefill"):
        works("decod", 2)


def test_processor_time_of_a_busy_wait_is_our_own_and_no_disturbance():
    def spin():
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        return 1.0

    before, began = quiet.own_seconds(()), time.process_time()
    value, others = quiet.disturbance(spin, ())
    assert value == 1.0
    # Both clocks tick in hundredths of a second.
    assert quiet.own_seconds(()) - before == pytest.approx(time.process_time() - began, abs=0.05)
    assert others is None or 0 <= others <= 1


def test_the_model_directory_of_a_comparison_opens_with_a_tokenizer_of_the_shapes_size(tmp_path):
    shape = SHAPES["2b4t"].with_changes(vocab_size=640, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
                                        num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    ours.write_directory(tmp_path / "model", shape)
    assert Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).get_vocab_size() == 640
    with load(tmp_path / "model", threads=1, context=16, slots=1) as model:
        assert len(model.generate([5], max_tokens=4).token_ids) == 4
