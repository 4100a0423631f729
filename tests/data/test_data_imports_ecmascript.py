"""JavaScript and TypeScript: which file a name in an import means, by the rules of Node, TypeScript and workspaces."""

import json

import pytest
from repository_graph import facts_of, graph

from tritwise.data.imports import extract, extract_manifest


def names(path: str, text: str) -> list[tuple[str, ...]]:
    return list(extract("typescript" if path.endswith(("ts", "tsx")) else "javascript", path, text.encode()).imports)


def test_every_form_of_import_is_found_and_nothing_in_comments_or_strings():
    text = """\
import a, { b } from "./1.js"; import type { T } from './2';
import "./3"; export * from './4'; export { x as y } from "./5";
const c = require("./6"), d = require(`./7`);
async function f() { await import("./8"); }
import e = require("./9");
type Z = import("./10").Foo;
/// <reference path="11.d.ts" />
// import "./no1"; require("./no2")
/* export * from "./no3" */
const s = "import './no4'", t = `require('./no5')`;
require(s); import(`./${s}`); other.require("./no6"); notrequire("./no7"); require();
"""
    found = names("a.ts", text)
    assert sorted(name for _, name in found) == sorted(["./1.js", *(f"./{i}" for i in range(2, 11)), "./11.d.ts"])
    assert {name for kind, name in found if kind == "require"} == {"./6", "./7", "./9"}


def test_jsx_and_tsx_are_parsed_as_such():
    text = 'import { A } from "./a";\nexport const B = () => <A.C d={1}>x</A.C>;\n'
    for path, language in (("b.jsx", "javascript"), ("b.js", "javascript"), ("b.tsx", "typescript")):
        facts = extract(language, path, text.encode())
        assert (facts.language, facts.imports, facts.wrong_bytes) == (language, (("import", "./a"),), 0)


def test_relative_names_find_extensions_index_files_and_what_typescript_writes_as_js():
    files = {
        "src/a.ts": "import './b.js'; import './c'; import './d'; import '.'; import '..'; import './e/';"
                    "import './f.mjs'; import './g.json'; import './h.js'; import './k';",
        "src/b.ts": "", "src/c.tsx": "", "src/d/index.ts": "", "src/index.ts": "", "index.js": "", "src/e/index.js": "",
        "src/e.ts": "", "src/f.mts": "", "src/g.json": "{}", "src/h.js": "", "src/h.ts": "", "src/k.d.ts": "",
    }
    assert graph(files) == {"src/a.ts": ["index.js", "src/b.ts", "src/c.tsx", "src/d/index.ts", "src/e/index.js",
                                         "src/f.mts", "src/h.ts", "src/index.ts", "src/k.d.ts"]}


def test_javascript_prefers_javascript_and_an_implementation_is_preferred_to_its_declaration():
    files = {"a.js": "require('./b'); require('./c.js')", "b.js": "", "b.ts": "", "b.d.ts": "", "c.ts": "", "c.js": "",
             "d.ts": "import './b'; import './e'", "e.js": "", "e.d.ts": ""}
    assert graph(files) == {"a.js": ["b.js", "c.js"], "d.ts": ["b.ts", "e.js"]}


def test_a_folder_is_the_file_that_its_package_json_names():
    files = {"a.js": "require('./lib'); require('./other')", "lib/package.json": '{"main": "./main"}',
             "lib/main.js": "", "lib/index.js": "", "other/package.json": '{"main": "."}', "other/index.js": ""}
    assert graph(files) == {"a.js": ["lib/main.js", "other/index.js"]}


def test_aliases_count_only_where_a_tsconfig_configures_them():
    files = {
        "app/src/a.ts": "import '@/b'; import '~x/c'; import 'exact'; import 'd/e';",
        "app/src/b.ts": "", "app/deep/c.ts": "", "app/src/f.ts": "", "app/src/d/e.ts": "",
        "app/tsconfig.json": '{"extends": "../tsconfig.base.json", /* c */ "compilerOptions": {"baseUrl": "src",\n'
                             '"paths": {"@/*": ["./*"], "~x/*": ["nowhere/*", "../deep/*"], "exact": ["f.ts"],}, },}',
        "tsconfig.base.json": '{"compilerOptions": {"paths": {"base/*": ["app/src/*"]}}}',
        "site/src/a.ts": "import '@/b'; import 'exact'", "site/src/b.ts": "",
        "site2/a.ts": "import 'base/b'", "site2/tsconfig.json": '{"extends": ["../tsconfig.base"]}',
    }
    assert graph(files) == {"app/src/a.ts": ["app/deep/c.ts", "app/src/b.ts", "app/src/d/e.ts", "app/src/f.ts"],
                            "site2/a.ts": ["app/src/b.ts"]}


def test_a_longer_pattern_wins_and_an_extended_file_may_extend_itself():
    files = {"a.ts": "import 'x/y/z'", "1/y/z.ts": "", "2/z.ts": "", "jsconfig.json": '{"extends": "./jsconfig.json",'
             '"compilerOptions": {"paths": {"x/*": ["1/*"], "x/y/*": ["2/*"]}}}'}
    assert graph(files) == {"a.ts": ["2/z.ts"]}


WORKSPACE = {
    "package.json": '{"name": "root", "workspaces": ["packages/*", "!packages/out"]}',
    "packages/core/package.json": json.dumps({"name": "@my/core", "exports": {
        ".": {"types": "./dist/index.d.ts", "import": "./dist/index.mjs"}, "./sub/*": "./src/sub/*.ts",
        "./sub/private/*": None, "./package.json": "./package.json"}, "imports": {"#inner": "./src/inner.ts"}}),
    "packages/core/src/index.ts": "import '#inner'; import './sub/a'; import '@my/core/sub/a'",
    "packages/core/src/inner.ts": "", "packages/core/src/sub/a.ts": "",
    "packages/old/package.json": '{"name": "old", "main": "lib/old.js"}', "packages/old/src/old.js": "",
    "packages/old/extra.js": "", "packages/out/package.json": '{"name": "out"}', "packages/out/index.js": "",
    "fixtures/x/package.json": '{"name": "fixture"}', "fixtures/x/index.js": "",
    "packages/app/package.json": '{"name": "app"}',
    "packages/app/main.ts": "import '@my/core'; import '@my/core/sub/a'; import 'old'; import 'old/extra';"
                            "import 'out'; import 'fixture'; import 'react'; import 'fs'; import '@my/core/sub/none'",
}


@pytest.mark.parametrize("listed", ["package.json", "pnpm-workspace.yaml", "lerna.json"])
def test_packages_of_a_workspace_are_found_by_name_through_exports_and_built_paths(listed):
    files = dict(WORKSPACE)
    if listed != "package.json":
        files["package.json"] = '{"name": "root"}'
    if listed == "lerna.json":
        files[listed] = '{"packages": ["packages/*", "!packages/out"]}'
    elif listed != "package.json":
        files[listed] = "packages:\n  # ours\n  - 'packages/*'\n  - \"!packages/out\"\nother:\n  - fixtures/*\n"
    assert graph(files) == {
        "packages/app/main.ts": ["packages/core/src/index.ts", "packages/core/src/sub/a.ts", "packages/old/extra.js",
                                 "packages/old/src/old.js"],
        "packages/core/src/index.ts": ["packages/core/src/inner.ts", "packages/core/src/sub/a.ts"],
    }


def test_a_package_with_exports_finds_itself_by_its_name_and_what_lies_in_node_modules():
    files = {"package.json": '{"name": "me", "exports": "./lib/me.js"}', "lib/me.js": "", "test/t.js": "require('me')",
             "old/package.json": '{"name": "old", "main": "me.js"}', "old/me.js": "", "old/t.js": "require('old')",
             "inner/package.json": '{"type": "module"}', "inner/t.js": "import 'me'",
             "test/u.js": "require('dep'); require('@s/dep/x')", "node_modules/dep/index.js": "",
             "node_modules/@s/dep/x.js": ""}
    assert graph(files) == {"test/t.js": ["lib/me.js"],
                            "test/u.js": ["node_modules/@s/dep/x.js", "node_modules/dep/index.js"]}


def test_type_only_imports_re_exports_and_cycles_are_edges():
    files = {"a.ts": "import type { B } from './b'", "b.ts": "export * from './a'; export { c } from './c'", "c.ts": ""}
    assert graph(files) == {"a.ts": ["b.ts"], "b.ts": ["a.ts", "c.ts"]}


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "[" * 100_000,
                                  '{"exports": [[[{}]]], "name": 3, "workspaces": {"packages": 1}}',
                                  '{"compilerOptions": {"paths": {"a": 1, "b": [1]}, "baseUrl": []}}'])
def test_a_manifest_of_any_shape_is_taken(text):
    for name in ("package.json", "tsconfig.json", "lerna.json", "pnpm-workspace.yaml"):
        assert extract_manifest(name, text.encode()).imports == ()


def test_names_that_leave_the_repository_lead_nowhere():
    files = {"a.ts": "import '../a'; import '/a'; import ''; import '../../x/a'; import './'; import '#x'",
             "tsconfig.json": '{"compilerOptions": {"paths": {"x": ["../../a"]}}}'}
    assert graph(files) == {}
    assert set(facts_of(files)) == set(files)
