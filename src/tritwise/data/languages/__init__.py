"""Languages: which one a file is written in, and how it writes a comment.

`detect` and `path_comment` know the paper's 87 and a few more; `language_of` and `COMMENT_PREFIX` the eleven that a
recipe with `source = "folders"` reads.
"""

from tritwise.data.languages.comments import path_comment
from tritwise.data.languages.detect import detect
from tritwise.data.languages.paper import PAPER_TABLE
from tritwise.data.languages.recipe_languages import COMMENT_PREFIX, language_of
from tritwise.data.languages.table import LANGUAGES

__all__ = ["COMMENT_PREFIX", "LANGUAGES", "PAPER_TABLE", "detect", "language_of", "path_comment"]
