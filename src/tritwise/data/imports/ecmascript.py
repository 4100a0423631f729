"""JavaScript and TypeScript: import, export ... from, require and import() of a literal name; types count as well.

Forms of `imports`: ("import", name) and ("require", name).
"""

import posixpath
import re
from collections.abc import Collection, Mapping

from tritwise.data.imports import node_packages
from tritwise.data.imports.facts import Facts
from tritwise.data.imports.node_packages import Packages
from tritwise.data.imports.parse import captures, parse, wrong_bytes

MANIFESTS = node_packages.MANIFESTS
manifest = node_packages.manifest

_QUERY = """
(import_statement source: (string) @import)
(export_statement source: (string) @import)
(call_expression function: (import) arguments: (arguments . [(string) (template_string)] @import))
(call_expression function: (identifier) arguments: (arguments . [(string) (template_string)])) @call
"""
_QUERY_TYPES = _QUERY + "(import_require_clause source: (string) @require)\n"
_REQUIRE = re.compile(rb"require\b")  # a predicate in the query would cost more than the parser
_REFERENCE = re.compile(rb"""^///[ \t]*<reference[ \t]+path[ \t]*=[ \t]*["']([^"'\n]+)["']""", re.MULTILINE)

_TYPESCRIPT = (".ts", ".tsx", ".mts", ".cts")
_JAVASCRIPT = (".js", ".jsx", ".mjs", ".cjs")
# What TypeScript writes for what it reads: `./a.js` in a source means a.ts. Bundlers make a.cjs of a.ts, too.
_WRITTEN = {".js": (".ts", ".tsx"), ".jsx": (".tsx", ".ts"), ".mjs": (".mts", ".ts"), ".cjs": (".cts", ".ts")}


def extract(path: str, content: bytes) -> Facts:
    extension = posixpath.splitext(path)[1]
    language = "typescript" if extension in _TYPESCRIPT else "javascript"
    grammar = "tsx" if extension == ".tsx" else language
    tree = parse(grammar, content)
    found = captures(grammar, _QUERY_TYPES if language == "typescript" else _QUERY, tree)
    imports = set()
    calls = [node for node in found.get("call", ()) if _REQUIRE.match(content, node.start_byte)]
    required = [node.child_by_field_name("arguments").named_children[0] for node in calls]
    for kind, nodes in (("import", found.get("import", ())), ("require", [*found.get("require", ()), *required])):
        for node in nodes:
            name = content[node.start_byte + 1:node.end_byte - 1].decode("utf-8", "replace")
            if name and not {"\\", "\n"} & set(name) and "${" not in name:
                imports.add((kind, name))
    if b"<reference" in content:
        for match in _REFERENCE.finditer(content):
            name = match[1].decode("utf-8", "replace")
            imports.add(("import", name if name.startswith(".") else f"./{name}"))
    return Facts(language, tuple(sorted(imports)), wrong_bytes=wrong_bytes(tree, content))


def _is_typescript(path: str) -> bool:
    return posixpath.splitext(path)[1] in _TYPESCRIPT


class _Files:
    """Finds the file that a path means: with an extension added, another one in its place, or of a folder."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = frozenset(paths)
        self.packages: Packages | None = None

    def find(self, path: str, importer: str) -> str | None:
        """`path` is normalised; a trailing slash says that it is a folder."""
        if path.startswith("../"):
            return None
        folder = "" if path == "." else path.rstrip("/")
        found = self._file(folder, importer) if folder == path else None
        if found:
            return found
        for main in self.packages.mains(folder) if self.packages else ():
            place = posixpath.normpath(posixpath.join(folder, main))
            found = self._file(place, importer) or self._index(place, importer)
            if found:
                return found
        return self._index(folder, importer)

    def _file(self, path: str, importer: str) -> str | None:
        stem, extension = posixpath.splitext(path)
        written = [stem + each for each in _WRITTEN.get(extension, ())]
        candidates = [*written, path] if _is_typescript(importer) else [path, *written]
        candidates += [path + each for each in self._extensions(importer)]
        candidates += [path + ".d.ts", stem + ".d.ts"] if extension in _WRITTEN else [path + ".d.ts"]
        return next((each for each in candidates if each in self._paths), None)

    def _index(self, folder: str, importer: str) -> str | None:
        candidates = (posixpath.join(folder, "index" + each) for each in (*self._extensions(importer), ".d.ts"))
        return next((each for each in candidates if each in self._paths), None)

    @staticmethod
    def _extensions(importer: str) -> tuple[str, ...]:
        return (*_TYPESCRIPT, *_JAVASCRIPT) if _is_typescript(importer) else (*_JAVASCRIPT, *_TYPESCRIPT)


def edges(files: Mapping[str, Facts], manifests: Mapping[str, Facts], paths: Collection[str],
          repository: str) -> dict[str, set[str]]:
    places = _Files({*files, *paths})
    packages = places.packages = Packages(manifests, {*files, *paths}, places.find)
    result: dict[str, set[str]] = {}
    for path, facts in files.items():
        directory = posixpath.dirname(path)
        found = set()
        for _, name in facts.imports:
            name = name.split("?")[0]
            if name.startswith(("./", "../")) or name in (".", ".."):
                place = posixpath.normpath(posixpath.join(directory, name))
                folder = name.endswith("/") or name in (".", "..")
                found.add(places.find(place + "/" if folder and place != "." else place, path))
            elif name and not name.startswith("/"):
                found.add(packages.find(path, name))
        result[path] = {target for target in found if target in files and target != path}
    return result
