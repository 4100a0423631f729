"""The text of a file, from its bytes."""

import io
import tokenize


class UndecodableError(ValueError):
    """The bytes of a file are not text in the encoding that they declare, or in UTF-8."""


def decode(content: bytes, language: str) -> str:
    """The text of a file, line ends untouched. Python declares its encoding (PEP 263); the rest is UTF-8.

    Raises UndecodableError.
    """
    try:
        if language == "python":
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        else:
            encoding = "utf-8-sig"
        text = content.decode(encoding)
        text.encode("utf-8")  # utf-7 and utf-16 cookies can decode to lone surrogates, which no other step can take
    except (SyntaxError, UnicodeError, LookupError, ValueError) as error:
        raise UndecodableError(str(error)) from None
    return text
