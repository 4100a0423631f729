"""Which licences a text holds, by the groups of three words that it shares with their texts.

Of each known licence the table keeps the smallest hashes of its groups: a sample of them that depends on nothing else.
The share of the sample that is found in a file estimates the share of the licence that stands in it, whatever stands
around it (a copyright line, an appendix, other licences).
"""

import base64
import re
import struct
import zlib
from functools import cache

# Hashes kept of a text. A share of 0.9 is estimated to 0.05 with as many; which of two relatives it is, marks decide.
KEPT_HASHES = 32
# The share of a licence that must stand in a file. Names and years that are filled in cost a short one a few percent.
MATCH = 0.75
# Two licences are related when the smaller one has this share of its groups in common with the other. Marks are groups
# that only one of the two has.
RELATED, KEPT_MARKS, _STANDS, _ALL_STANDS = 0.6, 10, 0.4, 0.85
# Words beside the matched licences that change nothing: names, an appendix, a sentence. More, or a clause that takes
# something back, is another licence.
_FREE_WORDS, _FREE_SHARE = 100, 0.15
OTHER = "LicenseRef-other"

_WORD = re.compile(r"[a-z0-9]+")
# A line of the terms can begin with the word by chance; one that names an owner has a year or a sign behind it.
_COPYRIGHT_LINE = re.compile(r"(?im)^[^\w\n]{0,20}(?:(?:portions )?copyright[ \t:,]*(?=\(c\)|[©<\[{\d]|by\b)|\(c\) |©|"
                             r"all rights reserved\.?[ \t]*$)[^\n]*$")
_END = re.compile(r"(?i)end of terms and conditions")
_TAKES_BACK = re.compile(r"(?i)commons clause|shall be used for good, not evil|"
                         r"(?:for|to) non-?commercial (?:use|purposes) only")
_THEMSELVES_SO = {"JSON", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"}


def words(text: str) -> list[str]:
    """The words of a licence up to its appendix, in lower case, without lines of copyright."""
    # The sign that closes the terms is looked for behind the terms: GPL's preamble has none.
    end = _END.search(text)
    return _WORD.findall(_COPYRIGHT_LINE.sub("", text[:end.start()] if end else text).lower())


def groups(text: list[str]) -> set[int]:
    """Hashes of all groups of three successive words."""
    return {zlib.crc32(" ".join(group).encode()) for group in zip(text, text[1:], text[2:], strict=False)}


@cache
def _tables() -> tuple[dict[str, tuple[int, frozenset[int]]], dict[tuple[str, str], frozenset[int]]]:
    """Words and hashes of each licence, and marks of each related pair."""
    from tritwise.data.sources.licence_table import MARKS, TABLE

    return ({name: (length, _hashes(coded)) for name, (length, coded) in TABLE.items()},
            {tuple(names.split()): _hashes(coded) for names, coded in MARKS.items()})


def _hashes(coded: str) -> frozenset[int]:
    data = base64.b85decode(coded)
    return frozenset(struct.unpack(f"<{len(data) // 4}I", data))


def licences_of_text(text: str) -> str | None:
    """An SPDX expression of the licences whose texts stand in `text`, None when there is none.

    Several are joined with AND. LicenseRef-other joins them when the text has much besides, or a clause that takes
    back what the licence gives. A text cannot tell GPL "only" from "or later", so the versions stand without either.
    """
    table, marks = _tables()
    whole = groups(_WORD.findall(_COPYRIGHT_LINE.sub("", text).lower()))
    score = {name: len(hashes & whole) / len(hashes) for name, (_, hashes) in table.items()}
    found = {name for name in table if score[name] >= MATCH}
    if not found:
        return None

    def stands(name: str, other: str) -> float:
        """The share of what only `name` has; a licence that is a part of the other has nothing of its own."""
        own = marks[name, other]
        return len(own & whole) / len(own) if own else 0.5

    # The larger of two relatives is there when what only it has is there; names that are filled in may hide some of it.
    # When what only the smaller one has is all there, and there is less of the larger, that is of a third licence.
    for name, other in sorted(marks):
        if name in found and other in found and (table[name][0], name) > (table[other][0], other):
            larger, smaller = stands(name, other), stands(other, name)
            found.discard(other if larger >= _STANDS and not smaller > max(larger, _ALL_STANDS) else name)
    known = sum(table[name][0] for name in found)
    spare = len(words(text)) - known
    parts = sorted(found)
    takes_back = _TAKES_BACK.search(text) and not found & _THEMSELVES_SO
    if spare > _FREE_WORDS + _FREE_SHARE * known or takes_back:
        parts.append(OTHER)
    return " AND ".join(parts)


# What stands at the head of files, or in place of a licence's text, as words. GPL notices name a version and may allow
# later ones.
_NOTICES = (
    ("Apache-2.0", re.compile(r"licensed under the apache license version 2 0|under the terms of the apache license "
                              r"version 2 0|spdx apache 2 0")),
    ("MPL-2.0", re.compile(r"subject to the terms of the mozilla public license v(?:ersion)? 2 0")),
    ("EPL-2.0", re.compile(r"under the terms of the eclipse public license (?:v|version )2 0")),
    ("EPL-1.0", re.compile(r"under the terms of the eclipse public license (?:v|version )1 0")),
    ("BSL-1.0", re.compile(r"distributed under the boost software license version 1 0")),
)
_GNU = re.compile(r"under the terms of (?:the )?(?:version \d(?: \d)? of )?the gnu (lesser |library |affero )?general "
                  r"public license(?P<rest>.{0,200})")
_GNU_VERSION = re.compile(r"version (\d)(?: (\d)\b)?")
_GNU_NAMES = {"": "GPL", "lesser ": "LGPL", "library ": "LGPL", "affero ": "AGPL"}


def licence_of_notice(text: str) -> str | None:
    """The licence that a notice names in the words its authors recommend ("Licensed under the Apache License, ...")."""
    if "icense" not in text:
        return None
    line = " ".join(_WORD.findall(text.lower()))
    for name, pattern in _NOTICES:
        if pattern.search(line):
            return name
    if (match := _GNU.search(line)) and (version := _GNU_VERSION.search(match.group())):
        number = f"{version.group(1)}.{version.group(2) or '0'}"
        later = "any later version" in match.group("rest")
        return f"{_GNU_NAMES[match.group(1) or '']}-{number}-{'or-later' if later else 'only'}"
    return None
