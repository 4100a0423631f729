"""Stages: the finished is reused, the changed runs again with all that reads it, and nothing is lost in silence."""

import json

import pytest

from tritwise import TritwiseError
from tritwise.pipeline.stages import RECORD, UNFINISHED, Stage, run_stages, stage_keys


class Recorder:
    """Three stages a -> b -> c that write what they are given and remember that they ran."""

    def __init__(self, out):
        self.out, self.ran, self.said = out, [], []

    def stages(self, a=1, b=1, c=1, *, versions=(1, 1, 1), fail=None):
        def builder(name, value):
            def build(directory):
                self.ran.append(name)
                directory.mkdir(exist_ok=True)
                (directory / "value").write_text(str(value))
                if name == fail:
                    raise KeyboardInterrupt
            return build

        return [
            Stage("a", builder("a", a), settings={"a": a}, version=versions[0]),
            Stage("b", builder("b", b), settings={"b": b}, version=versions[1], reads=("a",), resumable=True),
            Stage("c", builder("c", c), settings={"c": c}, version=versions[2], reads=("a", "b")),
        ]

    def run(self, **settings):
        self.ran, self.said = [], []
        return run_stages(self.stages(**settings), self.out, say=self.said.append)


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "run")


def test_a_second_run_builds_nothing_and_says_so(recorder):
    first = recorder.run()
    assert recorder.ran == ["a", "b", "c"]
    assert not any(record.reused for record in first.values())
    second = recorder.run()
    assert recorder.ran == []
    assert all(record.reused for record in second.values())
    assert [record.seconds for record in second.values()] == [record.seconds for record in first.values()]
    assert recorder.said == [f"[{i}/3] {name}: unchanged, reused" for i, name in enumerate("abc", start=1)]


@pytest.mark.parametrize(("change", "ran"), [
    ({"a": 2}, ["a", "b", "c"]), ({"b": 2}, ["b", "c"]), ({"c": 2}, ["c"]), ({"versions": (1, 2, 1)}, ["b", "c"]),
])
def test_a_change_runs_its_stage_again_and_those_that_read_it(recorder, change, ran):
    recorder.run()
    recorder.run(**change)
    assert recorder.ran == ran


def test_going_back_to_old_settings_is_a_change_too(recorder):
    recorder.run()
    recorder.run(c=2)
    recorder.run()
    assert recorder.ran == ["c"]
    assert (recorder.out / "c" / "value").read_text() == "1"


def test_a_superseded_training_is_moved_and_an_other_stage_replaced_with_a_word(recorder):
    recorder.run()
    recorder.run(a=2, b=2, c=2)
    assert (recorder.out / "superseded" / "b-1" / "value").read_text() == "1"
    assert (recorder.out / "b" / "value").read_text() == "2"
    assert any("b was made from other settings: moved to" in line for line in recorder.said)
    assert any("c was made from other settings and is replaced" in line for line in recorder.said)
    recorder.run(b=3)
    assert (recorder.out / "superseded" / "b-2" / "value").read_text() == "2"
    assert sorted(entry.name for entry in recorder.out.iterdir()) == ["a", "b", "c", "superseded"]


def test_an_interrupted_training_is_continued_in_its_place(recorder):
    with pytest.raises(KeyboardInterrupt):
        recorder.run(fail="b")
    assert (recorder.out / "b" / UNFINISHED).exists()
    assert not (recorder.out / "b" / RECORD).exists()
    (recorder.out / "b" / "checkpoint").write_text("half")
    recorder.run()
    assert recorder.ran == ["b", "c"]
    assert (recorder.out / "b" / "checkpoint").read_text() == "half"
    assert not (recorder.out / "b" / UNFINISHED).exists()
    assert any("continuing what an earlier run began" in line for line in recorder.said)


def test_an_interrupted_training_of_other_settings_is_kept_aside(recorder):
    with pytest.raises(KeyboardInterrupt):
        recorder.run(fail="b")
    recorder.run(b=2)
    assert (recorder.out / "superseded" / "b-1" / "value").read_text() == "1"
    assert (recorder.out / "b" / "value").read_text() == "2"


def test_the_old_result_stands_until_the_new_one_is_whole(recorder):
    recorder.run()
    with pytest.raises(KeyboardInterrupt):
        recorder.run(c=2, fail="c")
    assert (recorder.out / "c" / "value").read_text() == "1"
    recorder.run(c=2)
    assert (recorder.out / "c" / "value").read_text() == "2"
    assert sorted(entry.name for entry in recorder.out.iterdir()) == ["a", "b", "c"]


def test_what_a_kill_left_half_written_is_cleared_away(recorder):
    for name in (".a.partial", ".a.old", "..a.partial.x1y2.partial"):
        (recorder.out / name).mkdir(parents=True)
        (recorder.out / name / "half").write_text("x")
    recorder.run()
    assert sorted(entry.name for entry in recorder.out.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_directory_that_no_stage_wrote_is_left_alone(recorder, name):
    (recorder.out / name).mkdir(parents=True)
    (recorder.out / name / "thesis.txt").write_text("years of work")
    with pytest.raises(TritwiseError, match="is in the way"):
        recorder.run()
    assert (recorder.out / name / "thesis.txt").read_text() == "years of work"


def test_the_record_names_the_settings_that_the_key_stands_for(recorder):
    recorder.run(a=7)
    record = json.loads((recorder.out / "a" / RECORD).read_text())
    assert record["settings"] == {"a": 7}
    assert record["key"] == stage_keys(recorder.stages(a=7))["a"]
    assert record["seconds"] >= 0
