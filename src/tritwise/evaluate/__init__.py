"""How well a model predicts text: perplexity and bits per byte, what a setting costs, whether two models are one,
and how much other files help to complete a line."""

from tritwise.evaluate.comparison import Comparison, compare
from tritwise.evaluate.cross_file import CrossFileScore, CrossFileTask, find_tasks, score
from tritwise.evaluate.likelihood import Likelihood, bits_per_byte, perplexity
from tritwise.evaluate.verification import Tolerance, Verification, compare_weights, verify

__all__ = ["Comparison", "CrossFileScore", "CrossFileTask", "Likelihood", "Tolerance", "Verification",
           "bits_per_byte", "compare", "compare_weights", "find_tasks", "perplexity", "score", "verify"]
