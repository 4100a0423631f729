"""Settings of the rule filters and of the redaction of secrets and personal data.

The defaults are DeepSeek-Coder's (arXiv 2401.14196, section 2.1) and, where that is silent, StarCoder 2's
(arXiv 2402.19173, section 2.1).
"""


from pydantic import field_validator

from tritwise.config.settings import Count, Fraction, PerLanguage, Positive, Settings


class LanguageFilters(Settings):
    """What one language has of its own; None takes the value that all languages have."""

    max_mean_line_length: Positive | None = None
    max_line_length: Count | None = None
    max_lines: Count | None = None
    min_alphabetic_fraction: Fraction | None = None
    max_encoded_run: Count | None = None
    max_encoded_fraction: Fraction | None = None
    min_bytes: Count | None = None
    # In characters; only languages that hold data have them.
    min_characters: Count | None = None
    max_characters: Count | None = None
    # Whether an XML declaration at the top drops the file.
    drop_xml: bool | None = None
    # Of HTML: characters that a reader sees, their number and their share of the file.
    min_visible_characters: Count | None = None
    min_visible_fraction: Fraction | None = None


# Data is kept when it is short; the 64 bytes of other files do not apply to it.
_DATA = LanguageFilters(min_bytes=1, min_characters=50, max_characters=5000)
# Prose is often one line a paragraph: StarCoder 2 only limits its longest line.
_PROSE = LanguageFilters(max_mean_line_length=100_000, max_line_length=100_000)

LANGUAGE_FILTERS = {
    "html": LanguageFilters(min_visible_characters=100, min_visible_fraction=0.2),
    "json": _DATA,
    "markdown": _PROSE,
    "restructuredtext": _PROSE,
    "text": _PROSE,
    "xslt": LanguageFilters(drop_xml=False),
    "yaml": _DATA,
}


class FilterSettings(PerLanguage):
    """Rule filters on files. `languages` overrides them; a language that is given there loses its default entry."""

    # Shell patterns on a file's path in its source; a matching file is dropped ("*" crosses directories).
    exclude: tuple[str, ...] = ()
    # Files that say within their first lines that a program wrote them (StarCoder, arXiv 2305.06161, section 3).
    drop_generated: bool = True
    max_mean_line_length: Positive = 100
    max_line_length: Count = 1000
    max_lines: Count = 100_000
    min_alphabetic_fraction: Fraction = 0.25
    # Data written as base64, hexadecimal bytes or unicode escapes: the longest run in characters, and the share of
    # the file that runs make.
    max_encoded_run: Count = 1024
    max_encoded_fraction: Fraction = 0.5
    min_bytes: Count = 64
    drop_xml: bool = True
    languages: dict[str, LanguageFilters] = LANGUAGE_FILTERS

    @field_validator("languages", mode="after")
    @classmethod
    def _with_defaults(cls, given: dict[str, LanguageFilters]) -> dict[str, LanguageFilters]:
        return LANGUAGE_FILTERS | given


class SecretSettings(Settings):
    """What is redacted. Each kind can be switched off; a key with a known prefix needs no entropy."""

    emails: bool = True
    ip_addresses: bool = True
    # Keys and tokens with a known shape, and private keys in PEM blocks.
    keys: bool = True
    # Literals assigned to names such as password, secret, token, api_key, and passwords in URLs.
    passwords: bool = True
    # A literal assigned to such a name is redacted from this length and entropy (bits a character) on. 32 hexadecimal
    # digits have 3.6 bits on average, 16 have 3.2; English words of that length 2.8 to 3.3.
    min_password_length: Count = 8
    min_password_entropy: Positive = 2.5
    min_key_length: Count = 16
    min_key_entropy: Positive = 3.0
