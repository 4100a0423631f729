"""Secrets and personal data: found by their shape, replaced by a placeholder that says what stood there.

Placeholders are StarCoder's (arXiv 2305.06161, section 4): `<EMAIL>`, `<KEY>`, `<PASSWORD>`, `<IP_ADDRESS>`. They hold
no line end, quote or backslash, so a string or a comment stays one, and lines stay counted; an invented address that
looks real would teach a model to invent addresses. Nothing in a placeholder can be taken for a secret again.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from tritwise.config.data_rules import SecretSettings
from tritwise.data.rules import addresses, keys
from tritwise.data.rules.keys import Found

_DEFAULTS = SecretSettings()
# What a report counts: a kind for each placeholder. Every rule that is not here finds keys.
KINDS = ("email", "key", "password", "ip_address")
_KIND = {"email": "email", "ipv4": "ip_address", "ipv6": "ip_address", "password": "password",
         "url_password": "password"}

# Four lower-cased bytes -> the rules to try where they begin. One pass over a file looks all of them up at once.
_Rule = Callable[[bytes, int, SecretSettings], list[Found]]
_RULES: dict[bytes, tuple[tuple[int, _Rule], ...]] = {}
for _gram, _offset, _rule in keys.GRAMS:
    _RULES[_gram] = (*_RULES.get(_gram, ()), (_offset, _rule))


def _hashed(grams: np.ndarray) -> np.ndarray:
    """16 bits of each uint32."""
    return ((grams * np.uint32(0x9E3779B1)) >> np.uint32(16)).astype(np.uint16)


def _gram_table() -> np.ndarray:
    table = np.zeros(1 << 16, dtype=bool)
    table[_hashed(np.frombuffer(b"".join(_RULES), dtype="<u4"))] = True
    return table


_GRAM_TABLE = _gram_table()
_SORTED_GRAMS = np.sort(np.frombuffer(b"".join(_RULES), dtype="<u4"))


def _gram_positions(grams: np.ndarray) -> np.ndarray:
    """Where `grams` has one of the rules' grams; the table is asked first, for it answers faster."""
    candidates = np.flatnonzero(_GRAM_TABLE[_hashed(grams)])
    values = grams[candidates]
    nearest = np.searchsorted(_SORTED_GRAMS, values)
    return candidates[_SORTED_GRAMS[np.minimum(nearest, len(_SORTED_GRAMS) - 1)] == values]


def redact(text: str, settings: SecretSettings = _DEFAULTS) -> tuple[str, Counter[str]]:
    """The text with secrets and personal data replaced, and how many of each kind were.

    Keys of the counter are rules: "email", "ipv4", "ipv6", "password", "url_password", "assigned_key", "private_key",
    and the names of known tokens ("aws_key_id", "github_token", ...). Redacting the result changes nothing: what a
    replacement uncovers is looked for again, and each replacement leaves fewer characters that could be a secret.
    """
    counts: Counter[str] = Counter()
    content = text.encode("utf-8", "surrogatepass")
    while found := _find(content, settings):
        counts.update(each.rule for each in found)
        content = _replaced(content, found)
    return (content.decode("utf-8", "surrogatepass") if counts else text), counts


def by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts of `redact` by what the placeholders say, one for each of `KINDS`."""
    result = dict.fromkeys(KINDS, 0)
    for rule, count in counts.items():
        result[_KIND.get(rule, "key")] += count
    return result


def _find(content: bytes, settings: SecretSettings) -> list[Found]:
    """What to replace, by position, without overlaps; of two that overlap the earlier one, then the longer one."""
    found: list[Found] = []
    if settings.keys or settings.passwords:
        found.extend(_by_grams(content, settings))
    if settings.emails or settings.passwords:
        found.extend(addresses.behind_at_signs(content, settings))
    if settings.ip_addresses:
        found.extend(addresses.ipv4(content))
        found.extend(addresses.ipv6(content))
    found.sort(key=lambda each: (each.start, -each.end, each.rule))
    kept = found[:1]
    for each in found[1:]:
        if each.start >= kept[-1].end:
            kept.append(each)
    return kept


def _by_grams(content: bytes, settings: SecretSettings) -> list[Found]:
    if len(content) < 4:
        return []
    lower = content.lower()
    # Every 4 bytes as one number: a view whose numbers overlap.
    grams = np.ndarray((len(lower) - 3,), dtype="<u4", buffer=lower, strides=(1,))
    found = []
    for start in _gram_positions(grams).tolist():
        for offset, rule in _RULES[lower[start:start + 4]]:
            found += rule(content, max(start + offset, 0), settings)
    return found


def _replaced(content: bytes, found: list[Found]) -> bytes:
    parts, end = [], 0
    for each in found:
        parts += (content[end:each.start], each.placeholder)
        end = each.end
    parts.append(content[end:])
    return b"".join(parts)
