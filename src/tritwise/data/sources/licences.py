"""The licence of a file: its own SPDX header, the nearest licence file above it, what its package says of itself.

    licences = repository_licences(read_files(repository, max_bytes=..., wanted=bears_licence))
    for file in read_files(repository, ...): licences.of(file.path, file.content)
"""

import json
import re
import tomllib
from collections.abc import Iterable
from typing import NamedTuple

from tritwise.data.sources.files import RawFile
from tritwise.data.sources.licence_text import OTHER, licence_of_notice, licences_of_text

# What stands in a header is looked for within so many bytes; a licence file is no longer than that.
_HEADER, _LONGEST_LICENCE = 4096, 400_000
# Tags as REUSE and SPDX write them, in a comment of any language.
_TAG = re.compile(rb"SPDX-License-Identifier:[ \t]*([\w.+()\-: \t]+)")
_ID = re.compile(r"(?:LicenseRef-|DocumentRef-[\w.-]+:LicenseRef-)?[A-Za-z0-9][\w.+-]*")
_LICENCE_FILE = re.compile(r"(?:un)?licen[cs]es?(?:[._-][\w.+-]+)?|copying(?:[._-][\w.+-]+)?|[\w.+-]+[._-]licen[cs]e"
                           r"(?:\.(?:txt|md|rst))?|mit-license(?:\.\w+)?", re.IGNORECASE)
# The one that speaks for its directory. A short one of no known text points to the others.
_MAIN_FILE = re.compile(r"licen[cs]e(?:\.(?:txt|md|rst))?|copying(?:\.(?:txt|md|rst))?", re.IGNORECASE)
_POINTER = 150
# `license.py` is a program.
_NOT_LICENCE = re.compile(r"\.(?:py|js|ts|go|java|c|h|cc|cpp|rb|rs|cs|json|ya?ml|xml|html|php|pl|sh|spdx|toml|cmake|"
                          r"lock)$", re.IGNORECASE)
_PACKAGE_FILES = ("Cargo.toml", "composer.json", "package.json", "pyproject.toml", "setup.cfg")
_SETUP_CFG = re.compile(r"^license(?:_expression)?[ \t]*=[ \t]*([^\n#;]+)", re.MULTILINE)
_GEMSPEC = re.compile(r"\.licenses?[ \t]*=[ \t]*\[?[ \t]*['\"]([^'\"\n]+)['\"]")
# Most heads that speak of a licence are not those notices that name one of these.
_NOTICE_NAMES = (b"Apache", b"Mozilla", b"GNU", b"Eclipse", b"Boost")
# Names that packages use for what SPDX has an identifier for.
_ALIASES = {
    "apache 2.0": "Apache-2.0", "apache-2": "Apache-2.0", "apache 2": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache software license 2.0": "Apache-2.0", "apache": "Apache-2.0",
    "mit license": "MIT", "the mit license": "MIT", "mit/x11": "MIT", "expat": "MIT", "new bsd": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause", "bsd 3-clause": "BSD-3-Clause", "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause", "bsd-2": "BSD-2-Clause", "bsd 2-clause": "BSD-2-Clause", "isc license": "ISC",
    "mpl 2.0": "MPL-2.0", "mpl2": "MPL-2.0", "psf": "PSF-2.0", "public domain": "LicenseRef-public-domain",
    "gplv2": "GPL-2.0", "gplv3": "GPL-3.0", "lgplv3": "LGPL-3.0", "unlicensed": OTHER, "proprietary": OTHER,
    "see license in license": OTHER, "commercial": OTHER,
}


class Licences(NamedTuple):
    """Expressions of the licence files and of the package files of a repository, by directory ("" is the root)."""

    files: dict[str, str]
    packages: dict[str, str]

    def of(self, path: str, content: bytes | None) -> str | None:
        """The SPDX expression that holds for a file, None when nothing is said."""
        if content is not None and (expression := spdx_header(content) or header_notice(content)):
            return expression
        return _nearest(self.files, path) or _nearest(self.packages, path)


def bears_licence(path: str) -> bool:
    """Whether a file is read for the licence of others: licence texts and the files that describe packages."""
    name = path.rpartition("/")[2]
    return is_licence_file(path) or name in _PACKAGE_FILES or name.endswith(".gemspec")


def is_licence_file(path: str) -> bool:
    """Whether a file is a licence by its name: LICENSE, LICENCE.md, COPYING.LESSER, UNLICENSE, LICENSES/MIT.txt."""
    parts = path.split("/")
    in_folder = len(parts) > 1 and parts[-2].upper() == "LICENSES"  # of REUSE
    return bool((in_folder or _LICENCE_FILE.fullmatch(parts[-1])) and not _NOT_LICENCE.search(parts[-1]))


def spdx_header(content: bytes) -> str | None:
    """The expression of the `SPDX-License-Identifier` tags at a file's head; several hold together."""
    found = []
    for match in _TAG.finditer(content[:_HEADER]):
        expression = normal_expression(match.group(1).decode("ascii", "replace"))
        if expression and expression not in found:
            found.append(expression)
    return " AND ".join(f"({e})" if " OR " in e and len(found) > 1 else e for e in found) or None


def header_notice(content: bytes) -> str | None:
    """The licence that a notice in the head of a file names, when it has no tag."""
    head = content[:_HEADER]
    if b"icense" not in head or not any(name in head for name in _NOTICE_NAMES):
        return None
    return licence_of_notice(head.decode("ascii", "replace"))


def normal_expression(text: str) -> str | None:
    """An SPDX expression with single blanks and capital operators, None when it is none (SPDX 2.3, annex D)."""
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()
    # A comment can go on behind the expression.
    tokens = [token.upper() if token.upper() in ("AND", "OR", "WITH") else token for token in tokens]
    good, depth, want_id = 0, 0, True
    for position, token in enumerate(tokens[:64]):
        if want_id:
            if token == "(":
                depth += 1
            elif _ID.fullmatch(token) and token not in ("AND", "OR", "WITH"):
                want_id = False
            else:
                break
        elif token == ")" and depth:
            depth -= 1
        elif token in ("AND", "OR", "WITH"):
            want_id = True
        else:
            break
        if not want_id and not depth:
            good = position + 1
    return " ".join(tokens[:good]).replace("( ", "(").replace(" )", ")") or None


def repository_licences(files: Iterable[RawFile]) -> Licences:
    """Read the licence files and package files among `files`; others are passed over.

    The file of a directory that is called LICENSE or COPYING counts; where it is missing, or short and only names the
    others, those are a choice (OR), as LICENSE-MIT and LICENSE-APACHE. COPYING.LESSER adds to COPYING and stands for
    both. The texts of a folder LICENSES, which files name in their heads, hold together when there is nothing else. A
    file whose text is not known counts as LicenseRef-other.
    """
    texts: dict[str, dict[str, tuple[str, int]]] = {}
    folders: dict[str, dict[str, tuple[str, int]]] = {}
    packages: dict[str, str] = {}
    for file in files:
        if file.content is None or len(file.content) > _LONGEST_LICENCE or not bears_licence(file.path):
            continue
        directory, _, name = file.path.rpartition("/")
        text = file.content.decode("utf-8", "replace")
        if not is_licence_file(file.path):
            if expression := package_licence(name, text):
                packages.setdefault(directory, expression)
            continue
        target = texts
        if directory.rpartition("/")[2].upper() == "LICENSES":
            directory, target = directory.rpartition("/")[0], folders
        if text.strip():
            expression = licences_of_text(text) or licence_of_notice(text) or OTHER
            target.setdefault(directory, {})[name] = (expression, len(text.split()))
    return Licences({directory: _join(found, "AND") for directory, found in folders.items()}
                    | {directory: _choice(found) for directory, found in texts.items()}, packages)


def _choice(found: dict[str, tuple[str, int]]) -> str:
    lesser = {name: entry for name, entry in found.items() if name.upper().startswith("COPYING.LESSER")}
    main = lesser or {name: entry for name, entry in found.items() if _MAIN_FILE.fullmatch(name)}
    if main and (len(main) == len(found) or not all(e == OTHER and size < _POINTER for e, size in main.values())):
        return _join(main, "AND")
    return _join({name: entry for name, entry in found.items() if name not in main}, "OR")


def _join(found: dict[str, tuple[str, int]], operator: str) -> str:
    expressions = sorted({expression for expression, _ in found.values()})
    if len(expressions) == 1:
        return expressions[0]
    return f" {operator} ".join(f"({e})" if " " in e else e for e in expressions)


def _nearest(table: dict[str, str], path: str) -> str | None:
    while path:
        path = path.rpartition("/")[0]
        if path in table:
            return table[path]
    return None


def package_licence(name: str, text: str) -> str | None:
    """What a package's description says of its licence, as an SPDX expression."""
    try:
        if name in ("package.json", "composer.json"):
            value = json.loads(text)
            said = value.get("license") if isinstance(value, dict) else None
            if isinstance(said, dict):
                said = said.get("type")
            if isinstance(said, list):  # composer: any of them
                said = " OR ".join(item for item in said if isinstance(item, str))
        elif name in ("Cargo.toml", "pyproject.toml"):
            value = tomllib.loads(text)
            project = value.get("package" if name == "Cargo.toml" else "project", {})
            said = project.get("license") if isinstance(project, dict) else None
            if isinstance(said, dict):
                said = said.get("text")
            if isinstance(said, str) and name == "Cargo.toml":
                said = said.replace("/", " OR ")  # the notation before SPDX expressions
        else:
            match = (_GEMSPEC if name.endswith(".gemspec") else _SETUP_CFG).search(text)
            said = match.group(1) if match else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, str) or not said.strip() or len(said) > 200:
        return None
    alias = _ALIASES.get(" ".join(said.lower().split()))
    expression = alias or normal_expression(said)
    # Words that are no expression ("BSD style, see LICENSE") say that there is one which is not known.
    return expression if alias or (expression and len(expression) >= len(" ".join(said.split()))) else OTHER
