"""The module trees of a repository's Rust crates, and the files that paths lead to."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tritwise.data.imports.facts import Facts

# Re-exports that lead to re-exports; a chain this long is a cycle.
_MOST_STEPS = 24


@dataclass(eq=False)
class _Module:
    """A module: of a file, or written inside one."""

    file: str
    root: "_Module | None" = None  # None for the root itself
    parent: "_Module | None" = None
    children: dict[str, "_Module"] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by `use`
    globs: list[str] = field(default_factory=list)
    crates: dict[str, "_Module"] = field(default_factory=dict)  # of a root: what it may call other crates
    exported: dict[str, str] = field(default_factory=dict)  # of a root: files of exported macros

    @property
    def crate(self) -> "_Module":
        return self.root or self


class Crates:
    def __init__(self, files: Mapping[str, Facts], manifests: Mapping[str, Facts]) -> None:
        self._files = files
        self._of_file: dict[str, _Module] = {}
        self._targets: dict[str, list[str]] = defaultdict(list)  # files below a folder that may be crates of their own
        for path in sorted(files):
            folder, name = posixpath.split(path)
            self._targets[folder].append(path)
            if name == "main.rs":
                self._targets[posixpath.dirname(folder)].append(path)
        self._macros: dict[tuple[_Module | None, str], set[str]] = defaultdict(set)
        self._children: dict[str, set[str]] = defaultdict(set)
        # Modules that a macro declares where it is used.
        self._by_macro: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
        for facts in files.values():
            for each in facts.imports:
                if each[0] == "macro":
                    self._by_macro[each[1]].add(("", each[2], each[3]))
        libraries: dict[str, _Module] = {}
        packages = {posixpath.dirname(path): facts for path, facts in manifests.items() if facts.package}
        for directory, facts in sorted(packages.items()):
            file = self._library(directory, facts)
            if file is not None and file not in self._of_file:
                names = [each[1] for each in facts.imports if each[0] == "name"] or [facts.package]
                module = libraries[facts.package] = self._tree(file)
                libraries.setdefault(names[0], module)
        for directory, facts in sorted(packages.items()):
            for file in self._roots(directory, facts):
                if file not in self._of_file:
                    self._tree(file)
        rest = sorted(files, key=lambda path: (posixpath.basename(path) not in ("lib.rs", "main.rs"), path.count("/"),
                                               posixpath.basename(path) != "mod.rs", path))
        for file in rest:  # no manifest: fixtures, scripts, files that nothing declares
            if file not in self._of_file:
                self._tree(file)
        for module in set(self._of_file.values()):
            if module.root is None:
                facts = self._package_of(module.file, packages)
                renamed = {each[1]: each[2] for each in facts.imports if each[0] == "dependency"} if facts else {}
                module.crates = libraries | {name: libraries[package] for name, package in renamed.items()
                                             if package in libraries}

    def _library(self, directory: str, facts: Facts) -> str | None:
        named = [each[1] for each in facts.imports if each[0] == "library"]
        file = posixpath.normpath(posixpath.join(directory, named[0] if named else "src/lib.rs"))
        return file if file in self._files else None

    def _roots(self, directory: str, facts: Facts) -> Iterator[str]:
        """Binaries, tests, examples and benchmarks, as Cargo finds them."""
        names = ["src/main.rs", "build.rs", *(each[1] for each in facts.imports if each[0] == "root")]
        for name in names:
            file = posixpath.normpath(posixpath.join(directory, name))
            if file in self._files:
                yield file
        for place in ("src/bin", "tests", "examples", "benches"):
            yield from self._targets.get(posixpath.join(directory, place), ())

    @staticmethod
    def _package_of(file: str, packages: Mapping[str, Facts]) -> Facts | None:
        directory = posixpath.dirname(file)
        while directory and directory not in packages:
            directory = posixpath.dirname(directory)
        return packages.get(directory)

    def _tree(self, root_file: str) -> _Module:
        root = _Module(root_file)
        waiting = [(root, posixpath.dirname(root_file))]
        self._of_file[root_file] = root
        while waiting:
            module, directory = waiting.pop()
            facts = self._files[module.file]
            inner = self._inside(module, facts)
            declared = {each[1:] for each in facts.imports if each[0] == "mod"}
            for use in facts.uses:
                declared |= self._by_macro.get(use, set())
            for scope, name, attribute in sorted(declared):
                file = self._module_file(module.file, directory, scope, name, attribute)
                if file is None:
                    continue
                self._children[module.file].add(file)
                if file not in self._of_file:
                    child = _Module(file, root.crate, inner[scope])
                    self._of_file[file] = child
                    is_directory = posixpath.basename(file) == "mod.rs" or attribute
                    waiting.append((child, posixpath.dirname(file) if is_directory else file.removesuffix(".rs")))
                inner[scope].children.setdefault(name, self._of_file[file])
        return root

    def _module_file(self, file: str, directory: str, scope: str, name: str, attribute: str) -> str | None:
        inside = posixpath.join(directory, *scope.split("::")) if scope else directory
        if attribute:  # beside the file, unless modules written inside it stand between
            candidates = [posixpath.join(inside if scope else posixpath.dirname(file), attribute)]
        else:
            candidates = [posixpath.join(inside, f"{name}.rs"), posixpath.join(inside, name, "mod.rs")]
        normal = (posixpath.normpath(each) for each in candidates)
        return next((each for each in normal if each in self._files), None)

    def _inside(self, module: _Module, facts: Facts) -> dict[str, _Module]:
        """The file's module and those written inside it, by scope, with what they define and use."""
        inner = {"": module}

        def at(scope: str) -> _Module:
            if scope not in inner:
                above, _, name = scope.rpartition("::")
                parent = at(above)
                inner[scope] = parent.children[name] = _Module(module.file, module.crate, parent)
            return inner[scope]

        for each in facts.imports:
            if each[0] == "use" and each[4] != "local":
                if each[2].endswith("*"):
                    at(each[1]).globs.append(each[2].removesuffix("*").removesuffix("::"))
                else:
                    at(each[1]).names[each[3]].append(each[2])
            elif each[0] in ("mod", "path", "use"):
                at(each[1])
        for name in facts.defines:
            if name.startswith("crate!"):
                module.crate.exported[name[6:]] = module.file
            elif name.endswith("!"):
                self._macros[module.crate, name].add(module.file)
            else:
                scope, _, item = name.rpartition("::")
                at(scope).items.add(item)
        return inner

    def children(self, file: str) -> set[str]:
        """Files that it declares as modules."""
        return self._children.get(file, set())

    def macro(self, file: str, name: str) -> set[str]:
        """The only other file of the crate that defines a macro which is used by its bare name."""
        found = self._macros.get((self._of_file[file].crate, name), set())
        return found if len(found) == 1 else set()

    def find(self, file: str, scope: str, path: str) -> set[str]:
        """The file that a path leads to from a scope of a file; empty when it leaves the repository."""
        module = self._of_file[file]
        for name in scope.split("::") if scope else ():
            module = module.children.get(name, module)
        end = self._walk(module, path, _MOST_STEPS, set())
        return {end.file if isinstance(end, _Module) else end} if end is not None else set()

    def _walk(self, module: _Module, path: str, steps: int, seen: set[tuple[int, str]]) -> "_Module | str | None":
        """The module or (for an item) the file at the end of a path."""
        parts = path.split("::")
        if steps == 0 or (id(module), path) in seen:
            return None
        seen.add((id(module), path))
        here: _Module | None = module
        first = parts[0]
        if first == "":  # ::name is another crate's
            here, parts = module.crate.crates.get(parts[1]), parts[2:]
        elif first == "crate":
            here, parts = module.crate, parts[1:]
        elif first in ("self", "super"):
            while parts and parts[0] in ("self", "super"):
                here = here.parent if parts[0] == "super" and here is not None else here
                parts = parts[1:]
        else:
            inside = self._member(module, first, steps, seen)
            if inside is None:
                here, parts = module.crate.crates.get(first), parts[1:]
            elif isinstance(inside, str):
                return inside
            else:
                here, parts = inside, parts[1:]
        for part in parts:
            if here is None or part in ("*", ""):
                break
            inside = self._member(here, part, steps, seen)
            if inside is None or isinstance(inside, str):
                return inside or here
            here = inside
        return here

    def _member(self, module: _Module, name: str, steps: int, seen: set[tuple[int, str]]) -> "_Module | str | None":
        if name in module.children:
            return module.children[name]
        if name in module.items:
            return module.file
        for path in module.names.get(name, ()):
            end = self._walk(module, path, steps - 1, seen)
            if end is not None:
                return end
        if module.root is None and name in module.exported:
            return module.exported[name]
        for path in module.globs:
            end = self._walk(module, path, steps - 1, seen)
            if isinstance(end, _Module) and end is not module:
                found = self._member(end, name, steps - 1, seen) if steps > 1 else None
                if found is not None:
                    return found
        return None
