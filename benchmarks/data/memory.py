"""Memory of the whole data stage by stage: it must not grow with the corpus.

    python benchmarks/data/memory.py                                     # 24 and 96 MB
    python benchmarks/data/memory.py --megabytes 500 5000 --limit 1000   # a corpus of five times the limit

A corpus is made of the running interpreter's library: repositories of 50 KB to 8 MB whose files are real ones with
half of their names changed, so that neither duplicates nor wrong syntax drop them. The whole data stage runs over it in
processes of its own, and the resident memory of all of them is read twenty times a second from /proc. Pages that
processes share are counted in each, so the sums are upper bounds. Parts and the tokenizer's sample are equally large in
all runs: they are settings, and so is the memory that follows from them.

Exit status 1 when the peak of the largest corpus is more than --growth times that of the smallest, or above --limit.
"""

import argparse
import json
import keyword
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

WORD = re.compile(rb"\b[A-Za-z_][A-Za-z_0-9]{3,}\b")
FIXED = {word.encode() for word in keyword.kwlist + keyword.softkwlist}
SMALLEST, LARGEST = 50_000, 8_000_000
RUN = """
import json, sys, time
from pathlib import Path
from tritwise.config import Recipe
from tritwise.data import build
from tritwise.data.flow import run_steps

def run(work, steps):
    for step in steps:
        name = step.name.split("/")[0]
        Path(sys.argv[4]).write_text(name)
        run_steps(work, [step], workers=int(sys.argv[3]))
    Path(sys.argv[4]).write_text("report")

if __name__ == "__main__":
    build(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), run=run)
"""


def library() -> list[tuple[str, bytes]]:
    """Names and contents of the interpreter's files."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(p for p in root.rglob("*.py")
                   if "site-packages" not in p.parts and 2000 < p.stat().st_size < 200_000)
    return [("/".join(p.relative_to(root).parts), p.read_bytes()) for p in paths]


def renamed(content: bytes, generator: random.Random) -> bytes:
    """Half of a file's words with other endings, each the same everywhere."""
    names: dict[bytes, bytes] = {}

    def other(match: re.Match[bytes]) -> bytes:
        word = match[0]
        if word not in names:
            changed = word not in FIXED and not word.startswith(b"__") and generator.random() < 0.5
            names[word] = b"%s_%x" % (word, generator.getrandbits(12)) if changed else word
        return names[word]

    return WORD.sub(other, content)


def write_corpus(root: Path, size: int, seed: int) -> int:
    """Repositories of `size` bytes together; returns how many."""
    generator, files, count, written = random.Random(seed), library(), 0, 0
    while written < size:
        wanted = min(int(SMALLEST * (LARGEST / SMALLEST) ** generator.random()), size - written)
        home, held = root / f"repository-{count:05}", 0
        while held < wanted:
            name, content = generator.choice(files)
            path = home / f"d{held % 7}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = renamed(content, generator)
            path.write_bytes(content)
            held += len(content)
        written, count = written + held, count + 1
    return count


def tree(root: int) -> list[int]:
    """Process ids of `root` and all below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def resident(process: int) -> int:
    try:
        return int(Path("/proc", str(process), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def watch(child: subprocess.Popen, stage: Path, peaks: dict[str, dict[str, int]]) -> None:
    """Until the process ends: for each stage the largest sum, the largest single process, and the first one alone."""
    while child.poll() is None:
        name = stage.read_text() if stage.exists() else "plan"
        sizes = [resident(process) for process in tree(child.pid)]
        peak = peaks.setdefault(name or "plan", {"all": 0, "one": 0, "driver": 0})
        for key, value in (("all", sum(sizes)), ("one", max(sizes)), ("driver", sizes[0])):
            peak[key] = max(peak[key], value)
        time.sleep(0.05)


def recipe(root: Path, part_bytes: int, sample: int) -> str:
    schedule = {"shape": "cosine", "peak": 1e-3, "floor": 1e-4, "warmup_steps": 1}
    return json.dumps({
        "name": "memory", "data": {"sources": {"paths": [str(root)]}, "part_bytes": part_bytes},
        "tokenizer": {"vocab_size": 32000, "max_training_bytes": sample},
        "model": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1},
        "train": {"steps": 1, "batch_size": 1, "sequence_length": 16},
        "variants": {"dense": {"model_type": "llama", "linear_type": "dense", "schedule": schedule}}})


def measure(size: int, options: argparse.Namespace) -> dict:
    """One corpus: its counts and the peaks of its stages."""
    with tempfile.TemporaryDirectory(prefix="tritwise-memory-", dir=options.directory) as directory:
        home = Path(directory)
        repositories = write_corpus(home / "corpus", size, seed=0)
        script, stage = home / "run.py", home / "stage"
        script.write_text(RUN)
        began = time.perf_counter()
        child = subprocess.Popen([sys.executable, str(script), recipe(
            home / "corpus", options.part_megabytes * 10**6, options.sample_megabytes * 10**6), str(home / "out"),
            str(options.workers), str(stage)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors: list[bytes] = []
        reader = threading.Thread(target=lambda: errors.append(child.stderr.read()))
        reader.start()
        peaks: dict[str, dict[str, int]] = {}
        watch(child, stage, peaks)
        reader.join()
        if child.returncode:
            sys.exit(errors[0].decode(errors="replace")[-2000:])
        report = json.loads((home / "out" / "report.json").read_text())
        return {"megabytes": size / 1e6, "repositories": repositories, "seconds": round(time.perf_counter() - began, 1),
                "files": report["funnel"][0]["files"], "kept": report["funnel"][-1]["files"],
                "tokens": report["train"]["tokens"], "peaks": peaks,
                "steps": {step["name"]: [step["seconds"], step["bytes"]] for step in report["steps"]}}


def rows(results: list[dict]) -> Iterator[list[str]]:
    yield ["stage", *(f"{result['megabytes']:g} MB: all, one, driver" for result in results)]
    for name in results[-1]["peaks"]:
        yield [name, *(", ".join(f"{result['peaks'].get(name, {}).get(key, 0) / 1e6:.0f}"
                                 for key in ("all", "one", "driver")) for result in results)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[24, 96])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part-megabytes", type=int, default=4)
    parser.add_argument("--sample-megabytes", type=int, default=4)
    parser.add_argument("--limit", type=int, help="megabytes that all processes together may have")
    parser.add_argument("--growth", type=float, default=1.15)
    parser.add_argument("--directory", help="where the corpora are made; the default is the temporary directory")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    options = parser.parse_args()
    results = []
    for size in sorted(options.megabytes):
        results.append(measure(size * 10**6, options))
        last = results[-1]
        print(f"{size} MB: {last['repositories']} repositories, {last['files']} files, {last['kept']} kept, "
              f"{last['tokens']} tokens, {last['seconds']} s", flush=True)
    print("\npeak of resident memory in MB: all processes, the largest one, the first one")
    for row in rows(results):
        print("  ".join(f"{cell:28}" if number else f"{cell:10}" for number, cell in enumerate(row)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))
    peaks = [max(peak["all"] for peak in result["peaks"].values()) for result in results]
    print(f"\nall stages: {', '.join(f'{peak / 1e6:.0f} MB' for peak in peaks)}")
    if peaks[-1] > options.growth * peaks[0] or (options.limit and peaks[-1] > options.limit * 10**6):
        sys.exit(f"memory grows from {peaks[0] / 1e6:.0f} to {peaks[-1] / 1e6:.0f} MB, or is above the limit")


if __name__ == "__main__":
    main()
