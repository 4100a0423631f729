"""Cross-file tasks of small repositories written by hand, with what is found in them stated line by line."""

import random
import symtable
import textwrap
from pathlib import Path

import pytest

from tritwise.config.cross_file import CrossFileSettings
from tritwise.data import Document, path_comment
from tritwise.evaluate.cross_file import find_tasks
from tritwise.evaluate.cross_file.source import PythonFile

# Every line that uses a name of another file, however short.
ALL = CrossFileSettings(seen="anywhere", min_code_lines=0, min_reference_tokens=1, min_name_chars=1, max_per_file=99)

SHAPES = """
LIMIT = 3
_hidden = 4

class Shape:
    sides = 0

    def __init__(self):
        self.colour = None

    def area(self):
        return 0

def unit():
    return Shape()
"""


def document(path: str, text: str, repository: str = "repo", **changes) -> Document:
    values = {"split": "held_out", "position": 0} | changes
    return Document(repository, path, "python", text, len(text), path, **values)


def repository(name: str = "repo", **files: str) -> list[Document]:
    """Files by path with `/` written `__DIR__`; one that nothing depends on stands beside them."""
    texts = {"pkg/__init__.py": "", "pkg/shapes.py": SHAPES, "pkg/stranger.py": "alone = 1\n"} | {
        f"pkg/{stem}.py": text for stem, text in files.items()}
    return [document(path, textwrap.dedent(text).lstrip("\n"), name) for path, text in texts.items()]


def found(documents: list[Document], path: str = "pkg/user.py", settings: CrossFileSettings = ALL) -> list[tuple]:
    """(line, what stands before the cursor on it, reference, kind, defining file and line) of a file's tasks."""
    return [(task.line, task.prefix.rsplit("\n", 1)[1], task.reference, task.kind, task.definition,
             task.definition_line) for task in find_tasks(documents, settings) if task.path == path]


def test_imported_names_modules_and_their_members_are_found_with_what_defines_them():
    assert found(repository(user="""
        import os
        import pkg.shapes
        import pkg.shapes as geometry
        from pkg.shapes import LIMIT as most, Shape, unit
        from . import shapes

        count = most + 1
        one = unit()
        side = Shape.sides
        name = shapes.unit().x
        deep = pkg.shapes.Shape.area(one)
        other = geometry.LIMIT[0]
        path = os.path
    """)) == [
        (7, "count = ", "most + 1", "imported", "pkg/shapes.py", 1),
        (8, "one = ", "unit()", "imported", "pkg/shapes.py", 13),
        (9, "side = ", "Shape.sides", "imported", "pkg/shapes.py", 4),
        (10, "name = shapes.", "unit().x", "attribute", "pkg/shapes.py", 13),
        (11, "deep = pkg.shapes.", "Shape.area(one)", "attribute", "pkg/shapes.py", 4),
        (12, "other = geometry.", "LIMIT[0]", "attribute", "pkg/shapes.py", 1)]


def test_members_of_classes_are_found_where_the_name_itself_stands_in_the_import():
    documents = repository(user="""
        from .shapes import Shape
        from . import shapes

        class Square(Shape):
            side = 1

            def area(self):
                return self.side * 4 + self.sides

            def paint(self):
                return self.area() + self.colour

        def draw():
            thing = Shape()
            other = shapes.Shape()
            print(thing.colour, 1)
            print(other.area(), 2)
            thing = thing.absent
    """)
    # `area` stands in the file already, and `thing` is bound twice, so that nobody knows what it is.
    assert found(documents, settings=ALL.model_copy(update={"seen": "nowhere"})) == [
        (8, "        return self.side * 4 + self.", "sides", "member", "pkg/shapes.py", 5),
        (11, "        return self.area() + self.", "colour", "member", "pkg/shapes.py", 8)]
    assert (17, "    print(other.", "area(), 2)", "member", "pkg/shapes.py", 10) in found(documents)


def test_imports_below_a_package_and_through_its_init_lead_to_the_file_that_defines_the_name():
    documents = [*repository(user="""
        from .. import facade
        from ..facade import Door, Wall
        from ..facade.deep import hinge

        a = Door()
        b = facade.Door.x
        c = Wall.x
        d = hinge[1]
    """), document("facade/__init__.py", "from .doors import Door\nfrom .deep import *\n"),
        document("facade/doors.py", "class Door:\n    pass\n"),
        document("facade/deep.py", "__all__ = ['Wall']\n\nclass Wall:\n    pass\n\nhinge = 1\n")]
    assert found(documents) == [
        (5, "a = ", "Door()", "imported", "facade/doors.py", 1),
        (6, "b = facade.", "Door.x", "attribute", "facade/doors.py", 1),
        (7, "c = ", "Wall.x", "imported", "facade/deep.py", 3),
        (8, "d = ", "hinge[1]", "imported", "facade/deep.py", 6)]


def test_star_imports_bring_public_names_that_the_file_does_not_bind_itself():
    assert found(repository(user="""
        from .shapes import *

        def unit():
            return LIMIT, _hidden

        first = unit()
        second = Shape()
    """), settings=ALL.model_copy(update={"seen": "nowhere"})) == [
        (4, "    return ", "LIMIT, _hidden", "imported", "pkg/shapes.py", 1),
        (7, "second = ", "Shape()", "imported", "pkg/shapes.py", 4)]


def test_shadowed_and_rebound_names_are_no_uses():
    assert found(repository(user="""
        from .shapes import LIMIT, Shape, unit
        from . import shapes

        def parameter(unit, shapes):
            return unit() + shapes.LIMIT

        def local():
            unit = 1
            return unit, [Shape for Shape in ()]

        def free():
            return lambda: unit(2)

        class Holder:
            unit = unit

            def method(self):
                return unit(3)

        def rebinds():
            global LIMIT
            LIMIT = 4

        LIMIT
    """)) == [
        (12, "    return lambda: ", "unit(2)", "imported", "pkg/shapes.py", 13),
        (18, "        return ", "unit(3)", "imported", "pkg/shapes.py", 13)]


def test_strings_comments_docstrings_and_import_lines_give_nothing():
    assert found(repository(user='''
        """unit from shapes."""
        from .shapes import unit  # unit

        # unit()
        def f():
            """unit()"""
            return "unit()", f"{unit()}"

        text = f(unit, 1) + """
        unit""" + str(unit, 2)  # unit is the unit
        joined = unit + \\
            unit + 3
    ''')) == [(10, 'unit""" + str(', "unit, 2)", "imported", "pkg/shapes.py", 13),
              (12, "    ", "unit + 3", "imported", "pkg/shapes.py", 13)]


def test_conditional_imports_count_when_they_all_lead_to_one_definition():
    assert found(repository(user="""
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from .shapes import Shape
        try:
            from .shapes import unit
        except ImportError:
            from pkg.shapes import unit
        try:
            from .shapes import LIMIT
        except ImportError:
            LIMIT = 7

        def f(a: Shape):
            from .shapes import _hidden
            return unit() + LIMIT + _hidden
    """)) == [(13, "def f(a: ", "Shape):", "imported", "pkg/shapes.py", 4),
              (15, "    return ", "unit() + LIMIT + _hidden", "imported", "pkg/shapes.py", 13)]


def test_a_line_of_a_longer_statement_is_asked_for_to_its_end():
    assert found(repository(user="""
        from .shapes import LIMIT, unit

        value = f(
            1, unit(  # the first
                LIMIT - 2,
            ),
        )
    """)) == [(4, "    1, ", "unit(", "imported", "pkg/shapes.py", 13),
              (5, "        ", "LIMIT - 2,", "imported", "pkg/shapes.py", 1)]


def test_places_count_characters_where_bytes_are_more():
    assert found(repository(user="""
        from .shapes import unit

        größe, 漢 = 'é😀', unit('ü')
    """)) == [(3, "größe, 漢 = 'é😀', ", "unit('ü')", "imported", "pkg/shapes.py", 13)]


REPEATED = """
    from .shapes import LIMIT, unit
    from . import shapes

    a = LIMIT + 1
    b = LIMIT + 2
    c = shapes.Shape
    d = shapes.Shape, 3
    e = unit(0)
    e = unit(0)
"""


@pytest.mark.parametrize(("seen", "lines"), [("nowhere", [6]), ("imports", [4, 6, 8]), ("anywhere", [4, 5, 6, 7, 8])])
def test_where_a_name_may_stand_before_the_cursor_is_a_setting(seen, lines):
    documents = repository(user=REPEATED)
    assert [line for line, *_ in found(documents, settings=ALL.model_copy(update={"seen": seen}))] == lines


def test_a_reference_that_stands_before_the_cursor_is_never_asked_for():
    for task in find_tasks(repository(user=REPEATED), ALL):
        assert task.reference not in task.prefix


def test_a_line_that_another_file_has_too_is_not_asked_for():
    text = "from .shapes import unit\n\na = unit(1)\nb = unit(2)\n"
    documents = repository(user=text, twin="def f():\n    a = unit(1)  # indented\n")
    assert [line for line, *_ in found(documents)] == [3, 4]  # with its comment, it is another line
    documents = repository(user=text, twin="def f():\n    a = unit(1)\n")
    assert [line for line, *_ in found(documents)] == [4]


def test_short_and_long_references_early_lines_and_short_names_are_left_out():
    documents = repository(user="""
        from .shapes import LIMIT, unit as u

        '''A text.

        Of lines.
        '''
        a = LIMIT - 1
        # nothing
        b = LIMIT(0)
        c = LIMIT(1, 2)
        d = u(1, 2)
    """)

    def lines(**changes) -> list[int]:
        return [line for line, *_ in found(documents, settings=ALL.model_copy(update=changes))]

    assert lines() == [7, 9, 10, 11]
    assert lines(min_code_lines=1) == [9, 10, 11]
    assert lines(min_code_lines=3) == [11]
    assert lines(min_reference_tokens=4) == [9, 10, 11]
    assert lines(max_reference_tokens=4) == [7, 9]
    assert lines(min_name_chars=2) == [7, 9, 10]
    assert lines(max_prefix_chars=100) == [7, 9]


def test_a_task_holds_the_file_to_the_cursor_and_the_files_it_depends_on_in_their_order():
    documents = [*repository(user="from .middle import make\nfrom . import shapes\n\nx = make(1)\n",
                             middle="from .shapes import unit\n\ndef make(n):\n    return unit()\n"),
                 document("pkg/far.py", "import pkg.middle\n"), document("pkg/aaa.py", "b = 2\n")]
    task = next(task for task in find_tasks(documents, ALL) if task.path == "pkg/user.py")
    by_path = {d.path: d for d in documents}
    assert task.prefix == "# pkg/user.py\nfrom .middle import make\nfrom . import shapes\n\nx = "
    assert task.name == "make"
    assert [file.path for file in task.dependencies] == ["pkg/shapes.py", "pkg/middle.py"]
    assert len(task.others) == 2
    assert {file.path for file in task.others} <= {"pkg/stranger.py", "pkg/far.py", "pkg/aaa.py", "pkg/__init__.py"}
    for file in (*task.dependencies, *task.others):
        assert file.text == path_comment(by_path[file.path]) + by_path[file.path].text


def test_only_held_out_repositories_give_tasks_and_dropped_files_only_their_place():
    text = "from .shapes import unit\n\na = unit(1)\n"
    assert find_tasks(repository(user=text), ALL)
    trained = [Document(**{f: getattr(d, f) for f in d.__slots__} | {"split": "train"}) for d in repository(user=text)]
    assert find_tasks(trained, ALL) == []
    documents = [d for d in repository(user=text) if d.path != "pkg/__init__.py"]
    absolute = [d if d.path != "pkg/user.py" else document(d.path, text.replace(".shapes", "pkg.shapes"))
                for d in documents]
    package = document("pkg/__init__.py", "", split=None, position=None, dropped_by="min_bytes")
    assert [task.id for task in find_tasks([*absolute, package], ALL)] == ["repo/pkg/user.py:3"]
    dropped = document("pkg/shapes.py", "", split=None, position=None, dropped_by="duplicate")
    assert find_tasks([d for d in documents if d.path != "pkg/shapes.py"] + [dropped], ALL) == []


def test_a_file_that_depends_on_all_others_gives_none():
    text = "from .shapes import unit\nfrom . import stranger\n\na = unit(1)\n"
    documents = [d for d in repository(user=text) if d.path != "pkg/__init__.py"]
    assert find_tasks(documents, ALL) == []


def test_the_choice_is_bounded_seeded_and_blind_to_the_order_of_the_documents():
    lines = "".join(f"v{n} = unit({n})\n" for n in range(20))
    text = "from .shapes import unit\n\n" + lines
    documents = [d for name in ("one", "two") for d in repository(name, user=text, more=text.replace("v", "w"))]
    shuffled = random.Random(1).sample(documents, len(documents))
    settings = ALL.model_copy(update={"max_per_file": 5, "max_per_repository": 8})
    tasks = find_tasks(documents, settings)
    assert tasks == find_tasks(shuffled, settings)
    assert {name: sum(task.repository == name for task in tasks) for name in ("one", "two")} == {"one": 8, "two": 8}
    assert max(sum(task.id.startswith(f"one/pkg/{stem}") for task in tasks) for stem in ("user", "more")) <= 5
    assert [task.id for task in tasks] != [task.id for task in find_tasks(
        documents, settings.model_copy(update={"seed": 1}))]
    assert set(tasks) <= set(find_tasks(documents, ALL))


@pytest.mark.parametrize("module", ["argparse", "dataclasses", "pathlib", "statistics", "typing"])
def test_scopes_bind_what_the_compilers_own_table_says(module):
    path = Path(__import__(module).__file__)
    text = path.read_text()
    file = PythonFile(path.name, text)
    table = symtable.symtable(text, path.name, "exec")
    ours = {name for name, bindings in file.scope.bindings.items() if bindings}
    theirs = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
              or symbol.is_namespace()}
    # What functions assign to names that they declare global is bound at the module's level for us.
    assert theirs <= ours
    functions = {(t.get_name(), t.get_lineno()): t for t in walk(table) if t.get_type() == "function"}
    compared = 0
    for chain in file.chains:
        scope = chain.scope
        if scope.kind != "function" or not hasattr(scope.node, "name"):
            continue
        first = min([scope.node.lineno, *(d.lineno for d in scope.node.decorator_list)])
        symbol = next(f for key, f in functions.items()
                      if key[0] == scope.node.name and key[1] in (first, scope.node.lineno)).lookup(chain.root.id)
        owner = scope.owner(chain.root.id)
        assert (owner is scope) == symbol.is_local(), (chain.root.id, chain.root.lineno)
        assert (owner.kind == "module") == symbol.is_global(), (chain.root.id, chain.root.lineno)
        compared += 1
    assert compared > 300


def walk(table):
    yield table
    for child in table.get_children():
        yield from walk(child)
