"""Syntax trees by tree-sitter, with one grammar wheel per language and a limit on the work that a file may cost.

    tree = parse("java", content)
    for node in captures("java", "(type_identifier) @name", tree).get("name", ()):
        name = content[node.start_byte:node.end_byte]

A query visits the nodes in C and hands only those asked for to Python: about twice as fast as a TreeCursor, which makes
an object of every node on the way. One query for everything is faster than two.
"""

import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from tritwise.common.errors import TritwiseError

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Parser, QueryCursor, Tree

__all__ = ["GRAMMARS", "SlowFileError", "captures", "parse", "wrong_bytes"]

# What `parse` knows; the grammar of each is a wheel of its own, imported when it is first needed.
GRAMMARS = frozenset({
    "c", "c#", "c++", "go", "java", "javascript", "kotlin", "php", "python", "ruby", "rust", "scala", "swift", "tsx",
    "typescript",
})

# Processor time of one file, and what each megabyte adds. Real source runs at 2 MB/s or more, so only a file that is
# hard on the parser gets near: recovery from errors can be quadratic, and some damaged files of 2 kB never end.
SECONDS = 1.0
SECONDS_PER_MEGABYTE = 10.0
# Offsets in a tree are 32-bit.
_MOST_BYTES = 2**32 - 1
# Where queries, whose time is quadratic in both, end: the children of an ERROR node (half a second), and nesting.
_MOST_WRONG_CHILDREN = 20_000
_DEEPEST = 10_000

_local = threading.local()  # a parser must not serve two threads at once


class SlowFileError(Exception):
    """A file that takes the parser too long. The caller counts it and goes on without the file's facts."""


def _binding(language: str) -> object:
    """What the language's wheel gives. Raises ImportError when it is not installed."""
    match language:
        case "c":
            from tree_sitter_c import language as grammar
        case "c#":
            from tree_sitter_c_sharp import language as grammar
        case "c++":
            from tree_sitter_cpp import language as grammar
        case "go":
            from tree_sitter_go import language as grammar
        case "java":
            from tree_sitter_java import language as grammar
        case "javascript":
            from tree_sitter_javascript import language as grammar
        case "kotlin":
            from tree_sitter_kotlin import language as grammar
        case "php":
            from tree_sitter_php import language_php as grammar
        case "python":
            from tree_sitter_python import language as grammar
        case "ruby":
            from tree_sitter_ruby import language as grammar
        case "rust":
            from tree_sitter_rust import language as grammar
        case "scala":
            from tree_sitter_scala import language as grammar
        case "swift":
            from tree_sitter_swift import language as grammar
        case "tsx":
            from tree_sitter_typescript import language_tsx as grammar
        case _:
            from tree_sitter_typescript import language_typescript as grammar
    return grammar()


@cache
def _grammar(language: str) -> "Language":
    if language not in GRAMMARS:
        raise KeyError(language)
    try:
        from tree_sitter import Language

        return Language(_binding(language))
    except ImportError as error:
        raise TritwiseError(f"files in {language} cannot be parsed", why=str(error),
                            fix="pip install 'tritwise[data]'") from None


def _parser(language: str) -> "Parser":
    parsers = _local.__dict__.setdefault("parsers", {})
    if language not in parsers:
        grammar = _grammar(language)
        from tree_sitter import Parser

        parsers[language] = Parser(grammar)
    return parsers[language]


def _cursor(language: str, query: str) -> "QueryCursor":
    cursors = _local.__dict__.setdefault("cursors", {})
    if (language, query) not in cursors:
        grammar = _grammar(language)
        from tree_sitter import Query, QueryCursor

        cursor = cursors[language, query] = QueryCursor(Query(grammar, query))
        cursor.set_max_start_depth(_DEEPEST)
    return cursors[language, query]


def _copied(content: bytes, offset: int) -> bytearray:
    """What stands from `offset` on, in an object that lasts as long as the thread.

    tree-sitter 0.26.1 never frees what a read callback returns: a process that parses would grow by all that it reads.
    """
    buffer: bytearray = _local.__dict__.setdefault("buffer", bytearray())
    buffer[:] = memoryview(content)[offset:]
    return buffer


def parse(language: str, content: bytes, *, seconds: float | None = None) -> "Tree":
    """The syntax tree of a file; wrong syntax gives ERROR nodes, never an exception.

    Args:
        language: a key of `GRAMMARS`.
        content: UTF-8; offsets of nodes are offsets in it. Node.text of this tree is slow: slice the content.
        seconds: processor time after which the parser gives up; None is `SECONDS` and `SECONDS_PER_MEGABYTE`.

    Raises:
        SlowFileError: the time is over, or the file has 4 GiB or more.
        TritwiseError: tree-sitter or the grammar's wheel is not installed.
    """
    parser = _parser(language)
    if len(content) > _MOST_BYTES:
        raise SlowFileError(f"{len(content)} bytes are more than the parser takes")
    if seconds is None:
        seconds = SECONDS + len(content) / 1e6 * SECONDS_PER_MEGABYTE
    end = time.thread_time() + seconds
    over = False

    def stop(_offset: int, _has_error: bool) -> bool:
        nonlocal over
        over = time.thread_time() > end
        return over

    parsing = True

    def read(offset: int, _point: object) -> bytes | bytearray:
        # Called for the text, for its end, and where a token that looked beyond the end is read again. The tree keeps
        # it for Node.text and predicates of queries, which crash when they get anything but bytes.
        return _copied(content, offset) if parsing else content[offset:]

    try:  # the progress callback needs a read callback
        return parser.parse(read, progress_callback=stop)
    except ValueError:
        parser.reset()  # else the next file would be taken for the rest of this one
        if not over:
            raise
        raise SlowFileError(f"{len(content)} bytes take the {language} parser more than {seconds:.3g} s") from None
    finally:
        parsing = False


def captures(language: str, query: str, tree: "Tree") -> "dict[str, list[Node]]":
    """Nodes by the names that the query gives them; names without nodes are absent.

    Nodes are in no order, and in another one each time (it follows addresses in memory): sort them by `start_byte`
    where it matters.

    Raises:
        SlowFileError: an ERROR node has so many children that the query, quadratic in them, would not end. A query
            cannot be stopped: the progress callback of QueryCursor crashes in tree-sitter 0.26.
    """
    nodes = [tree.root_node] if tree.root_node.has_error else []
    while nodes:
        node = nodes.pop()
        if node.is_error and node.child_count > _MOST_WRONG_CHILDREN:
            raise SlowFileError(f"{node.child_count} wrong tokens in a row take a query in {language} too long")
        if node.has_error:
            nodes += node.children
    return _cursor(language, query).captures(tree.root_node)


def wrong_bytes(tree: "Tree", content: bytes) -> int:
    """Bytes of `content` that the parser made nothing of, plus one for each token that it had to invent.

    They are the tokens loose in ERROR nodes, and what the parser skipped. What was parsed as something within an ERROR
    node counts as parsed, and comments and white space are not wrong: one macro that the grammar does not know puts a
    whole header into an ERROR node, with all of its functions sound below it. Costs nothing where the syntax is right:
    only nodes with an error below them are looked into.
    """
    root = tree.root_node
    if not root.has_error:
        return 0
    count, nodes = _visible(content[:root.start_byte]) + _visible(content[root.end_byte:]), [root]
    while nodes:
        node = nodes.pop()
        place = node.start_byte
        for child in node.children:
            if child.start_byte > place:
                count += _visible(content[place:child.start_byte])
            place = child.end_byte
            if child.has_error:
                nodes.append(child)
            elif node.is_error and child.child_count <= 1 and not child.is_extra:  # not more than a token
                count += place - child.start_byte
        # The rest of a node is what was skipped; a node without children is a token, wrong where it is an error.
        if node.child_count or node.is_error:
            count += _visible(content[place:node.end_byte])
        count += node.is_missing
    return count


def _visible(text: bytes) -> int:
    return sum(map(len, text.split()))
