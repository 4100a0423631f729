"""Runs a chat template within a budget: so many steps and characters, no way to Python's objects.

    template = Template("{% for m in messages %}{{ m.content }}{% endfor %}")
    text, mine = template.render({"messages": [...]}, controls=["<|end|>"])

Templates come from whoever published a model, so every step, every character that is made and every element that is
compared or printed is paid for, and what is not in the language of `jinja_syntax.py` does not exist. minijinja was
tried in its place: its fuel does not pay for printing or comparing lists that hold themselves twice, so forty short
steps run for years, and one `tojson(indent=99999999)` takes 600 MB (version 3.1.0).
"""

import operator
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from tritwise.engine.jinja_filters import Filters
from tritwise.engine.jinja_syntax import Node, parse
from tritwise.engine.jinja_tokens import refuse
from tritwise.engine.jinja_values import Marks, Method, Namespace, Undefined, kind_of, test, truth

STEPS, STEPS_A_MESSAGE, CHARACTERS_A_STEP = 8_000, 1_000, 2
# Only directives of C89 and the "-" that leaves zeros out: glibc would take widths, and make texts of that width.
_TIME = re.compile(r"(?:%-?[aAbBcdeHIjmMpSUwWxXyYzZT%DFRy]|[^%])*")
_MOST_BITS = 4096
_ORDERS = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
_NUMBERS = {"-": operator.sub, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod, "*": operator.mul,
            "+": operator.add, "**": operator.pow}


class TemplateRefusal(Exception):  # noqa: N818 (the template's own words)
    """`raise_exception` was called; the message is the template's."""


class _Leave(Exception):  # noqa: N818 (break and continue)
    pass


class Template:
    """A parsed template. Raises TritwiseError when it cannot be parsed."""

    def __init__(self, source: str) -> None:
        self.source, self._statements = source, parse(source)

    def render(self, values: Mapping[str, Any], *, written: Mapping[str, Any] | None = None,
               words: Mapping[str, Container[str]] | None = None,
               controls: Iterable[str] = ()) -> tuple[str, list[bool]]:
        """The text, and for each character whether it is a user's and could belong to one of `controls`.

        `values` are plain data that the model's publisher gives, `written` those of a user: texts, numbers, lists and
        dictionaries; the `words` of a key, as a message's role, count as the publisher's. The list is empty where no
        character is a user's. Raises TritwiseError for what is not allowed and when the budget is spent, and
        TemplateRefusal.
        """
        run = _Run(self.source, controls, values, written or {}, words or {})
        try:
            marked = run.render(self._statements)
        except RecursionError:
            refuse("it is nested too deeply")
        text = marked.translate(run.marks.shown)
        return text, [] if text == marked else [old != new for old, new in zip(marked, text, strict=True)]


class _Scope:
    __slots__ = ("outer", "values")

    def __init__(self, outer: "_Scope | None", values: dict[str, Any]) -> None:
        self.outer, self.values = outer, values

    def find(self, name: str) -> Any:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return Undefined(name)


class _Macro:
    def __init__(self, name: str, parameters: list[tuple[str, Node | None]], body: list[Node], scope: _Scope) -> None:
        self.name, self.parameters, self.body, self.scope = name, parameters, body, scope


class _Run:
    def __init__(self, source: str, controls: Iterable[str], values: Mapping[str, Any], written: Mapping[str, Any],
                 words: Mapping[str, Container[str]]) -> None:
        texts = [source, *_texts(values), *_texts(written)]
        sensitive = {character for token in controls for character in token if not character.isspace()}
        self.marks = Marks(sensitive, texts, self.spend)
        self.left = STEPS + STEPS_A_MESSAGE * len(written.get("messages", ())) + sum(
            1 + len(text) // CHARACTERS_A_STEP for text in texts[1:])
        self.now = datetime.now()
        functions = {"raise_exception": self._raise, "strftime_now": self._strftime, "range": self._range,
                     "dict": lambda **named: named, "namespace": self._namespace}
        self.globals = _Scope(None, functions | dict(values) | self.marks.hide_all(dict(written), words))
        self.filters = Filters(self.marks, self.attribute)
        self.out: list[str] = []

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            refuse("it does not come to an end within the steps that are allowed")

    def render(self, statements: list[Node]) -> str:
        self.run(statements, _Scope(self.globals, {}))
        return "".join(self.out)

    # Statements.

    def run(self, statements: list[Node], scope: _Scope) -> None:
        for node in statements:
            self.spend(1)
            getattr(self, f"_run_{node[0]}")(node, scope)

    def _captured(self, statements: list[Node], scope: _Scope) -> str:
        outside, self.out = self.out, []
        try:
            self.run(statements, scope)
            return "".join(self.out)
        finally:
            self.out = outside

    def _run_text(self, node: Node, scope: _Scope) -> None:
        self.out.append(self.marks.paid(node[1]))

    def _run_print(self, node: Node, scope: _Scope) -> None:
        self.out.append(self.marks.paid(self.marks.text(self.value(node[1], scope))))

    def _run_scope(self, node: Node, scope: _Scope) -> None:
        self.run(node[1], _Scope(scope, {}))

    def _run_if(self, node: Node, scope: _Scope) -> None:
        for condition, body in node[1]:
            if truth(self.value(condition, scope)):
                self.run(body, scope)
                return
        self.run(node[2], scope)

    def _run_for(self, node: Node, scope: _Scope) -> None:
        _, target, over, condition, body, otherwise = node
        items = list(self.marks.each(self.value(over, scope)))
        if condition is not None:
            items = [item for item in items if truth(self.value(condition, self._bound(target, item, scope)))]
        for at, item in enumerate(items):
            inside = self._bound(target, item, scope)
            inside.values["loop"] = Namespace({
                "index": at + 1, "index0": at, "first": at == 0, "last": at == len(items) - 1, "length": len(items),
                "revindex": len(items) - at, "revindex0": len(items) - at - 1, "depth": 1, "depth0": 0,
                "cycle": partial(_cycle, at), "previtem": items[at - 1] if at else Undefined("loop.previtem"),
                "nextitem": items[at + 1] if at + 1 < len(items) else Undefined("loop.nextitem")})
            try:
                self.run(body, inside)
            except _Leave as leave:
                if leave.args[0] == "break":
                    break
        if not items:
            self.run(otherwise, _Scope(scope, {}))

    def _bound(self, target: Node, item: Any, scope: _Scope) -> _Scope:
        inside = _Scope(scope, {})
        self._assign(target, item, inside)
        return inside

    def _run_break(self, node: Node, scope: _Scope) -> None:
        raise _Leave("break")

    def _run_continue(self, node: Node, scope: _Scope) -> None:
        raise _Leave("continue")

    def _run_set(self, node: Node, scope: _Scope) -> None:
        self._assign(node[1], self.value(node[2], scope), scope)

    def _run_set_block(self, node: Node, scope: _Scope) -> None:
        value: Any = self._captured(node[3], _Scope(scope, {}))
        for name, arguments, named in node[2]:
            value = self.filters.call(name, value, *self._arguments(arguments, named, scope))
        self._assign(node[1], value, scope)

    def _run_macro(self, node: Node, scope: _Scope) -> None:
        scope.values[node[1]] = _Macro(node[1], node[2], node[3], scope)

    def _assign(self, target: Node, value: Any, scope: _Scope) -> None:
        if target[0] == "name":
            scope.values[target[1]] = value
        elif target[0] == "attribute":
            owner = scope.find(target[1])
            if not isinstance(owner, Namespace) or target[1] == "loop" or target[2].startswith("_"):
                refuse(f"it sets {target[1]}.{target[2]}, and only a namespace can be changed")
            owner.values[target[2]] = value
        else:
            items = list(self.marks.each(value))
            if len(items) != len(target[1]):
                refuse(f"{len(items)} values do not go into {len(target[1])} names")
            for each, item in zip(target[1], items, strict=True):
                self._assign(each, item, scope)

    # Expressions.

    def value(self, node: Node, scope: _Scope) -> Any:
        self.spend(1)
        return getattr(self, f"_value_{node[0]}")(node, scope)

    def _value_constant(self, node: Node, scope: _Scope) -> Any:
        return node[1]

    def _value_name(self, node: Node, scope: _Scope) -> Any:
        return scope.find(node[1])

    def _value_list(self, node: Node, scope: _Scope) -> list[Any]:
        return [self.value(item, scope) for item in node[1]]

    def _value_tuple(self, node: Node, scope: _Scope) -> tuple[Any, ...]:
        return tuple(self.value(item, scope) for item in node[1])

    def _value_dictionary(self, node: Node, scope: _Scope) -> dict[Any, Any]:
        return {self._key(self.value(key, scope)): self.value(value, scope) for key, value in node[1]}

    def _value_choose(self, node: Node, scope: _Scope) -> Any:
        chosen = node[2] if truth(self.value(node[1], scope)) else node[3]
        return Undefined("an if without else") if chosen is None else self.value(chosen, scope)

    def _value_or(self, node: Node, scope: _Scope) -> Any:
        left = self.value(node[1], scope)
        return left if truth(left) else self.value(node[2], scope)

    def _value_and(self, node: Node, scope: _Scope) -> Any:
        left = self.value(node[1], scope)
        return self.value(node[2], scope) if truth(left) else left

    def _value_not(self, node: Node, scope: _Scope) -> bool:
        return not truth(self.value(node[1], scope))

    def _value_sign(self, node: Node, scope: _Scope) -> Any:
        value = self.value(node[2], scope)
        if not isinstance(value, int | float):
            refuse(f"it puts a sign before a {kind_of(value)}")
        return -value if node[1] == "-" else value

    def _value_concat(self, node: Node, scope: _Scope) -> str:
        return self.marks.paid("".join([self.marks.text(self.value(item, scope)) for item in node[1]]))

    def _value_compare(self, node: Node, scope: _Scope) -> bool:
        left = self.value(node[1], scope)
        for sign, other in node[2]:
            right = self.value(other, scope)
            if not self._holds(sign, left, right):
                return False
            left = right
        return True

    def _holds(self, sign: str, left: Any, right: Any) -> bool:
        if sign in ("==", "!="):
            return self.marks.equal(left, right) == (sign == "==")
        if sign in ("in", "not in"):
            return self.marks.contains(right, left) == (sign == "in")
        if isinstance(left, str) and isinstance(right, str):
            return _ORDERS[sign](self.marks.plain(left), self.marks.plain(right))
        if isinstance(left, int | float) and isinstance(right, int | float):
            return _ORDERS[sign](left, right)
        return refuse(f"it orders a {kind_of(left)} and a {kind_of(right)}")

    def _value_binary(self, node: Node, scope: _Scope) -> Any:
        _, sign, first, second = node
        left, right = self.value(first, scope), self.value(second, scope)
        if sign == "+" and isinstance(left, str) and isinstance(right, str):
            return self.marks.paid(left + right)
        if sign == "+" and isinstance(left, list | tuple) and type(left) is type(right):
            self.spend(len(left) + len(right))
            return left + right
        if sign == "*" and isinstance(right, str | list | tuple):
            left, right = right, left
        if sign == "*" and isinstance(left, str | list | tuple) and isinstance(right, int):
            return self.marks.repeat(left, right)
        if sign == "%" and isinstance(left, str):
            return self.marks.percent(left, right if isinstance(right, tuple) else (right,))
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            refuse(f"it computes a {kind_of(left)} {sign} a {kind_of(right)}")
        if sign == "**" and isinstance(left, int) and (abs(right) * max(left.bit_length(), 1) > _MOST_BITS):
            refuse("it computes a number that is too large")
        try:
            result = _NUMBERS[sign](left, right)
        except (ArithmeticError, ValueError) as error:
            refuse(f"it computes {sign}: {error}")
        if isinstance(result, complex) or (isinstance(result, int) and result.bit_length() > _MOST_BITS):
            refuse("it computes a number that is too large")
        return result

    def _value_attribute(self, node: Node, scope: _Scope) -> Any:
        owner = self.value(node[1], scope)
        # As in Jinja, an attribute of the object comes before an item of that name.
        if isinstance(owner, str | list | tuple | dict) and hasattr(type(owner), node[2]):
            return Method(owner, node[2])
        return self.attribute(owner, node[2])

    def attribute(self, owner: Any, name: Any) -> Any:
        """An item or attribute by its name; `Undefined` when there is none."""
        if isinstance(name, str) and name.startswith("__"):
            refuse(f"it asks for {name!r}; names with underscores in front are internal")
        if isinstance(owner, Undefined):
            refuse(f"{owner.name!r} is not defined, and it asks for its {self.marks.text(name)!r}")
        if isinstance(owner, Namespace | dict):
            values = owner.values if isinstance(owner, Namespace) else owner
            return values.get(self._key(name), Undefined(self.marks.text(name)))
        if isinstance(owner, str | list | tuple | range) and isinstance(name, int):
            return owner[name] if -len(owner) <= name < len(owner) else Undefined(str(name))
        return Undefined(self.marks.text(name))

    def _key(self, key: Any) -> Any:
        if not isinstance(key, str | int | float | None):
            refuse(f"a {kind_of(key)} is a key")
        return key

    def _value_item(self, node: Node, scope: _Scope) -> Any:
        owner = self.value(node[1], scope)
        if node[2][0] != "slice":
            return self.attribute(owner, self.value(node[2], scope))
        ends = [None if each is None else self.value(each, scope) for each in node[2][1:]]
        if not isinstance(owner, str | list | tuple) or not all(isinstance(each, int | None) for each in ends) or (
                ends[2] == 0):
            refuse(f"a {kind_of(owner)} is cut in a way that is not understood")
        part = owner[slice(*ends)]
        self.spend(len(part) // (64 if isinstance(part, str) else 1))
        return part

    def _value_filter(self, node: Node, scope: _Scope) -> Any:
        _, value, name, arguments, named = node
        return self.filters.call(name, self.value(value, scope), *self._arguments(arguments, named, scope))

    def _value_test(self, node: Node, scope: _Scope) -> bool:
        _, value, name, arguments = node
        return test(name, self.value(value, scope), [self.value(each, scope) for each in arguments], self.marks)

    def _value_call(self, node: Node, scope: _Scope) -> Any:
        callee = self.value(node[1], scope)
        arguments, named = self._arguments(node[2], node[3], scope)
        if isinstance(callee, Method):
            return self.filters.method(callee.owner, callee.name, arguments, named)
        if isinstance(callee, _Macro):
            return self._called(callee, arguments, named)
        if not callable(callee):
            refuse(f"it calls a {kind_of(callee)}")
        try:
            return callee(*arguments, **named)
        except (TypeError, ValueError, ArithmeticError) as error:
            return refuse(str(error))

    def _arguments(self, positional: list[Node], named: dict[str, Node], scope: _Scope) -> tuple[list, dict[str, Any]]:
        return ([self.value(each, scope) for each in positional],
                {name: self.value(each, scope) for name, each in named.items()})

    def _called(self, macro: _Macro, arguments: list[Any], named: dict[str, Any]) -> str:
        scope = _Scope(macro.scope, {})
        names = [name for name, _ in macro.parameters]
        if len(arguments) > len(names) or set(named) - set(names[len(arguments):]):
            refuse(f"the macro {macro.name!r} is called with arguments that it does not have")
        given = dict(zip(names, arguments, strict=False)) | named
        for name, default in macro.parameters:
            scope.values[name] = given[name] if name in given else (
                Undefined(name) if default is None else self.value(default, scope))
        return self._captured(macro.body, scope)

    # Functions.

    def _raise(self, message: Any = "") -> Any:
        raise TemplateRefusal(self.marks.plain(self.marks.text(message)))

    def _strftime(self, pattern: str) -> str:
        if len(pattern) > 64 or not _TIME.fullmatch(pattern):
            refuse("its form of a date is not understood")
        return self.now.strftime(pattern)

    def _range(self, *ends: int) -> range:
        found = range(*ends)
        if len(found) > STEPS:
            refuse(f"it counts to {len(found)}")
        return found

    def _namespace(self, **named: Any) -> Namespace:
        return Namespace(named)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in (*value, *value.values()) if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _cycle(at: int, *values: Any) -> Any:
    return values[at % len(values)]
