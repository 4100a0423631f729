"""Speed of MinHash signatures on one core, beside other programs' signature stages, in one run.

    python benchmarks/data/dedup_speed.py FOLDER [FOLDER ...] [--megabytes 4] [--rounds 3]

Peers are measured where they can be imported: pip install 'datatrove[processing]' spacy text-dedup rensa datasketch
(text-dedup needs datasets, click-option-group and scipy). Everything gets the same texts, source files below the
folders that are UTF-8, evenly sampled up to a size; programs take turns, round after round. What counts is the
process's CPU time with one thread; the ratio is of the medians. Each row says what its work includes:

    tritwise, sketch      str -> 256 bins: UTF-8, tokens, 5-grams, bins
    tritwise, bands       the same and 32 band keys
    tritwise, two tasks   the steps signatures and files/bands: Parquet, SHA-256, sketches, band keys, sorting, writing
    datatrove             MinhashDedupSignature.run: normalisation, English words, 5-grams, hashes, files by bucket
    text-dedup            minhash.embed_func: split at \\W, 5-grams, 256 permutations
    rensa, datasketch     `re` words and 5-gram strings in Python, then the library's MinHash
"""

import argparse
import importlib.util
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[name] = "1"

from git_texts import MOST_BYTES, SUFFIXES  # noqa: E402

from tritwise.config.data_dedup import DedupRecipe  # noqa: E402
from tritwise.data.dedup import signatures, steps  # noqa: E402
from tritwise.data.dedup.signatures import band_keys, sketches  # noqa: E402
from tritwise.data.documents import Document, save_documents  # noqa: E402

RECIPE = DedupRecipe()
WORD = re.compile(r"\w+")
# Shorter measurements say little: the work is repeated until it takes this long.
SECONDS = 0.5
OURS = "tritwise, two tasks"
Work = Callable[[], object]


def read_texts(folders: list[Path], size: int) -> list[str]:
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    texts = []
    for path in paths:
        data = path.read_bytes()
        if 500 <= len(data) <= MOST_BYTES and b"\0" not in data:
            try:
                texts.append(data.decode())
            except UnicodeDecodeError:
                continue
    every = max(1, round(sum(map(len, texts)) / size))
    return texts[::every]


def grams(text: str) -> set[str]:
    words = WORD.findall(text)
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}


def ours(texts: list[str], folder: Path) -> dict[str, Work]:
    part = folder / "00000.parquet"
    save_documents(part, (Document(f"r{i // 50:05d}", f"f{i}", "c", t, len(t), "") for i, t in enumerate(texts)))

    planned = steps([part], folder / "steps", DedupRecipe(repositories=False, exact=False), 1)[:2]

    def tasks() -> None:
        for step in planned:
            step.run(0)

    return {"tritwise, sketch": lambda: sketches(texts, RECIPE),
            "tritwise, bands": lambda: band_keys(signatures(texts, RECIPE), RECIPE), OURS: tasks}


def datatrove(texts: list[str], folder: Path) -> dict[str, Work]:
    from datatrove.data import Document as Row
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from loguru import logger

    logger.remove()
    rows = [Row(text=text, id=str(i)) for i, text in enumerate(texts)]
    work = {}
    for buckets in (14, 32):  # its default, and as many hashes as ours
        stage = MinhashDedupSignature(str(folder / f"datatrove-{buckets}"), MinhashConfig(num_buckets=buckets))
        work[f"datatrove, {8 * buckets} hashes"] = lambda stage=stage: stage.run(iter(rows), 0, 1)
    return work


def text_dedup(texts: list[str], folder: Path) -> dict[str, Work]:
    import numpy as np
    from text_dedup.minhash import embed_func
    from text_dedup.utils import xxh3_32hash

    prime, most = np.uint64((1 << 61) - 1), np.uint32((1 << 32) - 1)
    numbers = np.random.RandomState(42)
    permutations = tuple(numbers.randint(low, prime, dtype=np.uint64, size=256) for low in (1, 0))

    def work() -> None:
        for i, text in enumerate(texts):
            embed_func(text, i, num_perm=256, ngram_size=5, min_length=5, hash_func=xxh3_32hash, dtype=np.uint64,
                       hashranges=[(j, j + 8) for j in range(0, 256, 8)], permutations=permutations, max_hash=most,
                       modulo_prime=prime)

    return {"text-dedup, 256 hashes": work}


def rensa(texts: list[str], folder: Path) -> dict[str, Work]:
    from rensa import RMinHash

    def work() -> None:
        for text in texts:
            sketch = RMinHash(256, 42)
            sketch.update(grams(text))
            sketch.digest()

    return {"rensa RMinHash, 256 hashes": work}


def datasketch(texts: list[str], folder: Path) -> dict[str, Work]:
    from datasketch import MinHash

    def work() -> None:
        for text in texts:
            MinHash(256).update_batch([gram.encode() for gram in grams(text)])

    return {"datasketch, 256 hashes": work}


PEERS = (datatrove, text_dedup, rensa, datasketch)


def measure(work: Work, size: int) -> float:
    """Megabytes of text in a second of CPU time."""
    runs, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        work()
        runs += 1
    return size * runs / spent / 1e6


def compare(texts: list[str], rounds: int) -> dict[str, list[float]]:
    """MB/s of each program, round after round, by its name; peers that cannot be imported have none."""
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        work = ours(texts, Path(folder))
        absent = [peer.__name__ for peer in PEERS if not importlib.util.find_spec(peer.__name__)]
        for peer in PEERS:
            if peer.__name__ not in absent:
                work |= peer(texts, Path(folder))
        for task in work.values():  # what is loaded at first use counts for nobody
            task()
        speeds: dict[str, list[float]] = {name: [] for name in (*work, *absent)}
        for _ in range(rounds):
            for name, task in work.items():
                speeds[name].append(measure(task, size))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--megabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = read_texts(arguments.folders, int(arguments.megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} texts, {size / 1e6:.2f} MB; one thread, CPU time, median of {arguments.rounds} rounds in turn")
    speeds = compare(texts, arguments.rounds)
    base = statistics.median(speeds[OURS])
    for name, values in speeds.items():
        if values:
            middle = statistics.median(values)
            print(f"{name:28s} {middle:9.2f} MB/s  ({min(values):.2f} to {max(values):.2f})   two tasks are "
                  f"{base / middle:8.2f} x as fast")
        else:
            print(f"{name} is not installed")


if __name__ == "__main__":
    main()
