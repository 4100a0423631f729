"""Rust: module trees, paths through re-exports, and crates of a workspace."""

import pytest
from repository_graph import facts_of, graph

from tritwise.data.imports import extract, extract_manifest


def test_modules_are_files_beside_below_and_where_an_attribute_says():
    files = {
        "src/lib.rs": 'mod a;\npub mod b;\n#[path = "odd/place.rs"]\nmod c;\n'
        'mod inner { mod d; #[path = "e.rs"] mod e; }\n'
        "#[cfg(test)]\nmod tests;\nmod r#type;\nmod missing;\n",
        "src/a.rs": "mod deep;\n",
        "src/a/deep.rs": "",
        "src/b/mod.rs": "mod deep;\n",
        "src/b/deep.rs": "",
        "src/odd/place.rs": "mod next;\n",
        "src/odd/next.rs": "",
        "src/inner/d.rs": "",
        "src/inner/e.rs": "",
        "src/tests.rs": "",
        "src/type.rs": "",
        "src/alone.rs": "",
    }
    assert graph(files) == {
        "src/lib.rs": [
            "src/a.rs",
            "src/b/mod.rs",
            "src/inner/d.rs",
            "src/inner/e.rs",
            "src/odd/place.rs",
            "src/tests.rs",
            "src/type.rs",
        ],
        "src/a.rs": ["src/a/deep.rs"],
        "src/b/mod.rs": ["src/b/deep.rs"],
        "src/odd/place.rs": ["src/odd/next.rs"],
    }


def test_nothing_in_comments_strings_and_lifetimes_is_a_module():
    facts = extract(
        "rust",
        "a.rs",
        b"""
// mod a;
/* mod b; */
const S: &str = "mod c;"; const R: &str = r#"mod d; " use crate::x; "#; const B: &[u8] = b"mod e;";
fn f<'mod_>(c: char) -> bool { c == '"' || c == '\\'' || c == '{' }
mod real;
""",
    )
    assert facts.imports == (("mod", "", "real", ""),)
    assert facts.defines == ("B", "R", "S", "f")


def test_macros_that_wrap_items_do_not_hide_them():
    files = {
        "lib.rs": "cfg_rt! {\n    mod a;\n    pub use a::A;\n}\n"
        "cfg_if::cfg_if! {\n    if #[cfg(unix)] {\n        mod b;\n    } else {\n        mod c;\n    }\n}\n"
        "mod d;\n",
        "a.rs": "pub struct A;\n",
        "b.rs": "",
        "c.rs": "",
        "d.rs": "use crate::A;\n",
    }
    assert graph(files) == {"lib.rs": ["a.rs", "b.rs", "c.rs", "d.rs"], "d.rs": ["a.rs"]}


def test_modules_that_a_macro_declares_belong_to_the_file_that_uses_it():
    files = {
        "src/lib.rs": "#[macro_use]\nmod root;\nall_modules!();\n",
        "src/root.rs": "macro_rules! all_modules {\n    () => {\n"
        "        macro_rules! inner { ($e:expr) => { $e }; }\n        pub mod a;\n"
        "        mod b { fn f() {} }\n    };\n}\nmod own;\n",
        "src/root/own.rs": "",
        "src/a.rs": "mod deep;\n",
        "src/a/deep.rs": "",
    }
    assert graph(files) == {
        "src/lib.rs": ["src/a.rs", "src/root.rs"],
        "src/root.rs": ["src/root/own.rs"],
        "src/a.rs": ["src/a/deep.rs"],
    }


def test_use_trees_lead_to_the_files_that_define_the_names_also_through_re_exports():
    files = {
        "src/lib.rs": "mod a; mod b; mod c; mod d; mod e;\n"
        "pub use self::a::{inner::Deep, Name as Other};\npub use b::*;\n",
        "src/a.rs": "pub mod inner;\npub struct Name;\n",
        "src/a/inner.rs": "pub struct Deep;\n",
        "src/b.rs": "pub fn from_glob() {}\npub use crate::c::Chained;\n",
        "src/c.rs": "pub enum Chained { V }\n",
        "src/d.rs": "use crate::{Deep, Other};\nuse super::from_glob as g;\n",
        "src/e.rs": "use crate::b::Chained::{self, V};\nuse std::fmt;\nuse serde::Serialize;\n",
    }
    found = graph(files)
    assert found["src/d.rs"] == ["src/a.rs", "src/a/inner.rs", "src/b.rs"]
    assert found["src/e.rs"] == ["src/c.rs"]
    assert found["src/b.rs"] == ["src/c.rs"]


def test_paths_in_expressions_types_and_macros_count():
    files = {
        "main.rs": 'mod a; mod b; mod c; mod d;\nfn main() { a::run(); println!("{}", crate::b::N); }\n'
        "fn f(x: &crate::c::T) -> Vec<d::U> { Vec::new() }\n",
        "a.rs": "pub fn run() { super::b::g::<u8>() }\n",
        "b.rs": "pub const N: u8 = 1; pub fn g<T>() {}\n",
        "c.rs": "pub struct T;\nmod inner { fn f() { super::super::d::h() } }\n",
        "d.rs": "pub struct U; pub fn h() {}\n",
    }
    found = graph(files)
    assert (found["a.rs"], found["c.rs"]) == (["b.rs"], ["d.rs"])
    assert found["main.rs"] == ["a.rs", "b.rs", "c.rs", "d.rs"]


def test_re_exports_in_a_circle_end():
    files = {
        "lib.rs": "mod a; mod b;\n",
        "a.rs": "pub use crate::b::*;\npub use crate::b::X;\n",
        "b.rs": "pub use crate::a::*;\npub use crate::a::X;\nuse crate::a::Nowhere::Z;\n",
    }
    assert graph(files) == {"lib.rs": ["a.rs", "b.rs"], "a.rs": ["b.rs"], "b.rs": ["a.rs"]}


def test_crates_of_a_workspace_find_each_other_by_their_names_in_cargo_toml():
    files = {
        "Cargo.toml": '[workspace]\nmembers = ["crates/*"]\n',
        "crates/one/Cargo.toml": '[package]\nname = "the-one"\n[lib]\npath = "one.rs"\n',
        "crates/one/one.rs": "pub mod m;\n",
        "crates/one/m.rs": "pub struct M;\n",
        "crates/two/Cargo.toml": '[package]\nname = "two"\n'
        '[dependencies]\nuno = { package = "the-one", path = "../one" }\n'
        '[[bin]]\nname = "x"\npath = "tool/x.rs"\n',
        "crates/two/src/lib.rs": "use the_one::m::M;\n",
        "crates/two/src/main.rs": "use two::nothing;\nuse uno::m;\n",
        "crates/two/tests/t.rs": "mod common;\nuse ::the_one::m::M as N;\n",
        "crates/two/tests/common/mod.rs": "",
        "crates/two/tool/x.rs": "extern crate the_one as o;\nuse o::m::M;\n",
    }
    assert graph(files) == {
        "crates/one/one.rs": ["crates/one/m.rs"],
        "crates/two/src/lib.rs": ["crates/one/m.rs"],
        "crates/two/src/main.rs": ["crates/one/m.rs", "crates/two/src/lib.rs"],
        "crates/two/tests/t.rs": ["crates/one/m.rs", "crates/two/tests/common/mod.rs"],
        "crates/two/tool/x.rs": ["crates/one/m.rs", "crates/one/one.rs"],
    }


def test_macros_lead_to_the_file_that_defines_them():
    files = {
        "lib.rs": "#[macro_use]\nmod macros;\nmod a;\nmod b;\n",
        "macros.rs": "macro_rules! local { () => {} }\n#[macro_export]\nmacro_rules! exported { () => {} }\n",
        "a.rs": "fn f() { local!(); vec![1]; }\n",
        "b.rs": "fn f() { crate::exported!(); }\n",
    }
    found = graph(files)
    assert (found["a.rs"], found["b.rs"]) == (["macros.rs"], ["macros.rs"])


def test_included_files_are_dependencies():
    files = {"src/a.rs": 'include!("gen/b.rs");\n#![doc = include_str!("../c.rs")]\n', "src/gen/b.rs": "", "c.rs": ""}
    assert graph(files) == {"src/a.rs": ["c.rs", "src/gen/b.rs"]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[package",
        "package = 1\n",
        "[package]\nname = 3\n",
        "bin = 4\n[lib]\npath = []\n",
        '[[bin]]\n[target."x"]\ndependencies = 1\n',
    ],
)
def test_a_manifest_of_any_shape_is_taken(text):
    assert extract_manifest("Cargo.toml", text.encode()).imports == ()
    assert graph({"Cargo.toml": text, "src/lib.rs": "mod a;", "src/a.rs": ""}) == {"src/lib.rs": ["src/a.rs"]}


def test_a_file_that_declares_itself_and_unclosed_braces_are_taken():
    files = {
        "lib.rs": '#[path = "lib.rs"] mod a; mod b; } } fn f() {{{',
        "b.rs": "use super::super::super::X; use crate::a::b;",
    }
    assert graph(files) == {"lib.rs": ["b.rs"]}
    assert facts_of(files)["lib.rs"].wrong_bytes > 0
