"""Near-duplicates: repositories and files whose token n-grams are nearly those of another.

    steps(parts, folder, recipe, partitions)   what to run, as numbered tasks over files
    read_decisions(path), apply(...)           who is dropped for whom, and a part's documents after that
"""

from tritwise.data.dedup.decisions import Decision, apply, read_decisions
from tritwise.data.dedup.signatures import exact_jaccard, signatures
from tritwise.data.dedup.steps import Step, decision_path, run, steps

__all__ = [
    "Decision", "Step", "apply", "decision_path", "exact_jaccard", "read_decisions", "run", "signatures", "steps",
]
