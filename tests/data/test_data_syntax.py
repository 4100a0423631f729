"""Syntax: what Python's compiler refuses, and how many bytes other parsers may leave."""

import warnings

import pytest

from tritwise.config.data_screening import SyntaxSettings
from tritwise.data.screening import syntax
from tritwise.data.screening.syntax import _nesting


def detail(text: str, **settings) -> str | None:
    broken = syntax.broken("python", text, None, SyntaxSettings(**settings))
    return None if broken is None else broken.detail


@pytest.mark.parametrize("text", [
    "", "x = 1\n", "print('hello')", "async def f():\n    return [await x async for x in y]\n", "# only a comment",
    "match x:\n    case [1, *_]:\n        pass\n", "x = '\\d'\n", "assert (1, 'always')\n", "x = 0xdeadbeef\n",
    "é = 1\n", "# coding: latin-1\nx = 'é'\n", "print\n", "exec('x')\n",
])
def test_python_passes_without_a_warning(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert detail(text) is None


@pytest.mark.parametrize(("text", "why"), [
    ("x = (\n", "line 1"), ("x = 1\n  y = 2\n", "line 2"), ("def f(:\n    pass\n", "line 1"), ("x = 'a\n", "line 1"),
    ("print 'hello'\n", "line 1, Python 2"), ("x = 1\nprint x\n", "line 2, Python 2"),
    ("try:\n    f()\nexcept OSError, e:\n    pass\n", "line 3, Python 2"), ("exec 'x = 1'\n", "line 1, Python 2"),
    ("raise E, 'text'\n", "line 1, Python 2"), ("if a <> b: pass\n", "line 1, Python 2"),
    ("x = 0777\n", "line 1, Python 2"), ("x = 10L\n", "line 1, Python 2"), ("x = `y`\n", "line 1, Python 2"),
    ("x = " + "-" * 100_000 + "1\n", "nested too deeply"), ("x = 1" + " + 1" * 100_000, "nested too deeply"),
    ("x = '\ud800'\n", "characters that are no source code"), ("x = " + "(" * 300 + "1" + ")" * 300, "line 1"),
])
def test_what_is_no_python_is_broken_at_a_line(text, why):
    assert detail(text) == why


def test_a_zero_byte_is_no_python():
    assert detail("x = 1\0\n") is not None  # which error it is depends on the version


def test_deep_brackets_are_parsed_apart_with_the_same_answer():
    deep = "x = " + "[" * 60 + "1" + "]" * 60 + "\n"
    assert detail(deep) is None
    assert detail(deep + "print x\n") == "line 2, Python 2"
    assert detail(deep, max_seconds=0.0001) == "not parsed within 0.0001 seconds"


@pytest.mark.parametrize(("text", "depth"), [
    ("", 0), ("f(a[1])", 2), (")))(((", 3), ("()" * 50, 1), ("({[", 3), ("(]", 1), ("))((]]([", 2),
])
def test_nesting_is_the_deepest_that_brackets_go(text, depth):
    assert _nesting(text) == depth


@pytest.mark.parametrize(("language", "wrong", "is_broken"), [
    ("c", 50, False), ("c", 51, True), ("go", 10, False), ("go", 11, True), ("haskell", 20, False),
    ("haskell", 21, True), ("c", None, False), ("c", 0, False),
])
def test_other_languages_may_have_a_share_of_bytes_in_errors(language, wrong, is_broken):
    broken = syntax.broken(language, "é" * 500, wrong)  # 1000 bytes
    assert (broken is not None) == is_broken
    assert broken is None or broken.detail == f"{wrong / 1000:.4f} of 1000 bytes"


def test_a_language_can_have_a_threshold_of_its_own():
    settings = SyntaxSettings(languages={"go": 0.5})
    assert syntax.broken("go", "x" * 100, 50, settings) is None
    assert syntax.broken("java", "x" * 100, 2, settings).rule == "syntax"
