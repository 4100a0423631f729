"""The small code model that comes with the package: a Hugging Face directory like any other, and what is known of it.

    path = model_path()                     # checked: every file is the one that facts.json names
    tritwise.load(path).infill("def area(width, height):\\n    return ", "\\n")

`python-small/` holds config.json, model.safetensors, tokenizer.json, a model card (README.md) and facts.json.
benchmarks/try_model.py puts a finished training there.
"""

from tritwise.bundled.facts import FACTS, MODEL, Facts, model_path, read_facts
from tritwise.bundled.gap import fit_gap, fit_prompt, gap_at
from tritwise.bundled.show import EXAMPLES, Example, limits, write

__all__ = ["EXAMPLES", "FACTS", "MODEL", "Example", "Facts", "fit_gap", "fit_prompt", "gap_at", "limits",
           "model_path", "read_facts", "write"]
