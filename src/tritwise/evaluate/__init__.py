"""How well a model predicts text: perplexity and bits per byte, through the engine that runs it."""

from tritwise.evaluate.likelihood import Likelihood, bits_per_byte, perplexity

__all__ = ["Likelihood", "bits_per_byte", "perplexity"]
