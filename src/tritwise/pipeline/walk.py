"""The way of a recipe, stage by stage, and the report at its end."""

import importlib.util
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, canonical_json, read_json, sha256_bytes, sha256_file
from tritwise.config import Recipe, load_recipe
from tritwise.pipeline.stages import Stage, StageRecord, run_stages

# Raised when the code of a stage changes what it writes; the stage and those that read it then run again.
VERSIONS = {"data": 3, "train": 1, "export": 1, "run": 2, "report": 1}
RUN = "run"
_RESERVED = {"data", RUN, "superseded"}


def run_recipe(recipe_path: Path, out: Path | None = None) -> dict[str, Any]:
    """Walk the whole recipe into `out` (`runs/NAME`); finished stages are reused. Returns the report's data.

    Progress and completions go to standard error. Raises TritwiseError for the user's mistakes and Interrupted when
    training was stopped; the same call goes on from there.
    """
    recipe = load_recipe(recipe_path)
    require("training and its report", "torch", "pyarrow", "matplotlib")  # before the first minute is spent
    out = out or Path("runs") / recipe.name
    stages = stages_of(recipe, out)
    records = run_stages(stages, out)
    return _report(recipe, recipe_path, out, records)


def train_variant(recipe_path: Path, variant: str, out: Path | None = None) -> Path:
    """Only the data and the training of one variant, as `run_recipe` would do them; returns the training directory."""
    recipe = load_recipe(recipe_path)
    recipe.model_config_of(variant)
    out = out or Path("runs") / recipe.name
    wanted = ("data", f"train-{variant}")
    run_stages([stage for stage in stages_of(recipe, out) if stage.name in wanted], out)
    return out / f"train-{variant}"


def require(what: str, *packages: str, extra: str = "train,report") -> None:
    """Raise TritwiseError with the command that installs them, when packages beyond the base are missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise TritwiseError(f"{what} needs {', '.join(missing)}", why="the base installation can run models only",
                            fix=f"pip install 'tritwise[{extra}]', or `make run` in the source directory")


def stages_of(recipe: Recipe, out: Path) -> list[Stage]:
    """The stages of a recipe in order: data, training of each variant, export of each, run."""
    _check_names(recipe)
    variants = tuple(recipe.variants)
    tokenizer_file = {} if recipe.tokenizer.file is None else {"tokenizer_file": _file_key(recipe.tokenizer.file)}
    stages = [Stage("data", lambda directory: _build_data(recipe, directory), settings={
        "seed": recipe.seed, "data": recipe.data.model_dump(mode="json", exclude={"partitions"}),
        "tokenizer": recipe.tokenizer.model_dump(mode="json"), "source": source_fingerprint(recipe),
        "python": platform.python_version(),  # its parser decides which files are kept
        "judges": [_file_key(path) for path in _judges(recipe)],
    } | tokenizer_file, version=VERSIONS["data"], resumable=True)]
    for variant in variants:
        # What decides the numbers; how often a checkpoint is written and how gaps are asked for does not.
        model = recipe.model_config_of(variant).model_dump(mode="json", exclude={"fim_order"})
        settings = {"seed": recipe.seed, "model": model,
                    "train": recipe.train.model_dump(mode="json", exclude={"checkpoint_every"}),
                    "schedule": recipe.variants[variant].schedule.model_dump(mode="json")}
        if (start := recipe.variants[variant].start) is not None:
            settings["start"] = _start_key(start)
        if recipe.mix is not None:
            settings["mix"] = _mix_key(recipe)
        stages.append(Stage(f"train-{variant}", _trainer(recipe, variant, out), settings=settings,
                            version=VERSIONS["train"], reads=("data",), resumable=True))
    for variant in variants:
        stages.append(Stage(variant, _exporter(variant, out), settings={}, version=VERSIONS["export"],
                            reads=("data", f"train-{variant}")))
    stages.append(Stage(RUN, lambda directory: _run_models(recipe, out, directory), settings=_run_settings(recipe),
                        version=VERSIONS["run"], reads=("data", *variants)))
    return stages


def _file_key(path: str) -> str:
    if not Path(path).is_file():
        raise TritwiseError(f"{path} does not exist", why="the recipe names it")
    return sha256_file(Path(path))


def _judges(recipe: Recipe) -> list[str]:
    """The files that decide what is kept: test sets, and a quality model."""
    model = recipe.data.screening.quality_model
    if recipe.data.decontamination.sets:
        from tritwise.data.contamination import files_of_sets

        sets = [str(file) for name in recipe.data.decontamination.sets for file in files_of_sets(name)]
    else:
        sets = []
    return [*sets, *([model] if model else [])]


def _start_key(path: str) -> str:
    from tritwise.train.start import start_key

    return start_key(Path(path))


def _mix_key(recipe: Recipe) -> dict[str, Any]:
    from tritwise.train.mixes import mix_key

    return mix_key(recipe.mix)


def source_fingerprint(recipe: Recipe) -> str:
    """A hash that changes with what is read: commits of git, sizes and times of other files."""
    from tritwise.data.sources import find_repositories, fingerprint

    return fingerprint(find_repositories(recipe.data.sources))


def _check_names(recipe: Recipe) -> None:
    for variant in recipe.variants:
        if variant in _RESERVED or variant.startswith(("train-", ".")) or "/" in variant or variant.endswith(".json"):
            raise TritwiseError(f"a variant cannot be called {variant!r}",
                                why="its model directory stands beside those of the stages, which use this name",
                                fix="another name under [variants.NAME]")


def _build_data(recipe: Recipe, directory: Path) -> None:
    from tritwise.data import build

    build(recipe, directory)


def _trainer(recipe: Recipe, variant: str, out: Path) -> Callable[[Path], None]:
    def build(directory: Path) -> None:
        from tritwise.train import train  # imports PyTorch

        train(recipe, variant, out / "data", directory)

    return build


def _exporter(variant: str, out: Path) -> Callable[[Path], None]:
    def build(directory: Path) -> None:
        from tritwise.pipeline.export import export_directory, open_source

        export_directory(open_source(out / f"train-{variant}", out / "data" / "tokenizer.json"), directory)

    return build


def _run_settings(recipe: Recipe) -> dict[str, Any]:
    from tritwise import _native

    # Speeds belong to the machine and to the core that was measured.
    return {"context": recipe.train.sequence_length, "stride": recipe.train.sequence_length // 2,
            "processor": _native.cpu_info()["brand"], "native_core": sha256_file(Path(_native.__file__))}


def _run_models(recipe: Recipe, out: Path, directory: Path) -> None:
    from tokenizers import Tokenizer

    from tritwise.data import load_documents, xz_bits_per_byte
    from tritwise.measure.bench import bench_in_child
    from tritwise.measure.machine import machine_facts
    from tritwise.pipeline.probe import probe_in_child
    from tritwise.pipeline.tasks import choose_tasks

    documents = load_documents(out / "data", split="held_out")
    tokenizer = Tokenizer.from_file(str(out / "data" / "tokenizer.json"))
    context = recipe.train.sequence_length
    tasks = choose_tasks(documents, lambda text: len(tokenizer.encode(text).ids), context)
    models = {}
    for number, variant in enumerate(recipe.variants):
        print(f"    {variant}: speed and memory, completions, held-out text", file=sys.stderr, flush=True)
        # The first model's completions are shown as they come; those of all stand in the report.
        models[variant] = {
            "bench": bench_in_child(out / variant).to_json(),
            "probe": probe_in_child(out / variant, out / "data", tasks, context=context, stride=context // 2,
                                    show=number == 0)}
    atomic_write_json(directory / "result.json", {
        "models": models, "machine": machine_facts(), "xz_bits_per_byte": xz_bits_per_byte(documents)})


def _report(recipe: Recipe, recipe_path: Path, out: Path, records: dict[str, StageRecord]) -> dict[str, Any]:
    from tritwise.measure.report import HTML, JSON, write_report
    from tritwise.pipeline.facts import report_data

    command = f"tritwise run {recipe_path}" + ("" if out == Path("runs") / recipe.name else f" --out {out}")
    key = sha256_bytes(canonical_json([VERSIONS["report"], recipe.name, command,
                                       {name: record.key for name, record in records.items()}]).encode())
    stages = [asdict(record) for record in records.values()]
    if (out / JSON).is_file() and (out / HTML).is_file():
        old = read_json(out / JSON, what="a report")
        if old.get("key") == key and old.get("html_sha256") == sha256_file(out / HTML):
            return {**old, "stages": stages}
    began = time.monotonic()
    report = {"key": key, **report_data(recipe, recipe_path, out, command, stages)}
    write_report(report, out)
    print(f"report written in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return {**report, "stages": stages}
