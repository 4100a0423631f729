"""Licence heads: what of a file is one, and that near-duplicates are told by the rest."""

import time

import pytest

from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup import decision_path, read_decisions, run, steps
from tritwise.data.dedup.heads import licence_head
from tritwise.data.documents import Document, save_documents

# Apache's notice, as it stands in files (appendix of the licence).
NOTICE = """\
Copyright 2020 The Authors

Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in compliance with the
License. You may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on an
"AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
language governing permissions and limitations under the License.
"""


@pytest.mark.parametrize(("language", "head", "rest"), [
    ("c", "/* a.c -- adds */\n\n/* Copyright 1990\n */", "\nint a;"),
    ("c", "#ifndef A_H\n#define A_H\n/***\n * Copyright ***/", "\nint a;"),
    ("c++", "\n\n#pragma once\n// (c) 2019 A. B.\n", "\n// adds\nint a;"),
    ("shell", "#!/bin/sh\n# Copyright 1990\n#\n# MIT license\n", "\n# lists\nls"),
    ("php", "<?php\n\ndeclare(strict_types=1);\n\n/* The license is MIT */", "\n/** Adds. */"),
    ("rust", "// Copyright 1990\n", "//! Adds.\nfn"),
    ("go", "//go:build linux\n\n// Copyright 1990\n", "\n// Package a adds.\npackage a"),
    ("lua", "--[[ Copyright\n 1990 ]]", " local a"),
    ("lua", "-- Copyright\n-- 1990\n", "local a"),
    ("ruby", "=begin\nlicense\n=end", "\na = 1"),
    ("html", "<!-- a license -->", "\n<p>"),
    ("c#", "\ufeff#region License\r\n// Copyright 1990\r\n", "#endregion\r\nusing A;"),
    ("javascript", "'use strict';\n/*! A, licensed under MIT */", "\nlet a"),
    ("haskell", "{- Copyright -}", "\nmodule A"),
])
def test_a_head_goes_up_to_the_end_of_the_comment_that_holds_the_notice(language, head, rest):
    assert licence_head((head + rest).encode(), language) == len(head.encode())


@pytest.mark.parametrize(("language", "text"), [
    ("c", ""), ("c", "int licence; /* Copyright */"), ("c", "/* Copyright"), ("c", "// adds\nint a;"),
    ("c", "#define LIMIT 1\n/* Copyright */"), ("c", "# Copyright 1990\n"), ("python", "// Copyright 1990\n"),
    ("python", '"""Prints the license."""\n'), ("json", '{"license": "MIT"}'), ("none", "Copyright 1990"),
])
def test_what_is_no_leading_comment_is_no_head(language, text):
    assert licence_head(text.encode(), language) == 0


@pytest.mark.parametrize("piece", [
    "<?php ", "/*", "#ifndef a\n#define a\n", " ", "\n", "//\n", "// \n\n", "(*", "--[[", "<!--", "declare(",
    "=begin\n", "#region\n", "\n \t"])
def test_no_text_takes_long(piece):
    began = time.process_time()
    assert licence_head((piece * 20_000).encode(), "c") == 0
    assert time.process_time() - began < 0.5


def body(name: str, tokens: int = 60) -> str:
    return " ".join(f"{name}_{i}" for i in range(tokens))


def dropped(tmp_path, texts: list[str], **settings) -> dict[str, str]:
    """path -> rule"""
    part = tmp_path / "00000.parquet"
    save_documents(part, (Document("r", f"f{i}", "java", text, len(text), "") for i, text in enumerate(texts)))
    recipe = DedupRecipe(max_rounds=4, repositories=False, **settings)
    run(steps([part], tmp_path / "steps", recipe, 1))
    return {d.path: d.dropped_by for d in read_decisions(decision_path(tmp_path / "steps", 0))}


def test_small_files_under_one_licence_are_no_near_duplicates_and_copies_under_another_are(tmp_path):
    head = f"/*\n{NOTICE}{body('terms', 200)}\n*/\n"
    texts = [head + body("a", 30), head + body("b", 30), body("c", 200), head + body("c", 200), head + body("c", 200)]
    for folder in ("bodies", "whole"):
        (tmp_path / folder).mkdir()
    assert dropped(tmp_path / "bodies", texts) == {"f2": "near_duplicate", "f4": "duplicate"}
    assert dropped(tmp_path / "whole", texts, skip_licence_heads=False) == {"f1": "near_duplicate", "f4": "duplicate"}


def test_a_licence_with_little_under_it_is_an_exact_duplicate_or_none(tmp_path):
    texts = ["/*\n" + NOTICE + "*/\npackage a;", "/*\n" + NOTICE + "*/\npackage b;", "/*\n" + NOTICE + "*/\npackage a;"]
    assert dropped(tmp_path, texts) == {"f2": "duplicate"}
