"""Languages: which one a file is written in, and how it writes a comment: the paper's 87 and a few more."""

from tritwise.data.languages.comments import path_comment
from tritwise.data.languages.detect import detect
from tritwise.data.languages.paper import PAPER_TABLE
from tritwise.data.languages.table import LANGUAGES

__all__ = ["LANGUAGES", "PAPER_TABLE", "detect", "path_comment"]
