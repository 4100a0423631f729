"""Jinja templates to a tree: the part of the language that chat templates are written in.

    parse("{% for m in messages %}{{ m.content | trim }}{% endfor %}")

A node is a tuple that begins with its kind; `jinja.py` runs it. Source of the grammar: Jinja's "Template Designer
Documentation" and the behaviour of jinja2 3.1, which the tests compare with.
"""

from collections.abc import Callable, Container
from typing import Any, NoReturn

from tritwise.engine.jinja_tokens import Token, parts, refuse

LONGEST = 1 << 16

_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None}
# Loosest first. Unary signs and filters bind closer than all of them.
_OR, _AND, _NOT, _COMPARE, _SUM, _CONCAT, _PRODUCT, _POWER = range(8)
_AFTER_A_TEST = ("else", "or", "and", "if", "in", "not", "is")
_COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">=", "in", "not in"})
_LEVELS = ({"or": _OR, "and": _AND, "+": _SUM, "-": _SUM, "~": _CONCAT, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT,
            "%": _PRODUCT, "**": _POWER} | dict.fromkeys(_COMPARISONS, _COMPARE))


Node = tuple[Any, ...]
_END: Token = ("end", "")


def parse(source: str) -> list[Node]:
    """The statements of a template. Raises TritwiseError for what is malformed, unknown or too large."""
    if len(source) > LONGEST:
        refuse(f"it has {len(source)} characters; {LONGEST} are the most")
    try:
        parser = _Parser(parts(source))
        return parser.body(())[0]
    except RecursionError:
        refuse("it is nested too deeply")


class _Parser:
    """Reads the parts one after the other; `tokens` and `at` are of the tag in hand."""

    def __init__(self, found: list[tuple[str, Any]]) -> None:
        self.parts, self.next_part = found, 0
        self.tokens: list[Token] = []
        self.at = 0
        self.loops = 0

    def body(self, ends: Container[str]) -> tuple[list[Node], str]:
        """Statements up to a tag of `ends`, whose name is read."""
        nodes: list[Node] = []
        while self.next_part < len(self.parts):
            kind, part = self.parts[self.next_part]
            self.next_part += 1
            if kind == "text":
                nodes += [("text", part)] if part else []
                continue
            self.tokens, self.at = part, 0
            if kind == "print":
                nodes.append(("print", self.several()))
                self.done()
                continue
            name = self.name()
            if name in ends:
                return nodes, name
            reader: Callable[[], Node | None] | None = getattr(self, f"_{name}_tag", None)
            if reader is None:
                refuse(f"the tag {name!r} is not known")
            nodes.append(reader())
        if ends:
            refuse(f"one of {', '.join(ends)} is missing")
        return nodes, ""

    def _if_tag(self) -> Node:
        branches, name = [], "elif"
        while name == "elif":
            condition = self.expression()
            self.done()
            inside, name = self.body(("elif", "else", "endif"))
            branches.append((condition, inside))
        otherwise = []
        if name == "else":
            self.done()
            otherwise = self.body(("endif",))[0]
        self.done()
        return ("if", branches, otherwise)

    def _for_tag(self) -> Node:
        target = self.target(("in",))
        self.take("name", "in")
        over = self.several(conditional=False)
        condition = self.expression() if self.skip("name", "if") else None
        self.done()
        self.loops += 1
        inside, name = self.body(("else", "endfor"))
        self.loops -= 1
        otherwise = []
        if name == "else":
            self.done()
            otherwise = self.body(("endfor",))[0]
        self.done()
        return ("for", target, over, condition, inside, otherwise)

    def _set_tag(self) -> Node:
        target = self.target(("=", "|"))
        if self.skip("op", "="):
            value = self.several()
            self.done()
            return ("set", target, value)
        filters = []
        while self.skip("op", "|"):
            filters.append((self.name(), *(self.arguments() if self.peek() == ("op", "(") else ([], {}))))
        self.done()
        inside = self.body(("endset",))[0]
        self.done()
        return ("set_block", target, filters, inside)

    def _macro_tag(self) -> Node:
        name, parameters = self.name(), []
        self.take("op", "(")
        while not self.skip("op", ")"):
            if parameters:
                self.take("op", ",")
            parameters.append((self.name(), self.expression() if self.skip("op", "=") else None))
        self.done()
        loops, self.loops = self.loops, 0
        inside = self.body(("endmacro",))[0]
        self.loops = loops
        self.done()
        return ("macro", name, parameters, inside)

    def _generation_tag(self) -> Node:
        """transformers marks with it what the assistant wrote; it changes nothing in the text."""
        self.done()
        inside = self.body(("endgeneration",))[0]
        self.done()
        return ("scope", inside)

    def _break_tag(self) -> Node:
        return self._leave("break")

    def _continue_tag(self) -> Node:
        return self._leave("continue")

    def _leave(self, kind: str) -> Node:
        if not self.loops:
            refuse(f"{kind} stands outside of a loop")
        self.done()
        return (kind,)

    def target(self, ends: Container[str]) -> Node:
        """A name, an attribute of a namespace, or several names."""
        targets = []
        while True:
            parenthesised = self.skip("op", "(")
            if parenthesised:
                targets.append(self.target((")",)))
                self.take("op", ")")
            else:
                name = self.name()
                targets.append(("attribute", name, self.name()) if self.skip("op", ".") else ("name", name))
            if not self.skip("op", ",") or self.peek()[1] in ends:
                return targets[0] if len(targets) == 1 else ("targets", targets)

    def several(self, conditional: bool = True) -> Node:
        """An expression, or a tuple without parentheses."""
        first = self.expression() if conditional else self.binary(_OR)
        if self.peek() != ("op", ","):
            return first
        items = [first]
        while self.skip("op", ",") and self.peek() != _END:
            items.append(self.expression() if conditional else self.binary(_OR))
        return ("tuple", items)

    def expression(self) -> Node:
        """With `a if condition else b`."""
        value = self.binary(_OR)
        while self.skip("name", "if"):
            condition = self.binary(_OR)
            otherwise = self.expression() if self.skip("name", "else") else None
            value = ("choose", condition, value, otherwise)
        return value

    def binary(self, level: int) -> Node:
        """Operators that bind at least as close as `level`, from the left."""
        if level <= _NOT and self.skip("name", "not"):
            left: Node = ("not", self.binary(_NOT))
        else:
            left = self.unary()
        while True:
            sign = self._operator()
            found = _LEVELS.get(sign, -1)
            if found < level:
                return left
            if found == _COMPARE:
                left = ("compare", left, self._comparisons())
                continue
            if found == _CONCAT:
                items = [left]
                while self.skip("op", "~"):
                    items.append(self.binary(_CONCAT + 1))
                left = ("concat", items)
                continue
            self.at += 1
            right = self.binary(found + 1)
            left = (sign, left, right) if found in (_OR, _AND) else ("binary", sign, left, right)

    def _operator(self) -> str:
        kind, sign = self.peek()
        if kind == "name" and sign == "not" and self.peek(1) == ("name", "in"):
            return "not in"
        return sign if kind == "op" or (kind == "name" and sign in ("or", "and", "in")) else ""

    def _comparisons(self) -> list[tuple[str, Node]]:
        found = []
        while (sign := self._operator()) in _COMPARISONS:
            self.at += 2 if sign == "not in" else 1
            found.append((sign, self.binary(_COMPARE + 1)))
        return found

    def unary(self, filters: bool = True) -> Node:
        """A sign, or a value with what is behind it; filters bind closer than a sign."""
        if self.peek() in (("op", "-"), ("op", "+")):
            sign = self.take("op")
            node: Node = self.postfix(("sign", sign, self.unary(filters=False)))
        else:
            node = self.postfix(self.primary())
        while filters:
            if self.skip("op", "|"):
                node = ("filter", node, self.name(), *(self.arguments() if self.peek() == ("op", "(") else ([], {})))
            elif self.skip("name", "is"):
                node = self._test(node)
            elif self.peek() == ("op", "("):
                node = ("call", node, *self.arguments())
            else:
                break
        return node

    def _test(self, node: Node) -> Node:
        negated, name = self.skip("name", "not"), self.name()
        arguments: list[Node] = []
        kind, value = self.peek()
        if (kind, value) == ("op", "("):
            arguments, named = self.arguments()
            if named:
                refuse(f"the test {name!r} takes no named arguments")
        elif value in ("[", "{") if kind == "op" else kind != "end" and value not in _AFTER_A_TEST:
            arguments = [self.postfix(self.primary())]
        found: Node = ("test", node, name, arguments)
        return ("not", found) if negated else found

    def postfix(self, node: Node) -> Node:
        """Attributes, items, slices and calls."""
        while True:
            if self.skip("op", "."):
                kind, value = self.peek()
                if kind == "int":
                    self.at += 1
                    node = ("item", node, ("constant", value))
                    continue
                name = self.name()
                if name.startswith("_"):
                    refuse(f"it asks for the attribute {name!r}; names with an underscore in front are internal")
                node = ("attribute", node, name)
            elif self.skip("op", "["):
                node = ("item", node, self._subscript())
                self.take("op", "]")
            elif self.peek() == ("op", "("):
                node = ("call", node, *self.arguments())
            else:
                return node

    def _subscript(self) -> Node:
        ends: list[Node | None] = [None if self.peek() == ("op", ":") else self.expression()]
        while len(ends) < 3 and self.skip("op", ":"):
            ends.append(None if self.peek() in (("op", ":"), ("op", "]")) else self.expression())
        return ends[0] if len(ends) == 1 else ("slice", *ends, *[None] * (3 - len(ends)))

    def primary(self) -> Node:
        """A constant, a name, a list, a dictionary, or something in parentheses."""
        kind, value = self.peek()
        self.at += 1
        if kind in ("int", "float"):
            return ("constant", value)
        if kind == "str":
            while self.peek()[0] == "str":
                value += self.take("str")
            return ("constant", value)
        if kind == "name":
            return ("constant", _CONSTANTS[value]) if value in _CONSTANTS else ("name", value)
        if (kind, value) == ("op", "["):
            return ("list", self._items("]")[0])
        if (kind, value) == ("op", "("):
            items, commas = self._items(")")
            return items[0] if len(items) == 1 and not commas else ("tuple", items)
        if (kind, value) == ("op", "{"):
            pairs = []
            while not self.skip("op", "}"):
                if pairs:
                    self.take("op", ",")
                    if self.skip("op", "}"):
                        break
                key = self.expression()
                self.take("op", ":")
                pairs.append((key, self.expression()))
            return ("dictionary", pairs)
        self.at -= 1
        return self.unexpected()

    def _items(self, end: str) -> tuple[list[Node], int]:
        items, commas = [], 0
        while not self.skip("op", end):
            if items:
                self.take("op", ",")
                commas += 1
                if self.skip("op", end):
                    break
            items.append(self.expression())
        return items, commas

    def arguments(self) -> tuple[list[Node], dict[str, Node]]:
        """What stands in the parentheses of a call."""
        positional, named = [], {}
        self.take("op", "(")
        while not self.skip("op", ")"):
            if positional or named:
                self.take("op", ",")
                if self.skip("op", ")"):
                    break
            if self.peek()[0] == "name" and self.peek(1) == ("op", "="):
                name = self.name()
                self.at += 1
                named[name] = self.expression()
            elif named:
                refuse("an argument without a name follows one with a name")
            else:
                positional.append(self.expression())
        return positional, named

    def peek(self, ahead: int = 0) -> Token:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else _END

    def skip(self, kind: str, value: str) -> bool:
        found = self.peek() == (kind, value)
        self.at += found
        return found

    def take(self, kind: str, value: str | None = None) -> Any:
        token = self.peek()
        if token[0] != kind or (value is not None and token[1] != value):
            self.unexpected()
        self.at += 1
        return token[1]

    def name(self) -> str:
        return self.take("name")

    def done(self) -> None:
        if self.peek() != _END:
            self.unexpected()

    def unexpected(self) -> NoReturn:
        kind, value = self.peek()
        refuse("a tag ends too early" if kind == "end" else f"{value!r} stands where it is not understood")
