"""Python's scopes: which names a file binds where, and which it uses in which scope. A pass over the syntax tree."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Binding(NamedTuple):
    """What gives a name its value in a scope: an import of `alias` by `node`, or any other node (`alias` None)."""

    node: ast.AST
    alias: ast.alias | None = None

    @property
    def is_import(self) -> bool:
        return self.alias is not None


@dataclass(eq=False)
class Scope:
    """A block of names; `stars` are the `from x import *` of a module."""

    kind: Literal["module", "function", "class", "comprehension"]
    parent: "Scope | None" = None
    node: ast.AST | None = None
    bindings: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    global_names: set[str] = field(default_factory=set)
    nonlocal_names: set[str] = field(default_factory=set)
    stars: list[ast.ImportFrom] = field(default_factory=list)

    @property
    def module(self) -> "Scope":
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def owner(self, name: str) -> "Scope":
        """The scope that a name used here belongs to; the module's when none binds it."""
        if name in self.global_names:
            return self.module
        scope, first = self, True
        while scope.parent is not None:
            # Functions inside a class do not see the class's names.
            if name in scope.bindings and (first or scope.kind != "class") and name not in scope.nonlocal_names:
                return scope
            if name in scope.global_names:
                return scope.module
            scope, first = scope.parent, False
        return scope

    def bind(self, name: str, binding: Binding) -> None:
        if name in self.global_names:
            self.module.bindings[name].append(binding)
        elif name in self.nonlocal_names and self.parent is not None:
            scope = self.parent.owner(name)
            scope.bindings[name].append(binding)
        else:
            self.bindings[name].append(binding)


class Chain(NamedTuple):
    """A name that is read with the attributes that are taken of it: `a.b.c` is the name a with attributes b and c."""

    root: ast.Name
    attributes: tuple[ast.Attribute, ...]
    scope: Scope


def read_scopes(tree: ast.Module) -> tuple[Scope, list[Chain]]:
    """The module's scope, and every chain that is read in the file, outside of f-strings, in no particular order."""
    reader = _Reader()
    for statement in tree.body:
        reader.visit(statement)
    return reader.scope, reader.chains


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class _Reader(ast.NodeVisitor):
    def __init__(self) -> None:
        self.scope = Scope("module")
        self.chains: list[Chain] = []
        self._in_fstring = 0

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _FUNCTIONS):
            self._function(node)
        elif isinstance(node, _COMPREHENSIONS):
            self._comprehension(node)
        else:
            super().visit(node)

    def _inside(self, kind: str, node: ast.AST, parts: list[ast.AST], names: dict[str, ast.AST]) -> None:
        outer, self.scope = self.scope, Scope(kind, self.scope, node)  # type: ignore[arg-type]
        for name, each in names.items():
            self.scope.bind(name, Binding(each))
        for part in parts:
            self.visit(part)
        self.scope = outer

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
        names: dict[str, ast.AST] = {each.arg: each for each in every}
        outside: list[ast.AST | None] = [*arguments.defaults, *arguments.kw_defaults]
        if isinstance(node, ast.Lambda):
            body: list[ast.AST] = [node.body]
        else:
            self.scope.bind(node.name, Binding(node))
            outside += [*node.decorator_list, node.returns, *(each.annotation for each in every)]
            body = list(node.body)
            names |= {each.name: each for each in getattr(node, "type_params", ())}
        for part in outside:
            if part is not None:
                self.visit(part)
        self._inside("function", node, body, names)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)  # in the scope outside
        parts: list[ast.AST] = []
        for number, generator in enumerate(node.generators):
            parts += [generator.target, *([generator.iter] if number else []), *generator.ifs]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._inside("comprehension", node, parts, {})

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.bind(node.name, Binding(node))
        for part in (*node.decorator_list, *node.bases, *(each.value for each in node.keywords)):
            self.visit(part)
        self._inside("class", node, list(node.body), {each.name: each for each in getattr(node, "type_params", ())})

    def visit_Global(self, node: ast.Global) -> None:
        self.scope.global_names.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.scope.nonlocal_names.update(node.names)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.scope.bind(alias.asname or alias.name.split(".")[0], Binding(node, alias))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.scope.module.stars.append(node)
            else:
                self.scope.bind(alias.asname or alias.name, Binding(node, alias))

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.scope.bind(node.id, Binding(node))
        elif not self._in_fstring:
            self.chains.append(Chain(node, (), self.scope))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes, value = [node], node.value
        while isinstance(value, ast.Attribute):
            attributes.append(value)
            value = value.value
        if not isinstance(value, ast.Name):
            self.visit(value)
        elif not self._in_fstring:
            # What is stored to or deleted is not read; what stands before it is.
            read = attributes if isinstance(node.ctx, ast.Load) else attributes[1:]
            self.chains.append(Chain(value, tuple(reversed(read)), self.scope))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        scope = self.scope
        while scope.kind == "comprehension" and scope.parent is not None:
            scope = scope.parent
        scope.bind(node.target.id, Binding(node))
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assign(node, node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        self._assign(node, [node.target])

    def _assign(self, node: ast.Assign | ast.AnnAssign, targets: list[ast.expr]) -> None:
        if node.value is not None:
            self.visit(node.value)
        for target in targets:
            if isinstance(target, ast.Name):
                self.scope.bind(target.id, Binding(node))  # the whole statement, which says what was assigned
            else:
                self.visit(target)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.scope.bind(node.name, Binding(node))
        self.generic_visit(node)

    def _pattern(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self.scope.bind(name, Binding(node))
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _pattern  # noqa: N815

    def visit_TypeAlias(self, node: ast.AST) -> None:
        self.scope.bind(node.name.id, Binding(node))  # type: ignore[attr-defined]

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._in_fstring += 1
        self.generic_visit(node)
        self._in_fstring -= 1

    visit_TemplateStr = visit_JoinedStr  # noqa: N815


def class_of_self(owner: Scope, argument: ast.arg) -> ast.ClassDef | None:
    """The class whose method has this as its first argument, when the method is one that gets an instance or class."""
    function = owner.node
    if owner.parent is None or owner.parent.kind != "class" or not isinstance(
            function, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    first = [*function.args.posonlyargs, *function.args.args][:1]
    static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in function.decorator_list)
    return owner.parent.node if first == [argument] and not static else None


def class_names(node: ast.ClassDef, instance: bool) -> dict[str, int]:
    """Names that a class statement defines, with their lines; `self.NAME = ...` of its methods with `instance`."""
    names: dict[str, int] = {}
    for statement in _statements(node.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.setdefault(statement.name, statement.lineno)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                for each in ast.walk(target):
                    if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                        names.setdefault(each.id, each.lineno)
    if instance:
        for method in _statements(node.body):
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.args.args:
                own = method.args.args[0].arg
                for each in ast.walk(method):
                    if (isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
                            and isinstance(each.value, ast.Name) and each.value.id == own):
                        names.setdefault(each.attr, each.lineno)
    return names


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a block and of the conditions in it, not of functions and classes."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)
