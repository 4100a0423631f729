"""E-mail addresses, passwords in URLs, and IP addresses in a file's bytes."""

import ipaddress
import re
import string
from collections.abc import Iterator

from tritwise.config.data_rules import SecretSettings
from tritwise.data.rules import keys
from tritwise.data.rules.keys import PASSWORD, Found

EMAIL, IP_ADDRESS = b"<EMAIL>", b"<IP_ADDRESS>"

# Behind "@": a host name whose last label is letters. What a call, an index or a path could be is no address:
# `queries@keys.to(device)` multiplies two matrices.
_HOST = re.compile(rb"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,18}))(?![\w@(\[-])")
_LOCAL = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_])?\Z")
# Domains that belong to nobody (RFC 2606) and local parts that name a service, not a person.
_RESERVED = re.compile(rb"(?:^|\.)(?:example\.(?:com|net|org|edu)|[^.]+\.(?:example|invalid|test|localhost|local))\Z",
                       re.IGNORECASE)
_SERVICES = frozenset({b"git", b"hg", b"svn", b"anonymous", b"noreply", b"no-reply"})
# The generic top-level domains that people have mailboxes in; every domain of two letters is a country's.
_TOP_LEVEL = frozenset(b"com org net edu gov mil int info biz name pro dev app xyz online email mobi tech cloud site "
                       b"arpa aero asia coop museum jobs travel blog shop space club".split())
# Of the two-letter ones, those that are endings of files or attributes more often than countries: `icon@2x.py`,
# `weights@x.mT`.
_NOT_COUNTRIES = frozenset(b"py js cc so".split())
_URL_USER = re.compile(rb"[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,64}:([^\s/@\"'<>{}$%]{3,128})\Z", re.IGNORECASE)
_MOST_BEFORE_AT = 224
_SHORTEST_URL_PASSWORD = 6


def behind_at_signs(content: bytes, settings: SecretSettings) -> list[Found]:
    """E-mail addresses and the passwords of URLs (`scheme://user:password@host`) that hold a letter and a digit."""
    found = []
    at = content.find(b"@")
    while at >= 0:
        # Most open annotations and tags of documentation, behind white space: no address and no password ends so.
        if content[at - 1:at].isspace():
            at = content.find(b"@", at + 1)
            continue
        before = content[max(0, at - _MOST_BEFORE_AT):at]
        if settings.passwords and b"://" in before and (url := _URL_USER.search(before)):
            if keys.is_password(url.group(1), least=_SHORTEST_URL_PASSWORD, entropy=0):
                found.append(Found(at - len(url.group(1)), at, "url_password", PASSWORD))
        elif settings.emails and (host := _HOST.match(content, at)) and (local := _LOCAL.search(before[-64:])):
            start = at - len(local.group())
            if _is_address(local.group(), host) and content[start - 1:start] not in (b"/", b"%"):
                found.append(Found(start, host.end(), "email", EMAIL))
        at = content.find(b"@", at + 1)
    return found


def _is_address(local: bytes, host: re.Match[bytes]) -> bool:
    domain, top = host.group(1), host.group(2)
    if not (top.islower() or top.isupper()) or local.lower() in _SERVICES or _RESERVED.search(domain):
        return False
    top = top.lower()
    return top in _TOP_LEVEL or (len(top) == 2 and top not in _NOT_COUNTRIES)


_OCTET = rb"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rb"(?<![\w.\-])(" + _OCTET + rb"(?:\." + _OCTET + rb"){3})(?![\w\-/]|\.\w)")
# A number in the middle of a dotted group: what every dotted quad has, and few other things do.
_DIGITS = bytes(ord("0") if byte in b"0123456789" else byte for byte in range(256))
_DOTTED = (b".0.0", b".00.0", b".000.0")
# What stands before a version number, in the same line.
_VERSION = re.compile(rb"version|\bver\b|\brev|release|section|chapter|\boid\b|\bobject.?id|[=~<>^!]="
                      rb"|\bv\Z|build|upgrad|chrome", re.IGNORECASE)
_VERSION_WITHIN = 40
# Resolvers that everybody may use: they identify nobody (StarCoder keeps them too).
_PUBLIC_RESOLVERS = frozenset(b"8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 149.112.112.112 208.67.222.222 "
                              b"208.67.220.220 4.2.2.1 4.2.2.2 4.4.4.4 114.114.114.114 223.5.5.5".split())


def ipv4(content: bytes) -> list[Found]:
    """Public IPv4 addresses.

    Kept are networks ("/24" behind them), names in reverse lookups (".in-addr.arpa"), private, reserved and
    documentation ranges (`ipaddress`: not global), public resolvers, made-up ones such as 20.20.20.20, and what is a
    version number: every part below 10, or a word such as "version", "section" or a comparison within 40 characters
    before it in its line.
    """
    found = []
    for match in _dotted_quads(content):
        address = ipaddress.IPv4Address(match.group(1).decode())
        if (not address.is_global or address.is_multicast or match.group(1) in _PUBLIC_RESOLVERS
                or all(part < 10 for part in address.packed) or len(set(address.packed)) == 1):
            continue
        line = content.rfind(b"\n", 0, match.start()) + 1
        if not _VERSION.search(content, max(line, match.start() - _VERSION_WITHIN), match.start()):
            found.append(Found(match.start(1), match.end(1), "ipv4", IP_ADDRESS))
    return found


def _dotted_quads(content: bytes) -> Iterator[re.Match[bytes]]:
    """Matches of `_IPV4`, tried only where a number between two dots could be the second of four."""
    digits = content.translate(_DIGITS)
    starts = set()
    for dotted in _DOTTED:
        dot = digits.find(dotted)
        while dot >= 0:
            starts.add(dot - (len(digits[max(0, dot - 3):dot]) - len(digits[max(0, dot - 3):dot].rstrip(b"0"))))
            dot = digits.find(dotted, dot + 1)
    for start in sorted(starts):
        if match := _IPV4.match(content, start):
            yield match


# Global unicast addresses begin with 2 or 3 (RFC 4291, section 2.4), so their first group has four digits.
_IPV6 = re.compile(rb"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:/])")
_HEXADECIMAL = bytes(ord("0") if chr(byte) in string.hexdigits else byte for byte in range(256))


def ipv6(content: bytes) -> list[Found]:
    """Global unicast IPv6 addresses outside the documentation range 2001:db8::/32."""
    digits = content.translate(_HEXADECIMAL)
    if b"0000:0" not in digits and b"0000::" not in digits:
        return []
    found = []
    for match in _IPV6.finditer(content):
        try:
            address = ipaddress.IPv6Address(match.group().decode())
        except ValueError:
            continue
        if address.is_global:
            found.append(Found(match.start(), match.end(), "ipv6", IP_ADDRESS))
    return found
