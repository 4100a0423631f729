"""What the whole data stage costs on one core, stage by stage, beside what the machine itself can do.

    PYTHONPATH=src taskset -c 0 python benchmarks/data/pipeline_speed.py REPOSITORIES [--sets PATH ...] [--vocab 8192]
        [--json FILE]

REPOSITORIES is a directory of git repositories, archives or folders (`data.sources.paths`). All stages are on; those
of deduplication are, too. Seconds are processor time, of user and system, of this process and of its children (git):
other work on the machine does not show in it. MB are 10^6 bytes of what goes into a stage. Three tables:

- the stages, as `tritwise data build` runs them, with one worker in this process;
- the functions inside them, each called on all it would see, alone;
- the bounds: a copy in memory, a file written, synchronised and read, SHA-256, zstd, tree-sitter without us.
"""

import argparse
import hashlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tritwise.config import Recipe
from tritwise.config.data_tokens import FimSettings
from tritwise.data.build import build
from tritwise.data.contamination import TestSets
from tritwise.data.corpus_steps import load_sets
from tritwise.data.documents import Document, document_text, read_documents, save_documents
from tritwise.data.encoder import Encoder
from tritwise.data.fim import turn
from tritwise.data.flow import Step, run_steps
from tritwise.data.imports import Facts, extract, extract_manifest, parse
from tritwise.data.languages import detect
from tritwise.data.read import Reader
from tritwise.data.rules import broken_rule, redact
from tritwise.data.screening import heuristics, syntax
from tritwise.data.sources import RawFile, UndecodableError, decode, find_repositories, read_files, unwanted
from tritwise.data.stages import Filter, FindFacts, PutInOrder, Redact
from tritwise.data.words import words_of

MB = 1e6
_BLOCK = 64 << 20
# A recipe names a model, too; the data stage does not look at it.
_MODEL = {
    "model": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1,
              "num_key_value_heads": 1},
    "train": {"steps": 1, "batch_size": 1, "sequence_length": 64, "checkpoint_every": 1},
    "variants": {"dense": {"linear_type": "dense", "model_type": "llama",
                           "schedule": {"shape": "cosine", "peak": 1e-3, "floor": 1e-4, "warmup_steps": 0}}}}


def processor_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in
               map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it gives."""
    began = processor_seconds()
    result = work()
    return processor_seconds() - began, result


def row(name: str, size: float, seconds: float) -> dict[str, Any]:
    return {"name": name, "MB": round(size / MB, 2), "seconds": round(seconds, 3),
            "MB_per_s": round(size / MB / max(seconds, 1e-6), 1)}


def table(title: str, rows: Iterable[dict[str, Any]]) -> None:
    print(f"\n{title:<44}{'MB':>9}{'cpu s':>9}{'MB/s':>9}")
    for each in rows:
        print(f"  {each['name']:<42}{each['MB']:>9.1f}{each['seconds']:>9.2f}{each['MB_per_s']:>9.1f}", flush=True)


def recipe_of(paths: Sequence[str], sets: Sequence[str], vocab: int) -> Recipe:
    return Recipe.model_validate({
        "name": "speed", "data": {"sources": {"paths": tuple(paths)}, "decontamination": {"sets": tuple(sets)}},
        "tokenizer": {"vocab_size": vocab}, **_MODEL})


def stages(recipe: Recipe, out: Path) -> tuple[list[dict[str, Any]], Any]:
    """The whole data stage with one worker; a row for each stage, and the report."""
    spent: dict[str, float] = {}

    def run(work: Path, steps: Sequence[Step]) -> None:
        for step in steps:
            name = step.name.partition("/")[0]
            spent[name] = spent.get(name, 0.0) + timed(partial(run_steps, work, [step], workers=1))[0]

    whole, report = timed(partial(build, recipe, out, run=run))
    rows = [row(step.name, step.bytes, spent.get(step.name, 0.0)) for step in report.steps]
    rows.append(row("the rest: plan, index of test sets, report", report.funnel[0]["bytes"],
                    whole - sum(spent.values())))
    return rows, report


class Functions:
    """Rows of functions that are called on all they would see in a build."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def each(self, name: str, call: Callable[[Any], Any], values: Sequence[Any], size: float) -> list[Any]:
        seconds, results = timed(lambda: [call(value) for value in values])
        self.rows.append(row(name, size, seconds))
        return results

    def once(self, name: str, call: Callable[[], Any], size: float) -> Any:
        seconds, result = timed(call)
        self.rows.append(row(name, size, seconds))
        return result


def _decoded(file: tuple[RawFile, str]) -> str | None:
    try:
        return decode(file[0].content, file[1])
    except UndecodableError:
        return None


def text_bytes(documents: Iterable[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def functions(recipe: Recipe, out: Path, scratch: Path) -> list[dict[str, Any]]:
    measured, data = Functions(), recipe.data
    repositories = find_repositories(data.sources)
    files = measured.once("git objects", lambda: [
        file for repository in repositories for file in read_files(repository, max_bytes=data.sources.max_bytes)
        if file.content is not None], 0)
    size = sum(file.size for file in files)
    measured.rows[-1] = row("git objects", size, measured.rows[-1]["seconds"])
    languages = measured.each("language", lambda file: detect(file.path, file.content), files, size)
    measured.each("manifests", lambda file: extract_manifest(file.path, file.content), files, size)
    measured.each("sha256 of the file", lambda file: hashlib.sha256(file.content).hexdigest(), files, size)
    kinds = measured.each("binary, vendored, generated, minified", lambda pair: unwanted(
        pair[0].path, pair[0].content, pair[1], data.sources.kinds), list(zip(files, languages, strict=True)), size)
    wanted = [(file, language) for file, language, kind in zip(files, languages, kinds, strict=True)
              if language and kind is None]
    size = sum(file.size for file, _ in wanted)
    measured.each("decode", _decoded, wanted, size)
    reader = Reader(data.sources, data.max_repository_bytes)
    whole = sum(file.size for file in files)
    documents = measured.once("all of reading, with licences", lambda: list(reader.repositories(repositories)), whole)
    kept = [d for d in documents if d.is_kept]
    measured.each("rule filters", lambda d: broken_rule(d.text, d.language, data.filters), kept, text_bytes(kept))
    documents = list(Filter(data.filters)(documents))
    kept = [d for d in documents if d.is_kept]
    size = text_bytes(kept)
    measured.each("secrets and personal data", lambda d: redact(d.text, data.secrets), kept, size)
    documents = list(Redact(data.secrets)(documents))
    for language in sorted({d.language for d in documents if d.is_kept}):
        some = [(d.path, d.text.encode()) for d in documents if d.is_kept and d.language == language]
        if extract(language, *some[0]) is not None:
            part = sum(len(content) for _, content in some)
            measured.each(f"facts, {language}", lambda each, name=language: extract(name, *each), some, part)
            if language in parse.GRAMMARS:
                measured.each(f"    of it tree-sitter, {language}", lambda each, name=language: parse.parse(
                    name, each[1]), some, part)
    documents = list(FindFacts()(documents))
    kept = [d for d in documents if d.is_kept]
    known = [Facts.from_json(d.facts) for d in kept if d.facts is not None]
    measured.each("facts to JSON", Facts.to_json, known, size)
    measured.once("Parquet written", lambda: save_documents(scratch / "all.parquet", documents), size)
    measured.once("Parquet read", lambda: list(read_documents(scratch / "all.parquet")), size)
    measured.each("words and their hashes", lambda d: words_of(d.text), kept, size)
    for language in ("python", None):
        some = [(d, None if d.facts is None else Facts.from_json(d.facts).wrong_bytes) for d in kept
                if (d.language == "python") == (language == "python")]
        measured.each(f"syntax, {language or 'others'}", lambda pair: syntax.broken(
            pair[0].language, pair[0].text, pair[1], data.screening.syntax), some, text_bytes(d for d, _ in some))
    measured.each("heuristics", lambda d: heuristics.broken(d.text, d.language, data.screening.heuristics), kept, size)
    if data.decontamination.sets:
        sets = load_sets(data.decontamination.sets, data.decontamination.rules)
        sets.save(scratch / "sets.json")
        measured.once("index of the test sets, for a task", lambda: TestSets.load(scratch / "sets.json"), size)
        measured.each("decontamination", lambda d: sets.find(d.text), kept, size)
    measured.once("order", lambda: list(PutInOrder("topological", 0)(documents)), size)
    _tokens(measured, documents, out)
    return measured.rows


def _tokens(measured: Functions, documents: Sequence[Document], out: Path) -> None:
    content = (out / "tokenizer.json").read_text()
    kept = [d for d in documents if d.is_kept]
    size = sum(len(document_text(d).encode()) for d in kept)
    encoder = measured.once("an encoder, for a task", lambda: Encoder(content), size)
    measured.each("fill-in-the-middle", lambda d: turn(document_text(d), FimSettings(), seed=0, key=d.sha256), kept,
                  size)
    measured.each("encode", encoder.encode, [document_text(d) for d in kept], size)


def bounds(scratch: Path) -> list[dict[str, Any]]:
    """What the machine does with 64 MB of text; the file's row is wall time, for the processor only waits."""
    import pyarrow

    block = b"".join(path.read_bytes() for path in sorted(Path(json.__file__).parent.glob("*.py")))
    block = (block * (_BLOCK // len(block) + 1))[:_BLOCK]
    path = scratch / "block"

    def to_disk() -> None:
        with open(path, "wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        path.read_bytes()

    rows = [row(name, _BLOCK, timed(call)[0]) for name, call in (
        ("copy in memory", lambda: bytearray(block)), ("SHA-256", lambda: hashlib.sha256(block).digest()),
        ("zstd, level 1", lambda: pyarrow.Codec("zstd", 1).compress(block)))]
    began = time.perf_counter()
    seconds, _ = timed(to_disk)
    rows += [row("a file written, synchronised, read (wall)", _BLOCK, time.perf_counter() - began),
             row("a file written, synchronised, read", _BLOCK, seconds)]
    return rows


def measure(recipe: Recipe, *, with_functions: bool = True) -> dict[str, Any]:
    """Rows of "bounds", "stages", "functions" and "overall", and "hashes" of what was written."""
    with tempfile.TemporaryDirectory(prefix="tritwise-speed-") as scratch_name:
        scratch = Path(scratch_name)
        out = scratch / "out"
        result: dict[str, Any] = {"bounds": bounds(scratch)}
        result["stages"], report = stages(recipe, out)
        result["functions"] = functions(recipe, out, scratch) if with_functions else []
    kept = report.train.bytes + report.held_out.bytes
    read = report.funnel[0]["bytes"]
    training = sum(each["seconds"] for each in result["stages"] if each["name"] == "tokenizer")
    whole = sum(each["seconds"] for each in result["stages"])
    result["overall"] = [row(f"{what}, {name}", size, seconds) for what, size in (("kept text", kept), ("read", read))
                         for name, seconds in (("no tokenizer training", whole - training), ("all stages", whole))]
    result["hashes"] = report.hashes
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="directories of repositories")
    parser.add_argument("--sets", nargs="*", default=(), help="test sets for decontamination")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--json", type=Path, help="write all numbers there")
    parser.add_argument("--stages-only", action="store_true", help="leave the functions out")
    arguments = parser.parse_args()
    result = measure(recipe_of(arguments.paths, arguments.sets, arguments.vocab),
                     with_functions=not arguments.stages_only)
    for title in ("bounds", "stages", "functions", "overall"):
        table(title, result[title])
    digest = hashlib.sha256(json.dumps(result["hashes"], sort_keys=True).encode()).hexdigest()
    print(f"\nhash of all that was written: {digest}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
