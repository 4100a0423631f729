"""The licence at the head of a file: the same in all files of a project and of many projects, whatever they hold."""

import re
from functools import cache

from tritwise.data.languages.table import LANGUAGES

# A head ends within so many bytes: the longest licences that are written into files have 12 000.
_MOST_BYTES = 1 << 14
_MARK = re.compile(rb"(?:\xef\xbb\xbf)?(?:#![^\n]*\n)?")  # of UTF-8, and of how a file is run
# What else may stand before the comment with the licence: openings of PHP and XML, an include guard, a region of C#.
_BEFORE = (rb"<\?php\b|<\?xml\b[^>]*>|declare\s*+\([^()\n]*\)\s*;|[\"']use strict[\"'];?|#[ \t]*pragma[ \t]+once\b"
           rb"|#[ \t]*ifndef[ \t]+\w+[ \t]*\r?\n\s*+#[ \t]*define[ \t]+\w+[ \t]*\r?\n|#region\b[^\n]*\n"
           rb"|`timescale\b[^\n]*\n")
# Comments that end with a sign; none of their openings begins a statement of a language that has other comments.
_BLOCKS = rb"/\*.*?\*/|\(\*.*?\*\)|<!--.*?-->|\{-.*?-\}|/-.*?-/|--\[\[.*?\]\]|^=begin\b.*?^=end\b"
_NOTICE = re.compile(rb"copyright|licen[cs]e|\(c\) ?\d{4}|\xc2\xa9|all rights reserved|redistribut|permission is hereby"
                     rb"|warrant(?:y|ies)|public domain", re.IGNORECASE)


def licence_head(text: bytes, language: str) -> int:
    """The bytes of `text` up to the end of the last of its leading comments that holds a licence or a copyright notice.

    0 when no leading comment does. Comments are those of `language` (a key of `LANGUAGES`); lines of them that follow
    one another are one comment. What stands before the notice, as the name of the file, belongs to the head.
    """
    comment = _comment(language)
    limit = min(len(text), _MOST_BYTES)
    place, head = _MARK.match(text).end(), 0
    while match := comment.match(text, place, limit):
        place = match.end()
        if _NOTICE.search(text, match.start(), place):
            head = place
    return head


@cache
def _comment(language: str) -> re.Pattern[bytes]:
    """A comment behind what may stand before it: one with an end, or the lines that follow one another."""
    entry = LANGUAGES.get(language)
    opening = "//" if entry is None or entry.comment is None else entry.comment[0] if not entry.comment[1] else "//"
    line = re.escape(opening.encode())
    # `///` and `//!` document what follows, and so do other doubled signs: they are no part of the lines before.
    lines = rb"(?:[ \t]*+" + line + rb"(?![/!])[^\n]*(?:\n|\Z))+|(?:[ \t]*+" + line + rb"[/!][^\n]*(?:\n|\Z))+"
    # Possessive: a run of white space is not tried again from each of its places.
    before = rb"\s*+(?:(?:" + _BEFORE + rb")\s*+)*+"
    return re.compile(before + rb"(?:" + _BLOCKS + rb"|" + lines + rb")", re.DOTALL | re.MULTILINE)
