"""Languages: which one a file is written in, and how it writes a comment."""

from tritwise.data.languages.recipe_languages import COMMENT_PREFIX, language_of

__all__ = ["COMMENT_PREFIX", "language_of"]
