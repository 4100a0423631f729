"""Strings, filters and tests of chat templates, with a memory of which characters a user wrote.

A character that could take part in a control token is kept, where a user wrote it, as a twin from a private plane of
Unicode. Every operation works on the text that is meant and keeps the twins where they are, so that the output tells
for each character whose it is. What is an operator in Jinja has Python's meaning here; sizes are paid for before they
are made.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from tritwise.engine.jinja_tokens import refuse

# Where the private planes 15 and 16 begin and end.
_FIRST_TWIN, _LAST_TWIN = 0xF0000, 0x10FFFD
_CHARACTERS_A_STEP = 64
_WORDS = re.compile(r"([-\s({\[<]+)")
_CONVERSION = re.compile(r"%(?:%|(0?\d{0,2})(?:\.(\d{1,2}))?([sdif]))")


class Undefined:
    """What a name without a value gives: empty when printed, an error when more is asked of it."""

    def __init__(self, name: str) -> None:
        self.name = name


class Namespace:
    """`namespace(...)`: the one thing whose attributes a template may set."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values


class Method:
    """A method of a string, list or dictionary, not called yet."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name


class Marks:
    """Twins of the characters in `sensitive`, and operations on strings that hold them. `spend` pays for steps."""

    def __init__(self, sensitive: Iterable[str], texts: Iterable[str], spend: Callable[[int], None]) -> None:
        self.spend = spend
        wanted = sorted(sensitive)
        taken = {ord(character) for text in texts for character in text if ord(character) >= _FIRST_TWIN}
        free = (code for code in range(_FIRST_TWIN, _LAST_TWIN + 1) if code not in taken)
        self.hidden = {ord(character): next(free) for character in wanted}
        self.shown = {twin: code for code, twin in self.hidden.items()}

    def hide(self, text: str) -> str:
        """All of it as written by a user."""
        return text.translate(self.hidden)

    def hide_all(self, value: Any, words: Mapping[str, Container[str]]) -> Any:
        """A copy of a user's data with its texts hidden, but for keys that are names, and for the `words` of a key."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, dict):
            return {key if key.isidentifier() else self.hide(key):
                    each if isinstance(each, str) and each in words.get(key, ()) else self.hide_all(each, words)
                    for key, each in value.items()}
        return [self.hide_all(each, words) for each in value] if isinstance(value, list | tuple) else value

    def plain(self, text: str) -> str:
        """The text that is meant."""
        self.spend(len(text) // _CHARACTERS_A_STEP)
        return text if text.isascii() else text.translate(self.shown)

    def paid(self, text: str) -> str:
        """`text`, paid for by its length."""
        self.spend(len(text) // _CHARACTERS_A_STEP)
        return text

    def like(self, before: str, after: str) -> str:
        """`after`, made of the plain `before` by a function: marked where `before` was, all of it if lengths differ."""
        if before.isascii():
            return after
        if len(before) != len(after):
            return after if self.plain(before) == before else self.hide(after)
        self.spend(len(after) // 8)
        return "".join(self.hide(new) if ord(old) in self.shown else new
                       for old, new in zip(before, after, strict=True))

    def text(self, value: Any, inside: bool = False) -> str:
        """As Python would print it; `inside` a list, strings are quoted."""
        self.spend(1)
        if isinstance(value, str):
            return self.like(value, repr(self.plain(value))) if inside else value
        if value is None or isinstance(value, bool | int | float):
            return str(value)
        if isinstance(value, Undefined):
            return "Undefined" if inside else ""
        if isinstance(value, list | tuple):
            parts = ", ".join(self.text(item, True) for item in value)
            single = "," if isinstance(value, tuple) and len(value) == 1 else ""
            return self.paid(f"[{parts}]" if isinstance(value, list) else f"({parts}{single})")
        if isinstance(value, dict):
            items = (f"{self.text(key, True)}: {self.text(each, True)}" for key, each in value.items())
            return self.paid("{" + ", ".join(items) + "}")
        return refuse(f"it prints a {kind_of(value)}")

    def equal(self, one: Any, other: Any) -> bool:
        """Python's ==, paid for by what is compared."""
        self.spend(1)
        if isinstance(one, str) and isinstance(other, str):
            return self.plain(one) == self.plain(other)
        if isinstance(one, list | tuple) and type(one) is type(other):
            return len(one) == len(other) and all(map(self.equal, one, other))
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self.equal(value, other[key]) for key, value in one.items())
        if isinstance(one, Undefined) or isinstance(other, Undefined):
            return isinstance(one, Undefined) and isinstance(other, Undefined)
        return one == other

    def contains(self, whole: Any, part: Any) -> bool:
        """`part in whole`."""
        if isinstance(whole, str):
            if not isinstance(part, str):
                refuse("it looks for something else than a text in a text")
            self.paid(whole)
            return self.plain(part) in self.plain(whole)
        if isinstance(whole, dict):
            return isinstance(part, str | int | float | None) and part in whole
        return any(self.equal(part, item) for item in self.each(whole))

    def each(self, value: Any) -> Iterator[Any]:
        """What a loop over a value gives, a step each."""
        if isinstance(value, Undefined):
            return
        if not isinstance(value, list | tuple | dict | str | range):
            refuse(f"it loops over a {kind_of(value)}")
        for item in value:
            self.spend(1)
            yield item

    def split(self, text: str, separator: str | None = None, most: int = -1) -> list[str]:
        """`str.split`."""
        if separator is None:
            parts = self.paid(text).split(None, most)
            self.spend(len(parts))
            return parts
        parts, at = [], 0
        for part in self.plain(text).split(self.plain(separator), most):
            parts.append(text[at:at + len(part)])
            at += len(part) + len(separator)
        self.spend(len(parts))
        return parts

    def strip(self, text: str, characters: str | None = None, sides: str = "both") -> str:
        """`str.strip`, or of one of the sides "left" and "right"."""
        plain = self.plain(text)
        characters = characters if characters is None else self.plain(characters)
        start = len(plain) - len(plain.lstrip(characters)) if sides != "right" else 0
        stop = len(plain.rstrip(characters)) if sides != "left" else len(plain)
        return text[start:max(start, stop)]

    def replace(self, text: str, old: str, new: str, most: int = -1) -> str:
        """`str.replace`."""
        if not old:
            refuse("it replaces an empty text")
        parts = self.split(text, old, most)
        self.spend(len(new) * (len(parts) - 1) // _CHARACTERS_A_STEP)
        return self.paid(new.join(parts))

    def repeat(self, value: str | list | tuple, times: int) -> Any:
        """`value * times`, paid for before it is made."""
        self.spend(max(0, len(value) * times) // (_CHARACTERS_A_STEP if isinstance(value, str) else 1))
        return value * times

    def percent(self, pattern: str, values: tuple[Any, ...]) -> str:
        """`pattern % values` with %s, %d, %i, %f and a width of at most two digits."""
        left, parts, at = list(values), [], 0
        for match in _CONVERSION.finditer(pattern):
            parts.append(pattern[at:match.start()])
            at = match.end()
            if match[0] == "%%":
                parts.append("%")
                continue
            if not left:
                refuse("a format has more places than values")
            value = left.pop(0)
            if match[3] == "s":
                text = self.text(value)
                parts.append(" " * (int(match[1] or 0) - len(text)) + text)
            elif isinstance(value, int | float):
                parts.append(match[0] % value)
            else:
                refuse("a format asks for a number and gets none")
        rest = pattern[at:]
        if left or "%" in rest or any("%" in part for part in parts[::2]):
            refuse("a format is not understood")
        return self.paid("".join([*parts, rest]))

    def json(self, value: Any, options: dict[str, Any], depth: int = 0) -> str:
        """`json.dumps` with indent, separators, sort_keys and ensure_ascii."""
        self.spend(1)
        if isinstance(value, str):
            return self.paid(self._json_string(value, options["ensure_ascii"]))
        if value is None or isinstance(value, bool | int | float):
            return json.dumps(value)
        if not isinstance(value, list | tuple | dict):
            refuse(f"it writes a {kind_of(value)} as JSON")
        indent = options["indent"]
        comma, colon = options["separators"] or ((",", ": ") if indent is not None else (", ", ": "))
        if isinstance(value, dict):
            keys = sorted(value, key=self.plain) if options["sort_keys"] else value
            parts = [f"{self.json(self.text(key) if isinstance(key, str) else json.dumps(key), options)}{colon}"
                     f"{self.json(value[key], options, depth + 1)}" for key in keys]
            left, right = "{", "}"
        else:
            parts = [self.json(item, options, depth + 1) for item in value]
            left, right = "[", "]"
        if indent is None or not parts:
            return self.paid(left + comma.join(parts) + right)
        line = "\n" + indent * (depth + 1)
        return self.paid(left + line + (comma + line).join(parts) + "\n" + indent * depth + right)

    def _json_string(self, text: str, ascii_only: bool) -> str:
        plain = self.plain(text)
        if plain == text:
            return json.dumps(text, ensure_ascii=ascii_only)
        self.spend(len(text) // 4)
        written = [(old, json.dumps(new, ensure_ascii=ascii_only)[1:-1]) for old, new in zip(text, plain, strict=True)]
        return '"' + "".join(self.hide(new) if ord(old) in self.shown else new for old, new in written) + '"'

    def title(self, text: str) -> str:
        """Jinja's `title`: the first letter of each word large, the others small."""
        plain = self.plain(text)
        return self.like(text, "".join(item[0].upper() + item[1:].lower() for item in _WORDS.split(plain) if item))


def kind_of(value: Any) -> str:
    """What an error message calls a value."""
    if isinstance(value, Undefined):
        return f"value that is not defined ({value.name})"
    return {dict: "dictionary", str: "text", bool: "truth value", type(None): "none"}.get(
        type(value), type(value).__name__.lower())


def truth(value: Any) -> bool:
    """Whether an `if` takes it."""
    return not isinstance(value, Undefined) and bool(value)


def test(name: str, value: Any, arguments: list[Any], marks: Marks) -> bool:
    """`value is name(arguments)`. Raises TritwiseError for a test that is not known."""
    plain: dict[str, Callable[[], bool]] = {
        "defined": lambda: not isinstance(value, Undefined), "undefined": lambda: isinstance(value, Undefined),
        "none": lambda: value is None, "string": lambda: isinstance(value, str),
        "mapping": lambda: isinstance(value, dict), "boolean": lambda: isinstance(value, bool),
        "number": lambda: isinstance(value, int | float), "float": lambda: isinstance(value, float),
        "integer": lambda: isinstance(value, int) and not isinstance(value, bool),
        "iterable": lambda: isinstance(value, list | tuple | dict | str | range | Undefined),
        "sequence": lambda: isinstance(value, list | tuple | dict | str | range | Undefined),
        "true": lambda: value is True, "false": lambda: value is False,
        "odd": lambda: value % 2 == 1, "even": lambda: value % 2 == 0,
    }
    if name in plain and not arguments:
        if name in ("odd", "even") and not isinstance(value, int):
            refuse(f"it asks whether a {kind_of(value)} is {name}")
        return plain[name]()
    binary: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("eq", "equalto", "=="), lambda other: marks.equal(value, other)),
        **dict.fromkeys(("ne", "!="), lambda other: not marks.equal(value, other)),
        "in": lambda other: marks.contains(other, value),
        "divisibleby": lambda other: value % other == 0,
    }
    if name in binary and len(arguments) == 1:
        if name == "divisibleby" and not (isinstance(value, int) and isinstance(arguments[0], int) and arguments[0]):
            refuse("it divides what is no whole number")
        return binary[name](arguments[0])
    return refuse(f"the test {name!r} is not known with {len(arguments)} arguments")
