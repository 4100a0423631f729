"""Decontamination: planted copies are found, near misses and boilerplate are not; against sets and Aho-Corasick."""

import gzip
import json
import pickle
import random
import re
import tomllib
from pathlib import Path

import ahocorasick
import pyarrow.parquet
import pytest

from tritwise.common.errors import TritwiseError
from tritwise.common.files import sha256_file
from tritwise.config import Recipe
from tritwise.config.data_screening import ContaminationSettings
from tritwise.data import contamination
from tritwise.data.contamination import Hit, contamination_report, load_test_sets, read_test_set
from tritwise.data.contamination.lookup import distinct_names
from tritwise.data.corpus_steps import load_sets
from tritwise.data.documents import Document
from tritwise.data.words import words_of
from tritwise.pipeline.walk import stages_of

ROOT = Path(__file__).parents[2]

PROBLEM = '''def count_gaps(readings: list[float], limit: float) -> int:
    """ Count the pairs of neighbouring readings that lie further apart than the given limit.
    >>> count_gaps([1.0, 2.5, 2.6], 1.0)
    1
    """
'''
SOLUTION = "    return sum(abs(b - a) > limit for a, b in zip(readings, readings[1:]))\n"
QUESTION = "Ada's baker sells 16 rolls a day for 2 crowns each. How many crowns does she earn in a week of six days?"
SHORT = "Find the units digit of $18^6.$"


def item(name: str, *texts: str):
    return contamination.TestItem("made", name, texts)


SETS = contamination.TestSets.build([item("gaps", PROBLEM + SOLUTION), item("baker", QUESTION), item("digit", SHORT)])


def names(text: str, sets=SETS) -> list[str]:
    return [hit.item for hit in sets.find(text)]


def test_a_copy_is_found_with_its_words_and_its_place():
    before = "import math\n\n\n# é\n"
    [hit] = SETS.find(before + PROBLEM + "    pass\n")
    assert hit == Hit("made", "gaps", "def count_gaps readings list float limit float int count the", len(before))


@pytest.mark.parametrize("copy", [
    PROBLEM.replace(" ", "   ").replace("\n", "\r\n\r\n"), PROBLEM.replace(" ", "\t"), PROBLEM.upper(),
    re.sub(r"([\[\](){}:,])", r" \1 ", PROBLEM), "// " + PROBLEM.replace("\n", "\n// "),
    SOLUTION.replace(" ", "\n") + PROBLEM.partition('"""')[2], QUESTION.replace("'", "’"), QUESTION.lower(),
    '"""' + QUESTION[30:] + '"""', QUESTION.replace(". ", ".\\n"),
])
def test_reformatted_and_partial_copies_are_found(copy):
    assert names("x = 1\n" * 50 + copy + "\ny = 2\n" * 50) in (["gaps"], ["baker"])


def test_ten_words_are_found_and_nine_are_not():
    words = QUESTION.split()
    assert names("a b c " + " ".join(words[8:18]) + " d e f") == ["baker"]
    assert names("a b c " + " ".join(words[8:17]) + " d e f") == []


def test_a_changed_word_every_ten_hides_a_text():
    words = words_of(QUESTION)
    changed = [words.joined(i, 1).decode() if i % 10 != 9 else "other" for i in range(len(words.hashes))]
    assert names(" ".join(changed)) == []


@pytest.mark.parametrize(("text", "found"), [
    (f"# {SHORT}\n", True), (f"# {SHORT.replace(' ', chr(10))}", True), (SHORT.replace("digit", "digits"), False),
    (SHORT.replace("^", ""), False), ("re" + SHORT.lower(), False), (SHORT[:-2], False), (f"({SHORT})", True),
])
def test_short_texts_are_found_exactly_but_for_white_space(text, found):
    assert names(text) == (["digit"] if found else [])


def test_what_is_too_short_to_say_anything_is_not_looked_for():
    sets = contamination.TestSets.build([item("a", "return len(string)"), item("b", QUESTION), item("c", "x y")])
    assert sets.left_out["short texts"] == 2
    assert names("def f(string):\n    return len(string)\n", sets) == []


@pytest.mark.parametrize("boilerplate", [
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12", "for i in range(n): for j in range(n): for k in range(n): i + j",
    "a b c d e f g h i j k l m n", "0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0",
    "self.x, self.y, self.x, self.y = x, y, x, y, x", "1 one 2 two 3 three 4 four 5 five 6 six 7 seven",
    "zadd First 1 Second 2 Third 3 Fourth 4 Fifth 5", "{'one': 1, 'two': 2, 'ten': 10, 'hundred': 100, 'million': 6}",
])
def test_ngrams_of_few_names_do_not_count(boilerplate):
    sets = contamination.TestSets.build([item("list", f"{QUESTION} {boilerplate} end of the list")])
    assert names(f"values = {boilerplate}", sets) == []
    assert names(QUESTION, sets) == ["list"]


def test_a_text_without_an_ngram_that_counts_is_looked_for_as_it_stands():
    text = "Evaluate $(x+ y)(x-y)$ when $x= 15$ and $y= 5$ or 1 or 2 or 3."
    sets = contamination.TestSets.build([item("xy", text)], ContaminationSettings(min_distinct_names=6))
    assert len(sets.owners) == 0
    assert names(f"# {text}", sets) == ["xy"]
    assert names(f"# {text.replace('15', '16')}", sets) == []


def test_ngrams_of_the_reference_corpus_do_not_count():
    licence = "permission is hereby granted free of charge to any person obtaining a copy of this software"
    reference = [("one", licence), ("two", licence), ("one", QUESTION)]
    items = [item("licence", f"{licence} and solve the following riddle about two bakers and their six children")]
    assert names(licence, contamination.TestSets.build(items)) == ["licence"]
    for least, expected in ((1, []), (2, []), (3, ["licence"])):
        sets = contamination.TestSets.build(items, ContaminationSettings(max_reference_sources=least), reference)
        assert names(licence, sets) == expected
        assert names("solve the following riddle about two bakers and their six children", sets) == ["licence"]


def test_hits_are_those_of_a_search_by_hand_and_of_aho_corasick():
    chance = random.Random(5)
    vocabulary = [f"name{i}" for i in range(12)]
    texts = [" ".join(chance.choices(vocabulary, k=k)) for k in (3, 4, 6, 9, 10, 11, 15) for _ in range(12)]
    settings = ContaminationSettings(ngram=5, min_distinct_names=0, min_short_characters=1)
    sets = contamination.TestSets.build([item(str(i), text) for i, text in enumerate(texts)], settings)
    automaton = ahocorasick.Automaton()
    for i, text in enumerate(texts):
        if len(text.split()) < 5:
            automaton.add_word(f" {text} ", (i, text))
    automaton.make_automaton()
    grams = [{tuple(t.split()[k:k + 5]) for k in range(len(t.split()) - 4)} for t in texts]
    some = 0
    for _ in range(60):
        words = chance.choices(vocabulary, k=60)
        document = {tuple(words[k:k + 5]) for k in range(56)}
        expected = {str(i) for i, own in enumerate(grams) if own & document}
        expected |= {str(i) for _, (i, _) in automaton.iter(f" {' '.join(words)} ")}
        assert set(names(" ".join(words), sets)) == expected
        some += len(expected)
    assert some > 20


def test_different_names_are_counted_in_each_window():
    words = words_of("aa bb aa 1 2 c One dd aa 3x _y first é é ones")
    text = [words.joined(i, 1).decode() for i in range(len(words.hashes))]
    wanted = [len({w for w in text[i:i + 5]
                   if len(w.encode()) >= 2 and not w[0].isdigit() and w not in ("one", "first")})
              for i in range(len(text) - 4)]
    assert distinct_names(words, 5).tolist() == wanted


def test_the_index_travels_between_processes_and_through_a_file(tmp_path):
    sets = contamination.TestSets.build([item("a", PROBLEM), item("b", SHORT)], reference=[("r", PROBLEM[60:140])])
    assert sets.boilerplate
    sets.save(tmp_path / "sets.json")
    for other in (pickle.loads(pickle.dumps(sets)), contamination.TestSets.load(tmp_path / "sets.json")):
        assert other.find(PROBLEM + SHORT) == sets.find(PROBLEM + SHORT) != []
        assert other.left_out == sets.left_out
    sets.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "sets.json").read_bytes()


@pytest.mark.parametrize(("change", "why"), [
    (lambda d: d | {"format": "other"}, "no test sets"), (lambda d: d | {"more": 1}, "more too many"),
    (lambda d: d | {"items": [{"set": 1, "item": "x", "texts": ["a"]}]}, "no list of texts"),
    (lambda d: d | {"items": []}, "no set was given"), (lambda d: d | {"settings": {"ngram": 1}}, "greater than"),
    (lambda d: [d], "no test sets"),
])
def test_a_file_that_holds_no_test_sets_is_refused(tmp_path, change, why):
    SETS.save(tmp_path / "sets.json")
    document = json.loads((tmp_path / "sets.json").read_text())
    (tmp_path / "sets.json").write_text(json.dumps(change(document)))
    with pytest.raises(TritwiseError, match=why):
        contamination.TestSets.load(tmp_path / "sets.json")


LAYOUTS = {
    "humaneval": ({"task_id": "T/0", "prompt": "p\n", "entry_point": "f", "canonical_solution": "s", "test": "t"},
                  "T/0", ("p\ns",)),
    "infilling": ({"task_id": "T/0/L1", "prompt": "p\n", "canonical_solution": "s\n", "suffix": "x", "test": "t"},
                  "T/0/L1", ("p\ns\nx",)),
    "multiple": ({"name": "n", "language": "java", "prompt": "p", "tests": "t", "stop_tokens": []}, "n", ("p",)),
    "mbpp": ({"task_id": 7, "text": "t", "code": "c", "test_list": ["a"]}, "7", ("t", "c")),
    "gsm8k": ({"question": "q", "answer": "a"}, "0", ("q", "a")),
    "math": ({"problem": "p", "solution": "s", "level": "1", "idx": 0}, "0", ("p", "s")),
    "svamp": ({"Body": "b", "Question": "q", "Answer": 1.0}, "0", ("b q",)),
    "mawps": ({"input": "i", "target": 3}, "0", ("i",)),
    "choices": ({"query": "q", "choices": ["x", "y"], "gold": 1}, "0", ("q", "x", "y")),
    "lambada": ({"context": "c", "continuation": " e"}, "0", ("c e",)),
    "winogrande": ({"context_options": ["a", "b"], "continuation": "e", "gold": 0}, "0", ("a e", "b e")),
}


@pytest.mark.parametrize(("row", "name", "texts"), LAYOUTS.values(), ids=LAYOUTS)
def test_known_layouts_give_prompts_questions_and_solutions_and_no_unit_tests(tmp_path, row, name, texts):
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    (tmp_path / "x.json").write_text(json.dumps([row]))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    first, second = read_test_set(tmp_path / "x.jsonl", "x")
    assert (first.set, first.item, first.texts) == ("x", name, texts)
    assert second.texts == texts
    assert read_test_set(tmp_path / "x.json", "x") == read_test_set(tmp_path / "x.jsonl.gz", "x") == [first]


def test_any_fields_and_paragraphs_make_a_set_too(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": "one", "b": "two", "c": 3}\n')
    (tmp_path / "test.txt").write_text("one\ntwo\n \n\nthree\n")
    assert read_test_set(tmp_path / "x.jsonl", "x", fields=("b", "a"))[0].texts == ("two", "one")
    items = load_test_sets([tmp_path / "test.txt"])
    assert [(each.set, each.texts) for each in items] == [(f"{tmp_path.name}/test", ("one\ntwo",)),
                                                          (f"{tmp_path.name}/test", ("three",))]


def test_a_directory_gives_every_set_in_it_and_passes_over_what_is_none(tmp_path):
    row = {"question": QUESTION, "answer": "a"}
    sets = tmp_path / "sets"
    for place in ("gsm/test.jsonl", "b.jsonl", "gsm/.cache/c.jsonl", ".d.jsonl"):
        (sets / place).parent.mkdir(parents=True, exist_ok=True)
        (sets / place).write_text(json.dumps(row))
    (sets / "z.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, row]), sets / "c.parquet")
    for name in ("LICENSE", "README.md", "info.json", "notes.txt"):
        (sets / name).write_text("no set")
    items = load_test_sets([sets])
    assert [(each.set, each.item) for each in items] == [("b", "0"), ("c", "0"), ("c", "1"), ("gsm/test", "0"),
                                                         ("z", "0")]
    assert {each.texts for each in items} == {(QUESTION, "a")}
    # A directory and a file of it: the file is read once.
    assert load_test_sets([sets / "b.jsonl", sets]) == items
    assert [hit.set for hit in load_sets([str(sets)], ContaminationSettings()).find(QUESTION)] == \
        ["b", "c", "c", "gsm/test", "z"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "info.json").write_text(json.dumps([row]))
    with pytest.raises(TritwiseError, match=r"none holds no test set\nwhy: of a directory, files that end in \.jsonl,"):
        load_test_sets([tmp_path / "none"])


def test_a_recipe_is_keyed_by_the_sets_of_its_directories_and_by_nothing_else_in_them(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "a"}))
    values = tomllib.loads((ROOT / "recipes" / "quickstart.toml").read_text())
    values["data"]["decontamination"] = {"sets": [str(tmp_path)]}
    recipe = Recipe.model_validate(values)

    def judges():
        return stages_of(recipe, tmp_path / "out")[0].settings["judges"]

    before = judges()
    (tmp_path / "README.md").write_text("about the set")
    assert judges() == before == [sha256_file(tmp_path / "a.jsonl")]
    (tmp_path / "b.parquet").write_bytes(b"anything")
    assert len(judges()) == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"\x1f\x8b\x08"])
def test_a_damaged_parquet_file_is_refused(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(TritwiseError, match="not readable as a test set"):
        read_test_set(tmp_path / "x.parquet", "x")


@pytest.mark.parametrize(("content", "why"), [
    (b"", "no test item|no layout"), (b"{", "no JSON"), (b"[1]", "no JSON objects"), (b'{"x": 1}', "has the fields x"),
    (b"\xff\xfe", "decode"), (b"\x1f\x8b\x08", "gzip|end-of-stream|Compressed"),
    (b'{"question": "q", "answer": "a"}\n{"question": "q"}', "row 2"), (b'{"question": 1, "answer": "a"}', "row 1"),
])
def test_a_file_of_another_kind_is_refused(tmp_path, content, why):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(TritwiseError, match=why):
        read_test_set(tmp_path / "x.jsonl", "x")


def test_a_report_says_how_much_of_each_set_stands_where():
    documents = [Document("r", path, "python", text, 1, "h") for path, text in (
        ("a.py", QUESTION), ("b.py", "x = 1\n"), ("c.py", PROBLEM + QUESTION), ("d.py", ""))]
    sets = contamination.TestSets.build([*SETS.items, contamination.TestItem("other", "0", (QUESTION + " Why?",))])
    made, other = contamination_report(documents, sets)
    assert (made.set, made.items, made.hit_items, made.fraction) == ("made", 3, ("baker", "gaps"), 2 / 3)
    assert made.files == other.files == (("r", "a.py"), ("r", "c.py"))
    assert (other.set, other.fraction, len(other.samples)) == ("other", 1.0, 2)
    assert made.samples[0][:2] == ("r", "a.py")
    assert made.samples[0][3] == QUESTION
