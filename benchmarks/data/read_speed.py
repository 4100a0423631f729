"""How fast the files of repositories are read, and what the steps after it add, on one core.

    PYTHONPATH=src python benchmarks/data/read_speed.py PATH... [--folder PATH] [--repeat 3]

Each step does what the one before does and one thing more: `read` takes the bytes out of the repository, `language`
names the language of each file, `kind` looks for binary, vendored, generated and minified ones, `licence` finds each
file's licence, reading the licence files first. MB are 10^6 bytes of the files that were read; seconds are wall time
and the processor time of this process and its children (git), the fastest of the repetitions.
"""

import argparse
import resource
import time
from collections import Counter

from tritwise.config.data_sources import SourceSettings
from tritwise.data.languages import detect
from tritwise.data.sources import (
    Repository,
    bears_licence,
    find_repositories,
    read_files,
    repository_licences,
    unwanted,
)

STEPS = ("read", "language", "kind", "licence")


def run(repository: Repository, step: str, max_bytes: int) -> tuple[int, int, Counter[str], Counter[str]]:
    """Read a repository up to `step`. Returns files, bytes read, skips and dropped kinds, bytes by language."""
    count, size, dropped, languages = 0, 0, Counter(), Counter()
    licences = None
    if step == "licence":
        licences = repository_licences(read_files(repository, max_bytes=max_bytes, wanted=bears_licence))
    depth = STEPS.index(step)
    for file in read_files(repository, max_bytes=max_bytes):
        count += 1
        if file.content is None:
            dropped[file.skipped] += 1
            continue
        size += file.size
        if depth == 0:
            continue
        language = detect(file.path, file.content)
        kind = unwanted(file.path, file.content, language) if depth > 1 else None
        if kind:
            dropped[kind[0]] += 1
        elif language:
            languages[language] += file.size
            if licences is not None:
                licences.of(file.path, file.content)
    return count, size, dropped, languages


def processor_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in
               map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="repositories, or directories of them")
    parser.add_argument("--folder", action="append", default=[], help="a plain folder that is one repository")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--max-bytes", type=int, default=1_000_000)
    arguments = parser.parse_args()
    repositories = [r for r in find_repositories(SourceSettings(paths=tuple(arguments.paths),
                                                                folders=tuple(arguments.folder)))
                    if r.kind != "parquet"]
    print(f"{'repository':<28}{'step':<10}{'files':>7}{'MB':>8}{'files/s':>9}{'MB/s':>7}{'MB/s cpu':>10}")
    for repository in repositories:
        for step in STEPS:
            best_wall = best_cpu = float("inf")
            for _ in range(arguments.repeat):
                wall, cpu = time.perf_counter(), processor_seconds()
                count, size, dropped, languages = run(repository, step, arguments.max_bytes)
                best_wall = min(best_wall, time.perf_counter() - wall)
                best_cpu = min(best_cpu, max(processor_seconds() - cpu, 1e-9))
            print(f"{repository.name[:27]:<28}{step:<10}{count:>7}{size / 1e6:>8.1f}{count / best_wall:>9.0f}"
                  f"{size / best_wall / 1e6:>7.0f}{size / best_cpu / 1e6:>10.0f}", flush=True)
        total = sum(languages.values()) or 1
        print("    " + ", ".join(f"{name} {part / total:.1%}" for name, part in languages.most_common(6)))
        print("    dropped: " + ", ".join(f"{name} {number}" for name, number in dropped.most_common()))


if __name__ == "__main__":
    main()
