"""Import edges against `modulefinder`, and the order that Algorithm 1 makes of them."""

import graphlib
import sysconfig
from modulefinder import Module, ModuleFinder
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.data.order import Import, dependency_order, import_edges, python_imports

STDLIB = Path(sysconfig.get_path("stdlib"))


class Forgetful(dict):
    """Holds nothing that can be found: `modulefinder` skips a name that once failed, even for another importer."""

    def __contains__(self, key):
        return False


class ImportRecorder(ModuleFinder):
    """Python's own import finder, made to note which file each statement leads to.

    It also notes packages that a statement passes through on the way to what it names; those are left out, as they are
    by `import_edges` (its docstring says why). Files outside the search path are bad modules to it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(path=[str(root)])
        self.badmodules = Forgetful()
        self.edges: set[tuple[str, str]] = set()
        self._scanning: list[Module] = []
        self._reached: list[list[Module]] = []
        self._names: list[bool] = [False]

    def scan_code(self, co, m):
        self._scanning.append(m)
        super().scan_code(co, m)
        self._scanning.pop()

    def _safe_import_hook(self, name, caller, fromlist, level=-1):
        self._names.append(bool(fromlist))
        super()._safe_import_hook(name, caller, fromlist, level)
        self._names.pop()

    def import_hook(self, name, caller=None, fromlist=None, level=-1):
        self._reached.append([])
        probing = self._names[-1] and not fromlist  # `from a import b` first calls for `a`, then for each name
        try:
            return super().import_hook(name, caller, fromlist, level)
        except ImportError:
            probing = False  # and stops there when a part of `a` is missing
            raise
        finally:
            reached = {m.__name__: m.__file__ for m in self._reached.pop() if m.__file__}
            if self._scanning and not probing:
                self.edges |= {(self._scanning[-1].__file__, file) for module, file in reached.items()
                               if not any(other.startswith(f"{module}.") for other in reached)}

    def import_module(self, partname, fqname, parent):
        module = super().import_module(partname, fqname, parent)
        if module and self._reached:
            self._reached[-1].append(module)
        return module

    def ensure_fromlist(self, m, fromlist, recursive=0):
        self._reached[-1] += [value for sub in fromlist if isinstance(value := getattr(m, sub, None), Module)]
        super().ensure_fromlist(m, fromlist, recursive)


def oracle_edges(root: Path) -> set[tuple[str, str]]:
    recorder = ImportRecorder(root)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        recorder.import_hook(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    relative = {(Path(a).relative_to(root).as_posix(), Path(b).relative_to(root).as_posix()) for a, b in recorder.edges}
    return {(a, b) for a, b in relative if a != b}


def our_edges(root: Path) -> set[tuple[str, str]]:
    imports = {p.relative_to(root).as_posix(): python_imports(p.read_text(encoding="utf-8"))
               for p in root.rglob("*.py")}
    return {(path, target) for path, targets in import_edges(imports).items() for target in targets}


@pytest.mark.parametrize("package", ["asyncio", "concurrent", "email", "html", "http", "importlib", "json", "logging",
                                     "multiprocessing", "unittest", "urllib", "wsgiref", "xml", "xmlrpc"])
def test_edges_of_library_packages_are_those_modulefinder_finds(package, tmp_path):
    for source in (STDLIB / package).rglob("*.py"):
        target = tmp_path / source.relative_to(STDLIB)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    ours = our_edges(tmp_path)
    assert ours == oracle_edges(tmp_path)
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


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_edges_of_generated_packages_are_those_modulefinder_finds(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("generated")
    for path in FILES:
        statements = data.draw(st.lists(import_statements(path), max_size=4))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        indented = "".join(f"    {s}\n" for s in statements[2:] if not s.endswith("*"))
        (root / path).write_text("\n".join(statements[:2]) + f"\nvalue = 1\ndef f():\n    pass\n{indented}")
    assert our_edges(root) == oracle_edges(root)


def test_imports_are_found_wherever_a_statement_can_stand():
    text = '''
import a, b.c as d
from . import e
from ..f.g import h as i, j
def function():
    import k
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
text = "import never"
'''
    found = python_imports(text)
    assert set(found) == {
        Import(0, "a", None), Import(0, "b.c", None), Import(1, "", "e"), Import(2, "f.g", "h"), Import(2, "f.g", "j"),
        Import(0, "l", "m"), *(Import(0, name, None) for name in "knopqrstuv")}
    assert list(found) == sorted(found, key=lambda i: (i.level, i.module, i.name or ""))


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\0'\n", "(" * 10_000, "print 1\n"])
def test_what_python_cannot_parse_is_a_syntax_error(text):
    with pytest.raises(SyntaxError):
        python_imports(text)


def test_absolute_names_start_above_the_outermost_package_or_beside_a_script():
    files = {"src/pkg/__init__.py": "", "src/pkg/a.py": "import pkg.b\nimport helper", "src/pkg/b.py": "import json",
             "src/pkg/json.py": "", "tools/run.py": "import helper\nfrom pkg import a", "tools/helper.py": "",
             "lib/space/x.py": "", "top.py": "import space.x"}
    edges = import_edges({path: python_imports(text) for path, text in files.items()})
    assert edges["src/pkg/a.py"] == {"src/pkg/b.py"}
    assert edges["src/pkg/b.py"] == set()  # the library's json, not its neighbour
    assert edges["tools/run.py"] == {"tools/helper.py", "src/pkg/a.py"}
    assert edges["top.py"] == {"lib/space/x.py"}


def test_a_repository_whose_root_is_a_package_may_call_itself_by_name():
    files = {"__init__.py": "from json.decoder import X", "decoder.py": "import json.scanner\nfrom json import scanner",
             "scanner.py": "from json import value"}
    imports = {path: python_imports(text) for path, text in files.items()}
    assert import_edges(imports, repository="json") == {
        "__init__.py": {"decoder.py"}, "decoder.py": {"scanner.py"}, "scanner.py": {"__init__.py"}}
    assert not any(import_edges(imports, repository="other").values())


def test_files_left_out_shape_packages_but_are_no_targets():
    imports = {"deep/pkg/a.py": python_imports("from pkg import b, value"), "deep/pkg/b.py": ()}
    every_path = [*imports, "deep/pkg/__init__.py"]
    assert import_edges(imports, every_path) == {"deep/pkg/a.py": {"deep/pkg/b.py"}, "deep/pkg/b.py": set()}


def test_dots_that_leave_the_repository_lead_nowhere():
    assert import_edges({"a.py": python_imports("from ...x import y")}) == {"a.py": set()}


@st.composite
def graphs(draw, acyclic: bool) -> dict[str, set[str]]:
    size = draw(st.integers(1, 12))
    ranks = draw(st.permutations(range(size)))
    pairs = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=30))
    edges: dict[str, set[str]] = {f"{i:02}": set() for i in range(size)}
    for a, b in pairs:
        if ranks[a] > ranks[b] or (not acyclic and a != b):
            edges[f"{a:02}"].add(f"{b:02}")
    return edges


def component_of(edges: dict[str, set[str]]) -> dict[str, str]:
    """Union by repeated relabelling: slow and plain."""
    label = {path: path for path in edges}
    for _ in edges:
        for path, targets in edges.items():
            for target in targets:
                label[path] = label[target] = min(label[path], label[target])
    return label


@given(graphs(acyclic=False))
def test_every_file_is_taken_once_and_components_stay_together(edges):
    order = dependency_order(edges)
    assert sorted(order) == sorted(edges)
    labels = [component_of(edges)[path] for path in order]
    assert labels == sorted(labels)  # a component is named by its smallest path


@given(graphs(acyclic=True))
def test_without_cycles_dependencies_come_first(edges):
    assert len(list(graphlib.TopologicalSorter(edges).static_order())) == len(edges)  # the graph has none
    order = dependency_order(edges)
    assert all(order.index(target) < order.index(path) for path, targets in edges.items() for target in targets)


@given(graphs(acyclic=False))
def test_the_order_is_algorithm_1_step_by_step(edges):
    """The paper's loop written out: the untaken file of the component with the fewest untaken dependencies."""
    expected: list[str] = []
    labels = component_of(edges)
    for name in sorted(set(labels.values())):
        left = {path for path in edges if labels[path] == name}
        while left:
            path = min(left, key=lambda p: (len(edges[p] & left), p))
            expected.append(path)
            left.remove(path)
    assert dependency_order(edges) == expected


def test_the_order_does_not_depend_on_the_order_of_the_input():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set(), "e": {"d"}}
    assert dependency_order(edges) == dependency_order(dict(reversed(edges.items()))) == ["a", "c", "b", "d", "e"]


def test_ten_thousand_files_in_a_chain_take_no_recursion_and_little_time():
    edges = {f"{i:05}": {f"{i + 1:05}"} if i < 9_999 else set() for i in range(10_000)}
    assert dependency_order(edges) == sorted(edges, reverse=True)
