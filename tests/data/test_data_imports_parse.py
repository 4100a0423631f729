"""Syntax trees: every grammar, wrong bytes, the limit on time, and a wheel that is missing."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.data.imports import parse as module
from tritwise.data.imports.parse import GRAMMARS, SlowFileError, captures, parse, wrong_bytes

RIGHT = {
    "c": "int main(void) { return 0; }", "c#": "class A { }", "c++": "template <class T> struct A { };",
    "go": "package a", "java": "class A { }", "javascript": "let a = 1;", "kotlin": "class A", "php": "<?php echo 1;",
    "python": "a = 1", "ruby": "a = 1", "rust": "fn main() { }", "scala": "object A", "swift": "class A {}",
    "tsx": "let a = <b>c</b>;", "typescript": "let a: number = <number>1;",
}
WRONG = {
    "c": "int main(void { return 0;", "c#": "class A { int }", "c++": "template <class T struct A {", "go": "package (",
    "java": "class A { int }", "javascript": "let = = 1", "kotlin": "class A { fun ( }", "php": "<?php echo ( ;",
    "python": "a = = 1", "ruby": "def (a", "rust": "fn main( {", "scala": "object A { def ( }",
    "swift": "class A { func ( }", "tsx": "let a = <b>c</d", "typescript": "let a: = 1",
}


def wrong(language: str, content: bytes) -> int:
    return wrong_bytes(parse(language, content), content)


@pytest.mark.parametrize("language", sorted(GRAMMARS))
def test_right_files_have_no_wrong_bytes_and_wrong_ones_some(language):
    assert wrong(language, RIGHT[language].encode()) == 0
    assert 0 < wrong(language, WRONG[language].encode()) <= len(WRONG[language]) + 1


@pytest.mark.parametrize("language", sorted(GRAMMARS))
def test_nothing_is_kept_of_a_file_that_was_parsed(language):
    content = RIGHT[language].encode() + b"\n" * 3
    before = sys.getrefcount(content)
    for _ in range(3):
        parse(language, content)
    assert sys.getrefcount(content) == before


def test_a_process_does_not_grow_by_what_it_parses():
    contents = [b"a = %d\n" % number + b"#" * 1_000_000 for number in range(3)]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for content in contents:
        parse("python", bytes(bytearray(content)))
    before = resident()
    for _ in range(30):
        for content in contents:
            parse("python", bytes(bytearray(content)))
    assert resident() - before < 20_000_000


def test_wrong_bytes_are_those_of_errors_and_one_for_each_token_that_is_missing():
    assert wrong("java", b"class A { int }") == len("int")
    assert wrong("java", b"class A { int a }") == 1  # the semicolon
    inside = b"class A { void f() { int x = 1 +* 2; } void g() { } int }"
    assert 0 < wrong("java", inside) < 10


def test_what_the_parser_skips_is_wrong_and_comments_and_white_space_are_not():
    assert wrong("kotlin", b"}}}} ]] )) ;; == {{{{ (((  \n" * 20) > 200  # one ERROR node with a single token
    assert wrong("java", b"class A { int /* whatever it is */    \n }") == len("int")


def test_functions_that_were_parsed_inside_an_error_are_not_wrong():
    # A brace for each of two branches of the preprocessor: the parser never finds the end, all is one ERROR node.
    functions = "".join(f"inline int area_{i}(int w, int h) {{\n  return w * h + {i};\n}}\n" for i in range(20))
    content = ("int f() {\n#if A\n if (a) {\n#else\n if (b) {\n#endif\n}\n}\n" + functions).encode()
    for language in ("c", "c++"):
        tree = parse(language, content)
        errors = (node for node in tree.root_node.children if node.is_error)
        assert sum(node.end_byte - node.start_byte for node in errors) > len(content) - 5
        assert 0 < wrong_bytes(tree, content) < 0.03 * len(content)
    assert wrong("c", b"Some prose, with a comma. Then: more of it! " * 20) > 400


def test_captures_are_bytes_of_the_file_even_behind_other_alphabets():
    content = 'String s = "日本é";\nclass Ü { Größe g; }\n'.encode()
    found = captures("java", "(class_declaration name: (_) @name) (type_identifier) @type", parse("java", content))
    assert [content[node.start_byte:node.end_byte].decode() for node in found["name"]] == ["Ü"]
    assert [content[node.start_byte:node.end_byte].decode() for node in found["type"]] == ["String", "Größe"]


def test_a_slow_file_is_given_up_in_time_and_the_next_one_is_read():
    begin = time.thread_time()
    with pytest.raises(SlowFileError, match=r"java parser more than 0\.05 s"):
        parse("java", b"class A {" + b"int x = ((((" * 500_000, seconds=0.05)
    assert time.thread_time() - begin < 1
    assert wrong("java", b"class B { }") == 0


@pytest.mark.parametrize("text", [b"{" * 200_000, b"`" * 200_000, b"a = 1;" + b"]" * 200_000])
def test_a_query_ends_in_time_on_what_it_is_quadratic_in(text):
    tree = parse("javascript", text)
    begin = time.thread_time()
    with contextlib.suppress(SlowFileError):
        captures("javascript", "(import_statement) @name\n(call_expression) @call", tree)
    assert time.thread_time() - begin < 2


def test_deep_nesting_takes_no_recursion():
    depth = 50_000
    assert wrong("python", b"x = " + b"(" * depth + b"1" + b")" * (depth - 1)) > 0


def test_threads_have_parsers_of_their_own():
    content = b"class A { int x = 1; }" * 2_000
    results = []

    def work():
        results.append([parse("java", content).root_node.descendant_count for _ in range(3)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [results[0]] * 4


def test_a_missing_wheel_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tree_sitter_java", None)  # what Python takes for not installed
    monkeypatch.setattr(module, "_local", threading.local())
    module._grammar.cache_clear()
    with pytest.raises(TritwiseError, match="java") as caught:
        parse("java", b"")
    assert "tritwise[data]" in caught.value.fix
    module._grammar.cache_clear()


def test_the_package_is_imported_without_tree_sitter():
    code = "import sys; import tritwise.data.imports.jvm; sys.exit('tree_sitter' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
