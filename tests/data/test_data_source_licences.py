"""Licences: of headers, of texts, of packages, and which are permissive."""

import json
import string
from pathlib import Path

import pytest

from tritwise.data.sources import RawFile, bears_licence, is_permissive, repository_licences
from tritwise.data.sources.licence_text import OTHER, licence_of_notice, licences_of_text
from tritwise.data.sources.licences import is_licence_file, normal_expression, package_licence, spdx_header

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text()
MIT = """The MIT License (MIT)

Copyright (c) 2020 Somebody Else <a@example.org>

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
BSD_2 = """Copyright (c) 2020, Somebody. All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
   disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
   disclaimer in the documentation and/or other materials provided with the distribution.
%s
THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF
THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""
NO_NAMES = """3. Neither the name of the Foundation nor the names of its contributors may be used to endorse or promote
   products derived from this software without specific prior written permission.
"""
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted, provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.
"""


@pytest.mark.parametrize(("text", "expression"), [
    (APACHE, "Apache-2.0"), (MIT, "MIT"), (BSD_2 % "", "BSD-2-Clause"), (BSD_2 % NO_NAMES, "BSD-3-Clause"),
    (ISC, "ISC"),
    (MIT + BSD_2 % NO_NAMES, "BSD-3-Clause AND MIT"), (MIT.replace("\n", "\r\n"), "MIT"), (MIT.upper(), "MIT"),
    ("\n".join(f" * {line}" for line in MIT.splitlines()), "MIT"), (" ".join(MIT.split()), "MIT"),
    (APACHE + ISC, "Apache-2.0 AND ISC"), ("All rights reserved. Do nothing.", None), ("", None),
    (MIT + "\nThe Software shall be used for Good, not Evil.\n", "JSON"),
    ('"Commons Clause" License Condition v1.0\n' + APACHE, f"Apache-2.0 AND {OTHER}"),
    (MIT + "You may not use it on Mondays or teach it to anybody. " * 20, f"MIT AND {OTHER}")])
def test_a_text_is_known_by_its_words_whatever_its_lines_and_names(text, expression):
    assert licences_of_text(text) == expression


def test_a_text_that_is_half_another_is_not_taken_for_it():
    assert licences_of_text(MIT[:len(MIT) // 2]) is None
    assert licences_of_text(" ".join(sorted(MIT.split()))) is None


@pytest.mark.skipif(not Path("/usr/share/common-licenses").is_dir(), reason="Debian's licences; CI runs this on Debian")
def test_every_licence_of_debian_is_known_by_its_text():
    folder = Path("/usr/share/common-licenses")
    expected = {"Apache-2.0": "Apache-2.0", "Artistic": "Artistic-1.0-Perl", "BSD": "BSD-3-Clause",
    "CC0-1.0": "CC0-1.0",
                "GPL-1": "GPL-1.0", "GPL-2": "GPL-2.0", "GPL-3": "GPL-3.0", "LGPL-2": "LGPL-2.0",
                "LGPL-2.1": "LGPL-2.1",
                "LGPL-3": "LGPL-3.0", "MPL-1.1": "MPL-1.1", "MPL-2.0": "MPL-2.0"}
    found = {name: licences_of_text((folder / name).read_text()) for name in expected if (folder / name).exists()}
    assert found
    assert found == {name: expected[name] for name in found}


@pytest.mark.parametrize(("content", "expression"), [
    (b"// SPDX-License-Identifier: MIT\nint x;", "MIT"), (b"/* SPDX-License-Identifier: GPL-2.0-only */",
    "GPL-2.0-only"),
    (b"<!-- SPDX-License-Identifier: Apache-2.0 -->", "Apache-2.0"),
    (b"# SPDX-License-Identifier: (MIT OR Apache-2.0) and ISC\r\n", "(MIT OR Apache-2.0) AND ISC"),
    (b"# SPDX-License-Identifier: GPL-2.0-or-later WITH Classpath-exception-2.0\n",
     "GPL-2.0-or-later WITH Classpath-exception-2.0"),
    (b"# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ISC OR 0BSD\n", "MIT AND (ISC OR 0BSD)"),
    (b"# SPDX-License-Identifier: LicenseRef-mine\n", "LicenseRef-mine"), (b"# SPDX-License-Identifier: \n", None),
    (b"x = 1\n", None), (b"\n" * 5000 + b"# SPDX-License-Identifier: MIT\n", None)])
def test_a_files_own_tag_is_read_in_any_comment(content, expression):
    assert spdx_header(content) == expression


@pytest.mark.parametrize(("text", "expression"), [
    ("MIT", "MIT"), ("(MIT or ISC)", "(MIT OR ISC)"), ("MIT AND", "MIT"), ("AND MIT", None), ("(MIT", None),
    ("", None),
    ("MIT)", "MIT"), ("((MIT))", "((MIT))"), ("MIT OR (ISC AND 0BSD)", "MIT OR (ISC AND 0BSD)"), ("(" * 1000, None)])
def test_an_expression_ends_where_it_stops_being_one(text, expression):
    assert normal_expression(text) == expression


@pytest.mark.parametrize(("text", "expression"), [
    ("# Licensed under the Apache License, Version 2.0 (the\n# \"License\"); you may not", "Apache-2.0"),
    (" * This Source Code Form is subject to the terms of the Mozilla\n * Public License, v. 2.0.", "MPL-2.0"),
    ("under the terms of the GNU General Public License as published by the Free Software Foundation; either version 2 "
     "of the License, or (at your option) any later version.", "GPL-2.0-or-later"),
    ("under the terms of the GNU Lesser General Public License version 2.1 as published by", "LGPL-2.1-only"),
    ("under the terms of the GNU Affero General Public License, version 3", "AGPL-3.0-only"),
    ("See the license file.", None), ("x = 1", None)])
def test_a_notice_names_its_licence(text, expression):
    assert licence_of_notice(text) == expression


@pytest.mark.parametrize(("path", "is_one"), [
    ("LICENSE", True), ("licence.md", True), ("COPYING", True), ("COPYING.LESSER", True), ("UNLICENSE", True),
    ("LICENSE-MIT", True), ("MIT-LICENSE.txt", True), ("a/LICENSE.txt", True), ("LICENSES/MIT.txt", True),
    ("license.py", False), ("licenses.go", False), ("relicense.md", False), ("src/copying_things.c", False),
    ("LICENSES/tool.py", False)])
def test_licence_files_are_told_from_programs_about_licences(path, is_one):
    assert is_licence_file(path) is bears_licence(path) is is_one


@pytest.mark.parametrize(("name", "text", "expression"), [
    ("package.json", '{"license": "MIT"}', "MIT"), ("package.json", '{"license": {"type": "ISC"}}', "ISC"),
    ("package.json", '{"license": "SEE LICENSE IN x"}', OTHER), ("package.json", '{"license": "UNLICENSED"}', OTHER),
    ("package.json", "[" * 100_000, None), ("package.json", "[]", None), ("package.json", '{"name": "x"}', None),
    ("composer.json", '{"license": ["MIT", "GPL-2.0-only"]}', "MIT OR GPL-2.0-only"),
    ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"\n', "MIT OR Apache-2.0"), ("Cargo.toml", "[package", None),
    ("pyproject.toml", '[project]\nlicense = "BSD-3-Clause"\n', "BSD-3-Clause"),
    ("pyproject.toml", '[project]\nlicense = {text = "MIT License"}\n', "MIT"),
    ("setup.cfg", "[metadata]\nlicense = Apache 2.0\n", "Apache-2.0"), ("x.gemspec", 's.license = "MIT"\n', "MIT"),
    ("setup.cfg", "[metadata]\nlicense = BSD style, see file\n", OTHER)])
def test_a_package_says_its_licence(name, text, expression):
    assert package_licence(name, text) == expression


def files(**texts):
    return [RawFile(path, text.encode(), len(text)) for path, text in sorted(texts.items())]


def test_the_header_goes_before_the_nearest_licence_file_and_that_before_the_package():
    licences = repository_licences([
        RawFile("LICENSE", MIT.encode(), 0), RawFile("a/b/LICENSE.txt", APACHE.encode(), 0),
        RawFile("c/package.json", json.dumps({"license": "ISC"}).encode(), 0), RawFile("a/x.py", b"", 0),
        RawFile("broken/LICENSE", None, 9, "too_large")])
    assert licences.of("x.py", b"") == licences.of("a/x.py", b"") == licences.of("c/x.py", b"") == "MIT"
    assert licences.of("a/b/x.py", b"") == licences.of("a/b/c/d.py", None) == "Apache-2.0"
    assert licences.of("a/b/x.py", b"# SPDX-License-Identifier: 0BSD\n") == "0BSD"
    assert licences.of("a/b/x.py", b"# subject to the terms of the Mozilla Public License, v. 2.0.") == "MPL-2.0"
    only_package = repository_licences([RawFile("package.json", b'{"license": "ISC"}', 0)])
    assert only_package.of("a/b.js", b"") == "ISC"
    assert repository_licences([]).of("a.py", b"x") is None


@pytest.mark.parametrize(("texts", "expression"), [
    ({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}, "Apache-2.0 OR MIT"),
    ({"LICENSE": "Either of the licenses in LICENSE.MIT and LICENSE.ISC.", "LICENSE.MIT": MIT, "LICENSE.ISC": ISC},
     "ISC OR MIT"),
    ({"LICENSE": MIT, "LICENSE.third-party": "Some terms."}, "MIT"),
    ({"LICENSE": "You may not use this. " * 100, "LICENSE-MIT": MIT}, OTHER),
    ({"LICENSE": MIT, "COPYING": APACHE}, "Apache-2.0 AND MIT"), ({"LICENSE": "Mine alone."}, OTHER),
    ({"LICENSE": " \n"}, None),
    ({"LICENSES/MIT.txt": MIT, "LICENSES/ISC.txt": ISC}, "ISC AND MIT"),
    ({"LICENSES/ISC.txt": ISC, "LICENSE.MIT": MIT}, "MIT"), ({"UNLICENSE": MIT}, "MIT"),
    ({"COPYING": "Dual-licensed, see the other files.", "LICENSE-MIT": MIT, "UNLICENSE": ISC}, "ISC OR MIT")])
def test_licence_files_of_one_directory_are_weighed(texts, expression):
    assert repository_licences(files(**texts)).of("src/a.py", b"") == expression


@pytest.mark.parametrize(("expression", "permissive"), [
    ("MIT", True), ("Apache-2.0 WITH LLVM-exception", True), ("GPL-3.0-only", False), (None, False), ("", False),
    ("MIT OR GPL-2.0-only", True), ("MIT AND GPL-2.0-only", False), ("MIT AND (GPL-2.0-only OR ISC)", True),
    ("(MIT OR GPL-2.0-only) AND GPL-2.0-only", False), (f"MIT AND {OTHER}", False),
    ("GPL-2.0-only OR MIT AND ISC", True),
    ("SSPL-1.0", False), ("MIT OR", False), ("MIT ISC", False), ("MPL-2.0", False), ("(" * 1000 + "MIT", False)])
def test_an_expression_is_permissive_when_permissive_terms_suffice(expression, permissive):
    assert is_permissive(expression) is permissive


def test_identifiers_can_be_added_to_the_permissive_ones():
    assert is_permissive("MPL-2.0 AND MIT", ("MPL-2.0",))


def test_random_words_are_no_licence():
    words = [a + b + c for a in string.ascii_lowercase for b in "aeiou" for c in string.ascii_lowercase]
    assert licences_of_text(" ".join(words)) is None
