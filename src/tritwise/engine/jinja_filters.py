"""Filters and methods of chat templates: each pays for what it makes, and none changes a value in place."""

from collections.abc import Callable
from typing import Any

from tritwise.engine.jinja_tokens import refuse
from tritwise.engine.jinja_values import Marks, Undefined, kind_of, test, truth

_MOST_INDENT = 16


class Filters:
    """`Filters(marks, attribute).call(name, value, arguments)`; `attribute(value, name)` reads one."""

    def __init__(self, marks: Marks, attribute: Callable[[Any, Any], Any]) -> None:
        self.marks, self.attribute = marks, attribute

    def call(self, name: str, value: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Raises TritwiseError for a filter that is not known and for arguments that it does not take."""
        function = getattr(self, f"_{name}_filter", None)
        if function is None:
            refuse(f"the filter {name!r} is not known")
        return self._called(f"the filter {name!r}", function, value, arguments, named)

    def method(self, owner: Any, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        """A method of a text, a list or a dictionary; those that would change it are refused."""
        kind = "text" if isinstance(owner, str) else "dictionary" if isinstance(owner, dict) else "list"
        function = getattr(self, f"_{kind}_{name}", None)
        if function is None:
            refuse(f"the method {name!r} of a {kind_of(owner)} is not allowed")
        return self._called(f"the method {name!r}", function, owner, arguments, named)

    def _called(self, what: str, function: Callable[..., Any], value: Any, arguments: list[Any],
                named: dict[str, Any]) -> Any:
        self.marks.spend(1)
        try:
            return function(value, *arguments, **named)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as error:
            refuse(f"{what} cannot be used on a {kind_of(value)} so: {str(error).split(') ')[-1]}")

    def _string(self, value: Any) -> str:
        return self.marks.paid(self.marks.text(value))

    # Filters, in the order of the alphabet.

    def _abs_filter(self, value: Any) -> Any:
        return abs(value)

    def _capitalize_filter(self, value: Any) -> str:
        return self._text_capitalize(self._string(value))

    def _count_filter(self, value: Any) -> int:
        return self._length_filter(value)

    def _default_filter(self, value: Any, default: Any = "", boolean: Any = False) -> Any:
        return default if isinstance(value, Undefined) or (truth(boolean) and not truth(value)) else value

    _d_filter = _default_filter

    def _dictsort_filter(self, value: dict[str, Any]) -> list[tuple[str, Any]]:
        self.marks.spend(len(value))
        return sorted(value.items(), key=lambda item: self.marks.plain(item[0]).lower())

    def _first_filter(self, value: Any) -> Any:
        return next(self.marks.each(value), Undefined("the first of nothing"))

    def _float_filter(self, value: Any, default: float = 0.0) -> float:
        try:
            return float(self.marks.plain(value) if isinstance(value, str) else value)
        except (TypeError, ValueError):
            return default

    def _indent_filter(self, value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> str:
        text = self._string(value)
        indent = self.marks.repeat(" ", width) if isinstance(width, int) else width
        lines = text.split("\n")
        self.marks.spend(len(lines) * (1 + len(indent) // 64))
        made = [lines[0], *(indent + line if line or truth(blank) else line for line in lines[1:])]
        return self.marks.paid((indent if truth(first) else "") + "\n".join(made))

    def _int_filter(self, value: Any, default: int = 0) -> int:
        value = self.marks.plain(value)[:100] if isinstance(value, str) else value
        for reader in (int, lambda each: int(float(each))):
            try:
                return reader(value)
            except (TypeError, ValueError, OverflowError):
                continue
        return default

    def _items_filter(self, value: Any) -> list[tuple[Any, Any]]:
        return [] if isinstance(value, Undefined) else self._dictionary_items(value)

    def _join_filter(self, value: Any, separator: Any = "", attribute: Any = None) -> str:
        items = self.marks.each(value)
        if attribute is not None:
            items = (self._reached(item, attribute) for item in items)
        return self._text_join(self._string(separator), [self.marks.text(item) for item in items])

    def _last_filter(self, value: Any) -> Any:
        return value[-1] if len(value) else Undefined("the last of nothing")

    def _length_filter(self, value: Any) -> int:
        return 0 if isinstance(value, Undefined) else len(value)

    def _list_filter(self, value: Any) -> list[Any]:
        return list(self.marks.each(value))

    def _lower_filter(self, value: Any) -> str:
        return self._text_lower(self._string(value))

    def _map_filter(self, value: Any, name: Any = None, *arguments: Any, **named: Any) -> list[Any]:
        if name is None:
            default = named.get("default")
            found = [self._reached(item, named["attribute"]) for item in self.marks.each(value)]
            return [default if "default" in named and isinstance(each, Undefined) else each for each in found]
        return [self.call(name, item, list(arguments), named) for item in self.marks.each(value)]

    def _max_filter(self, value: Any) -> Any:
        return max(self.marks.each(value), key=self._order, default=Undefined("the most of nothing"))

    def _min_filter(self, value: Any) -> Any:
        return min(self.marks.each(value), key=self._order, default=Undefined("the least of nothing"))

    def _reject_filter(self, value: Any, name: Any = None, *arguments: Any) -> list[Any]:
        return [item for item in self.marks.each(value) if not self._passes(item, name, arguments)]

    def _rejectattr_filter(self, value: Any, attribute: Any, name: Any = None, *arguments: Any) -> list[Any]:
        return [item for item in self.marks.each(value)
                if not self._passes(self._reached(item, attribute), name, arguments)]

    def _replace_filter(self, value: Any, old: str, new: str, count: int = -1) -> str:
        return self.marks.replace(self._string(value), old, new, count)

    def _reverse_filter(self, value: Any) -> Any:
        if isinstance(value, str):
            return value[::-1]
        return list(self.marks.each(value))[::-1]

    def _round_filter(self, value: Any, precision: int = 0) -> float:
        return round(float(value), precision)

    def _safe_filter(self, value: Any) -> Any:
        return value

    def _select_filter(self, value: Any, name: Any = None, *arguments: Any) -> list[Any]:
        return [item for item in self.marks.each(value) if self._passes(item, name, arguments)]

    def _selectattr_filter(self, value: Any, attribute: Any, name: Any = None, *arguments: Any) -> list[Any]:
        return [item for item in self.marks.each(value)
                if self._passes(self._reached(item, attribute), name, arguments)]

    def _sort_filter(self, value: Any, reverse: Any = False) -> list[Any]:
        items = list(self.marks.each(value))
        self.marks.spend(4 * len(items))
        return sorted(items, key=self._order, reverse=truth(reverse))

    def _string_filter(self, value: Any) -> str:
        return self._string(value)

    def _title_filter(self, value: Any) -> str:
        return self.marks.title(self._string(value))

    def _tojson_filter(self, value: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = None,
                       sort_keys: Any = False) -> str:
        if isinstance(indent, int):
            indent = " " * indent if indent <= _MOST_INDENT else refuse(f"it indents JSON by {indent}")
        if separators is not None and (len(separators) != 2 or max(map(len, separators)) > _MOST_INDENT):
            refuse("its separators of JSON are not understood")
        if indent is not None and len(indent) > _MOST_INDENT:
            refuse(f"it indents JSON by {len(indent)}")
        return self.marks.json(value, {"ensure_ascii": truth(ensure_ascii), "indent": indent, "separators": separators,
                                       "sort_keys": truth(sort_keys)})

    def _trim_filter(self, value: Any, characters: str | None = None) -> str:
        return self.marks.strip(self._string(value), characters)

    def _unique_filter(self, value: Any) -> list[Any]:
        found: list[Any] = []
        for item in self.marks.each(value):
            if not any(self._order(item) == self._order(each) for each in self.marks.each(found)):
                found.append(item)
        return found

    def _upper_filter(self, value: Any) -> str:
        return self._text_upper(self._string(value))

    def _order(self, item: Any) -> Any:
        if isinstance(item, str):
            return self.marks.plain(item).lower()
        if isinstance(item, int | float):
            return item
        raise TypeError(f"a {kind_of(item)} has no order")

    def _passes(self, item: Any, name: Any, arguments: tuple[Any, ...]) -> bool:
        return truth(item) if name is None else test(name, item, list(arguments), self.marks)

    def _reached(self, item: Any, path: Any) -> Any:
        """An attribute by its name, or by several with dots between."""
        for name in path.split(".") if isinstance(path, str) else [path]:
            item = self.attribute(item, int(name) if isinstance(name, str) and name.isdecimal() else name)
        return item

    # Methods.

    def _text_capitalize(self, text: str) -> str:
        return self.marks.like(text, self.marks.plain(text).capitalize())

    def _text_count(self, text: str, part: str) -> int:
        return self.marks.plain(text).count(self.marks.plain(part))

    def _text_endswith(self, text: str, end: str | tuple[str, ...]) -> bool:
        return self.marks.plain(text).endswith(self._plain(end))

    def _text_find(self, text: str, part: str) -> int:
        return self.marks.plain(text).find(self.marks.plain(part))

    def _text_isdigit(self, text: str) -> bool:
        return self.marks.plain(text).isdigit()

    def _text_join(self, text: str, items: Any) -> str:
        items = list(self.marks.each(items))
        self.marks.spend((sum(map(len, items)) + len(text) * len(items)) // 64)
        return text.join(items)

    def _text_lower(self, text: str) -> str:
        return self.marks.like(text, self.marks.plain(text).lower())

    def _text_lstrip(self, text: str, characters: str | None = None) -> str:
        return self.marks.strip(text, characters, "left")

    def _text_replace(self, text: str, old: str, new: str, count: int = -1) -> str:
        return self.marks.replace(text, old, new, count)

    def _text_rstrip(self, text: str, characters: str | None = None) -> str:
        return self.marks.strip(text, characters, "right")

    def _text_split(self, text: str, separator: str | None = None, maxsplit: int = -1) -> list[str]:
        return self.marks.split(self.marks.paid(text), separator, maxsplit)

    def _text_splitlines(self, text: str) -> list[str]:
        return self.marks.paid(text).splitlines()

    def _text_startswith(self, text: str, start: str | tuple[str, ...]) -> bool:
        return self.marks.plain(text).startswith(self._plain(start))

    def _text_strip(self, text: str, characters: str | None = None) -> str:
        return self.marks.strip(text, characters)

    def _text_title(self, text: str) -> str:
        return self.marks.like(text, self.marks.plain(text).title())

    def _text_upper(self, text: str) -> str:
        return self.marks.like(text, self.marks.plain(text).upper())

    def _plain(self, texts: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return self.marks.plain(texts) if isinstance(texts, str) else tuple(map(self.marks.plain, texts))

    def _dictionary_get(self, value: dict[Any, Any], key: Any, default: Any = None) -> Any:
        return value.get(key, default)

    def _dictionary_items(self, value: dict[Any, Any]) -> list[tuple[Any, Any]]:
        self.marks.spend(len(value))
        return list(value.items())

    def _dictionary_keys(self, value: dict[Any, Any]) -> list[Any]:
        self.marks.spend(len(value))
        return list(value)

    def _dictionary_values(self, value: dict[Any, Any]) -> list[Any]:
        self.marks.spend(len(value))
        return list(value.values())

    def _list_count(self, value: list[Any], item: Any) -> int:
        return sum(self.marks.equal(item, each) for each in self.marks.each(value))

    def _list_index(self, value: list[Any], item: Any) -> int:
        found = (at for at, each in enumerate(self.marks.each(value)) if self.marks.equal(item, each))
        at = next(found, None)
        if at is None:
            raise ValueError("it is not in the list")
        return at
