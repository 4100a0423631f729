"""PHP: full names of classes and functions, autoload rules, and required files."""

import pytest
from repository_graph import facts_of, graph

from tritwise.data.imports import extract, extract_manifest


def test_every_place_of_a_class_is_found_with_its_full_name():
    facts = extract(
        "php",
        "a.php",
        rb"""<?php
namespace App\Http;
use Lib\Base, Lib\Other as O;
use Lib\{Contract, Sub\Deep as D, function help};
use function Lib\call; use const Lib\LIMIT;
// new Comment();
#[Mark(1)]
final class C extends Base implements Contract, \Countable {
    use Mixin;
    public function __construct(private ?O $o, int|D $d): static { new Own(); Util::run(); $x instanceof Sub\Kind; }
    public function f(): self { return parent::f() ?? static::g() ?? Conf::VALUE ?? Conf2::$field; }
    public function h() { namespace\Rel::f(); }
}
enum E: string { case A = 'new Text()'; }
function own() { call(); help(); plain(); \glob(); strlen(''); try {} catch (Fault | \Exception $e) {} }
const K = 1;
""",
    )
    classes = {name for kind, name, *_ in facts.imports if kind == "class"}
    assert classes == {
        r"App\Http\Conf",
        r"App\Http\Conf2",
        r"App\Http\Fault",
        r"App\Http\Mark",
        r"App\Http\Mixin",
        r"App\Http\Own",
        r"App\Http\Rel",
        r"App\Http\Sub\Kind",
        r"App\Http\Util",
        "Countable",
        "Exception",
        r"Lib\Base",
        r"Lib\Contract",
        r"Lib\Other",
        r"Lib\Sub\Deep",
    }
    assert {tuple(rest) for kind, *rest in facts.imports if kind == "function"} == {
        (r"Lib\call",),
        (r"Lib\help",),
        (r"App\Http\plain", "plain"),
        ("glob",),
        (r"App\Http\strlen", "strlen"),
    }
    assert [each for each in facts.imports if each[0] == "const"] == [("const", r"Lib\LIMIT")]
    assert facts.defines == (r"class App\Http\C", r"class App\Http\E", r"const App\Http\K", r"function App\Http\own")
    assert (facts.package, facts.wrong_bytes) == (r"App\Http", 0)


def test_names_lead_to_their_definitions_whatever_the_case_and_without_a_use_in_one_namespace():
    files = {
        "src/A.php": "<?php namespace App; class A extends B { function f(): C\\D { return helper(); } }",
        "src/B.php": "<?php namespace App; abstract class b {}",
        "src/C/D.php": "<?php namespace App\\C; interface D {}",
        "src/functions.php": "<?php namespace App; function helper() {}",
        "src/global.php": "<?php class B {} function helper() {}",
        "web/index.php": "<?php use App\\{A}; helper(); new A;",
    }
    assert graph(files) == {
        "src/A.php": ["src/B.php", "src/C/D.php", "src/functions.php"],
        "web/index.php": ["src/A.php", "src/global.php"],
    }


def test_a_file_may_hold_several_namespaces_each_with_its_own_names():
    files = {
        "all.php": "<?php namespace X { use Z\\A as T; new T; } namespace Y { new T; } namespace { new T; }",
        "xa.php": "<?php namespace Z; class A {}",
        "yt.php": "<?php namespace Y; class T {}",
        "t.php": "<?php class T {}",
    }
    assert graph(files) == {"all.php": ["t.php", "xa.php", "yt.php"]}


def test_composer_settles_which_of_several_files_with_one_class_is_meant():
    double = "<?php namespace App\\Model; class User {}"
    files = {
        "composer.json": '{"autoload": {"psr-4": {"App\\\\": ["lib/"]}}, "autoload-dev": {"psr-0": {"Old_": "old/"}}}',
        "lib/Model/User.php": double,
        "zzz/User.php": double,
        "zzz/use.php": "<?php new \\App\\Model\\User; new Old_Thing;",
        "old/Old/Thing.php": "<?php class Old_Thing {}",
        "aaa/Thing.php": "<?php class Old_Thing {}",
    }
    assert graph(files) == {"zzz/use.php": ["lib/Model/User.php", "old/Old/Thing.php"]}
    assert graph(files | {"composer.json": "{}"})["zzz/use.php"] == ["old/Old/Thing.php", "zzz/User.php"]


def test_required_files_are_found_from_this_folder_and_by_the_end_of_an_unknown_path():
    files = {
        "app/a.php": "<?php require __DIR__ . '/b.php'; require_once(dirname(__FILE__) . \"/c.php\"); include 'd.php';"
        "require dirname(__DIR__, 2) . '/e.php'; include_once dirname(dirname(__DIR__)) . '/f.php';"
        "require ABSPATH . 'wp/g.php'; require $path . '/many.php'; require $x; // require 'h.php';\n"
        "$s = \"require 'h.php'\"; require __DIR__ . \"/$h.php\"; require 'root.php';",
        "app/b.php": "",
        "app/c.php": "",
        "app/d.php": "",
        "e.php": "",
        "f.php": "",
        "core/wp/g.php": "",
        "x/many.php": "",
        "y/many.php": "",
        "app/h.php": "",
        "root.php": "",
    }
    files["deep/er/a.php"] = files.pop("app/a.php").replace("dirname(__FILE__)", "__DIR__")
    for name in ("b", "c", "d"):
        files[f"deep/er/{name}.php"] = files.pop(f"app/{name}.php")
    assert graph(files) == {
        "deep/er/a.php": [
            "core/wp/g.php",
            "deep/er/b.php",
            "deep/er/c.php",
            "deep/er/d.php",
            "e.php",
            "f.php",
            "root.php",
        ]
    }


def test_pages_with_html_around_and_cycles_are_read():
    files = {
        "page.php": "<html><?php new Model; ?><b>new Other</b><?= View::show() ?></html>",
        "Other.php": "<?php class Other {}",
        "Model.php": "<?php class Model { function f(View $v) {} }",
        "View.php": "<?php class View { private Model $m; }",
    }
    assert graph(files) == {"page.php": ["Model.php", "View.php"], "Model.php": ["View.php"], "View.php": ["Model.php"]}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"autoload": [1]}', '{"autoload": {"psr-4": {"A": 1}, "classmap": {"a": [2]}}}', "[" * 100_000],
)
def test_a_manifest_of_any_shape_is_taken(text):
    assert extract_manifest("composer.json", text.encode()).imports == ()


def test_wrong_syntax_is_counted_and_what_stands_around_it_is_read():
    files = {"a.php": "<?php class A { function ( } new B;", "b.php": "<?php class B {}"}
    assert facts_of(files)["a.php"].wrong_bytes > 0
