"""C and C++: `#include`, found without knowing the compiler's include paths.

Includes are read by a byte scanner, not from the syntax tree: it is faster, and includes stay visible where macros make
the parser lose its way. All branches of conditionals count: which one is taken is not known here.

Forms of `imports`: ('"', name) and ("<", name) as the directive writes it, ("macro", NAME) for `#include NAME`, and
("define", NAME, name) for a macro that stands for a file.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping

from tritwise.data.imports.facts import Facts
from tritwise.data.imports.parse import parse, wrong_bytes

MANIFESTS: frozenset[str] = frozenset()

_FILE = rb'(?:"([^"\n]+)"|<([^>\n]+)>)'
_SPACE = rb"(?:[ \t]|\\\r?\n|/\*[^*\n]*\*/)*"
_DIRECTIVE = (rb"#[ \t]*(?:(?:include(?:_next)?|import)\b" + _SPACE + rb"(?:" + _FILE + rb"|([A-Za-z_]\w*))"
              rb"|define[ \t]+(\w+)[ \t]+" + _FILE + rb")")
_DIRECTIVES = re.compile(_DIRECTIVE)
# The same with what may hide a directive: comments, strings (raw ones too), characters.
_TOKENS = re.compile(rb"//(?:[^\n\\]|\\.)*|/\*.*?(?:\*/|\Z)|"
                     rb'(?<!\w)(?:u8|[LuU])?R"([^()\\\s]{0,16})\((?:.*?\)\1"|.*\Z)|"(?:[^"\\\n]|\\.)*"|'
                     rb"(?<![0-9a-fA-F])'(?:[^'\\\n]|\\.)*'|" + _DIRECTIVE, re.DOTALL)

_HEADERS = frozenset((".h", ".hh", ".hpp", ".hxx", ".inc", ".inl", ".ipp", ".def"))
_SOURCES = frozenset((".c", ".cc", ".cpp", ".cxx", ".m", ".mm"))
# Headers of the system. A file of the same name in a repository is a fallback for other systems, unless the repository
# is itself a C library.
_SYSTEM_NAMES = (
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic "
    "stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype "
    "aio alloca cpio dirent dlfcn err fcntl fmtmsg fnmatch ftw getopt glob grp iconv langinfo libgen malloc memory "
    "monetary mqueue ndbm netdb nl_types paths poll pthread pwd regex resolv sched search semaphore spawn strings "
    "stropts sysexits syslog tar termios trace ulimit unistd utime utmpx values wordexp "
    "execinfo features ifaddrs link pty ucontext windows winsock2 ws2tcpip io process direct conio intrin")
_SYSTEM = frozenset(f"{name}.h" for name in _SYSTEM_NAMES.split())
_SYSTEM_DIRECTORIES = frozenset(("arpa", "asm", "bits", "linux", "mach", "net", "netinet", "sys"))
# Headers that a build writes: a file of that name elsewhere in the repository is another project's.
_GENERATED = frozenset(("config.h", "configure.h", "version.h", "build.h", "autoconf.h", "features.h", "export.h"))
# What makes a header one of C++.
_ONLY_CPP = re.compile(rb"^[ \t]*(?:template\s*<|namespace\b|class\s+\w|using\s+\w|(?:public|private|protected):)|"
                       rb"^[^/*\n\"']*\w::\w", re.MULTILINE)


def _directives(content: bytes) -> Iterator[re.Match[bytes]]:
    """Directives that are no comment and no string.

    The full scanner costs five times as much, so it runs only where something may hide a directive.
    """
    if b'R"' in content or b"/*/" in content:
        return _scanned(content)
    found: list[re.Match[bytes]] = []
    last, opened, closed = 0, -1, -1
    for match in _DIRECTIVES.finditer(content):
        opened = max(opened, content.rfind(b"/*", last, match.start()))
        closed = max(closed, content.rfind(b"*/", last, match.start()))
        last = match.start()
        line = content.rfind(b"\n", 0, last) + 1
        if opened > closed or closed >= line or content.endswith((b"\\\n", b"\\\r\n"), 0, line):
            return _scanned(content)
        if not content[line:last].strip():
            found.append(match)
    return iter(found)


def _scanned(content: bytes) -> Iterator[re.Match[bytes]]:
    blank, last = True, 0  # whether the line holds only space and comments so far; a backslash joins lines
    for match in _TOKENS.finditer(content):
        between = content[last:match.start()].replace(b"\\\r\n", b"").replace(b"\\\n", b"")
        _, newline, tail = between.rpartition(b"\n")
        blank = not tail.strip() and (blank or bool(newline))
        last = match.end()
        if match[0].startswith(b"#"):
            if blank:
                yield match
            blank = False
        elif not match[0].startswith((b"/*", b"//")):
            blank = False


def _read(content: bytes) -> set[tuple[str, ...]]:
    imports: set[tuple[str, ...]] = set()
    for match in _directives(content):
        quoted, angled, macro, name, quoted_value, angled_value = (
            None if group is None else group.decode("utf-8", "replace").strip() for group in match.groups()[-6:])
        if name:
            imports.add(("define", name, quoted_value or angled_value or ""))
        elif macro:
            imports.add(("macro", macro))
        elif quoted or angled:
            imports.add(('"', quoted) if quoted else ("<", angled or ""))
    # Nearly all macros that are strings name no file.
    return {each for each in imports if each[0] != "define" or posixpath.splitext(each[2])[1] in _HEADERS}


def extract(path: str, content: bytes) -> Facts:
    extension = posixpath.splitext(path)[1]
    language = "c" if extension == ".c" or (extension == ".h" and not _ONLY_CPP.search(content)) else "c++"
    return Facts(language, tuple(sorted(_read(content))), wrong_bytes=wrong_bytes(parse(language, content), content))


class _Headers:
    """Finds the file that an include means among the paths of a repository."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = frozenset(paths)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            self._by_name[posixpath.basename(path)].append(path)
        self._votes: Counter[str] = Counter()  # how many names only this include root can explain
        self._library = {posixpath.dirname(path) for path in self._by_name["stdio.h"]} & {
            posixpath.dirname(path) for path in self._by_name["string.h"]}
        self._known: dict[tuple[str, bool, str], str | None] = {}

    def vote(self, name: str) -> None:
        candidates = self._candidates(name)
        if len(candidates) == 1:
            self._votes[candidates[0][:-len(name)].rstrip("/")] += 1

    def _candidates(self, name: str) -> list[str]:
        return [path for path in self._by_name.get(posixpath.basename(name), ())
                if path == name or path.endswith("/" + name)]

    def find(self, includer: str, name: str, *, angled: bool) -> str | None:
        directory = posixpath.dirname(includer)
        key = (directory, angled, name)
        if key not in self._known:
            self._known[key] = self._find(directory, name, angled)
        return self._known[key]

    def _find(self, directory: str, name: str, angled: bool) -> str | None:
        name = name.replace("\\", "/")
        beside = posixpath.normpath(posixpath.join(directory, name))
        if not angled and beside in self._paths:
            return beside
        name = posixpath.normpath(name)
        while name.startswith("../"):  # relative to an include root that is not known
            name = name[3:]
        candidates = self._candidates(name)
        if name in _SYSTEM or name.split("/")[0] in _SYSTEM_DIRECTORIES:
            if angled:
                candidates = [path for path in candidates if path[:-len(name) - 1] in self._library]
        elif name in _GENERATED:
            candidates = [path for path in candidates if self._is_near(directory, posixpath.dirname(path))]
        if angled:  # the compiler does not look beside the includer, unless that is an include root
            elsewhere = [path for path in candidates if path != beside or posixpath.basename(directory) == "include"]
            candidates = elsewhere or candidates
        return min(candidates, key=lambda path: self._rank(directory, path, name), default=None)

    @staticmethod
    def _is_near(directory: str, root: str) -> bool:
        """Whether a directory, or its `include`, is the includer's or above it."""
        if posixpath.basename(root) == "include":
            root = posixpath.dirname(root)
        return not root or directory == root or directory.startswith(root + "/")

    def _rank(self, directory: str, path: str, name: str) -> tuple[int, int, bool, int, str]:
        """Nearest by common directories; then the root that explains most names; then `include`; then the shortest."""
        root = path[:-len(name)].rstrip("/")
        common = 0
        for ours, theirs in zip(directory.split("/"), posixpath.dirname(path).split("/"), strict=False):
            if ours != theirs:
                break
            common += 1
        return -common, -self._votes[root], posixpath.basename(root) != "include", path.count("/"), path


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    headers = _Headers({*files, *paths})
    macros: dict[str, set[str]] = defaultdict(set)
    for name in sorted({each[1] for facts in files.values() for each in facts.imports if each[0] in '"<'}):
        headers.vote(name)
    for facts in files.values():
        for each in facts.imports:
            if each[0] == "define":
                macros[each[1]].add(each[2])
    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        found = set()
        for each in facts.imports:
            if each[0] == "macro":
                own = {other[2] for other in facts.imports if other[0] == "define" and other[1] == each[1]}
                found |= {headers.find(path, name, angled=False) for name in own or macros[each[1]]}
            elif each[0] != "define":
                found.add(headers.find(path, each[1], angled=each[0] == "<"))
        result[path] = {target for target in found if target in files and target != path}
    for path, targets in result.items():  # the header of a source is its dependency when another header brings it
        stem, extension = posixpath.splitext(path)
        if extension in _SOURCES:
            own = {stem + other for other in _HEADERS} - targets
            targets |= {header for header in own if any(header in result[target] for target in targets)}
    return result
