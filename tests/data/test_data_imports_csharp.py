"""C#: small repositories with the dependencies written down by hand."""

import pytest
from repository_graph import extract_in_any_order

from tritwise.data.imports import dependencies, extract


def edges(files: dict[str, str], paths=()) -> dict[str, set[str]]:
    facts = {path: extract_in_any_order("c#", path, text.encode()) for path, text in files.items()}
    return dependencies(facts, paths=paths)


def test_namespaces_around_and_namespaces_that_are_used_are_in_sight():
    found = edges({
        "User.cs": """using System; using B; using Short = C.Aliased; using static D.Helpers;
// using E;
namespace A.Inner {
    using F;
    class User : Base { Around a; Used u; Short s; int x = Twice(1); string t = "Text"; /* Commented c; */
        Nested.Deep d; global::G.InFull g; Other o; NotInSight n; }
}""",
        "Base.cs": "namespace A.Inner { class Base { } }",
        "Around.cs": "namespace A { class Around { } }",
        "Used.cs": "namespace B { class Used { } class Text { } class Commented { } }",
        "Aliased.cs": "namespace C; class Aliased { }",
        "Helpers.cs": "namespace D { static class Helpers { public static int Twice(int i) => 2 * i; } }",
        "NotInSight.cs": "namespace E { class NotInSight { } }",
        "Other.cs": "namespace F { class Other { } }",
        "InFull.cs": "namespace G { class InFull { } }",
        "Deep.cs": "namespace A.Nested { class Deep { } }",  # a namespace beside this one
    })
    assert found.pop("User.cs") == {"Base.cs", "Around.cs", "Used.cs", "Aliased.cs", "Helpers.cs", "Other.cs",
                                    "InFull.cs", "Deep.cs"}
    assert not any(found.values())


@pytest.mark.parametrize("body", [
    "class X { Other f; }", "class X : Other { }", "class X : I<Other> { }", "[Other] class X { }",
    "class X { object f = Other.Make(); }", "class X { object f = new Other { A = 1 }; }", "class X { Other? f; }",
    "class X { Other P { get; set; } }", "class X { void F(Other[] x) { } }", "class X { Other F() => null; }",
    "class X<T> where T : Other { }", "class X { (Other, int) f; }", "class X { object f = typeof(Other); }",
    "class X { bool F(object o) => o is Other; }", "class X { object F(object o) => o as Other; }",
    "class X { object F(object o) => (Other)o; }", "class X { bool F(object o) => o is Other { A: 1 }; }",
    "class X { void Other.F() { } }", "class X { void F() { try { } catch (Other e) { } } }",
    "record X(Other O);", "delegate Other X();", "class X { event Other E; }", "class X { Other.Inner f; }",
    "class X { string s = nameof(Other); }", 'class X { string s = $"{Other.A}"; }', "class X { N.Other f; }",
])
def test_mentions_count_wherever_a_type_can_stand(body):
    found = edges({"X.cs": f"namespace N {{ {body} }}", "Other.cs": "namespace N { class Other { } }"})
    assert found["X.cs"] == {"Other.cs"}


@pytest.mark.parametrize("body", [
    "class X { class Other { } Other f; }", "class X<Other> { Other f; }", "class X { int f = y.Other; }",
    'class X { string f = "Other"; }', 'class X { string f = @"Other.A"; }', "class X { M.Other f; }",
    "class X { int Other { get; set; } int F() => Other.Size; }", "class X { int f; /* Other */ // Other\n }",
])
def test_names_of_other_things_are_no_mentions(body):
    found = edges({"X.cs": f"namespace N {{ {body} }}", "Other.cs": "namespace N { class Other { } }"})
    assert found["X.cs"] == set()


def test_attributes_may_leave_out_the_end_of_their_name():
    found = edges({"X.cs": "namespace N; [Mark(1)] class X { }", "M.cs": "namespace N; class MarkAttribute { }"})
    assert found["X.cs"] == {"M.cs"}


def test_whoever_mentions_a_partial_class_depends_on_its_parts_and_they_on_the_main_one():
    found = edges({
        "Form.cs": "namespace N { partial class Form { } }",
        "Form.Designer.cs": "namespace N { partial class Form { } }",
        "Form.Events.cs": "namespace N { partial class Form { Event e; void Show() { } } }",
        "Event.cs": "namespace N { class Event { } }",
        "User.cs": "namespace N { class User { Form f; } }",
        "Caller.cs": "namespace N { class Caller { void F() => Form.Show(); } }"})
    assert found == {"Form.cs": set(), "Form.Designer.cs": {"Form.cs"}, "Form.Events.cs": {"Form.cs", "Event.cs"},
                     "Event.cs": set(), "User.cs": {"Form.cs", "Form.Designer.cs", "Form.Events.cs"},
                     "Caller.cs": {"Form.Events.cs"}}


def test_global_usings_hold_for_their_project_alone():
    files = {"one/Usings.cs": "global using Shared;", "one/X.cs": "namespace One; class X { Thing t; }",
             "two/Y.cs": "namespace Two; class Y { Thing t; }", "lib/Thing.cs": "namespace Shared; class Thing { }"}
    found = edges(files, paths=["one/one.csproj", "two/two.csproj", "lib/lib.csproj"])
    assert found["one/X.cs"] == {"lib/Thing.cs"}
    assert found["two/Y.cs"] == set()


def test_the_project_at_hand_is_meant_when_two_define_a_name_and_sources_never_see_tests():
    files = {f"{project}/Helper.cs": "namespace N; class Helper { }" for project in ("src/A", "src/B", "tests/C")}
    files |= {"src/B/User.cs": "namespace N; class User { Helper h; Fake f; }",
              "tests/C/Fake.cs": "namespace N; class Fake { User u; }"}
    found = edges(files, paths=["src/A/A.csproj", "src/B/B.csproj", "tests/C/C.csproj"])
    assert found["src/B/User.cs"] == {"src/B/Helper.cs"}
    assert found["tests/C/Fake.cs"] == {"src/B/User.cs"}


def test_extension_methods_are_found_where_their_namespace_is_in_sight():
    files = {"E.cs": "namespace Ext { static class E { public static int Twice<T>(this IList<T> b) => 2;\n"
                     "public static bool StartsWith(this Box b) => true; static int Plain(Box b) => 1;\n"
                     "public static void Add(this Box b) { } } }",
             "Box.cs": "namespace N { class Box { } class Bag { void Add() { } } }",
             "A.cs": "using Ext; namespace N { class A { int F() => b.Twice(); } }",
             "B.cs": "namespace N { class B { int F() => b.Twice(); } }",
             "C.cs": "using Ext; namespace N { class C { int F() => b.Plain(); } }",
             "D.cs": "using Ext; namespace N { class D { void F(Bag b) => b.Add(); } }",
             "F.cs": "using Ext; namespace N { class F { void G(Box b) => b.Add(); } }",
             "G.cs": "using Ext; namespace N { class G { bool H(string s) => s.StartsWith(\"x\"); } }"}
    found = edges(files)
    assert (found["A.cs"], found["B.cs"], found["C.cs"], found["G.cs"]) == ({"E.cs"}, set(), set(), set())
    assert found["D.cs"] == {"Box.cs"}  # a member of that name exists, and Box is not mentioned
    assert found["F.cs"] == {"Box.cs", "E.cs"}


def test_several_namespaces_and_conditions_in_one_file():
    facts = extract("c#", "X.cs", b"""#if NET
namespace A { class One { class In { } } namespace B { struct Two { } } }
#else
namespace C.D { enum Three { X } }
#endif
class Four { }""")
    assert [name for name in facts.defines if name[0] != "#"] == ["A.B.Two", "A.One", "C.D.Three", "Four"]


def test_wrong_syntax_is_counted_and_what_can_be_read_is_used():
    facts = extract("c#", "X.cs", b"using A; namespace N { class X { Other f( } } }")
    assert facts.wrong_bytes > 0
    assert facts.imports == (("A", "*"),)
    for content in (b"", b"\xef\xbb\xbfusing A;", "é \0 日本".encode()):
        assert dependencies({"X.cs": extract("c#", "X.cs", content)}) == {"X.cs": set()}
