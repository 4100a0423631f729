"""Java, Kotlin and Scala: packages and names, which files of all three see without regard to the language.

Facts of a file:

    package   as the file names it; in Scala with its package clauses joined
    imports   (path, local name): ("a.b.C", "C"), ("a.b.C", "D") when renamed, ("a.b", "*"); ("a", "^") is a package
              around this one whose names are in sight, as Scala's clauses can have it
    defines   names that the package holds from this file: "C", "f"; "inner.C" lies in a package or package object of
              the package; ".f C" is an extension f of a type C; "#f" is a member of a class. In Java "#f A" is a field
              of type A, "#f/2 A B" a method of two parameters with A and B in its signature, "#!f/1* A A'" a static
              one of at least one whose first is an A, and "<C" says that a class here inherits from C. A constructor
              is a member that has its class's name
    uses      names mentioned and not defined here: "C" alone, ".f" behind a dot, "a.b.C" in full. In Java "(f/2" is a
              call with two arguments, "(f/2'" one whose first is a text, a character or a number, "(.f/2" one behind
              a value, "(C.f/2" one behind a type, "(C.C/2" `new C(a, b)`; without a number it is a field, or a method
              that is not called here

A name is looked for where the language does: in explicit imports, then in the package, then in imports with a star (in
Scala the package comes last). Without types, what a value's type leads to stays unseen. A name behind a dot is taken
for an extension when no class has such a member, or when the file mentions the type that is extended.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from tritwise.data.imports import jvm_java, jvm_kotlin, jvm_scala
from tritwise.data.imports.facts import Facts
from tritwise.data.imports.names import Extensions, nearest

MANIFESTS: frozenset[str] = frozenset()


def extract(path: str, content: bytes) -> Facts:
    """Facts of a file; SlowFileError as `parse`."""
    if path.endswith(".java"):
        return jvm_java.extract(content)
    if path.endswith((".kt", ".kts", ".ktm")):
        return jvm_kotlin.extract(path, content)
    return jvm_scala.extract(content)


class _Names:
    """The files that define a name, for names in full."""

    def __init__(self, files: Mapping[str, Facts]) -> None:
        self.defined: dict[str, list[str]] = {}
        self.extensions = Extensions()
        for path in sorted(files):
            facts = files[path]
            self.extensions.add(path, facts.package, facts.defines)
            for name in facts.defines:
                if name[0] not in ".#<":
                    self.defined.setdefault(_joined(facts.package, name), []).append(path)
        # What an import with a star opens, when it is no definition.
        self.packages = {name.rpartition(".")[0] for name in self.defined} | {facts.package for facts in files.values()}

    def longest(self, name: str) -> list[str]:
        """Files of the longest beginning of a dotted name that is defined: of `a.b.C` for `a.b.C.member`."""
        while name:
            if name in self.defined:
                return self.defined[name]
            name = name.rpartition(".")[0]
        return []


def _joined(package: str, name: str) -> str:
    return f"{package}.{name}" if package else name


def _enclosing(package: str) -> Iterator[str]:
    """A package and those around it, the innermost first; at last the one without a name."""
    while package:
        yield package
        package = package.rpartition(".")[0]
    yield ""


class _Scope:
    """What the names in one file stand for."""

    def __init__(self, path: str, facts: Facts, names: _Names) -> None:
        self._path, self._facts, self._names = path, facts, names
        self._used = frozenset(facts.uses)
        self.own = frozenset(name for name in facts.defines if name[0] not in ".#<")
        self._is_scala = facts.language == "scala"
        self._explicit: dict[str, str] = {}
        stars: list[str] = []
        around: list[str] = []
        for full, local in facts.imports:
            if local == "^":
                around.insert(0, full)  # sorted, so the innermost comes last
                continue
            full = self._absolute(full, self._explicit)
            if local == "*":
                stars.append(full)
            else:
                self._explicit[local] = full
        self._stars = stars
        self._places = [*stars, facts.package, *around] if self._is_scala else [facts.package, *stars]

    def _absolute(self, name: str, explicit: Mapping[str, str]) -> str:
        """A name in full. In Scala a path may begin at an enclosing package, or at a name imported before."""
        if not self._is_scala:
            return name
        first, dot, rest = name.partition(".")
        if first in explicit:
            return explicit[first] + dot + rest
        for package in _enclosing(self._facts.package):
            full = _joined(package, first)
            if full in self._names.defined or full in self._names.packages:
                return full + dot + rest
        return name

    def targets(self) -> Iterator[Collection[str]]:
        """The files that define each name in use."""
        for local, full in self._explicit.items():
            # An import may serve comments alone. Functions may be called by an operator, so they need no mention.
            if not local[:1].isupper() or local in self._used:
                yield self._names.longest(full)
                package, _, name = full.rpartition(".")
                yield self._names.extensions.find(name, [package], self._used)
        for full in self._stars:
            if full not in self._names.packages:
                yield self._names.longest(full)
        for name in self._used:
            if name[0] == "(":
                continue  # of `_Signatures`
            if name[0] == ".":
                yield self._names.extensions.find(name[1:], self._places, self._used)
            elif "." in name:
                yield self._names.longest(self._absolute(name, self._explicit))
            elif name not in self._explicit:
                yield self.simple(name)
                if self._facts.language == "kotlin":
                    yield self._names.extensions.find(name, self._places, self._used)

    def simple(self, name: str) -> Collection[str]:
        """The files that define a name that stands alone."""
        if name in self._explicit:
            return self._names.longest(self._explicit[name])
        defined = self._names.defined
        return next((found for place in self._places if (found := defined.get(_joined(place, name)))), ())


# Methods of Java's streams, functions and string builders: behind a value of unknown type they are the library's.
_LIBRARY = frozenset({
    "accept", "allMatch", "and", "andThen", "anyMatch", "append", "apply", "call", "collect", "compose", "filter",
    "flatMap", "forEach", "get", "map", "negate", "noneMatch", "or", "peek", "reduce", "run", "stream", "test",
})


class _Member(NamedTuple):
    """A member of a class, with the names of the types in its signature; `count` is of parameters."""

    is_static: bool
    count: str
    first: str | None
    types: list[str]

    def takes(self, count: str) -> bool:
        """Whether so many arguments can be meant."""
        return self.count == count or (self.count[-1:] == "*" and int(count) >= int(self.count[:-1]))


class _Signatures:
    """Types in the signatures of Java members: who calls a member uses values of these types, named or not."""

    def __init__(self, files: Mapping[str, Facts], scopes: Mapping[str, _Scope]) -> None:
        self._scopes = scopes
        self._inherits: dict[str, list[str]] = {}
        self._members: dict[str, dict[str, list[_Member]]] = {}
        self._files: dict[tuple[str, str], set[str]] = {}
        for path, facts in files.items():
            if facts.language == "java":
                self._inherits[path] = [name[1:] for name in facts.defines if name[0] == "<"]
                members = self._members[path] = {}
                for define in facts.defines:
                    if define[0] == "#":
                        member, *types = define[1:].split(" ")
                        name, _, count = member.lstrip("!").partition("/")
                        first = next((each[:-1] for each in types if each[-1] == "'"), None)
                        members.setdefault(name, []).append(_Member(
                            member[0] == "!", count, first, [each for each in types if each[-1] != "'"]))

    def _files_of(self, path: str, name: str) -> set[str]:
        """The file of a type that is named in a file; that file itself when the type is its own."""
        if (path, name) not in self._files:
            scope = self._scopes[path]
            found = {path} if name in scope.own else scope.simple(name)
            self._files[path, name] = {path} if path in found else nearest(path, found) if found else set()
        return self._files[path, name]

    def _with_parents(self, start: Collection[str]) -> set[str]:
        """Files, and those of what their classes inherit from."""
        around, frontier = set(start), list(start)
        while frontier:
            here = frontier.pop()
            for name in self._inherits.get(here, ()):
                new = self._files_of(here, name) - around
                around |= new
                frontier += new
        return around

    def targets(self, path: str, mentioned: Collection[str], calls: Collection[str]) -> set[str]:
        """Files of the types in what a file calls.

        Args:
            mentioned: the files that it depends on by name.
            calls: its uses that begin with a parenthesis.
        """
        parents, everything = self._with_parents({path}), self._with_parents({path, *mentioned})
        result: set[str] = set()
        for call in calls:
            receiver, dot, member = call[1:].rpartition(".")
            name, _, count = member.partition("/")
            is_literal, count = count[-1:] == "'", count.rstrip("'")
            if dot and not receiver and name in _LIBRARY:
                continue
            if receiver:
                places = self._with_parents(self._files_of(path, receiver))
            elif dot:
                places = everything
            else:
                places = set() if name in self._members[path] else parents
            for place in places - {path}:  # what the file itself declares it names
                for found in self._members.get(place, {}).get(name, ()):
                    if (count and not found.takes(count)) or (found.is_static and dot and not receiver):
                        continue
                    if not (is_literal and found.first and self._files_of(place, found.first)):
                        result.update(*(self._files_of(place, each) for each in found.types))
        return result


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    """For each file, the files of the same repository that define what it mentions."""
    names = _Names(files)
    result: dict[str, set[str]] = {}
    scopes = {path: _Scope(path, facts, names) for path, facts in files.items()}
    signatures = _Signatures(files, scopes)
    for path, facts in files.items():
        found = {target for each in scopes[path].targets() if each for target in nearest(path, each)}
        if facts.language == "java":
            found |= signatures.targets(path, found, [name for name in facts.uses if name[0] == "("])
        result[path] = found - {path}
    return result
