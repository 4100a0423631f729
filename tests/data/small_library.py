"""A small library cut out of the running interpreter's, and recipes that read it."""

import shutil
import sysconfig
from functools import partial
from pathlib import Path

from tritwise.config import Recipe
from tritwise.data import BuildReport, build
from tritwise.data.flow import run_steps

STDLIB = Path(sysconfig.get_path("stdlib"))
# Ten repositories, half a megabyte: packages with inner imports, single modules, one pair that forms a group.
PACKAGES = ("email", "html", "importlib", "json", "logging", "urllib")
MODULES = ("_pydecimal.py", "decimal.py", "argparse.py", "textwrap.py", "shlex.py")


def copy_library(target: Path) -> Path:
    target.mkdir(parents=True)
    for package in PACKAGES:
        shutil.copytree(STDLIB / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    for module in MODULES:
        shutil.copy(STDLIB / module, target / module)
    return target


def make_recipe(**data) -> Recipe:
    """A recipe with a vocabulary of 600 that holds out a fifth; `data` are keys of [data]."""
    schedule = {"shape": "cosine", "peak": 1e-3, "floor": 1e-4, "warmup_steps": 1}
    return Recipe.model_validate({
        "name": "small", "data": {"held_out_fraction": 0.2} | data, "tokenizer": {"vocab_size": 600},
        "model": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
        "train": {"steps": 1, "batch_size": 1, "sequence_length": 16},
        "variants": {"dense": {"model_type": "llama", "linear_type": "dense", "schedule": schedule}}})


def build_here(recipe: Recipe, out: Path) -> BuildReport:
    """The data stage in this process: to start others takes longer than so little work."""
    return build(recipe, out, run=partial(run_steps, workers=1))
