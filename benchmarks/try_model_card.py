"""The model card of the bundled model, of nothing but its facts, its sources and its recipe."""

from collections.abc import Iterable, Sequence

from try_model_sources import Source

from tritwise.bundled import Facts, limits
from tritwise.config import ModelConfig

_HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [code]
tags: [code, python, fill-in-the-middle, bitnet, ternary]
---
"""

_GAPS = {"psm": "`<|end_of_text|><|fim_begin|>` text before `<|fim_hole|>` text behind `<|fim_end|>`",
         "spm": "`<|end_of_text|><|fim_begin|><|fim_hole|>` text behind `<|fim_end|>` text before"}


def model_card(facts: Facts, sources: Sequence[Source], config: ModelConfig, recipe: str, screened: str) -> str:
    """Markdown: what it is, scores, limits, recipe, and every source with its version and licence.

    `screened` says how far the training data was freed of the test sets.
    """
    training, packages = facts.training, [source for source in sources if source.package]
    library = [source for source in sources if not source.package]
    finished = "" if training.step == training.steps else (
        f"\n**Unfinished**: step {training.step:,} of {training.steps:,}.\n")
    parts = [
        _HEAD, f"# {facts.name}", finished,
        f"A ternary (BitNet b1.58) model of Python code that fills gaps: {facts.parameters:,} parameters in "
        f"{facts.bytes:,} bytes. It comes with the package `tritwise`, where `tritwise try` runs it, and shows a whole "
        "pipeline in a few megabytes. It is of no other use.\n",
        "## Limits\n", limits(facts) + "\n",
        "It repeats what its sources are like, mistakes, biases and names included, and may write out parts of them, "
        "whose licences then hold. E-mail addresses and what looked like keys were replaced before the training by "
        "rules that find many and not all.\n",
        "## Scores\n", _table(("measure", "value"), _scores(facts)),
        "All through the engine of the package, the same on every machine. A line counts when it is the one that was "
        "taken out, white space around it apart; the likeliest token at each step. Programs were not run, so there is "
        f"no pass@1. {screened}\n",
        "## Model\n", _table(("setting", "value"), [(key, str(value)) for key, value in config.model_dump(
            mode="json", exclude_none=True).items()]),
        f"{facts.bits_per_quantised_weight:.2f} bits a ternary weight, {100 * facts.zeros:.1f} % of them zero; "
        f"embedding and head in bfloat16, {facts.bits_per_weight:.2f} bits a parameter in all. The directory has "
        f"Hugging Face's layout. A gap is asked for as {_GAPS[config.fim_order]}; a line end and the indentation "
        "behind it are one token, so a prompt should end before it, or be healed (`--heal`).\n",
        "## Training\n",
        f"{training.tokens:,} tokens ({training.tokens / training.data_tokens:.2f} passes over "
        f"{training.data_tokens:,} tokens, {training.data_bytes:,} bytes, {training.files:,} files), a share of them "
        "turned for filling the middle. benchmarks/try_model.py has the commands that repeat it.\n",
        f"```toml\n{recipe}\n```\n",
        "## Sources\n",
        "Wheels of PyPI by version and hash, with the licence that their metadata state (where they state none by "
        "name, the one of their licence file), and the standard library. Files and bytes are those that passed "
        "filters, deduplication and screening. Held-out ones were scored on and not trained on.\n",
        _table(("package", "version", "licence", "files", "bytes", "used for"), _rows(packages)),
        f"The standard library of Python {training.python} (PSF-2.0), cut into its packages: "
        f"{_total(library, 'train')} trained on, {_total(library, 'held_out')} held out "
        f"({', '.join(source.name for source in library if source.split == 'held_out')}).\n",
    ]
    return "\n".join(part for part in parts if part)


def _scores(facts: Facts) -> Iterable[tuple[str, str]]:
    held_out, infilling = facts.held_out, facts.infilling
    yield ("bits a byte, held-out Python", f"{held_out.bits_per_byte:.4f} ({held_out.documents} files, "
           f"{held_out.bytes:,} bytes; windows of {held_out.context}, every {held_out.stride})")
    yield "the same of `xz -9e`, each file alone", f"{held_out.xz_bits_per_byte:.4f}"
    if infilling is not None:
        yield ("HumanEval single-line infilling, exact match", f"{infilling.exact} of {infilling.tasks} "
               f"({100 * infilling.exact_match:.2f} %; {infilling.cut} did not fit the context whole)")


def _rows(sources: Iterable[Source]) -> list[tuple[str, ...]]:
    use = {"train": "training", "held_out": "held out"}
    return [(source.name, source.version, source.licence, f"{source.files:,}", f"{source.bytes:,}", use[source.split])
            for source in sources]


def _total(sources: Sequence[Source], split: str) -> str:
    chosen = [source for source in sources if source.split == split]
    return f"{sum(source.files for source in chosen):,} files, {sum(source.bytes for source in chosen):,} bytes"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
