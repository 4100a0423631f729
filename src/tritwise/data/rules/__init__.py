"""Rules on a file's text: which files are dropped, and which parts of the others are redacted."""

from tritwise.data.rules.broken import Broken
from tritwise.data.rules.filters import RULES, broken_rule, is_excluded
from tritwise.data.rules.secrets import redact

__all__ = ["RULES", "Broken", "broken_rule", "is_excluded", "redact"]
