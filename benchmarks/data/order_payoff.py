"""What the order of a repository's files is worth: one model trained on each order, scored on held-out repositories.

    python benchmarks/data/fetch_packages.py benchmarks/data/order_payoff_packages.txt --out runs/packages
    python benchmarks/data/order_payoff.py --source runs/packages/repositories --out runs/order-payoff

The recipe's model is trained with data.order = topological, path and random: the same files, tokenizer, number of
tokens and seed, the same repositories held out. Each model is scored on (a) bits per byte of held-out files, each file
alone and behind the files that stand before it in each of the three orders; (b) cross-file tasks
(`evaluate/cross_file.py`) with other files in the window: none, the dependencies, the definition, or files that the
task's does not depend on. The latter comparison is the control: where dependencies help no more than other files,
nothing can be said about orders.

Windows have to hold more than one file for an order to matter, so sequences are longer and files shorter than in the
quickstart (--sequence-length, --max-file-bytes), and no document is turned for filling the middle (--fim-rate). Steps
are stages in --out: finished ones are reused, a training goes on where it was stopped. --set changes any key of the
recipe, for example --set model.hidden_size=64.

Intervals are 95 % bootstrap intervals of differences that are paired over tasks (or files), over several seeds means of
each task. `tasks` resamples tasks, `repositories` whole repositories. They say how far the held-out text decides, and
nothing about training: how far two trainings on the same order are apart is what --seeds shows.
"""

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from order_payoff_report import make_report, show
from order_payoff_score import score_model
from pydantic import ValidationError

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, read_json
from tritwise.config import Recipe, load_recipe
from tritwise.config.cross_file import CrossFileSettings, CrossFileWindow
from tritwise.config.model import config_error
from tritwise.data import Document, load_documents
from tritwise.data.documents import DOCUMENTS, part_file, save_documents
from tritwise.data.split import seeded_order
from tritwise.evaluate import CrossFileTask, find_tasks
from tritwise.pipeline.stages import Stage, run_stages
from tritwise.pipeline.walk import stages_of

ORDERS = ("topological", "path", "random")
EXCLUDE = ("test/*", "*/test/*", "*/tests/*", "*/testing/*", "*_test.py", "*/test_*.py", "*/migrations/*", "*/locale/*",
           "*/_vendor/*", "*/vendor/*")
SCORE_VERSION = 1


def derived(arguments: argparse.Namespace) -> Recipe:
    """The recipe with one variant, the experiment's source and sizes, and what --set says."""
    values = load_recipe(arguments.recipe).model_dump(exclude_none=True, mode="json")
    if arguments.variant not in values["variants"]:
        raise TritwiseError(f"the recipe has no variant {arguments.variant!r}",
                            why=f"it has {', '.join(values['variants'])}")
    values["variants"] = {arguments.variant: values["variants"][arguments.variant]}
    values["data"] |= {"sources": {"paths": [str(path) for path in arguments.source],
                                   "max_bytes": arguments.max_file_bytes},
                       "held_out_fraction": arguments.held_out_fraction}
    values["data"]["filters"] |= {"exclude": list(EXCLUDE)}
    values["data"]["fim"] |= {"rate": arguments.fim_rate}
    values["train"] |= {"steps": arguments.steps, "sequence_length": arguments.sequence_length,
                        "batch_size": arguments.batch_size, "micro_batch_size": None}
    for change in arguments.set:
        key, _, value = change.partition("=")
        *path, last = key.split(".")
        place = values
        try:
            for part in path:
                place = place[part]
            place[last] = json.loads(value)
        except (KeyError, TypeError, ValueError) as error:
            raise TritwiseError(f"--set {change} says nothing", why=repr(error),
                                fix="a key of the recipe and its value as JSON: --set train.steps=100") from None
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise config_error(error, "the changed recipe") from None


def with_order(recipe: Recipe, order: str, tokenizer: Path | None) -> Recipe:
    """The recipe with another order of files, and a tokenizer that is there already."""
    values = recipe.model_dump(exclude_none=True, mode="json")
    values["data"]["order"] = order
    if tokenizer is not None:
        values["tokenizer"]["file"] = str(tokenizer)
    return Recipe.model_validate(values)


def data_stage(recipe: Recipe, order: str, out: Path, tokenizer: Path | None) -> Stage:
    return replace(stages_of(with_order(recipe, order, tokenizer), out)[0], name=f"data-{order}")


def shard_stage(order: str, out: Path, documents: list[Document], limit: int) -> Stage:
    """What a training reads, of the held-out files only those that are scored: a training scores all that it has."""
    def build(directory: Path) -> None:
        directory.mkdir(parents=True)
        data = out / f"data-{order}"
        for file in [*data.glob("train-*.ds*"), data / "tokenizer.json"]:
            shutil.copy(file, directory / file.name)
        save_documents(part_file(directory / DOCUMENTS, 0), documents)

    return Stage(f"shard-{order}", build, settings={"held_out": limit}, reads=(f"data-{order}",))


def model_stages(recipe: Recipe, order: str, seed: int, out: Path, tokenizer: Path) -> list[Stage]:
    """Training of one model on one order, and its export."""
    from tritwise.pipeline.export import export_directory, open_source

    seeded = with_order(recipe, order, tokenizer).model_copy(update={"seed": seed})
    variant, data, name = next(iter(recipe.variants)), f"shard-{order}", f"{order}-{seed}"

    def build_model(directory: Path) -> None:
        from tritwise.train import train  # imports PyTorch

        train(seeded, variant, out / data, directory)

    settings = stages_of(seeded, out)[1].settings
    return [Stage(f"train-{name}", build_model, settings=settings, reads=(data,), resumable=True),
            Stage(f"model-{name}", lambda directory: export_directory(
                open_source(out / f"train-{name}", out / data / "tokenizer.json"), directory),
                settings={}, reads=(data, f"train-{name}"))]


def tasks_of(documents: list[Document], arguments: argparse.Namespace,
             seed: int) -> tuple[list[CrossFileTask], set[str]]:
    """Tasks whose name stands nowhere in the file before, then those whose name an import gives; ids of the former."""
    shared = {"min_code_lines": arguments.min_code_lines, "seed": seed}
    unseen = find_tasks(documents, CrossFileSettings(
        seen="nowhere", max_per_repository=arguments.tasks_per_repository, **shared))
    imported = find_tasks(documents, CrossFileSettings(
        seen="imports", max_per_repository=max(1, arguments.tasks_per_repository // 3), **shared))
    ids = {task.id for task in unseen}
    tasks = unseen + [task for task in imported if task.id not in ids]
    return sorted(tasks, key=lambda task: (task.repository, task.path, task.line)), ids


def scored_repositories(documents: list[Document], limit: int, seed: int) -> set[str]:
    """Held-out repositories in seeded order while they fit into `limit` bytes: those whose files are scored whole."""
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.repository] = sizes.get(document.repository, 0) + len(document.text.encode())
    chosen: set[str] = set()
    for name in seeded_order(sizes, seed, "scored whole"):
        if sum(sizes[each] for each in chosen) + sizes[name] <= limit:
            chosen.add(name)
    if not chosen:
        raise TritwiseError(f"no held-out repository has at most {limit} bytes", fix="a larger --held-out-bytes")
    return chosen


def held_out_in_each_order(out: Path, orders: tuple[str, ...], limit: int, seed: int) -> dict[str, list[Document]]:
    """The held-out files that are scored, in each order; they must be the same files."""
    found = {order: load_documents(out / f"data-{order}", split="held_out") for order in orders}
    texts = {order: {(d.repository, d.path, d.sha256) for d in documents} for order, documents in found.items()}
    if len(set(map(frozenset, texts.values()))) != 1:
        raise TritwiseError("the orders do not hold out the same files", why="the source changed between their builds",
                            fix="run again")
    chosen = scored_repositories(found[orders[0]], limit, seed)
    return {order: [d for d in documents if d.repository in chosen] for order, documents in found.items()}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build, train, score; returns the report."""
    recipe, out, orders = derived(arguments), arguments.out, tuple(arguments.orders)
    seeds = range(recipe.seed, recipe.seed + arguments.seeds)
    run_stages([first := data_stage(recipe, orders[0], out, None)], out)
    tokenizer = out / first.name / "tokenizer.json"
    stages = [first, *(data_stage(recipe, order, out, tokenizer) for order in orders[1:])]
    run_stages(stages, out)
    documents = load_documents(out / first.name, split=None)
    tasks, unseen = tasks_of(documents, arguments, recipe.seed)
    files = held_out_in_each_order(out, orders, arguments.held_out_bytes, recipe.seed)
    window = CrossFileWindow(context=recipe.train.sequence_length, cross_file_share=arguments.cross_file_share,
                             max_tokens=arguments.max_tokens)
    print(f"{len(tasks)} cross-file tasks, {len(unseen)} of them with a name that their file does not hold, in "
          f"{len({task.repository for task in tasks})} repositories", file=sys.stderr, flush=True)
    settings = {"window": window.model_dump(), "tasks": [task.id for task in tasks],
                "held_out": arguments.held_out_bytes}
    stages += [shard_stage(order, out, files[order], arguments.held_out_bytes) for order in orders]
    scores = {}
    for seed in seeds:  # every order once before the second seed
        for order in orders:
            stages += model_stages(recipe, order, seed, out, tokenizer)
            stages.append(Stage(
                f"score-{order}-{seed}",
                lambda directory, order=order, seed=seed: score_model(
                    out / f"model-{order}-{seed}", tasks, files, window, directory),
                settings=settings, version=SCORE_VERSION, reads=(f"model-{order}-{seed}", f"data-{order}", first.name)))
            scores[order, seed] = out / f"score-{order}-{seed}" / "score.json"
    run_stages(stages, out)
    report = make_report({key: read_json(path, what="scores") for key, path in scores.items()}, unseen)
    report |= {"recipe": recipe.model_dump(mode="json"), "window": window.model_dump(),
               "data": {order: read_json(out / f"data-{order}" / "report.json", what="a data report")
                        for order in orders},
               "seconds": {stage.name: read_json(out / stage.name / "stage.json", what="a stage")["seconds"]
                           for stage in stages}}
    atomic_write_json(out / "result.json", report)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recipe", type=Path, default=Path("recipes/quickstart.toml"))
    add("--variant", default="ternary")
    add("--source", type=Path, nargs="+", required=True, help="folders of repositories")
    add("--out", type=Path, default=Path("runs/order-payoff"))
    add("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    add("--seeds", type=int, default=1, help="trainings of each order; data and tasks are those of the first seed")
    add("--steps", type=int, default=1400)
    add("--sequence-length", type=int, default=1024)
    add("--batch-size", type=int, default=1)
    add("--max-file-bytes", type=int, default=8192)
    add("--held-out-fraction", type=float, default=0.4)
    add("--fim-rate", type=float, default=0.0)
    add("--tasks-per-repository", type=int, default=60)
    add("--min-code-lines", type=int, default=5)
    add("--cross-file-share", type=float, default=0.5, help="of the window, for other files")
    add("--max-tokens", type=int, default=50, help="of a generated line")
    add("--held-out-bytes", type=int, default=250_000, help="how much held-out text is scored file by file")
    add("--set", action="append", default=[], metavar="KEY=JSON")
    add("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        report = run(arguments)
    except TritwiseError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        json.dump(report, sys.stdout, allow_nan=False)
        print()
    else:
        print(show(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
