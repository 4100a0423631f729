"""Rules on a file's text: which files are dropped, and which parts of the others are redacted."""

from tritwise.data.rules.broken import Broken
from tritwise.data.rules.filters import RULES, broken_rule, is_excluded
from tritwise.data.rules.secrets import KINDS, by_kind, redact

__all__ = ["KINDS", "RULES", "Broken", "broken_rule", "by_kind", "is_excluded", "redact"]
