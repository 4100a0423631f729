"""How fast text becomes ids, and whether the ids are those of `tokenizers`: both in one run, taking turns.

    python benchmarks/data/encode_speed.py                     # Python files of the running interpreter, up to 30 MB
    python benchmarks/data/encode_speed.py --pattern llama-bpe --megabytes 60 DIRECTORY...
    python benchmarks/data/encode_speed.py --tokenizer runs/quickstart/data/tokenizer.json

Every id is compared. MB are 10^6 bytes of UTF-8. `cpu` counts the processor time of all threads and suffers less from
what else the machine does; the median of the rounds is shown, with the smallest and the largest.
"""

import argparse
import os
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tritwise.data import Encoder, load_tokenizer, train_tokenizer


def read_texts(roots: list[Path], suffixes: tuple[str, ...], most: int) -> list[str]:
    """UTF-8 files below the roots, sorted, until `most` bytes are together; those in other encodings are left out."""
    texts, size = [], 0
    for path in sorted(p for root in roots for p in root.rglob("*") if p.suffix in suffixes and p.is_file()):
        try:
            texts.append(path.read_bytes().decode())
        except UnicodeDecodeError:
            continue
        size += path.stat().st_size
        if size > most:
            break
    return texts


def parallel(value: bool) -> None:
    """Whether `tokenizers` may use all cores; the library reads this variable at every call."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if value else "false"


def theirs(tokenizer: Tokenizer, texts: list[str], threads: int) -> list[list[int]]:
    parallel(threads > 1)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def timed(work: Callable[[], list]) -> tuple[float, float, list]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="*", type=Path, default=[Path(sysconfig.get_path("stdlib"))])
    parser.add_argument("--suffix", action="append", help="files to read (.py); may be given several times")
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; otherwise one is trained")
    parser.add_argument("--pattern", default="code")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = read_texts(arguments.roots, tuple(arguments.suffix or [".py"]), int(arguments.megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts) / 1e6
    cores = len(os.sched_getaffinity(0))
    if arguments.tokenizer:
        tokenizer = load_tokenizer(arguments.tokenizer)
    else:
        parallel(True)
        seconds, processor, tokenizer = timed(
            lambda: train_tokenizer(texts, arguments.vocab_size, pattern=arguments.pattern))
        print(f"trained on {size:.1f} MB: {size / seconds:.2f} MB/s, {size / processor:.2f} a core")
    seconds, _, encoder = timed(lambda: Encoder(tokenizer))
    print(f"{len(texts)} files, {size:.1f} MB, {cores} cores; the encoder was ready in {seconds:.2f} s, "
          f"{'with tiktoken' if encoder.reason is None else 'with tokenizers: ' + encoder.reason}")

    works = {("tritwise", 1): lambda: list(encoder.encode_all(texts, threads=1)),
             ("tokenizers", 1): lambda: theirs(tokenizer, texts, 1),
             ("tritwise", cores): lambda: list(encoder.encode_all(texts, threads=cores)),
             ("tokenizers", cores): lambda: theirs(tokenizer, texts, cores)}
    speeds: dict[tuple[str, int], list[tuple[float, float]]] = {name: [] for name in works}
    different = tokens = 0
    for _ in range(arguments.rounds):
        results = {}
        for name, work in works.items():
            seconds, processor, results[name] = timed(work)
            speeds[name].append((size / seconds, size / processor))
        expected = results["tokenizers", 1]
        tokens = sum(map(len, expected))
        for other in works:
            different += sum(not np.array_equal(a, b) for a, b in zip(results[other], expected, strict=True))
    print(f"\n{'':12} threads   MB/s wall (min-max)     MB/s a core (cpu)")
    for (name, threads), rounds in speeds.items():
        wall, processor = zip(*rounds, strict=True)
        print(f"{name:12} {threads:7}   {statistics.median(wall):6.2f} ({min(wall):.2f}-{max(wall):.2f})"
              f"      {statistics.median(processor):6.2f} ({min(processor):.2f}-{max(processor):.2f})")
    for threads in dict.fromkeys((1, cores)):
        ratios = [a[1] / b[1] for a, b in zip(speeds["tritwise", threads], speeds["tokenizers", threads], strict=True)]
        print(f"ratio on {threads} (cpu): {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"{tokens:,} ids, {size * 1e6 / tokens:.3f} bytes each; files with other ids: {different}")
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
