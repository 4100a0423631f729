"""Names that a file mentions, sorted by what stands before and after them."""

import posixpath
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Node

# A name in full, up to its first part with a capital: `java.util.Map` of `java.util.Map.Entry`.
_IN_FULL = re.compile(rb"[a-z_]\w*(?:\.[a-z_]\w*)*\.[A-Z]\w*")
_DOT = ord(".")


class Mentions(NamedTuple):
    """Names as bytes: those that stand alone or first, those behind a dot, and those in full (`a.b.C`)."""

    plain: set[bytes]
    members: set[bytes]
    in_full: set[bytes]


def mentions(nodes: "Iterable[Node]", content: bytes) -> Mentions:
    """Sorts the identifiers in these nodes. A dot behind white space is not seen, nor one in front of a line's end."""
    found = Mentions(set(), set(), set())
    plain, members, in_full = found
    for node in nodes:
        start, end = node.byte_range
        name = content[start:end]
        if not name:
            continue  # the parser missed one here
        if start and content[start - 1] == _DOT:
            members.add(name)
            continue
        plain.add(name)
        if content[end:end + 1] == b"." and (match := _IN_FULL.match(content, start)):
            in_full.add(match[0])
    return found


def texts(nodes: "Iterable[Node]", content: bytes) -> set[bytes]:
    return {content[node.start_byte:node.end_byte] for node in nodes} - {b""}


def decoded(names: Iterable[bytes]) -> tuple[str, ...]:
    """Sorted text without back quotes, in which no name is there twice."""
    return tuple(sorted({name.decode("utf-8", "replace").replace("`", "") for name in names}))


def is_test(path: str) -> bool:
    """Whether a file is in a folder of tests by the habits of build tools: src/test, commonTest, Tests, FooTests."""
    return any(part in ("test", "tests", "Test", "Tests", "testFixtures") or part.endswith(("Test", "Tests", ".Tests"))
               for part in path.split("/")[:-1])


def nearest(importer: str, candidates: Collection[str]) -> set[str]:
    """Of files that define one name, those that share the longest path with a file that mentions it.

    Nothing when the file itself is among them. Tests can see what is not for tests, never the other way round.
    """
    if importer in candidates:
        return set()
    if len(candidates) > 1 or is_test(next(iter(candidates), "")):
        if not is_test(importer):
            candidates = [path for path in candidates if not is_test(path)]
        directory = posixpath.dirname(importer).split("/")
        shared: dict[str, int] = {}
        for path in candidates:
            count = 0
            for a, b in zip(directory, path.split("/"), strict=False):
                if a != b:
                    break
                count += 1
            shared[path] = count
        best = max(shared.values(), default=0)
        return {path for path, count in shared.items() if count == best}
    return set(candidates)


class Extensions:
    """Members that files add to the types of others, found by their name alone: there are no types to ask."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], list[tuple[str, str]]] = {}  # by place and name: file and extended type
        self._members: set[str] = set()

    def add(self, path: str, place: str, defines: Iterable[str]) -> None:
        """Takes `.f C`, an extension f of a type C, and `#f`, a member of a class, from the names a file defines."""
        for define in defines:
            if define[0] == ".":
                name, _, extended = define[1:].partition(" ")
                self._files.setdefault((place, name), []).append((path, extended))
            elif define[0] == "#":
                self._members.add(define[1:])

    def find(self, name: str, places: Iterable[str], mentioned: Collection[str]) -> list[str]:
        """Files with an extension of a name in the first of the places that has one.

        Where a class has a member of that name too, only extensions of types that the file mentions count.
        """
        for place in places:
            found = self._files.get((place, name))
            if found:
                ambiguous = name in self._members
                return [path for path, extended in found if not ambiguous or extended in mentioned]
        return []
