"""Heuristics: each measure on a text whose value can be counted by hand, each rule just beyond its limit."""

import inspect
import math
import statistics

import pytest

from tritwise.config.data_screening import HeuristicLimits, HeuristicSettings
from tritwise.data.rules import Broken
from tritwise.data.screening import heuristics
from tritwise.data.screening.heuristics import RULES, broken, signals

# Sound code: a module of the standard library.
CODE = inspect.getsource(statistics)


def rule_of(text: str, language: str = "python", **settings) -> str | None:
    found = broken(text, language, HeuristicSettings(**settings))
    return None if found is None else found.rule


def test_sound_code_breaks_no_rule():
    assert rule_of(CODE) is None
    assert rule_of("x = 1\n" * 10) is None  # few words are not judged


def test_measures_are_what_counting_gives():
    text = "alpha beta 12 x\nalpha beta 12 x\n# note\n\nshort\nshort\n"
    measured = signals(text, "python")
    assert measured.words == 11
    assert measured.repeated_lines == 1 / 2  # lines of less than ten characters do not count
    assert measured.number_words == pytest.approx(2 / 11)
    assert measured.short_names == 2 / 9
    assert measured.comment_lines == pytest.approx(1 / 5)
    assert measured.lines_without_definition == 4
    shares = [2 / 9] * 4 + [1 / 9]
    assert measured.name_entropy == pytest.approx(-sum(p * math.log2(p) for p in shares))
    assert signals("abcdefghij " * 12, "c").repeated_ngrams == pytest.approx(2 / 3)
    assert signals("a" * 48 + " " + "b" * 49, "c").long_words == 49 / 97
    assert signals("", "c") == heuristics.Signals(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


NUMBERS = ", ".join(map(str, range(1000)))


@pytest.mark.parametrize(("text", "rule"), [
    ("\n".join(["check_the_value(first, second)"] * 80), "repeated_lines"),
    ("\n".join(" ".join(f"word{(i + j) % 13}" for j in range(i % 50 + 9)) for i in range(90)), "repeated_ngrams"),
    (f"values = [{NUMBERS}]", "number_words"),
    ("; ".join(f"{a}={b}+{c}" for a in "abcdefg" for b in "hijklmn" for c in "opqrstu"), "short_names"),
    ("\n".join("data" + str(i ** 40) + "e" * i for i in range(60, 130)), "long_words"),
    ("# " + CODE.replace("\n", "\n# "), "comment_lines"),
    ("\n".join(f"name_{i} = value_{i + 1}" for i in range(1600)), "lines_without_definition"),
])
def test_a_file_beyond_a_limit_is_broken_by_its_rule(text, rule):
    assert rule_of(text) == rule
    assert rule in RULES
    limit = {"lines_without_definition": 10**6}.get(rule, 1.0)
    assert rule_of(text, **{f"max_{rule}": limit}) != rule


def test_few_names_again_and_again_say_little():
    text = "\n".join(f"STEP({i}, {i * i}) NOTE_{i % 2}" for i in range(200))
    assert rule_of(text, "c") == "name_entropy"
    assert broken(text, "c").detail == f"{signals(text, 'c').name_entropy:.4f} bits"
    assert rule_of(text, "c", min_name_entropy=0) is None


@pytest.mark.parametrize(("language", "lines", "definition"), [
    ("python", "x = f(y)", "async def f(x):"), ("python", "x = f(y)", "    class A:"),
    ("go", "x := f(y)", "func f() {"),
    ("c", "f(x);", "static int f(int x)"), ("c", "f(x);", "int main(void) {"), ("c++", "f(x);", "class A : public B {"),
    ("java", "f(x);", "public static void main(String[] args) {"), ("rust", "let x = f(y);", "pub(crate) fn f() {"),
    ("javascript", "f(x);", "const f = async (x) => {"), ("javascript", "f(x);", "f(x) {"),
    ("typescript", "f(x);", "export interface A {"), ("ruby", "f(x)", "def f(x)"),
    ("kotlin", "f(x)", "private fun f() {"),
    ("c#", "f(x);", "public class A"), ("php", "f($x);", "public static function f() {"),
    ("scala", "f(x)", "override def f = 1"), ("swift", "f(x)", "public func f() {"),
])
def test_definitions_are_seen_in_each_language(language, lines, definition):
    text = "\n".join([lines] * 5 + [definition] + [lines] * 7)
    assert signals(text, language).lines_without_definition == 7


def test_where_definitions_are_not_known_none_is_missed():
    assert signals("x\n" * 5000, "tex").lines_without_definition is None


def test_a_language_can_have_limits_of_its_own():
    settings = HeuristicSettings(languages={"sql": HeuristicLimits(max_number_words=0.999)})
    text = f"insert into table_of_numbers (one, two, three, four) values ({NUMBERS})"
    assert broken(text, "sql", settings) is None
    assert broken(text, "c", settings).rule == "number_words"


@pytest.mark.parametrize("lines", [9, 10, 11])
def test_no_limit_on_lines_without_a_definition_is_passed_over_because_a_file_is_short(lines):
    text = "\n".join(f"alpha{n} = beta{n} + gamma{n} - delta{n} * epsilon{n} / zeta{n} + eta{n}" for n in range(lines))
    found = broken(text, "python", HeuristicSettings(max_lines_without_definition=10))
    assert signals(text, "python").lines_without_definition == lines
    assert found == (Broken("lines_without_definition", "11 lines") if lines == 11 else None)
