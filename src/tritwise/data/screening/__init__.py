"""Quality screening: syntax, heuristics for unreadable code, and a trained model (arXiv 2401.14196, section 2.3)."""

from tritwise.data.screening import heuristics, syntax
from tritwise.data.screening.quality import QualityModel, train

__all__ = ["QualityModel", "heuristics", "syntax", "train"]
