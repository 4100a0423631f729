"""Java, Kotlin and Scala: small repositories with the dependencies written down by hand."""

import pytest
from repository_graph import extract_in_any_order

from tritwise.data.imports import dependencies, extract

LANGUAGES = {"java": "java", "kt": "kotlin", "scala": "scala"}


def edges(files: dict[str, str], paths=()) -> dict[str, set[str]]:
    facts = {path: extract_in_any_order(LANGUAGES[path.rpartition(".")[2]], path, text.encode())
             for path, text in files.items()}
    return dependencies(facts, paths=paths)


def test_java_sees_its_package_and_what_it_imports():
    found = edges({
        "src/main/java/a/Base.java": "package a; public abstract class Base { }",
        "src/main/java/a/User.java": """package a;
            import a.b.Named; import a.b.Unused; import java.util.List; import a.many.*; import static a.b.Util.join;
            public class User extends Base {  // Commented
                List<Named> list; One one; String s = "Text"; /* Commented Two */
                /** {@link Documented} */ Object o = join(list); }""",
        "src/main/java/a/Commented.java": "package a; class Commented { }",
        "src/main/java/a/Documented.java": "package a; class Documented { }",
        "src/main/java/a/Text.java": "package a; class Text { }",
        "src/main/java/a/List.java": "package a; class List { }",  # hidden by the import of another List
        "src/main/java/a/b/Named.java": "package a.b; public class Named { }",
        "src/main/java/a/b/Unused.java": "package a.b; public class Unused { }",
        "src/main/java/a/b/Util.java": "package a.b; public class Util { public static Object join(Object o) { } }",
        "src/main/java/a/many/One.java": "package a.many; public class One { }",
        "src/main/java/a/many/Two.java": "package a.many; public class Two { }",
    })
    assert found.pop("src/main/java/a/User.java") == {
        "src/main/java/a/Base.java", "src/main/java/a/b/Named.java", "src/main/java/a/b/Util.java",
        "src/main/java/a/many/One.java"}
    assert not any(found.values())


@pytest.mark.parametrize("body", [
    "class X { Other f; }", "class X extends Other { }", "interface X extends Other { }", "@Other class X { }",
    "class X { Object f = Other.make(); }", "class X { int f = Other.SIZE; }", "class X { Object f = new Other(); }",
    "class X { void f() throws Other { } }", "class X { Runnable r = Other::run; }", "class X<T extends Other> { }",
    "class X { java.util.Map<String, Other[]> f; }", "class X { Object f = (Other) null; }",
    "class X { boolean f(Object o) { return o instanceof Other; } }", "class X { Class<?> c = Other.class; }",
    "class X { a.Other f; }", "class X { Object f = a.Other.make(); }", "record X(Other o) { }",
    "class X { void f() { try { } catch (Other e) { } } }", "class X { Other.Inner f; }",
    "enum X implements Other { A }", "sealed interface X permits Other { }",
    "class X { int f(Object o) { return switch (o) { case Other(int i) -> i; default -> 0; }; } }",
    "class X implements Other { class Other { } }",  # what a class inherits from is named outside of it
])
def test_java_mentions_count_wherever_a_type_can_stand(body):
    assert edges({"a/X.java": f"package a; {body}", "a/Other.java": "package a; class Other { }"})["a/X.java"] == {
        "a/Other.java"}


@pytest.mark.parametrize("body", [
    "class X { class Other { } Other f; }", "class X<Other> { Other f; }", "class X { int f = y.Other; }",
    "class X { b.Other f; }", 'class X { String f = "Other"; }', "class X { int other = Others.OTHER; }",
    "class X { void Other() { Other(); } }",
])
def test_java_names_of_other_things_are_no_mentions(body):
    assert edges({"a/X.java": f"package a; {body}", "a/Other.java": "package a; class Other { }"})["a/X.java"] == set()


def test_java_imports_of_nested_classes_and_of_everything_in_a_class_lead_to_its_file():
    outer = "package a; public class Outer { public static class Inner { } public static final int X = 1; }"
    files = {"a/Outer.java": outer, "b/A.java": "package b; import a.Outer.Inner; class A { Inner i; }",
             "b/B.java": "package b; import static a.Outer.*; class B { int x = X; }",
             "b/C.java": "package b; import a.Outer.*; class C { Inner i; }",
             "b/D.java": "package b; class D { a.Outer.Inner i; }", "b/Inner.java": "package b; class Inner { }"}
    found = edges(files)
    assert found["b/A.java"] == found["b/B.java"] == found["b/D.java"] == {"a/Outer.java"}
    assert "a/Outer.java" in found["b/C.java"]


def test_java_cycles_are_edges_both_ways_and_no_file_depends_on_itself():
    found = edges({"a/A.java": "package a; class A { B b; A next; } class Second { }",
                   "a/B.java": "package a; class B { A a; Second s; }"})
    assert found == {"a/A.java": {"a/B.java"}, "a/B.java": {"a/A.java"}}


def test_tests_see_the_sources_and_the_nearest_of_equal_names_is_meant():
    found = edges({
        "one/src/main/java/a/Thing.java": "package a; class Thing { Helper h; }",
        "one/src/test/java/a/ThingTest.java": "package a; class ThingTest { Thing t; Helper h; }",
        "one/src/test/java/a/Helper.java": "package a; class Helper { }",
        "two/src/main/java/a/Thing.java": "package a; class Thing { }",
    })
    assert found["one/src/test/java/a/ThingTest.java"] == {"one/src/main/java/a/Thing.java",
                                                           "one/src/test/java/a/Helper.java"}
    assert found["one/src/main/java/a/Thing.java"] == set()  # no source depends on a test


def test_the_three_languages_see_each_other():
    found = edges({
        "src/main/java/p/J.java": "package p; class J { K k; S s; Object o = TopKt.top(); }",
        "src/main/kotlin/p/K.kt": "package p\nclass K(val j: J, val s: S)\n",
        "src/main/kotlin/p/top.kt": "package p\nfun top() = 1\n",
        "src/main/scala/p/S.scala": "package p\nclass S { def j: J = new J; def k: K = null }\n",
    })
    assert found["src/main/java/p/J.java"] == {"src/main/kotlin/p/K.kt", "src/main/kotlin/p/top.kt",
                                               "src/main/scala/p/S.scala"}
    assert found["src/main/kotlin/p/K.kt"] == {"src/main/java/p/J.java", "src/main/scala/p/S.scala"}
    assert found["src/main/scala/p/S.scala"] == {"src/main/java/p/J.java", "src/main/kotlin/p/K.kt"}


def test_kotlin_sees_its_package_and_what_it_imports():
    found = edges({
        "a/User.kt": """package a
import b.Named
import b.Renamed as Other
import b.called
import c.*
import b.plus
// import b.Commented
/** [Documented] */
class User : Base() {
    val named: Named = make("$inner ${Interpolated.x}")
    fun f(made: Starred) = Other(called(1) { it.extended() }) + 1
    companion object { const val Documented = 1 }
}
""",
        "a/Base.kt": "package a\nopen class Base\n",
        "a/Documented.kt": "package a\nclass Documented\n",
        "a/Interpolated.kt": "package a\nobject Interpolated { val x = 1 }\n",
        "a/functions.kt": "package a\nfun make(s: String): Nothing = TODO()\n",
        "a/extensions.kt": "package a\nfun Any.extended() = 1\n",
        "a/made.kt": "package a\nval made = 1\n",  # hidden by the parameter
        "b/Named.kt": "package b\nclass Named\n",
        "b/Renamed.kt": "package b\nclass Renamed(x: Int)\n",
        "b/Commented.kt": "package b\nclass Commented\n",
        "b/called.kt": "package b\nfun called(x: Int, f: (Int) -> Int) = 1\n",
        "b/operators.kt": "package b\noperator fun Renamed.plus(x: Int) = this\n",
        "c/Starred.kt": "package c\nclass Starred\n",
        "c/Unseen.kt": "package c\nclass Unseen\n",
    })
    assert found["a/User.kt"] == {"a/Base.kt", "a/Interpolated.kt", "a/functions.kt", "a/extensions.kt", "b/Named.kt",
                                  "b/Renamed.kt", "b/called.kt", "b/operators.kt", "c/Starred.kt"}


def test_kotlin_members_are_not_taken_for_extensions_of_types_that_are_not_mentioned():
    files = {"a/extensions.kt": "package a\nfun File.open() = 1\nfun File.only() = 1\n",
             "a/Box.kt": "package a\nclass Box { fun open() = 1 }\n",
             "a/A.kt": "package a\nfun a(box: Box) = box.open()\n",
             "a/B.kt": "package a\nimport java.io.File\nfun b(file: File) = file.open()\n",
             "a/C.kt": "package a\nfun c(x: Box) = x.y.only()\n"}
    found = edges(files)
    assert found["a/A.kt"] == {"a/Box.kt"}
    assert found["a/B.kt"] == {"a/extensions.kt"}
    assert found["a/C.kt"] == {"a/Box.kt", "a/extensions.kt"}


def test_kotlin_takes_the_nearest_of_what_is_expected_and_what_is_there():
    found = edges({
        "core/commonMain/kotlin/a/Clock.kt": "package a\nexpect class Clock\n",
        "core/jvmMain/kotlin/a/Clock.kt": "package a\nactual class Clock\n",
        "core/commonMain/kotlin/a/User.kt": "package a\nclass User(val clock: Clock)\n",
        "core/jvmMain/kotlin/a/JvmUser.kt": "package a\nclass JvmUser(val clock: Clock)\n",
    })
    assert found["core/commonMain/kotlin/a/User.kt"] == {"core/commonMain/kotlin/a/Clock.kt"}
    assert found["core/jvmMain/kotlin/a/JvmUser.kt"] == {"core/jvmMain/kotlin/a/Clock.kt"}


def test_scala_sees_packages_package_objects_and_imports_wherever_they_stand():
    found = edges({
        "User.scala": """package a
package b
import c.{Named, Renamed => Other, Hidden => _}
import d._
import sub.Below  // begins at a package around this one
// import c.Commented
class User extends Base with Mixed {
  import e.Local
  val x: Other = Factory(1)
  def f(n: Named) = n match { case Pattern(y) => helper(y); case _: Local => new Below }
  val text = "Quoted"
}
""",
        "Base.scala": "package a.b\nclass Base\n",
        "Mixed.scala": "package a\ntrait Mixed\n",
        "Factory.scala": "package a.b\nobject Factory { def apply(i: Int): Any = i }\n",
        "Pattern.scala": "package d\ncase class Pattern(i: Int)\n",
        "package.scala": "package a\npackage object b { def helper(i: Int) = i; type Quoted = Int }\n",
        "Named.scala": "package c\nclass Named; class Hidden\n",
        "Renamed.scala": "package c\nclass Renamed\n",
        "Commented.scala": "package c\nclass Commented\n",
        "Local.scala": "package e\nclass Local\n",
        "Below.scala": "package a.sub\nclass Below\n",
    })
    assert found["User.scala"] == {
        "Base.scala", "Mixed.scala", "Factory.scala", "Pattern.scala", "package.scala", "Named.scala", "Renamed.scala",
        "Local.scala", "Below.scala"}


def test_scala_3_top_level_names_and_a_joined_package_clause_that_hides_its_parents():
    found = edges({
        "A.scala": "package a.b\nimport given_.{given, *}\ndef use = top(1)\nval x: Outer = null\n",
        "top.scala": "package a.b\ndef top(i: Int) = i\nextension (s: String) def twice = s + s\n",
        "Outer.scala": "package a\nclass Outer\n",  # `package a.b` does not open `a`
        "enum.scala": "package a.b\nenum Color { case Red }\n",
        "B.scala": "package a.b\nval c = Color.Red\n",
    })
    assert found["A.scala"] == {"top.scala"}
    assert found["B.scala"] == {"enum.scala"}


@pytest.mark.parametrize(("language", "path", "text"), [
    ("java", "a/X.java", "package a; import b.; class X { Other f( } }"),
    ("kotlin", "a/X.kt", "package a\nimport b.\nclass X { val f: Other = ( }\nfun ("),
    ("scala", "a/X.scala", "package a\nimport b.{\nclass X { val f: Other = ( }\n"),
])
def test_wrong_syntax_is_counted_and_what_can_be_read_is_used(language, path, text):
    facts = extract(language, path, text.encode())
    assert facts.wrong_bytes > 0
    assert facts.package == "a"
    assert "" not in (*facts.defines, *facts.uses)


@pytest.mark.parametrize("path", ["X.java", "X.kt", "X.scala"])
def test_an_empty_file_and_one_of_other_bytes_have_no_facts_of_use(path):
    for content in (b"", b"\xef\xbb\xbf", "é 日本 \0".encode()):
        facts = extract(LANGUAGES[path.rpartition(".")[2]], path, content)
        assert dependencies({path: facts}) == {path: set()}


@pytest.mark.parametrize(("body", "expected"), [
    ("class X { Object o = Maker.make(1); }", {"Maker", "Made"}),
    ("class X { Object o = Maker.make(); }", {"Maker"}),  # there is none without an argument
    ("class X { void f(Maker m) { m.field.toString(); } }", {"Maker", "Kept"}),
    ("class X extends Maker { void f() { inherited(null, null); } }", {"Maker", "Parent", "Bound"}),
    ("class X extends Maker { void f() { inherited(null, null); } void inherited(int a, int b) { } }", {"Maker"}),
    ("class X { void f(Maker m) { m.filter(1); } }", {"Maker"}),  # more likely a stream's
    ("class X { Object o = Maker.filter(1); }", {"Maker", "Made"}),
    ("class X { java.util.function.Function<?, ?> f = Maker::make; }", {"Maker", "Made"}),
])
def test_java_uses_the_types_in_the_signatures_of_what_it_calls(body, expected):
    files = {
        "Maker": """class Maker extends Parent<Bound> { Kept field; static Made make(int i) { return null; }
                    static Made filter(int i) { return null; } java.util.List<Unseen> unseen() { return null; } }""",
        "Parent": "class Parent<T extends Bound> { <S> T inherited(int a, S b) { return null; } }",
        **{name: f"class {name} {{ }}" for name in ("Made", "Kept", "Bound", "Unseen")}, "X": body}
    found = edges({f"a/{name}.java": f"package a; {text}" for name, text in files.items()})["a/X.java"]
    assert {path[2:-5] for path in found} - {"Parent"} == expected - {"Parent"}


@pytest.mark.parametrize(("body", "expected"), [
    ("class X { Object o = new Made(1, null); }", {"Made", "First"}),  # the constructor of two parameters
    ("class X { Object o = new Made(null); }", {"Made", "Second"}),
    ("class X extends Made { X() { super(null); } }", {"Made", "Second"}),
    ("class X { Object o = new Made.Inside<String>(null, null); }", {"Made", "Third"}),
    ("class X { Object o = new Made(\"text\"); }", {"Made"}),  # a text is no Second
    ("class X { void f(Made m) { m.say(\"text\"); } }", {"Made"}),
    ("class X { void f(Made m) { m.say(m.toString()); } }", {"Made", "Second"}),
    ("class X { void f(Made m) { m.give(\"text\"); } }", {"Made", "First"}),  # what the other gives is not meant
    ("class X { void f(Made m) { m.many(m); } }", {"Made"}),  # at least two are needed
    ("class X { void f(Made m) { m.many(m, m, m, m); } }", {"Made", "Third"}),
    ("class X { Object o = new Pair(null, null); }", {"Pair", "First", "Second"}),
])
def test_java_uses_the_types_in_the_signatures_of_constructors_and_of_no_overload_that_cannot_be_meant(body, expected):
    files = {
        "Made": """class Made { Made() { } Made(String s) { } Made(int i, First f) { } Made(Second s) { }
                   void say(String s) { } void say(Second s) { }
                   First give(String s) { return null; } Third give(Second s) { return null; }
                   void many(Made a, Made b, Third... others) { }
                   static class Inside<T> { Inside(T t, Third other) { } } }""",
        "Pair": "record Pair(First first, Second second) { }",
        **{name: f"class {name} {{ }}" for name in ("First", "Second", "Third")}, "X": body}
    found = edges({f"a/{name}.java": f"package a; {text}" for name, text in files.items()})["a/X.java"]
    assert {path[2:-5] for path in found} == expected


BOUNDED = b"""package a; class C<T extends Outer> { T outer() { return null; }
                       <T extends Inner> T inner() { return null; } static class D<S extends Outer> { }
                       S none() { return null; } }"""


def test_a_type_parameter_of_java_means_its_bound_only_where_it_is_declared():
    assert {"#outer/0 Outer", "#inner/0 Inner", "#none/0 S"} <= set(extract("java", "a/C.java", BOUNDED).defines)


def test_facts_of_java_do_not_depend_on_the_order_in_which_a_query_gives_its_nodes():
    assert extract_in_any_order("java", "a/C.java", BOUNDED) == extract("java", "a/C.java", BOUNDED)


@pytest.mark.parametrize("text", ["class X { int i = f(", "class X { Object o = new C(",
                                  "class X extends C { X() { super("])
def test_a_java_file_that_ends_behind_an_open_parenthesis_has_facts(text):
    assert extract("java", "a/X.java", text.encode()).wrong_bytes >= 0


@pytest.mark.parametrize(("language", "text"), [
    ("java", "package a; class A { } package b; package c; class B { }"),
    ("kotlin", "package a\nclass A\npackage b\nclass B\npackage c\n"),
    ("scala", "package a { class A }\npackage b { class B }\npackage c { class C }\n")])
def test_a_damaged_file_with_several_packages_has_the_same_facts_each_time(language, text):
    suffix = {ending: name for name, ending in LANGUAGES.items()}[language]
    assert extract_in_any_order(language, f"a/A.{suffix}", text.encode()).package in ("a", "b", "c", "")
