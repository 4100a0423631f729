"""What the models are asked to write: real functions, chosen by a hash, that fit the window."""

import ast

import pytest

from tritwise import TritwiseError
from tritwise.data import Document
from tritwise.data.documents import path_comment
from tritwise.pipeline.tasks import MAX_LINE, MIN_LINE, choose_tasks, scored_texts

SOURCE = '''"""A module."""

import os


class Stack:
    """Last in, first out."""

    def __init__(self):
        self.items = []

    @property
    def top(self):
        """The newest item.

        Raises IndexError when there is none.
        """
        if not self.items:
            raise IndexError("empty")
        newest = self.items[-1]
        return newest


def area(width, height):
    """Width times height."""
    product = width * height
    checked = abs(product)
    return checked
'''


def document(text=SOURCE, path="stack.py", language="python"):
    return Document("repo", path, language, text, len(text), "0" * 64, split="held_out", position=0)


def words(text):
    return len(text.split())


def test_a_completion_asks_for_all_that_follows_a_docstring():
    completion, _ = choose_tasks([document()], words, 1000)
    assert completion.kind == "completion"
    assert completion.suffix == ""
    assert completion.prefix.rstrip().endswith('"""')
    header = path_comment(document())
    assert completion.prefix.startswith(header)
    # What the model sees and what it is asked for stand in the file as one text.
    assert completion.prefix[len(header):] + completion.original in SOURCE
    assert completion.original.rstrip().endswith(("return newest", "return checked"))
    assert completion.source in ("repo, stack.py: Stack.top", "repo, stack.py: area")


def test_an_infill_takes_one_statement_out_of_a_function():
    _, infill = choose_tasks([document()], words, 1000)
    header = path_comment(document())
    assert infill.prefix[len(header):] + infill.original + infill.suffix in SOURCE
    assert MIN_LINE <= len(infill.original) <= MAX_LINE
    assert "\n" not in infill.original
    assert infill.suffix.startswith("\n")
    assert isinstance(ast.parse(infill.original.replace("return ", "")).body[0], ast.stmt)


def test_the_choice_depends_on_the_data_alone():
    documents = [document(path=f"m{i}.py") for i in range(5)]
    assert choose_tasks(documents, words, 1000) == choose_tasks(documents[::-1], words, 1000)


def test_what_stands_before_is_cut_at_a_line_until_it_fits():
    wide, _ = choose_tasks([document()], words, 1000)
    narrow, _ = choose_tasks([document()], words, 40)
    for task, context in ((wide, 1000), (narrow, 40)):
        assert words(task.prefix) + words(task.suffix) + task.max_tokens <= context
        body = task.prefix[len(path_comment(document())):]
        assert SOURCE.index(body) == 0 or SOURCE[SOURCE.index(body) - 1] == "\n"
    assert len(narrow.prefix) < len(wide.prefix)


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_other_line_ends_and_form_feeds_do_not_move_the_cut(newline):
    text = SOURCE.replace("\n\n\nclass", "\n\f\n\nclass").replace("\n", newline)
    completion, infill = choose_tasks([document(text)], words, 1000)
    assert completion.original.startswith((newline + "        if not", newline + "    product ="))
    assert infill.original.strip() == infill.original


def test_files_of_other_languages_give_their_lines():
    text = "".join(f"int f{i}(void) {{ return {i}; }}\n" for i in range(20))
    completion, infill = choose_tasks([document(text, "f.c", "c")], words, 200)
    assert completion.original.startswith("int f10")
    assert completion.prefix.endswith("return 9; }\n")
    assert infill.original.startswith("int f")
    assert infill.source == "repo, f.c"


def test_nothing_that_fits_is_an_error_with_a_way_out():
    with pytest.raises(TritwiseError, match=r"(?s)no held-out document.*sequence_length"):
        choose_tasks([document("x = 1\n")], words, 100)


def test_scores_are_divided_by_the_files_own_bytes():
    texts, count = scored_texts([document("é = 1\n"), document("b\n")])
    assert texts == ["# stack.py\né = 1\n", "# stack.py\nb\n"]
    assert count == 7 + 2
