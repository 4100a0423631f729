"""Python's uses of names that other files of the same repository define, from the syntax tree.

Three kinds. `imported`: a name that an import binds (`from .x import Name as N`, also through a package's `__init__`
and `from .x import *`). `attribute`: what is taken of an imported module (`x.name`, `pkg.x.name`). `member`: what is
taken of a class of another file: `Name.m`, `v.m` where v is only ever `Name(...)`, and `self.m` of a class whose bases
stand in another file and which does not define m itself.

What cannot be told for sure is no use: a name that several things bind, a name in an f-string.
"""

import ast
import posixpath
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from tritwise.data.imports import Facts, dependencies
from tritwise.evaluate.cross_file.scopes import Binding, Chain, Scope, class_names, class_of_self
from tritwise.evaluate.cross_file.source import PythonFile
from tritwise.evaluate.cross_file.uses import Kind, Use

_MOST_HOPS = 8  # imports of imports, bases of bases
_Import = tuple[str, ...]  # as `Facts.imports` of Python holds it


class Definition(NamedTuple):
    """What a module-level name is: a statement of a file, or a whole module (`node` None)."""

    path: str
    node: ast.AST | None

    @property
    def is_module(self) -> bool:
        return self.node is None


class Repository:
    """The Python files of a repository, by path; `paths` are all that there are, those without a text too."""

    def __init__(self, texts: Mapping[str, str], paths: Collection[str], name: str) -> None:
        self.files: dict[str, PythonFile] = {}
        for path in sorted(texts):
            try:
                self.files[path] = PythonFile(path, texts[path])
            except SyntaxError:  # kept files parse; another interpreter's may not
                continue
        self._paths, self._name = sorted({*texts, *paths}), name
        self._targets = self._find_targets()
        self._class_names = lru_cache(None)(class_names)

    def dependencies(self) -> dict[str, set[str]]:
        """For each file the files that it imports, as they are ordered for training."""
        return dependencies({path: file.facts for path, file in self.files.items()}, paths=self._paths,
                            repository=self._name)

    def uses(self, path: str) -> list[Use]:
        """Every use in a file of what another file defines, by place."""
        file = self.files[path]
        found = {use for chain in file.chains for use in self._uses_of(file, chain)}
        return sorted(use for use in found
                      if use.definition != path and file.text[use.start:use.end] == use.name)

    def _find_targets(self) -> dict[tuple[str, _Import], str | None]:
        """The file that each import in a directory leads to, of all modules that import statements name.

        This and `dependencies` are the only places that know how imports are resolved. Every import gets a file of its
        own that imports nothing else, beside those that have it.
        """
        wanted: dict[tuple[str, _Import], str] = {}
        for path, file in self.files.items():
            directory = posixpath.dirname(path)
            for node in file.import_nodes:
                for level, names in _modules_of(node):
                    wanted.setdefault((directory, _as_import(level, names)),
                                      posixpath.join(directory, f"\0{len(wanted)}.py"))
        facts = dict.fromkeys(self.files, Facts("python")) | {
            importer: Facts("python", (imported,)) for (_, imported), importer in wanted.items()}
        edges = dependencies(facts, paths=self._paths, repository=self._name)
        return {key: next(iter(edges[importer]), None) for key, importer in wanted.items()}

    def _module(self, importer: str, level: int, names: tuple[str, ...]) -> str | None:
        """The file that is the module `names`, exactly, not one that is a beginning of it; of no names, the package."""
        base = posixpath.dirname(importer)
        for _ in range(level - 1):
            base = posixpath.dirname(base)
        if not names:
            package = posixpath.join(base, "__init__.py")
            return package if package in self.files else None
        found = self._targets[posixpath.dirname(importer), _as_import(level, names)]
        if found is None:
            return None
        stem = "/" + found.removesuffix("__init__.py").removesuffix(".py").removesuffix("/")
        if level:
            return found if stem == "/" + posixpath.join(base, *names) else None
        written = "/" + "/".join(names)
        inside = "/" + "/".join(names[1:])  # where the repository is itself the package
        return found if stem.endswith(written) or (names[0] == self._name and stem == inside) else None

    def _imported(self, file: PythonFile, node: ast.Import | ast.ImportFrom, alias: ast.alias,
                  hops: int) -> Definition | None:
        """What an alias of an import stands for; None when it is not of this repository."""
        if isinstance(node, ast.Import):
            path = self._module(file.path, 0, tuple(alias.name.split(".")))
            return None if path is None else Definition(path, None)
        names = _parts(node)
        module = self._module(file.path, node.level, names)
        if module is not None:
            found = self.define(module, alias.name, hops + 1)
            if found is not None:
                return found
        path = self._module(file.path, node.level, (*names, alias.name))
        # The module itself again: it has no such name that can be told.
        return None if path is None or path == module else Definition(path, None)

    def define(self, path: str, name: str, hops: int = 0) -> Definition | None:
        """The statement that gives a name at the module level of a file its value, through imports if need be."""
        file = self.files.get(path)
        if file is None or hops > _MOST_HOPS:
            return None
        bindings = file.scope.bindings.get(name, [])
        if own := [binding for binding in bindings if not binding.is_import]:
            return Definition(path, own[0].node)
        if bindings:
            found = {self._imported(file, binding.node, binding.alias, hops) for binding in bindings}
            return found.pop() if len(found) == 1 else None
        return None if name.startswith("_") else self._starred(file, name, hops)

    def _starred(self, file: PythonFile, name: str, hops: int) -> Definition | None:
        found: set[Definition | None] = set()
        for node in file.scope.stars:
            module = self._module(file.path, node.level, _parts(node))
            if module is not None and module != file.path and _is_public(self.files[module], name):
                found.add(self.define(module, name, hops + 1))
        found.discard(None)
        return found.pop() if len(found) == 1 else None

    def _uses_of(self, file: PythonFile, chain: Chain) -> Iterator[Use]:
        owner = chain.scope.owner(chain.root.id)
        bindings = owner.bindings.get(chain.root.id, [])
        attributes = list(chain.attributes)
        if not bindings:
            found = self._starred(file, chain.root.id, 0) if owner.kind == "module" else None
        elif all(binding.is_import for binding in bindings):
            dotted = _dotted(bindings)
            if dotted is not None:
                found, attributes = self._walk_dotted(file, dotted, attributes)
            else:
                each = {self._imported(file, binding.node, binding.alias, 0) for binding in bindings}
                found = each.pop() if len(each) == 1 else None
        else:
            yield from self._instance_uses(file, chain, owner, bindings)
            return
        if found is None:
            return
        if not found.is_module:
            start = file.offset(chain.root.lineno, chain.root.col_offset)
            yield Use(start, start + len(chain.root.id), chain.root.id, "imported", found.path, _line(found.node))
        else:
            while attributes and found is not None and found.is_module:
                attribute, module = attributes.pop(0), found.path
                found = self.define(module, attribute.attr) or self._submodule(module, attribute.attr)
                if found is not None and not found.is_module:
                    yield _attribute_use(file, attribute, "attribute", found.path, _line(found.node))
        if attributes and found is not None and isinstance(found.node, ast.ClassDef):
            yield from self._member_use(file, attributes[0], [found], instance=False)

    def _submodule(self, package: str, name: str) -> Definition | None:
        if posixpath.basename(package) != "__init__.py":
            return None
        stem = posixpath.join(posixpath.dirname(package), name)
        return next((Definition(path, None) for path in (f"{stem}/__init__.py", f"{stem}.py") if path in self.files),
                    None)

    def _walk_dotted(self, file: PythonFile, modules: list[tuple[str, ...]],
                     attributes: list[ast.Attribute]) -> tuple[Definition | None, list[ast.Attribute]]:
        """The longest of several imported dotted names that a chain begins with, and the attributes behind it."""
        written = tuple(attribute.attr for attribute in attributes)
        for names in sorted(modules, key=len, reverse=True):
            if written[:len(names) - 1] == names[1:]:
                path = self._module(file.path, 0, names)
                return None if path is None else Definition(path, None), attributes[len(names) - 1:]
        return None, []

    def _instance_uses(self, file: PythonFile, chain: Chain, owner: Scope, bindings: list[Binding]) -> Iterator[Use]:
        if not chain.attributes or len(bindings) != 1:
            return
        node = bindings[0].node
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            found = self._class_of(file, node.value.func, owner)
            if found is not None and found.path != file.path:
                yield from self._member_use(file, chain.attributes[0], [found], instance=True)
        elif isinstance(node, ast.arg) and (own := class_of_self(owner, node)) is not None:
            known = self.members(Definition(file.path, own), instance=True, inherited=False)
            if chain.attributes[0].attr not in known:
                yield from self._member_use(file, chain.attributes[0], self._bases(Definition(file.path, own)),
                                            instance=True)

    def _class_of(self, file: PythonFile, node: ast.expr, scope: Scope) -> Definition | None:
        """The class of this repository that an expression names."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        owner = scope.owner(node.id)
        bindings = owner.bindings.get(node.id, [])
        if owner.kind == "module":
            found = self.define(file.path, node.id)
        else:
            found = (self._imported(file, bindings[0].node, bindings[0].alias, 0)
                     if len(bindings) == 1 and bindings[0].is_import else None)
        if (dotted := _dotted(bindings)) is not None and len(dotted[0]) > 1:
            found = self._module_of_names(file, dotted, node.id, names)
            names = names[-1:]
        for name in names:
            if found is None or not found.is_module:
                return None
            found = self.define(found.path, name) or self._submodule(found.path, name)
        return found if found is not None and isinstance(found.node, ast.ClassDef) else None

    def _module_of_names(self, file: PythonFile, dotted: list[tuple[str, ...]], root: str,
                         names: list[str]) -> Definition | None:
        wanted = (root, *names[:-1])
        path = self._module(file.path, 0, wanted) if wanted in dotted else None
        return None if path is None else Definition(path, None)

    def _bases(self, found: Definition) -> list[Definition]:
        file = self.files[found.path]
        bases = [self._class_of(file, base, file.scope) for base in found.node.bases]  # type: ignore[union-attr]
        return [base for base in bases if base is not None]

    def members(self, found: Definition, *, instance: bool, inherited: bool = True,
                hops: int = 0) -> dict[str, tuple[str, int]]:
        """Names of a class with the file and line that define each: of the class first, then of its bases in order.

        With `instance`, what its methods assign to `self.NAME` counts too.
        """
        own = {name: (found.path, line) for name, line in self._class_names(found.node, instance).items()}
        if inherited and hops < _MOST_HOPS:
            for base in self._bases(found):
                own = self.members(base, instance=instance, hops=hops + 1) | own
        return own

    def _member_use(self, file: PythonFile, attribute: ast.Attribute, classes: list[Definition], *,
                    instance: bool) -> Iterator[Use]:
        for found in classes:
            place = self.members(found, instance=instance).get(attribute.attr)
            if place is not None:
                yield _attribute_use(file, attribute, "member", *place)
                return


def _modules_of(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Level and dotted name of every module that a statement names or may name."""
    if isinstance(node, ast.Import):
        yield from ((0, tuple(alias.name.split("."))) for alias in node.names)
        return
    names = _parts(node)
    if names:
        yield node.level, names
    yield from ((node.level, (*names, alias.name)) for alias in node.names if alias.name != "*")


def _parts(node: ast.ImportFrom) -> tuple[str, ...]:
    return tuple(part for part in (node.module or "").split(".") if part)


def _as_import(level: int, names: tuple[str, ...]) -> _Import:
    return (str(level), ".".join(names[:-1]), names[-1]) if level else ("0", ".".join(names))


def _attribute_use(file: PythonFile, node: ast.Attribute, kind: Kind, path: str, line: int) -> Use:
    end = file.offset(node.end_lineno, node.end_col_offset)
    return Use(end - len(node.attr), end, node.attr, kind, path, line)


def _line(node: ast.AST | None) -> int:
    return getattr(node, "lineno", 1)


def _dotted(bindings: list[Binding]) -> list[tuple[str, ...]] | None:
    """The dotted names of `import a.b` statements when all bindings are such: they bind `a` and load the others."""
    if not bindings or not all(isinstance(each.node, ast.Import) and not each.alias.asname for each in bindings):
        return None
    return [tuple(each.alias.name.split(".")) for each in bindings]


def _is_public(file: PythonFile, name: str) -> bool:
    """Whether `from module import *` takes a name: what `__all__` lists where it is a plain list, or no underscore."""
    listed = file.scope.bindings.get("__all__", [])
    if len(listed) == 1 and isinstance(listed[0].node, ast.Assign | ast.AnnAssign):
        try:
            return name in ast.literal_eval(listed[0].node.value)
        except (ValueError, TypeError):
            pass
    return not name.startswith("_")
