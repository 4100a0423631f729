"""A Python file as cross-file completion needs it: scopes, chains of names, places of lines, imports and code."""

import ast
import io
import re
import tokenize
import warnings
from bisect import bisect_right
from collections import defaultdict

from tritwise.data.imports import extract
from tritwise.evaluate.cross_file.scopes import read_scopes
from tritwise.evaluate.cross_file.uses import CodeLine

_NO_CODE = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
                      tokenize.ENCODING, tokenize.ENDMARKER})


class PythonFile:
    """A parsed file: its module's scope, chains of names that are read, places of lines and imports.

    Raises SyntaxError when the running interpreter cannot parse the text.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.facts = extract("python", path, text.encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.tree = ast.parse(text)
        self.scope, self.chains = read_scopes(self.tree)
        # Lines as the parser counts them.
        self.line_starts = [0, *(match.end() for match in re.finditer(r"\r\n?|\n", text))]
        nodes = list(ast.walk(self.tree))
        self.import_nodes = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        self.import_spans = sorted((self.offset(node.lineno, node.col_offset),
                                    self.offset(node.end_lineno, node.end_col_offset)) for node in self.import_nodes)
        # Docstrings, and strings that stand for comments: first and last lines.
        statements = (node for node in nodes if isinstance(node, ast.Expr))
        self.string_statements = [(node.lineno, node.end_lineno) for node in statements
                                  if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]

    def offset(self, line: int, column: int) -> int:
        """Characters before a place that the parser gives as a line from 1 and UTF-8 bytes."""
        start = self.line_starts[line - 1]
        part = self.text[start:start + column]
        return start + (column if part.isascii() else len(self.text[start:].encode()[:column].decode()))

    def line_of(self, offset: int) -> int:
        """The line, from 1, that holds a character."""
        return bisect_right(self.line_starts, offset)

    def code_lines(self) -> dict[int, CodeLine]:
        """The lines that hold code, by number; docstrings and other statements that are strings are none."""
        starts: dict[int, list[int]] = defaultdict(list)
        ends: dict[int, int] = {}
        open_strings: list[int] = []  # lines in which f-strings begin: several tokens where the parser is new enough
        in_string: set[int] = set()
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(self.text, newline="").readline))
        except (tokenize.TokenError, SyntaxError):
            return {}
        for token in tokens:
            kind = tokenize.tok_name[token.type]
            if token.type in _NO_CODE:
                continue
            first, last = token.start[0], token.end[0]
            if kind in ("FSTRING_START", "TSTRING_START"):
                open_strings.append(first)
            elif kind in ("FSTRING_END", "TSTRING_END"):
                first = open_strings.pop()
            in_string.update(range(first, last))
            starts[token.start[0]].append(self.line_starts[token.start[0] - 1] + token.start[1])
            ends[last] = self.line_starts[last - 1] + token.end[1]
        plain = {line for first, last in self.string_statements for line in range(first, last + 1)}
        imports = {line for start, end in self.import_spans
                   for line in range(self.line_of(start), self.line_of(max(start, end - 1)) + 1)}
        result = {}
        for number in sorted(set(starts) | set(ends)):
            if number not in plain:
                end = ends.get(number)
                joined = end is not None and self.text[end:end + 80].lstrip(" \t\f").startswith("\\")
                result[number] = CodeLine(tuple(starts.get(number, ())), None if joined or number in in_string else end,
                                           number in imports)
        return result
