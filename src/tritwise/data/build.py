"""The data stage: from repositories to documents, a tokenizer and token shards, in one directory.

    documents/00000.parquet   every file, kept or dropped, with its fate; whole repositories, in the order of training
    tokenizer.json            trained on the training documents
    train-00000.ds            files dependencies first, a share of documents in FIM form; a shard for each part
    held_out-00000.ds         whole repositories that nothing else has seen, plain; one document a file
    train.parts.json          how many parts there are, and the hash of each one's facts; held_out.parts.json
    report.json               counts, drops, duplicates, hashes, seconds
    work/                     what the steps leave for each other, removed at the end

Equal sources and recipe give equal bytes in all of them but for the seconds in report.json, whoever carries the steps
(`flow`), in how many processes, and however often they were killed.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, read_json, sha256_file
from tritwise.config import CorpusRecipe
from tritwise.data.corpus_steps import Corpus, Plan
from tritwise.data.documents import DOCUMENTS, part_file
from tritwise.data.flow import Step, each_count, needs_room, run_steps, seconds_of
from tritwise.data.funnel import funnel, language_table, rule_table
from tritwise.data.shard_parts import part_path, split_index, write_split_index
from tritwise.data.tally import Tally, sum_of
from tritwise.data.token_steps import SPLITS, Tokens
from tritwise.data.writing import add_counts

TOKENIZER_FILE = "tokenizer.json"
REPORT_FILE = "report.json"
WORK = "work"
_FEW_BYTES = 4_000_000
_SHARD_FILE = re.compile(r"(?:train|held_out)-(\d{5,})\.")
Runner = Callable[[Path, Sequence[Step]], None]


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds.

    `bytes` are the files' texts in UTF-8; `documents` are those of the training, at context level what each window has
    of a file; `tokens` are all ids but padding; and `bytes_per_token` counts texts with their path comments over them,
    special tokens included (None: no tokens). Of stored windows, 0 without them: their number, ids of padding in them,
    documents (at context level: files) that stand in more than one window, and that would if all were concatenated.
    """

    repositories: int
    files: int
    bytes: int
    documents: int
    fim_documents: int
    tokens: int
    windows: int
    padding: int
    cut_documents: int
    cut_if_concatenated: int
    bytes_per_token: float | None


@dataclass(frozen=True)
class StepTime:
    """`seconds` of all tasks of a stage together; `bytes` of files on disk that went in, 0 where that says nothing."""

    name: str
    tasks: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class BuildReport:
    """report.json."""

    recipe: str
    seed: int
    vocab_size: int
    tokenizer_hash: str
    recipe_hash: str
    train: SplitCounts
    held_out: SplitCounts
    held_out_repositories: tuple[str, ...]
    repositories: dict[str, int]
    funnel: list[dict[str, Any]]
    languages: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    clusters: dict[str, Any]
    licences: dict[str, list[int]]
    redacted: dict[str, int]
    hashes: dict[str, str]
    steps: list[StepTime] = field(compare=False)


def build(recipe: CorpusRecipe, out: Path, *, run: Runner | None = None) -> BuildReport:
    """Run the data stage of a recipe in the directory `out`; a killed run goes on where it was.

    `run` carries the steps; all cores do when it is None, or this process alone for a few megabytes. Raises
    TritwiseError when the source is missing, when everything is filtered out, when there are too few repositories to
    hold one out, or when the training text cannot fill the vocabulary.
    """
    out, recipe = Path(out).absolute(), recipe.with_absolute_paths()  # tasks may run in other working directories
    work = out / WORK
    plan = Plan.of(recipe)
    with needs_room(work, "the plan"):
        corpus = Corpus(recipe, out, plan)
    if run is None:  # to start a process takes as long as a megabyte
        run = partial(run_steps, workers=1 if corpus.plan.size < _FEW_BYTES else None)
    run(work, corpus.steps())
    tally = corpus.tally(work)
    if not tally["kept"]:
        drops = ", ".join(f"{rule} {sum_of(languages)[0]}" for rule, languages in tally["dropped"].items())
        raise TritwiseError("no file is left to train on", why=f"the filters dropped all: {drops or 'none found'}",
                            fix="other data.sources, or wider data.filters")
    tokens = Tokens(recipe, out, corpus)
    for split in SPLITS:  # what an earlier build said of its parts
        split_index(out, split).unlink(missing_ok=True)
    hashing = Step("hashes", corpus.part_count, partial(_hash_part, out), tokens.encoding.key)
    run(work, [*tokens.steps(), hashing])
    for split in SPLITS:
        write_split_index(out, split, corpus.part_count)
    _remove_strays(out, corpus)
    report = _report(recipe, out, corpus, tokens, hashing, tally)
    with needs_room(work, "the report"):
        atomic_write_json(out / REPORT_FILE, asdict(report))
    shutil.rmtree(work)
    return report


def _remove_strays(out: Path, corpus: Corpus) -> None:
    """What a killed process had begun to write beside the finished files, and parts of a build with more of them."""
    parts = set(corpus.parts())
    for path in (out / DOCUMENTS).iterdir():
        if path not in parts:
            path.unlink()
    for path in out.iterdir():
        shard = _SHARD_FILE.match(path.name)
        if path.match(".*.partial") or (shard and int(shard[1]) >= corpus.part_count):
            path.unlink()


def _hash_part(out: Path, rank: int) -> dict[str, str]:
    """SHA-256 of the files of a part, by their place in `out`."""
    files = [part_file(out / DOCUMENTS, rank)]
    for split in SPLITS:
        shard = part_path(out, split, rank)
        files += [shard.with_name(shard.name + suffix) for suffix in ("", ".index", ".json", ".metadata")]
    return {file.relative_to(out).as_posix(): sha256_file(file) for file in files}


def _report(recipe: CorpusRecipe, out: Path, corpus: Corpus, tokens: Tokens, hashing: Step,
            tally: Tally) -> BuildReport:
    work = out / WORK
    splits = {split: add_splits([counts[split] for counts in each_count(work, tokens.encoding)])
              for split in SPLITS}
    hashes = {name: digest for counts in each_count(work, hashing) for name, digest in counts.items()}
    hashes |= {name: sha256_file(out / name)
               for name in (TOKENIZER_FILE, *(split_index(out, split).name for split in SPLITS))}
    return BuildReport(
        recipe=recipe.name, seed=recipe.seed, vocab_size=tokens.vocab_size(),
        tokenizer_hash=hashes[TOKENIZER_FILE], recipe_hash=tokens.recipe_hash, train=splits["train"],
        held_out=splits["held_out"], held_out_repositories=tuple(sorted(corpus.held_out())),
        repositories={"found": corpus.repository_count(), "kept": tally["repositories"]}, funnel=funnel(tally),
        languages=language_table(tally), rules=rule_table(tally), clusters=corpus.clusters(),
        licences=tally["licences"], redacted=tally["redacted"], hashes=dict(sorted(hashes.items())),
        steps=[StepTime(name, sum(step.tasks for step in steps), sum(seconds_of(work, step) for step in steps), size)
               for name, steps, size in [*corpus.timed(work), *tokens.timed(work), ("hashes", [hashing], 0)]])


def add_splits(parts: Iterable[dict[str, Any]]) -> SplitCounts:
    """The counts of a split from those of its parts."""
    sums = add_counts(parts)
    encoded = sums.pop("encoded_bytes")
    return SplitCounts(**sums, bytes_per_token=round(encoded / sums["tokens"], 4) if sums["tokens"] else None)


def read_report(directory: Path) -> dict[str, Any]:
    """report.json of a data directory. Raises TritwiseError when it is missing."""
    return read_json(Path(directory) / REPORT_FILE, what="the report of a data directory")
