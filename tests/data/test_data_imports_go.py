"""Go: which files of an imported package are meant, by the names that are used."""

from repository_graph import facts_of, graph

MODULE = {
    "go.mod": "// c\nmodule example.com/me // here\n\ngo 1.22\n\nrequire github.com/x/y v1.0.0\n\n"
    "replace (\n\texample.com/other => ./other\n\tgithub.com/x/y => github.com/z/y v1.2.3\n)\n",
    "a/one.go": "package a\n\nfunc One() int { return helper() }\n\ntype T struct{ Wide int }\n\n"
    "func (t *T) Grow() {}\n",
    "a/two.go": "package a\n\nconst (\n\tTwo = iota\n\tThree\n)\n\nvar (\n\tv, w = 1, 2\n)\n\n"
    "func helper() int { return v }\n",
    "a/doc.go": "// Package a.\npackage a\n",
    "other/other.go": "package strange\n\nfunc F() {}\n",
}


def test_only_files_that_define_a_used_name_are_dependencies():
    files = MODULE | {
        "main.go": 'package main\n\nimport (\n\t"fmt"\n\n\t"example.com/me/a"\n)\n\n'
        "func main() { fmt.Println(a.Two) }\n",
        "cmd/x/main.go": 'package main\n\nimport b "example.com/me/a"\n\nvar t b.T\n\nfunc main() { _ = b.Three }\n',
        "dot.go": 'package main\n\nimport . "example.com/me/a"\n\nfunc f() { One() }\n',
        "blank.go": 'package main\n\nimport _ "example.com/me/a"\n',
    }
    assert graph(files) == {
        "a/one.go": ["a/two.go"],
        "main.go": ["a/two.go"],
        "dot.go": ["a/one.go"],
        "cmd/x/main.go": ["a/one.go", "a/two.go"],
    }


def test_a_replaced_module_is_found_and_its_package_may_have_another_name_than_its_folder():
    files = MODULE | {"m.go": 'package main\n\nimport "example.com/other"\n\nfunc main() { strange.F() }\n'}
    assert graph(files)["m.go"] == ["other/other.go"]


def test_a_nested_module_has_its_own_prefix_and_vendored_packages_are_found():
    files = {
        "go.mod": "module example.com/me\n",
        "sub/go.mod": "module example.com/me/v2/sub\n",
        "go.work": "use ./sub\n",
        "sub/p/p.go": "package p\n\nfunc P() {}\n",
        "vendor/github.com/v/w/w.go": "package w\n\nfunc W() {}\n",
        "a.go": 'package me\n\nimport (\n\t"example.com/me/v2/sub/p"\n\t"github.com/v/w"\n)\n\n'
        "func f() { p.P(); w.W() }\n",
    }
    assert graph(files) == {"a.go": ["sub/p/p.go", "vendor/github.com/v/w/w.go"]}


def test_without_go_mod_the_repository_s_name_in_the_import_path_says_where_its_root_is():
    files = {
        "a/a.go": "package a\n\nfunc A() {}\n",
        "root.go": "package root\n\nfunc R() {}\n",
        "b/b.go": 'package b\n\nimport (\n\t"github.com/me/root"\n\t"github.com/me/root/a"\n)\n\n'
        "func f() { a.A(); root.R() }\n",
    }
    assert graph(files, repository="root") == {"b/b.go": ["a/a.go", "root.go"]}


def test_names_in_comments_strings_and_scopes_of_their_own_are_no_uses():
    files = {
        "x.go": "package p\n\nfunc name() {}\n\nfunc other() {}\n\ntype Kind int\n\nfunc third() {}\n",
        "y.go": "package p\n\n// name()\n/* name() */\nvar s = \"name\" + `other()` + string('n')\n\n"
        "func f(name int, other ...string) (third error) {\n\tKind := name\n\treturn third\n}\n\n"
        "type S struct{ name int }\n\nvar q = S{name: 1}\n\nfunc (s S) other() int { return s.name }\n\n"
        "func g() {\n\tfor name, other := range m {\n\t\t_ = name\n\t}\n\tvar third int\n\t_ = third\n}\n",
        "z.go": "package p\n\nvar z = []Kind{}\n",
    }
    assert graph(files) == {"z.go": ["x.go"]}


def test_tests_see_their_package_but_are_not_seen_by_it():
    files = {
        "a.go": "package a\n\nfunc A() { helper() }\n",
        "a_test.go": "package a\n\nfunc helper() { A() }\n",
        "x_test.go": 'package a_test\n\nimport "example.com/a"\n\nfunc f() { a.A(); g(); a.Exported() }\n',
        "y_test.go": "package a_test\n\nfunc g() {}\n",
        "go.mod": "module example.com/a\n",
        "main_tool.go": "package main\n\nfunc g() {}\n",
    }
    assert graph(files) == {"a_test.go": ["a.go"], "x_test.go": ["a.go", "y_test.go"]}


def test_all_files_that_define_a_name_for_some_system_are_dependencies():
    files = {
        "f_linux.go": "package p\n\nfunc f() {}\n",
        "f_windows.go": "//go:build windows\n\npackage p\n\nfunc f() {}\n",
        "g.go": "package p\n\nfunc g() { f() }\n",
    }
    assert graph(files) == {"g.go": ["f_linux.go", "f_windows.go"]}


def test_methods_and_fields_lead_to_the_files_of_types_that_a_file_can_have_values_of():
    files = {
        "go.mod": "module m\n",
        "p/make.go": "package p\n\nfunc Make() (*Deep, error) { return nil, nil }\n\nvar V = NewOther(1)\n\n"
        "func NewOther(int) Other { return 0 }\n",
        "p/deep.go": "package p\n\ntype Deep struct {\n\tEmbedded\n\tOther Other\n}\n",
        "p/embedded.go": "package p\n\ntype Embedded struct{ Inner map[string][]*Leaf }\n",
        "p/leaf.go": "package p\n\ntype Leaf interface{ Fall() }\n",
        "p/other.go": "package p\n\ntype Other int\n",
        "p/methods.go": "package p\n\nfunc (o Other) Do() {}\n\nfunc (o Other) Close() {}\n\nfunc (d *Deep) Dig() {}\n",
        "p/unrelated.go": "package p\n\ntype Far int\n\nfunc (f Far) Fall() {}\n\nfunc (f Far) Do() {}\n",
        "a.go": 'package main\n\nimport "m/p"\n\nfunc f() { d, _ := p.Make(); d.Inner[""][0].Fall() }\n',
        "b.go": 'package main\n\nimport "m/p"\n\nvar do = p.V.Do\n',
        "c.go": 'package main\n\nimport "m/p"\n\nfunc g(x p.Deep) { x.Other.Do() }\n',
        "d.go": 'package main\n\nimport "m/p"\n\nfunc h(x p.Embedded) { x.Do(); os.Stdout.Close() }\n',
    }
    found = graph(files)
    assert found["a.go"] == ["p/embedded.go", "p/leaf.go", "p/make.go"]
    assert found["b.go"] == ["p/make.go", "p/methods.go"]
    assert found["c.go"] == ["p/deep.go", "p/methods.go"]
    assert found["d.go"] == ["p/embedded.go"]


def test_of_types_with_a_method_of_one_name_the_nearest_is_meant():
    files = {
        "near.go": "package p\n\ntype Near int\n\nfunc (Near) Run() Far { return 0 }\n",
        "far.go": "package p\n\ntype Far int\n\nfunc (Far) Run() {}\n",
        "use.go": "package p\n\nfunc use(n Near) { n.Run() }\n",
    }
    assert graph(files)["use.go"] == ["near.go"]


def test_files_with_wrong_syntax_still_tell_what_they_use():
    files = {"a.go": "package p\n\nfunc A() {}\n", "b.go": "package p\n\nfunc b() { A(); if { }\n"}
    assert graph(files) == {"b.go": ["a.go"]}
    assert facts_of(files)["b.go"].wrong_bytes > 0
