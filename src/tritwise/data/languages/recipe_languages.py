"""Languages that are read, by file extension, and how each writes a line comment."""

from pathlib import PurePosixPath

_EXTENSIONS = {
    "python": (".py",),
    "c": (".c", ".h"),
    "c++": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"),
    "c#": (".cs",),
    "go": (".go",),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs"),
    "ruby": (".rb",),
    "rust": (".rs",),
    "shell": (".sh", ".bash"),
    "typescript": (".ts", ".tsx"),
}
_LANGUAGE_OF = {extension: language for language, extensions in _EXTENSIONS.items() for extension in extensions}

COMMENT_PREFIX = {language: "#" if language in ("python", "ruby", "shell") else "//" for language in _EXTENSIONS}


def language_of(path: str) -> str | None:
    """The language of a file by its extension, or None when it is not one of those that are read."""
    return _LANGUAGE_OF.get(PurePosixPath(path).suffix.lower())
