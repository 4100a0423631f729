"""Python's dependencies against `modulefinder`, which is Python's own, and against the syntax tree of `ast`."""

import ast
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_recorder import modulefinder_edges
from repository_graph import extract_in_any_order

from tritwise.data.imports import dependencies, extract

STDLIB = Path(sysconfig.get_path("stdlib"))


def edges(files: dict[str, str], **keywords) -> dict[str, set[str]]:
    facts = {path: extract_in_any_order("python", path, text.encode()) for path, text in files.items()}
    return dependencies(facts, **keywords)


def our_edges(root: Path) -> set[tuple[str, str]]:
    found = edges({p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in root.rglob("*.py")})
    return {(path, target) for path, targets in found.items() for target in targets}


def imports_of(text: str) -> set[tuple[str, ...]]:
    return set(extract("python", "a.py", text.encode()).imports)


@pytest.mark.parametrize("package", ["asyncio", "concurrent", "email", "html", "http", "importlib", "json", "logging",
                                     "multiprocessing", "unittest", "urllib", "wsgiref", "xml", "xmlrpc"])
def test_edges_of_library_packages_are_those_modulefinder_finds(package, tmp_path):
    for source in (STDLIB / package).rglob("*.py"):
        target = tmp_path / source.relative_to(STDLIB)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    ours = our_edges(tmp_path)
    assert ours == modulefinder_edges(tmp_path)
    assert ours  # every one of these packages imports itself


FILES = ("p/__init__.py", "p/a.py", "p/b.py", "p/q/__init__.py", "p/q/a.py", "p/q/r.py", "top.py", "a.py")
NAMES = st.sampled_from(["a", "b", "q", "r", "p", "top", "value", "*"])
ABSOLUTE = st.sampled_from(["p", "p.a", "p.b", "p.q", "p.q.a", "p.q.r", "p.q.missing", "p.missing", "top", "a",
                            "missing"])


@st.composite
def import_statements(draw, path: str) -> str:
    depth = path.count("/")  # packages that the file is in: more dots than that are an error in Python
    kind = draw(st.sampled_from(["import", "from", "relative"] if depth else ["import", "from"]))
    if kind == "import":
        return f"import {draw(ABSOLUTE)}"
    if kind == "from":
        return f"from {draw(ABSOLUTE)} import {draw(NAMES)}"
    dots = "." * draw(st.integers(1, depth))
    module = draw(st.sampled_from(["", "a", "b", "q", "q.r", "q.missing", "missing"]))
    # No star: modulefinder takes `from .q import *` for an import of all submodules, Python does only with `__all__`.
    return f"from {dots}{module} import {draw(NAMES.filter(lambda name: name != '*'))}"


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_edges_of_generated_packages_are_those_modulefinder_finds(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("generated")
    for path in FILES:
        statements = data.draw(st.lists(import_statements(path), max_size=4))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        indented = "".join(f"    {s}\n" for s in statements[2:] if not s.endswith("*"))
        (root / path).write_text("\n".join(statements[:2]) + f"\nvalue = 1\ndef f():\n    pass\n{indented}")
    assert our_edges(root) == modulefinder_edges(root)


def imports_by_ast(text: str) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {("0", alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found |= {(str(node.level), node.module or "", alias.name) for alias in node.names}
    return found


EVERYWHERE = """
from __future__ import annotations
import a, b.c as d
from . import e
from ..f.g import h as i, j
from ... import *
from .a . b import (  # ( not a parenthesis
    c, d as dd,  # import never
    e,
)
import os \\
    . path as p, q
from.x import(y)
def function():
    import k; import k2
    class Inner:
        async def method(self):
            with x:
                from l import m
try:
    import n
except ImportError:
    import o
else:
    import p
finally:
    import q
for x in y:
    import r
else:
    import s
while x:
    import t
match x:
    case 1:
        import u
if x:
    pass
elif y:
    import v
if TYPE_CHECKING: import w
lambda: "import never"
text = """ + "'''\nimport never\n'''" + """
# import never
print >> stream, "this is Python 3 too"
"""


def test_imports_are_found_wherever_a_statement_can_stand():
    found = extract("python", "a.py", EVERYWHERE.encode())
    assert set(found.imports) == imports_by_ast(EVERYWHERE)
    assert list(found.imports) == sorted(found.imports)
    assert found.wrong_bytes == 0
    assert ("0", "os.path") in found.imports
    assert not any("never" in part for each in found.imports for part in each)


@pytest.mark.parametrize("package", ["asyncio", "email", "encodings", "importlib", "unittest", "xml"])
def test_imports_of_library_files_are_those_of_the_syntax_tree(package):
    for path in sorted((STDLIB / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert imports_of(text) == imports_by_ast(text), path


def test_python_2_looks_beside_the_file_first_unless_told_not_to():
    old = "import helper\nimport json.tool\nprint 'x'\nexec 'y' in z\n"
    files = {"p/__init__.py": "", "p/a.py": old, "p/b.py": "from __future__ import absolute_import\n" + old,
             "p/c.py": "import helper\nprint('x')", "p/helper.py": "", "helper.py": ""}
    found = edges(files)
    assert found["p/a.py"] == {"p/helper.py"}
    assert found["p/b.py"] == found["p/c.py"] == {"helper.py"}


@pytest.mark.parametrize("text", ["import a\ndef f(:\n", "import a\nx = '\0'\n", "import a\nprint `x`, 0777L\n"])
def test_what_the_interpreter_cannot_parse_still_has_imports(text):
    with pytest.raises((SyntaxError, ValueError)):
        ast.parse(text)
    assert {each[1] for each in imports_of(text)} == {"a"}


def test_absolute_names_start_above_the_outermost_package_or_beside_a_script():
    found = edges({"src/pkg/__init__.py": "", "src/pkg/a.py": "import pkg.b\nimport helper",
                   "src/pkg/b.py": "import json", "src/pkg/json.py": "", "tools/helper.py": "", "lib/space/x.py": "",
                   "tools/run.py": "import helper\nfrom pkg import a", "top.py": "import space.x"})
    assert found["src/pkg/a.py"] == {"src/pkg/b.py"}
    assert found["src/pkg/b.py"] == set()  # the library's json, not its neighbour
    assert found["tools/run.py"] == {"tools/helper.py", "src/pkg/a.py"}
    assert found["top.py"] == {"lib/space/x.py"}


def test_a_repository_whose_root_is_a_package_may_call_itself_by_name():
    files = {"__init__.py": "from json.decoder import X", "decoder.py": "import json.scanner\nfrom json import scanner",
             "scanner.py": "from json import value",
             "tool.py": "from . import value"}
    assert edges(files, repository="json") == {
        "__init__.py": {"decoder.py"}, "decoder.py": {"scanner.py"}, "scanner.py": {"__init__.py"},
        "tool.py": {"__init__.py"}}
    assert edges(files, repository="other")["scanner.py"] == set()


def test_files_left_out_shape_packages_but_are_no_targets():
    files = {"deep/pkg/a.py": "from pkg import b, value", "deep/pkg/b.py": ""}
    assert edges(files, paths=["deep/pkg/__init__.py"]) == {"deep/pkg/a.py": {"deep/pkg/b.py"}, "deep/pkg/b.py": set()}


def test_dots_that_leave_the_repository_lead_nowhere():
    assert edges({"a.py": "from ...x import y", "x.py": ""}) == {"a.py": set(), "x.py": set()}


def test_what_a_package_gives_on_is_a_dependency_on_the_package():
    found = edges({"p/__init__.py": "from .a import f", "p/a.py": "", "user.py": "from p import f", "p/b.py":
                   "from . import f, a\nfrom .a import f"})
    assert found == {"p/__init__.py": {"p/a.py"}, "p/a.py": set(), "user.py": {"p/__init__.py"},
                     "p/b.py": {"p/__init__.py", "p/a.py"}}


def test_a_package_on_the_way_to_a_compiled_module_is_no_dependency():
    found = edges({"p/__init__.py": "", "p/a.py": "from p._fast import f\nimport p._fast", "p/b.py": "from p import f"})
    assert found["p/a.py"] == set()
    assert found["p/b.py"] == {"p/__init__.py"}


def test_a_stub_stands_for_a_compiled_module():
    found = edges({"p/__init__.py": "", "p/a.py": "from ._fast import f\nfrom . import b", "p/_fast.pyi": "",
                   "p/b.pyi": "", "p/b.py": ""})
    assert found["p/a.py"] == {"p/_fast.pyi", "p/b.py"}


def test_packages_without_init_are_packages():
    found = edges({"service/space/part/a.py": "import space.other.b\nfrom space.part import c",
                   "service/space/other/b.py": "", "service/space/part/c.py": ""})
    assert found["service/space/part/a.py"] == {"service/space/other/b.py", "service/space/part/c.py"}


def test_of_several_places_the_nearest_is_meant():
    files = {f"{place}/util/__init__.py": "" for place in ("examples/a", "examples/b", "z")}
    found = edges(files | {"examples/b/tests/test_x.py": "import util", "z/deep/er/y.py": "import util", "q.py": ""})
    assert found["examples/b/tests/test_x.py"] == {"examples/b/util/__init__.py"}
    assert found["z/deep/er/y.py"] == {"z/util/__init__.py"}


def test_a_package_hides_a_module_of_its_name_and_cycles_are_edges_both_ways():
    found = edges({"a.py": "", "a/__init__.py": "import b", "b.py": "import a"})
    assert found == {"a.py": set(), "a/__init__.py": {"b.py"}, "b.py": {"a/__init__.py"}}
