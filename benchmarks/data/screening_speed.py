"""Megabytes a second, on one core, of each rule and screen over the files of a folder.

    python benchmarks/data/screening_speed.py FOLDER [--sets HumanEval.jsonl.gz gsm8k/test.jsonl] [--most-bytes N]

Processor time of this process, the best of three passes; a copy of the same bytes in memory stands beside it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tritwise.config.data_rules import FilterSettings, SecretSettings
from tritwise.config.data_screening import QualitySettings
from tritwise.data.contamination import TestItem, TestSets, load_test_sets
from tritwise.data.languages import language_of
from tritwise.data.rules import broken_rule, redact
from tritwise.data.screening import QualityModel, heuristics, syntax
from tritwise.data.screening.quality import QualityReport

File = tuple[str, str]  # language, text


def read_files(folder: Path, most_bytes: int) -> list[File]:
    """The source files below a folder that are UTF-8 and pass the rule filters, sorted by path."""
    files: list[File] = []
    total = 0
    settings = FilterSettings()
    for path in sorted(folder.rglob("*")):
        language = language_of(path.name)
        if language is None or not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if broken_rule(text, language, settings) is None:
            files.append((language, text))
            total += len(text.encode())
        if total > most_bytes:
            break
    return files


def screens(sets: list[Path]) -> dict[str, Callable[[str, str], object]]:
    """What is measured, by name: functions of language and text."""
    filters, secrets, quality = FilterSettings(), SecretSettings(), QualitySettings()
    # Any weights take the same time.
    model = QualityModel(quality, np.zeros(1 << quality.bits, dtype=np.float32), 0.0, 1.0, 0.0,
                         QualityReport(0, 0, 0.5, 0.25, 0.0, ()))
    items = load_test_sets(sets) if sets else [TestItem("none", "0", ("a text of ten words that stands in no file "
                                                                     "of the folder",))]
    index = TestSets.build(items)
    return {
        "copy in memory": lambda language, text: bytearray(text.encode()),
        "rule filters": lambda language, text: broken_rule(text, language, filters),
        "secrets": lambda language, text: redact(text, secrets),
        "syntax (Python)": lambda language, text: language == "python" and syntax.broken("python", text, None),
        "heuristics": lambda language, text: heuristics.broken(text, language),
        "quality model": lambda language, text: model.score(text),
        f"decontamination ({len(index.owners)} n-grams)": lambda language, text: index.find(text),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", type=Path, nargs="*", default=[])
    parser.add_argument("--most-bytes", type=int, default=20_000_000)
    arguments = parser.parse_args()
    files = read_files(arguments.folder, arguments.most_bytes)
    size = sum(len(text.encode()) for _, text in files)
    if not size:
        raise SystemExit(f"{arguments.folder} holds no source file that passes the rule filters")
    print(f"{len(files)} files, {size / 1e6:.1f} MB")
    for name, screen in screens(arguments.sets).items():
        measured = files if "Python" not in name else [file for file in files if file[0] == "python"]
        here = sum(len(text.encode()) for _, text in measured)
        seconds = min(_seconds(screen, measured) for _ in range(3))
        print(f"{name:40} {here / 1e6 / seconds:10.1f} MB/s  {len(measured) / seconds:10.0f} files/s")


def _seconds(screen: Callable[[str, str], object], files: list[File]) -> float:
    start = time.process_time()
    for language, text in files:
        screen(language, text)
    return max(time.process_time() - start, 1e-9)


if __name__ == "__main__":
    main()
