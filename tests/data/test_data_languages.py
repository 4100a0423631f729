"""Languages: the paper's table, names, contents of ambiguous files, and the comment that precedes a file."""

import math
import time

import pytest

from tritwise.data.languages import LANGUAGES, PAPER_TABLE, detect, path_comment
from tritwise.data.languages.content import RULES
from tritwise.data.languages.paper import TOTAL_GIGABYTES, TOTAL_THOUSAND_FILES


def test_the_papers_table_is_whole():
    assert len(PAPER_TABLE) == 87
    assert math.isclose(sum(share.gigabytes for share in PAPER_TABLE.values()), 797.88, abs_tol=0.005)
    assert math.isclose(sum(share.percent for share in PAPER_TABLE.values()), 99.93, abs_tol=0.005)
    # Percentages are of the bytes: the two columns agree to what two decimals can hold (Java's 18.63 within 0.002).
    assert all(abs(share.gigabytes / TOTAL_GIGABYTES * 100 - share.percent) < 0.011 for share in PAPER_TABLE.values())
    assert abs(sum(share.thousand_files for share in PAPER_TABLE.values()) / TOTAL_THOUSAND_FILES - 1) < 0.01


def test_every_language_of_the_table_is_known():
    assert set(PAPER_TABLE) <= set(LANGUAGES)


@pytest.mark.parametrize(("extensions", "language"), [
    ("py", "python"), ("c h", "c"), ("cc cpp cxx hh hpp hxx", "c++"), ("cs", "c#"), ("go", "go"), ("java", "java"),
    ("js mjs cjs", "javascript"), ("rb", "ruby"), ("rs", "rust"), ("sh bash", "shell"), ("ts tsx", "typescript")])
def test_names_alone_give_the_usual_languages(extensions, language):
    assert {detect(f"a/b.{extension}") for extension in extensions.split()} == {language}


def test_an_extension_of_several_languages_has_a_content_rule():
    owners = {}
    for language, entry in LANGUAGES.items():
        for extension in entry.extensions:
            owners.setdefault(extension, []).append(language)
    assert {e for e, languages in owners.items() if len(languages) > 1} <= set(RULES)
    assert all(usual is None or usual in owners[extension] for extension, (usual, _) in RULES.items())


@pytest.mark.parametrize(("path", "language"), [
    ("Makefile", "makefile"), ("a/CMakeLists.txt", "cmake"), ("Dockerfile", "dockerfile"),
    ("Dockerfile.dev", "dockerfile"), ("prod.Dockerfile", "dockerfile"), ("Gemfile", "ruby"),
    ("composer.lock", "json"), ("yarn.lock", "yaml"), ("a.cmake.in", "cmake"), ("a.d.ts", "typescript"),
    ("A.PY", "python"), ("x.R", "r"), ("a.coffee.md", "literate coffeescript"), ("py", None), (".py", None),
    ("a.unknown", None), ("a.txt", None), ("dir.py/a", None), ("a.swift", "swift"),
])
def test_a_name_gives_the_language(path, language):
    assert detect(path) == detect(path, b"") == language


@pytest.mark.parametrize(("line", "language"), [
    ("#!/bin/sh", "shell"), ("#!/usr/bin/env python3.11", "python"), ("#! /usr/bin/perl -w", "perl"),
    ("#!/usr/bin/env -S FOO=1 node --x", "javascript"), ("#!/usr/local/bin/ruby2.7", "ruby"), ("#!/bin/unknown", None),
    ("#!/usr/bin/env", None), ("#!", None), ('#!/bin/sh\n# \\\nexec tclsh "$0" "$@"', "tcl"),
    ("// -*- C++ -*-", "c++"), ("#!/usr/bin/env perl6", None),
])
def test_a_first_line_gives_the_language_of_a_file_without_extension(line, language):
    assert detect("bin/tool", line.encode() + b"\n") == language


@pytest.mark.parametrize(("path", "content", "language"), [
    ("a.h", "#include <stdio.h>\nint f(void);\n", "c"), ("a.h", "#ifdef __cplusplus\nextern \"C\" {\n#endif\n", "c"),
    ("a.h", "/* the class of things */\nstruct a { int class_of; };\n", "c"), ("a.h", "namespace a {\n", "c++"),
    ("a.h", "template <class T> struct A;\n", "c++"), ("a.h", "std::string f();", "c++"),
    ("a.h", "#import <UIKit/UIKit.h>\n@interface A : B\n@end\n", None), ("a.h", "// -*- C++ -*-\nint x;", "c++"),
    ("a.m", "@implementation A\n@end\n", None), ("a.m", "% solve\nx = A \\ b;\n", "matlab"),
    ("a.m", "function y = f(x)\ny = x;\nend\n", "matlab"),
    ("a.m", "(* ::Package:: *)\nf[x_] := x^2\n", "mathematica"), ("a.m", ":- module a.\n", None),
    ("a.pl", "use strict;\nmy $x = 1;\n", "perl"), ("a.pl", "p(X) :- q(X), r(X).\n", "prolog"),
    ("a.pl", "use v6;\n", None), ("a.ts", "export const a: number = 1;\n", "typescript"),
    ("de.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1">\n', None),
    ("a.ts", "#!/usr/bin/env node\nlet a: number;\n", "typescript"),
    ("a.sh", "#!/bin/csh\nset a = 1\n", "tcsh"), ("a.sh", "set a = 1\n", "shell"),
    ("a.v", "module a(input b);\nendmodule\n", "verilog"), ("a.v", "Lemma a : True.\nProof. trivial. Qed.\n", None),
    ("a.v", "module main\nfn main() {\n\tprintln('x')\n}\n", None), ("a.pro", "go :- write(x).\n", "prolog"),
    ("a.pro", "QT += core\nSOURCES += a.cpp\n", None), ("a.cls", "\\NeedsTeXFormat{LaTeX2e}\n", "tex"),
    ("a.cls", "VERSION 1.0 CLASS\nAttribute VB_Name = \"A\"\n", "visual basic"),
    ("a.cls", "public class A {}\n", None), ("a.fs", "module A\nlet x = 1\n", "f#"),
    ("a.fs", "#version 330\nvoid main() {}\n", "glsl"), ("a.fs", ": sq dup * ;\n", None),
    ("a.r", "x <- c(1, 2)\n", "r"), ("a.r", "REBOL [Title: {x}]\n", None), ("a.sql", "GO\nDECLARE @x INT\n", "sql"),
    ("a.inc", "<?php\necho 1;\n", "php"), ("a.inc", "#define A 1\n", "c++"),
    ("a.inc", "unit a;\ninterface\n", "pascal"), ("a.cs", "using System;\n", "c#"),
    ("a.cs", "!Object methodsFor: 'x'!\n", "smalltalk"),
    ("a.ml", "let rec f x = match x with\n | 0 -> 1\n", "ocaml"),
    ("a.ml", "fun f 0 = 1\n| f x = x\nval g = fn x => x\n", "standard ml"), ("a.php", "<?hh\nclass A {}\n", None),
    ("a.rs", "fn main() {}\n", "rust"), ("a.rs", "#pragma version(1)\n", None),
    ("a.pp", "file { 'a':\n  ensure => present,\n}\n", None), ("a.pp", "program A;\nbegin\nend.\n", "pascal"),
    ("a.d", "a.o: a.c \\\n b.h\n", "makefile"), ("a.d", "module a;\nimport std.stdio;\n", None),
    ("a.st", "Object subclass: #A\n", "smalltalk"), ("a.st", "group g;\na(b) ::= <<x>>\n", None),
    ("a.spec", "Name: x\nVersion: 1\n", None), ("a.spec", "describe A do\n", "ruby"),
    ("a.yy", "%{\n%}\n%%\n", "yacc"), ("a.yy", "{\"a\": 1}\n", "json"), ("a.tsx", "<?xml version=\"1.0\"?>", None),
])
def test_content_decides_where_a_name_is_ambiguous(path, content, language):
    assert detect(path, content.encode()) == language


@pytest.mark.parametrize("piece", ["\n", " ", "a", "(", "{", "<", "(*", "case ", "match a", "a(", "#", "//", "*", ":-",
                                   "\\\n", "@", "module ", "\t\n", "a ", "_", "[", '"', "-*-", "<if(", "$a", "a:", "=",
                                   "a.", "class a "])
def test_no_content_makes_a_rule_slow(piece):
    content = (piece * (1 << 13))[:1 << 13].encode()
    began = time.process_time()
    for extension in RULES:
        detect(f"a{extension}", content)
    # 60 rules over 8 KiB each, half a megabyte: a pattern that reads it once for each of its places takes seconds.
    assert time.process_time() - began < 0.5


def test_a_comment_holds_the_path_on_one_line_in_the_languages_syntax():
    assert path_comment("python", "a/b.py") == "# a/b.py\n"
    assert path_comment("css", "a.css") == "/* a.css */\n"
    assert path_comment("css", "a*/b*//c.css") == "/* a* /b* //c.css */\n"
    assert path_comment("html", "a-->.html") == "<!-- a- ->.html -->\n"
    assert path_comment("ocaml", "a.ml") == "(* a.ml *)\n"
    assert path_comment("smalltalk", 'a".st') == '" a\\042.st "\n'
    assert path_comment("assembly", "a.asm") == "; a.asm\n"
    assert path_comment("assembly", "a.S") == "# a.S\n"
    assert path_comment("json", "a.json") == path_comment("jupyter notebook", "a.ipynb") == ""
    for language, entry in LANGUAGES.items():
        line = path_comment(language, "a/b")
        assert line == "" if entry.comment is None else (line.count("\n") == 1 and line.endswith("\n"))
    assert path_comment("python", "x") == path_comment("shell", "x") == "# x\n"
    assert path_comment("rust", "x") == path_comment("typescript", "x") == "// x\n"


@pytest.mark.parametrize(("language", "path", "program"), [
    ("python", "a.py", "x = 1"), ("c", "a*/ # b.c", "int x;"), ("css", "a*/.css", "a {}"),
])
def test_the_comment_is_none_of_the_program(language, path, program):
    import pygments
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment

    line = path_comment(language, path)
    tokens = list(pygments.lex(line + program, get_lexer_by_name(language)))
    commented = "".join(text for kind, text in tokens if kind in Comment)
    assert commented.strip() == line.strip()
