"""Put a finished training into the package as the model of `tritwise try`: export, scores, card, facts.

    python benchmarks/data/fetch_packages.py benchmarks/data/order_payoff_packages.txt --out runs/packages
    tritwise data build recipes/python-small.toml --out runs/python-small/data
    tritwise train recipes/python-small.toml --variant ternary --data runs/python-small/data \\
        --out runs/python-small/train
    python benchmarks/try_model.py runs/python-small/train --data runs/python-small/data \\
        --infilling HumanEval-SingleLineInfilling.jsonl.gz

The newest checkpoint is exported as a Hugging Face directory and read back; the engine scores the held-out files and
HumanEval's single lines (openai/human-eval-infilling). Lines are compared as texts: what a model wrote is never run, so
there is no pass@1. The recipe, the data, the list of packages, their wheels and the running Python have to be those of
the training, and are checked. The same training gives the same bytes. What stands at --out is replaced as a whole.
"""

import argparse
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from try_model_card import model_card
from try_model_infilling import line_scores
from try_model_sources import Source, sources_of

from tritwise.bundled import FACTS, MODEL, Facts, model_path
from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_directory, atomic_write, atomic_write_json, read_json, sha256_file
from tritwise.config import Recipe, load_recipe
from tritwise.engine import Model, load

CARD = "README.md"
# Scored on every machine that checks an installation: short, of no training data, with what Python is made of.
REFERENCE = '''"""A register of readings, each with its unit."""

import math


class Register:
    def __init__(self, unit="mm"):
        self.unit = unit
        self.readings = []

    def add(self, value):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no reading")
        self.readings.append(value)

    def mean(self):
        return sum(self.readings) / len(self.readings)
'''


def check_training(recipe: Recipe, variant: str, run: Path, data: Path) -> dict[str, Any]:
    """The state of a training's newest checkpoint, after recipe, data and training were found to belong together."""
    from tritwise.data.token_steps import recipe_hash
    from tritwise.train import latest_checkpoint
    from tritwise.train.checkpoint import read_state
    from tritwise.train.loop import run_key

    report = read_json(data / "report.json", what="the report of the data stage")
    if report["recipe_hash"] != recipe_hash(recipe):
        raise TritwiseError(f"{data} was not made with this recipe", why="the hashes of their settings differ")
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        raise TritwiseError(f"{run} holds no finished checkpoint")
    state = read_state(checkpoint)
    if state.run_key != run_key(recipe, variant, sha256_file(data / "tokenizer.json")):
        raise TritwiseError(f"{run} is no training of this recipe on {data}", why="the keys of their settings differ")
    return {"step": state.step, "steps": recipe.train.steps, "run_key": state.run_key,
            "tokens": state.step * recipe.train.batch_size * recipe.train.sequence_length,
            "data_tokens": report["train"]["tokens"], "data_bytes": report["train"]["bytes"],
            "files": report["train"]["files"], "recipe_hash": report["recipe_hash"]}


def held_out(model: Model, data: Path, context: int) -> dict[str, Any]:
    """Bits a byte of the held-out files, as `tritwise run` measures them, and of xz beside it."""
    from tritwise.data import load_documents, xz_bits_per_byte
    from tritwise.evaluate import bits_per_byte
    from tritwise.pipeline.tasks import scored_texts

    documents = load_documents(data, split="held_out")
    texts, size = scored_texts(documents)
    scored = bits_per_byte(model, texts, context, context // 2, title="held-out")
    return {"bits_per_byte": round(scored.total_nats / math.log(2) / size, 6),
            "xz_bits_per_byte": round(xz_bits_per_byte(documents), 6), "bytes": size, "tokens": scored.tokens,
            "documents": len(documents), "context": context, "stride": context // 2}


def measure(model: Model, data: Path, infilling: Path | None) -> dict[str, Any]:
    """Every score of an opened model; they are the same on every machine."""
    from tritwise.evaluate import perplexity

    return {"held_out": held_out(model, data, model.context),
            "infilling": None if infilling is None else line_scores(model, infilling),
            "reference": {"text": REFERENCE, "bits_per_byte": round(perplexity(model, REFERENCE).bits_per_byte, 9)}}


def put_in(run: Path, data: Path, recipe_file: Path, variant: str, sources: list[Source], python: str,
           infilling: Path | None, out: Path, *, threads: int | None = None) -> Facts:
    """Export, measure and write the directory `out` as a whole; returns its facts."""
    from tritwise.measure.inspection import inspect_model
    from tritwise.pipeline.export import export_directory, open_source, verify_export

    recipe = load_recipe(recipe_file)
    training = check_training(recipe, variant, run, data)
    training |= {"packages": sum(source.package and source.split == "train" for source in sources), "python": python}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        source = open_source(run, data / "tokenizer.json")
        export_directory(source, model)
        print(verify_export(source, model), file=sys.stderr)
        inspected = inspect_model(model)
        with load(model, threads=threads) as opened:
            scores = measure(opened, data, infilling)
        counts = [(tensor.zero, tensor.minus + tensor.zero + tensor.plus) for tensor in inspected.quantised]
        facts = Facts.model_validate({
            "name": out.name, "parameters": inspected.parameters,
            "bits_per_weight": round(inspected.bits_per_weight, 4),
            "bits_per_quantised_weight": round(inspected.bits_per_quantised_weight or 0, 4),
            "zeros": round(sum(zero for zero, _ in counts) / max(1, sum(every for _, every in counts)), 4),
            "context": inspected.config.max_position_embeddings, "training": training, **scores,
            "files": {file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
                      for file in sorted(model.iterdir())}})
        with atomic_directory(out) as partial:
            for file in sorted(model.iterdir()):
                shutil.copy(file, partial / file.name)
            atomic_write(partial / CARD, model_card(facts, sources, inspected.config, recipe_text(recipe_file),
                                                    screened(recipe, data)))
            atomic_write_json(partial / FACTS, facts.model_dump(mode="json"))
    model_path(out)
    return facts


def screened(recipe: Recipe, data: Path) -> str:
    """How far the training data was freed of test sets, in a sentence or two."""
    sets = recipe.data.decontamination.sets
    if not sets:
        return "Nothing was done to keep test sets out of the training data."
    funnel = {step["name"]: step["files"] for step in read_json(data / "report.json", what="a report")["funnel"]}
    return (f"Files that hold {recipe.data.decontamination.rules.ngram} words in a row of "
            f"{' or '.join(Path(name).name for name in sets)} were dropped from the training data: "
            f"{funnel['screening'] - funnel['decontamination']}.")


def recipe_text(file: Path) -> str:
    """A recipe without its comments and without empty lines."""
    lines = [re.sub(r"\s+# .*|^#.*", "", line).rstrip() for line in file.read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if line)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the training directory, with its checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="the data directory of the training")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/python-small.toml"))
    parser.add_argument("--variant", default="ternary")
    parser.add_argument("--packages", type=Path, default=Path("benchmarks/data/order_payoff_packages.txt"))
    parser.add_argument("--wheels", type=Path, default=Path("runs/packages/wheels"))
    parser.add_argument("--infilling", type=Path, help="HumanEval-SingleLineInfilling.jsonl.gz; left out if not given")
    parser.add_argument("--threads", type=int, help="of the engine; no score depends on them")
    parser.add_argument("--out", type=Path, default=MODEL)
    arguments = parser.parse_args(argv)
    try:
        sources, python = sources_of(arguments.data, arguments.packages, arguments.wheels)
        facts = put_in(arguments.run, arguments.data, arguments.recipe, arguments.variant, sources, python,
                       arguments.infilling, arguments.out, threads=arguments.threads)
    except TritwiseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments.out}: step {facts.training.step} of {facts.training.steps}, {facts.bytes:,} bytes, "
          f"{facts.held_out.bits_per_byte:.4f} bits a byte"
          + (f", {facts.infilling.exact} of {facts.infilling.tasks} lines" if facts.infilling else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
