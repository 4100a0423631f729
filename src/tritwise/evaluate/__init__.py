"""How well a model predicts text: perplexity and bits per byte, and what a setting of the engine costs of it."""

from tritwise.evaluate.comparison import Comparison, compare
from tritwise.evaluate.likelihood import Likelihood, bits_per_byte, perplexity

__all__ = ["Comparison", "Likelihood", "bits_per_byte", "compare", "perplexity"]
