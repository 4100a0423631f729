"""Keys, tokens and passwords in a file's bytes: by a known prefix, in PEM blocks, or assigned to a telling name.

A rule is a function (content, start, settings) -> [Found, ...]. `GRAMS` says which four lower-cased bytes it is tried
at, and how far behind their first byte it starts.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

from tritwise.config.data_rules import SecretSettings

KEY, PASSWORD = b"<KEY>", b"<PASSWORD>"


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes `start` to `end` of a file are to be replaced."""

    start: int
    end: int
    rule: str
    placeholder: bytes


# Tokens with a shape of their own, as their issuers document it: what they begin with, and what follows.
_TOKENS: tuple[tuple[str, bytes, bytes], ...] = (
    ("aws_key_id", b"AKIA ASIA ABIA ACCA", rb"[A-Z2-7]{16}"),
    ("github_token", b"ghp_ gho_ ghu_ ghs_ ghr_", rb"[A-Za-z0-9]{36,251}"),
    ("github_token", b"github_pat_", rb"[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("gitlab_token", b"glpat- gldt- glrt- glptt- glft- glsoat- glcbt- glagent- glimt-", rb"[A-Za-z0-9_-]{20,64}"),
    ("slack_token", b"xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs-", rb"(?:\d+-)?[A-Za-z0-9-]{10,250}"),
    ("slack_webhook", b"hooks.slack.com/services/", rb"T[A-Za-z0-9_]{8,12}/B[A-Za-z0-9_]{8,12}/[A-Za-z0-9_]{20,32}"),
    ("google_key", b"AIza", rb"[A-Za-z0-9_-]{35}"),
    ("google_token", b"ya29.", rb"[A-Za-z0-9_-]{20,}"),
    ("google_secret", b"GOCSPX-", rb"[A-Za-z0-9_-]{28}"),
    ("stripe_key", b"sk_live_ sk_test_ rk_live_ rk_test_", rb"[A-Za-z0-9]{16,247}"),
    ("stripe_key", b"whsec_", rb"[A-Za-z0-9+/=]{32,}"),
    ("anthropic_key", b"sk-ant-", rb"[A-Za-z0-9_-]{24,}"),
    ("openai_key", b"sk-proj- sk-svcacct- sk-admin-", rb"[A-Za-z0-9_-]{32,}"),
    ("openai_key", b"sk-", rb"[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|[A-Za-z0-9]{48}"),
    ("hugging_face_token", b"hf_ api_org_", rb"[A-Za-z0-9]{34}"),
    ("npm_token", b"npm_", rb"[A-Za-z0-9]{36}"),
    ("pypi_token", b"pypi-AgE", rb"[A-Za-z0-9_-]{50,}"),
    ("json_web_token", b"eyJ", rb"[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("sendgrid_key", b"SG.", rb"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("twilio_key", b"SK", rb"[0-9a-f]{32}"),
    ("digitalocean_token", b"dop_v1_ doo_v1_ dor_v1_", rb"[0-9a-f]{64}"),
    ("shopify_token", b"shpat_ shpca_ shppa_ shpss_", rb"[0-9a-fA-F]{32}"),
    ("mailgun_key", b"key-", rb"[0-9a-f]{32}"),
    ("telegram_token", b":AA", rb"(?<=\d{8}:AA)[A-Za-z0-9_-]{33}"),
    ("azure_key", b"AccountKey=", rb"[A-Za-z0-9+/]{86}=="),
    ("databricks_token", b"dapi", rb"[0-9a-f]{32}"),
    ("vault_token", b"hvs.", rb"[A-Za-z0-9_-]{24,}"),
    ("docker_token", b"dckr_pat_", rb"[A-Za-z0-9_-]{27,}"),
    ("linear_key", b"lin_api_", rb"[A-Za-z0-9]{40}"),
    ("postman_key", b"PMAK-", rb"[0-9a-f]{24}-[0-9a-f]{34}"),
    ("age_key", b"AGE-SECRET-KEY-1", rb"[A-Z0-9]{58}"),
)


def _token_rule(name: str, prefixes: bytes, rest: bytes):
    either = b"|".join(map(re.escape, prefixes.split()))
    # ":AA" stands behind digits; the others are no part of a longer word.
    before = b"" if prefixes.startswith(b":") else rb"(?<![A-Za-z0-9_])"
    pattern = re.compile(before + b"(?:" + either + b")(?:" + rest + rb")(?![A-Za-z0-9])")

    def rule(content: bytes, start: int, settings: SecretSettings) -> list[Found]:
        match = pattern.match(content, start) if settings.keys else None
        return [] if match is None else [Found(start, match.end(), name, KEY)]
    return rule


_PEM = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_WITHIN = 1 << 14
# Escaped line ends are no part of the key.
_PEM_PART = re.compile(rb"\\[nrt]|([A-Za-z0-9+/=]{4,})")
_LONG_PEM_PART = re.compile(rb"\\[nrt]|([A-Za-z0-9+/=]{40,})")


def private_key(content: bytes, start: int, settings: SecretSettings) -> list[Found]:
    """Every run of base64 characters between the lines of a private key in PEM (RFC 7468), so quotes and lines stay.

    Without an end line, only runs of 40 characters and more count, over 16 KiB.
    """
    match = _PEM.match(content, start) if settings.keys else None
    if match is None:
        return []
    end = content.find(b"-----END", match.end(), match.end() + _PEM_WITHIN)
    pattern = _LONG_PEM_PART if end < 0 else _PEM_PART
    end = match.end() + _PEM_WITHIN if end < 0 else end
    return [Found(*part.span(1), "private_key", KEY)
            for part in pattern.finditer(content, match.end(), end) if part.group(1)]


# Names, from where the rule is tried: "secret", "token", "credential", or "key" behind a word that makes it one's own.
_PASSWORD_NAME = rb"passw(?:or)?d|passphrase|(?<!com)(?<!by)pass(?![A-Za-z])|pwd"
_KEY_NAME = (rb"secret|(?<!publickey)token|credentials?|[_-]?(?:(?<=api)|(?<=api[_-])|(?<=access)|(?<=access[_-])"
             rb"|(?<=private)|(?<=private[_-])|(?<=auth)|(?<=auth[_-])|(?<=encryption)|(?<=encryption[_-])|(?<=account)"
             rb"|(?<=account[_-])|(?<=signing)|(?<=signing[_-]))key")
_NAME = rb"(?:(" + _PASSWORD_NAME + rb")|" + _KEY_NAME + rb")[A-Za-z0-9_-]{0,24}+"
# Perhaps with more behind it, perhaps quoted or indexed, perhaps with a type, and a quoted literal without white
# space. Every part is bounded, so a match takes constant time.
_ASSIGNED = re.compile(
    _NAME + rb"[\"']?\]?\s{0,4}(?::\s{0,3}[A-Za-z_][\w.]{0,30}\s{0,4}=|:=|=>|={1,3}|:|!==?)\s{0,4}"
    rb"[A-Za-z@]{0,2}([\"'`])((?:(?!\2)[^\s\\]){8,512})\2", re.IGNORECASE)
# The same in a file of settings: NAME=value up to the line's end.
_SETTING = re.compile(_NAME + rb"()(?:=|: {1,4})([A-Za-z0-9+/=_-]{20,512})(?=\r?(?:\n|\Z))", re.IGNORECASE)
# What stands for a value that comes from elsewhere.
_SAMPLE = re.compile(rb"[<>{}$%]|\.\.\.|\*\*\*|x{4,}|your|example|sample|dummy|change.?me|placeholder|://|\(|\[",
                     re.IGNORECASE)


def assigned(content: bytes, start: int, settings: SecretSettings) -> list[Found]:
    """A literal that is given to a name such as password or api_key, when it looks random.

    A password needs `min_password_length` characters, a letter and a digit; a key `min_key_length` and two of both;
    each its entropy. An unquoted value must be a key's, whatever its name.
    """
    if not settings.passwords:
        return []
    quoted = _ASSIGNED.match(content, start)
    match = quoted or _SETTING.match(content, start)
    if match is None:
        return []
    value = match.group(3)
    if quoted is not None and match.group(1) is not None:
        random = is_password(value, settings.min_password_length, settings.min_password_entropy)
    else:
        random = _is_key(value, settings.min_key_length, settings.min_key_entropy)
    if not random:
        return []
    rule, placeholder = ("password", PASSWORD) if match.group(1) is not None else ("assigned_key", KEY)
    return [Found(*match.span(3), rule, placeholder)]


_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
_DIGITS = bytes(range(48, 58))


def is_password(value: bytes, least: int, entropy: float) -> bool:
    """A letter, a digit, `least` bytes of at least `entropy` bits each, and no sign that it stands for another."""
    return (len(value) >= least and min(_count(value, _LETTERS), _count(value, _DIGITS)) >= 1
            and bits_per_byte(value) >= entropy and not _SAMPLE.search(value))


def _is_key(value: bytes, least: int, entropy: float) -> bool:
    return is_password(value, least, entropy) and min(_count(value, _LETTERS), _count(value, _DIGITS)) >= 2


def _count(value: bytes, of: bytes) -> int:
    return len(value) - len(value.translate(None, of))


def bits_per_byte(value: bytes) -> float:
    """Shannon entropy of a value's bytes (bits); 0 for an empty one."""
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)


# What may stand behind a prefix of fewer than four bytes.
_TOKEN_BYTES, _HEXADECIMAL = b"abcdefghijklmnopqrstuvwxyz0123456789_-", b"0123456789abcdef"
# What may stand behind a name.
_NAME_ENDS = (b"=", b":", b'"', b"'", b" ", b"]", b"_", b"-")


def _grams(prefix: bytes, behind: bytes) -> list[bytes]:
    """All beginnings of four bytes of a text that begins with `prefix`, lower-cased."""
    prefix = prefix[:4].lower()
    if len(prefix) == 4:
        return [prefix]
    return [gram for byte in behind for gram in _grams(prefix + bytes([byte]), behind)]


def _all_grams():
    for name, prefixes, rest in _TOKENS:
        rule = _token_rule(name, prefixes, rest)
        behind = _HEXADECIMAL if rest.startswith(b"[0-9a-f]") else _TOKEN_BYTES
        for gram in sorted({gram for prefix in prefixes.split() for gram in _grams(prefix, behind)}):
            yield gram, 0, rule
    yield b"-beg", -4, private_key
    # Python's statement `pass` must cost nothing.
    for gram in (b"assw", b"assp", *(b"ass" + end for end in _NAME_ENDS)):
        yield gram, -1, assigned
    for gram in (b"secr", b"toke", b"cred", b"_key", b"-key", b"pwd_", *(b"pwd" + end for end in _NAME_ENDS[:-1])):
        yield gram, 0, assigned
    for gram in (b"ikey", b"skey", b"ekey", b"hkey", b"nkey", b"tkey", b"gkey"):
        yield gram, 1, assigned


# (four lower-cased bytes, where the rule starts counted from the first of them, the rule).
GRAMS = tuple(_all_grams())
