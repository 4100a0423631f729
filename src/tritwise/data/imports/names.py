"""Names that a file mentions, sorted by what stands before and after them."""

import posixpath
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Node

# A name with what stands behind its dots and the sign after it, or a number. A dot in front says that it is a member.
_CHAIN = re.compile(rb"\.?[\w\x80-\xff][\w\x80-\xff.?]*(?:[(<\[:]| ?\{)?")


_LETTER = re.compile(r"\w")
_MEMBER = re.compile(r"[^#!/ ]+")


class Mentions(NamedTuple):
    """Names as bytes: those that stand alone or first, those of them that are called, those behind a dot, and those in
    full: `java.util.Map` of `java.util.Map.Entry`, that is with a small letter first and up to a capital.
    """

    plain: set[bytes]
    called: set[bytes]
    members: set[bytes]
    in_full: set[bytes]


def mentions(content: bytes, left_out: "Iterable[Node]", *, call: bytes = b"({<",
             inside: "Iterable[Node]" = ()) -> Mentions:
    """The names in a file, without those in some of its nodes (comments, text, imports).

    Reading the text again is twice as fast as asking the parser for every identifier.

    Args:
        call: signs which, after a name, say that it is called.
        inside: nodes in those left out whose names count after all.
    """
    pieces, position = [], 0
    for start, end in sorted(node.byte_range for node in left_out):
        if start >= position:
            pieces.append(content[position:start])
        position = max(position, end)
    pieces.append(content[position:])
    pieces += [content[node.start_byte:node.end_byte] for node in inside]
    found = Mentions(set(), set(), set(), set())
    plain, called, members, in_full = found
    for chain in set(_CHAIN.findall(b"\0".join(pieces))):
        name = chain.rstrip(b"(<[:{ ?")
        sign = chain[len(name):][-1:]
        if b"." not in name:  # most have none
            # A small name before a colon is a label or is declared here.
            if not name[:1].isdigit() and (sign != b":" or not name[:1].islower()):
                plain.add(name)
                if sign and sign in call:
                    called.add(name)
            continue
        first, *rest = name.replace(b"?", b"").split(b".")
        while b"" in rest:  # two dots are a range of two values
            place = rest.index(b"")
            plain.update(rest[place + 1:place + 2])
            del rest[place:place + 2]
        members.update(rest)
        if not first or first[:1].isdigit():
            continue
        plain.add(first)
        if rest and not first[:1].isupper():
            capital = next((place for place, part in enumerate(rest, 2) if part[:1].isupper()), 0)
            if capital:
                in_full.add(b".".join([first, *rest][:capital]))
    plain.discard(b"")
    return found


def texts(nodes: "Iterable[Node]", content: bytes) -> set[bytes]:
    return {content[node.start_byte:node.end_byte] for node in nodes} - {b""}


def decoded(names: Iterable[bytes]) -> tuple[str, ...]:
    """Sorted text without back quotes, in which no name is there twice; what has no letter is no name."""
    decoded_names = {name.decode("utf-8", "replace").replace("`", "") for name in names}
    return tuple(sorted(name for name in decoded_names if _LETTER.search(name)))


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
                self._members.add(_MEMBER.search(define)[0])

    def find(self, name: str, places: Iterable[str], mentioned: Collection[str],
             to_be_mentioned: Collection[str] | None = ()) -> list[str]:
        """Files with an extension of a name in the first of the places that has one.

        Where a class has a member of that name too, only extensions of types that the file mentions count; of the
        types `to_be_mentioned` (None: of all) never others.
        """
        for place in places:
            found = self._files.get((place, name))
            if found:
                strict = to_be_mentioned is None or name in self._members
                return [path for path, extended in found
                        if extended in mentioned or not (strict or extended in to_be_mentioned)]
        return []
