"""`tritwise data`: the stages from repositories to tokens, all of a recipe or one by itself.

    tritwise data build recipe.toml --out DATA          every stage
    tritwise data read repositories CORPUS              one stage: a corpus, or a new one of a corpus
    tritwise data filter CORPUS FILTERED
    tritwise data report DATA                           the page of what came in and what was kept
"""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from tritwise.cli.output import format_bytes, print_facts, print_json, print_table
from tritwise.common.errors import TritwiseError
from tritwise.config import DataRecipe, load_data_recipe
from tritwise.pipeline.walk import require

_WHOLE, _STAGES, _OTHERS = (Group(title, sort_key=place) for place, title in enumerate(
    ("The whole", "One stage, from a corpus to a new one; in the order of `build`", "Besides")))
data = App(name="data", help_format="plaintext", default_parameter=Parameter(negative=()),
           help_epilogue="A corpus is a directory of Parquet files: a row is a file with its text, or with the rule "
                         "that dropped it. A stage that was stopped goes on when the same command is given again.")
quality = App(name="quality", group=_OTHERS, help="Train a model that tells good files from bad ones.")
data.command(quality)

# What most stages are given.
Corpus = Annotated[Path, Parameter(help="A corpus, or a data directory.")]
NewCorpus = Annotated[Path, Parameter(help="The corpus to write.")]
Settings = Annotated[Path | None, Parameter(help="Where the settings are; the defaults when not given.")]
Workers = Annotated[int | None, Parameter(help="Tasks at once; all cores when not given.")]
Json = Annotated[bool, Parameter(help="Print the counts as one JSON object.")]


@data.command(group=_WHOLE, sort_key=0)
def build(recipe: Path, /, *, out: Path | None = None, workers: Workers = None,
          executor: Literal["local", "datatrove", "ray", "slurm"] = "local", option: tuple[str, ...] = (),
          json: bool = False) -> None:
    """Make documents, tokenizer and token shards of a recipe.

    A build that was stopped goes on when the same command is given again.

    Parameters
    ----------
    recipe
        The TOML file.
    out
        The data directory; runs/NAME/data when not given.
    executor
        Who carries the tasks: the cores of this machine, or an executor of datatrove.
    option
        For the executor, as key=value: partition=cpu, time=02:00:00; may be repeated.
    json
        Print the report as one JSON object.
    """
    _require("building data")
    from dataclasses import asdict
    from functools import partial

    from tritwise.data.build import WORK
    from tritwise.data.build import build as build_data
    from tritwise.data.flow import cluster, run_steps
    from tritwise.data.single import free_directory

    loaded, options = load_data_recipe(recipe), _options(option)
    out = free_directory(out or Path("runs") / loaded.name / "data", WORK)
    if executor == "local":
        run = partial(run_steps, workers=workers) if workers else None
    else:
        run = partial(cluster.run_steps, executor=executor, workers=workers, options=options)
    report = asdict(build_data(loaded, out, run=run))
    if json:
        print_json(report)
        return
    print_table(["after", "files", "bytes"],
                [[row["name"], f"{row['files']:,}", format_bytes(row["bytes"])] for row in report["funnel"]])
    print()
    print_table(["split", "files", "documents", "tokens"],
                [[split, *(f"{report[split][name]:,}" for name in ("files", "documents", "tokens"))]
                 for split in ("train", "held_out")])
    if (train := report["train"])["windows"]:
        print()
        print_facts(_window_facts(train))
    print(f"\ntritwise data report {out}")


@data.command(group=_STAGES, sort_key=0)
def read(source: Path, out: NewCorpus, /, *, recipe: Path | None = None, workers: Workers = None,
         json: Json = False) -> None:
    """Read repositories into a corpus.

    Each file is a row. What is no source text (binary, generated, copied, minified) is named and dropped
    ([data.sources]); rules come later.

    Parameters
    ----------
    source
        A repository, an archive, a Parquet file, or a directory of them and of plain folders.
    recipe
        Where the settings are ([data.sources]); the defaults when not given.
    """
    _require("reading repositories")
    from tritwise.data.single import read_corpus

    settings = _settings(recipe)
    sources = settings.sources.model_copy(update={"paths": (str(source),), "folders": (), "python_stdlib": False})
    _print(read_corpus(settings.model_copy(update={"sources": sources}), out, seed=_seed(recipe), workers=workers),
           json)


def _stage(name: str, corpus: Path, out: Path, settings: DataRecipe, workers: int | None, json: bool,
           seed: int = 0) -> None:
    _require("the stages of data")
    from tritwise.data.single import run_stage

    _print(run_stage(name, corpus, out, settings, seed=seed, workers=workers), json)


@data.command(name="filter", group=_STAGES, sort_key=1)
def filter_(corpus: Corpus, out: NewCorpus, /, *, recipe: Settings = None, workers: Workers = None,
            json: Json = False) -> None:
    """Drop files by rules on their text.

    Long lines, few letters, encoded data, tiny files and others ([data.filters]).
    """
    _stage("filter", corpus, out, _settings(recipe), workers, json)


@data.command(group=_STAGES, sort_key=2)
def redact(corpus: Corpus, out: NewCorpus, /, *, recipe: Settings = None, workers: Workers = None,
           json: Json = False) -> None:
    """Replace secrets and personal data in texts.

    E-mail and IP addresses, keys, passwords ([data.secrets]); each becomes a placeholder such as <EMAIL>.
    """
    _stage("redact", corpus, out, _settings(recipe), workers, json)


@data.command(group=_STAGES, sort_key=3)
def facts(corpus: Corpus, out: NewCorpus, /, *, workers: Workers = None, json: Json = False) -> None:
    """Parse files; `screen` and `order` use what is found.

    What a file names and needs, and how much of it is wrong syntax. Without it `screen` judges the syntax of Python
    alone, and `order` knows no dependency.
    """
    _stage("facts", corpus, out, DataRecipe(), workers, json)


@data.command(group=_STAGES, sort_key=4)
def dedup(corpus: Corpus, out: NewCorpus, /, *, recipe: Settings = None, workers: Workers = None,
          curve: bool = False, json: Json = False) -> None:
    """Drop equal and nearly equal files and repositories.

    Repositories first, then files with equal text, then nearly equal ones ([data.dedup]). clusters.json in the new
    corpus lists the largest groups.

    Parameters
    ----------
    curve
        Print first with which probability pairs of each similarity are found.
    """
    _require("the stages of data")
    from tritwise.data.single import dedup_corpus

    settings = _settings(recipe)
    if curve and not json:
        rows = [[f"{point.similarity:.2f}", f"{point.candidate:.4f}", f"{point.pair:.4f}"]
                for point in settings.dedup.curve()]
        print_table(["Jaccard", "compared", "found"], rows)
        print()
    _print(dedup_corpus(corpus, out, settings, workers=workers), json)


@data.command(group=_STAGES, sort_key=5)
def screen(corpus: Corpus, out: NewCorpus, /, *, recipe: Settings = None, workers: Workers = None,
           json: Json = False) -> None:
    """Drop wrong syntax, unreadable code, low quality.

    By the parser, by heuristics, and by a quality model when there is one ([data.screening]).
    """
    _stage("screen", corpus, out, _settings(recipe), workers, json)


@data.command(group=_STAGES, sort_key=6)
def decontaminate(corpus: Corpus, out: NewCorpus, /, *, sets: tuple[Path, ...] = (), recipe: Settings = None,
                  workers: Workers = None, json: Json = False) -> None:
    """Drop files that hold a part of a test set.

    Any 10 words in a row of HumanEval, MBPP, GSM8K, MATH or other sets, or a short test string
    ([data.decontamination]).

    Parameters
    ----------
    sets
        Files or directories of test sets; those of the recipe when not given.
    """
    settings = _settings(recipe)
    if sets:
        chosen = settings.decontamination.model_copy(update={"sets": tuple(map(str, sets))})
        settings = settings.model_copy(update={"decontamination": chosen})
    _stage("decontaminate", corpus, out, settings, workers, json)


@data.command(group=_STAGES, sort_key=7)
def order(corpus: Path, out: NewCorpus, /, *, by: Literal["topological", "path", "random"] | None = None,
          seed: int | None = None, recipe: Settings = None, workers: Workers = None,
          json: Json = False) -> None:
    """Put files of a repository in order, dependencies first.

    Dependencies are found from what `facts` left ([data] order).

    Parameters
    ----------
    corpus
        A corpus with facts, or a data directory.
    by
        What the order follows; data.order of the recipe, or topological, when not given.
    seed
        Of the random order; the recipe's, or 0, when not given.
    """
    settings = _settings(recipe)
    settings = settings.model_copy(update={"order": by or settings.order})
    _stage("order", corpus, out, settings, workers, json, _seed(recipe) if seed is None else seed)


@data.command(group=_STAGES, sort_key=8)
def tokenizer(corpus: Corpus, out: Path, /, *, vocab_size: int = 32_000, pattern: str = "code",
              max_bytes: int = 50_000_000, json: bool = False) -> None:
    """Train a byte-level BPE; writes a tokenizer.json.

    On the kept documents that are not held out.

    Parameters
    ----------
    out
        The tokenizer.json to write.
    vocab_size
        How many entries.
    pattern
        How text is cut before merges.
    max_bytes
        How much text is learned from; an evenly spaced sample beyond it.
    json
        Print the number of entries as one JSON object.
    """
    _require("the stages of data")
    from tritwise.data.token_steps import train_on

    trained = train_on(corpus, out, vocab_size=vocab_size, pattern=pattern, max_bytes=max_bytes)
    if json:
        print_json({"entries": trained})
        return
    print_facts([("entries", f"{trained:,}")], title=str(out))


@data.command(group=_STAGES, sort_key=9)
def tokens(corpus: Path, out: Path, /, *, tokenizer: Path, recipe: Settings = None,
           seed: int | None = None, workers: Workers = None, megatron: bool = False, json: Json = False) -> None:
    """Write token shards, a share of documents in FIM form.

    Of the kept documents that are not held out; FIM is fill-in-the-middle ([data.fim]), and documents are one stream or
    packed into windows ([data.packing]).

    Parameters
    ----------
    corpus
        A corpus in its order, or a data directory.
    out
        The directory of shards to write.
    tokenizer
        A tokenizer.json.
    seed
        Of the documents that are turned; the recipe's, or 0, when not given.
    megatron
        Write Megatron's .bin and .idx beside.
    """
    _require("the stages of data")
    from tritwise.data.token_steps import encode_corpus
    from tritwise.data.writing import WINDOW_COUNTS

    settings = _settings(recipe)
    counts = encode_corpus(corpus, out, tokenizer, settings.fim, settings.packing, workers=workers,
                           seed=_seed(recipe) if seed is None else seed, megatron=megatron)
    if json:
        print_json(counts)
        return
    plain = [name for name in counts if name not in WINDOW_COUNTS]
    print_facts([*((name.replace("_", " "), f"{counts[name]:,}") for name in plain),
                 *(_window_facts(counts) if "windows" in counts else [])], title=str(out))


def _window_facts(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Lines on stored windows."""
    padded = counts["padding"] / max(counts["padding"] + counts["tokens"], 1)
    return [("windows", f"{counts['windows']:,}"), ("padding", f"{100 * padded:.2f} %"),
            ("in several windows", f"{counts['cut_documents']:,}, were they one stream "
                                   f"{counts['cut_if_concatenated']:,}")]


@data.command(group=_WHOLE, sort_key=1)
def report(directory: Path, /, *, command: str = "", json: bool = False) -> None:
    """Write a page of what came in and what was kept.

    The funnel, languages, drops with samples, duplicates, dependency graphs: data-report.html in the directory.

    Parameters
    ----------
    directory
        What `tritwise data build` or `tritwise run` wrote.
    command
        How it was built, to stand on the page.
    json
        Print the page's numbers as one JSON object.
    """
    _require("the report of data")
    from tritwise.measure.data_report import data_report, write_data_report

    if json:
        print_json(data_report(directory, command=command))
        return
    page = write_data_report(directory, command=command)
    print(f"{page}\n{page.resolve().as_uri()}")


@data.command(group=_OTHERS)
def contamination(corpus: Corpus, /, *, against: tuple[Path, ...], recipe: Path | None = None,
                  json: bool = False) -> None:
    """Count what of test sets stands in a corpus.

    How many items of each set, in which files; nothing is changed.

    Parameters
    ----------
    against
        Files or directories of test sets.
    recipe
        Where the settings are ([data.decontamination.rules]); the defaults when not given.
    json
        Print the report as one JSON object.
    """
    _require("the stages of data")
    from dataclasses import asdict

    from tritwise.data.contamination import contamination_report
    from tritwise.data.corpus_steps import load_sets
    from tritwise.data.documents import part_files, read_documents

    sets = load_sets(map(str, against), _settings(recipe).decontamination.rules)
    found = contamination_report((d for part in part_files(corpus) for d in read_documents(part) if d.is_kept), sets)
    if json:
        print_json({"sets": [asdict(each) for each in found]})
        return
    print_table(["set", "items", "items hit", "files"],
                [[each.set, f"{each.items:,}", f"{len(each.hit_items):,}", f"{len(each.files):,}"] for each in found])
    for each in found:
        for repository, path, hit, around in each.samples[:5]:
            print(f"\n{each.set} {hit.item} in {repository}: {path}: {hit.ngram}\n    "
                  + around.replace("\n", "\n    "))


@quality.command(name="train")
def train_quality(good: Path, bad: Path, out: Path, /, *, json: bool = False) -> None:
    """Train a quality model on good and bad files.

    The model is what data.screening.quality_model names; `screen` drops what it scores low.

    Parameters
    ----------
    good
        A corpus, or a data directory, of files to keep.
    bad
        One of files to drop.
    out
        The model file to write.
    json
        Print how it does on held-out files as one JSON object.
    """
    _require("the stages of data")
    from dataclasses import asdict

    from tritwise.data.documents import part_files, read_documents
    from tritwise.data.screening.quality import train

    good_texts, bad_texts = ((d.text for part in part_files(corpus) for d in read_documents(part) if d.is_kept)
                             for corpus in (good, bad))
    model = train(good_texts, bad_texts)
    model.save(out)
    found = model.report
    if json:
        print_json(asdict(found))
        return
    print_facts([("trained on", f"{found.trained_on:,} files"), ("tested on", f"{found.tested_on:,} others"),
                 ("area under the curve", f"{found.auc:.4f}"), ("Brier score", f"{found.brier:.4f}"),
                 ("calibration error", f"{found.calibration_error:.4f}")], title=str(out))


def _require(what: str) -> None:
    require(what, "pyarrow", "tree_sitter", "tiktoken", extra="data")


def _settings(recipe: Path | None) -> DataRecipe:
    return DataRecipe() if recipe is None else load_data_recipe(recipe).data


def _seed(recipe: Path | None) -> int:
    return 0 if recipe is None else load_data_recipe(recipe).seed


def _options(pairs: tuple[str, ...]) -> dict[str, str | int | float]:
    options: dict[str, str | int | float] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise TritwiseError(f"{pair!r} is not an option", why="options are key=value",
                                fix="for example --option partition=cpu")
        options[key] = int(value) if value.isdigit() else value
    return options


def _print(tally: dict, json: bool) -> None:
    """The counts of a corpus."""
    if json:
        print_json(tally)
        return
    from tritwise.data.tally import sum_of

    files, size = sum_of(tally["kept"])
    print_table(["", "files", "bytes"],
                [["kept", f"{files:,}", format_bytes(size)],
                 *[[f"dropped by {rule}", f"{sum_of(languages)[0]:,}", format_bytes(sum_of(languages)[1])]
                   for rule, languages in tally["dropped"].items()]])
    replaced = [(kind.replace("_", " "), f"{count:,}") for kind, count in tally["redacted"].items() if count]
    if replaced:
        print()
        print_facts(replaced, title="replaced")
