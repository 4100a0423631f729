"""Speed of taking a file's facts, and how much of it is the parser itself: MB/s of processor time, one core.

    python benchmarks/data/imports_speed.py --mirrors FOLDER [--megabytes 3] [--language java]

The files are the first of each language's tuning repositories, by path (Python: of this interpreter's library).
"""

import argparse
import sysconfig
import tempfile
import time
from pathlib import Path

from scoring import EXTENSIONS, repositories, unpack

from tritwise.data.imports import extract, languages_with_dependencies
from tritwise.data.imports.parse import parse, wrong_bytes

SECTIONS = {"c#": "csharp"}


def files_of(language: str, mirrors: Path, most: float) -> list[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(sysconfig.get_path("stdlib"))]
        if language != "python":
            folders = []
            for name, commit in repositories(SECTIONS.get(language, language), "tuning"):
                folders.append(Path(temporary, name))
                unpack(mirrors, name, commit, folders[-1])
        found, size = [], 0
        for folder in folders:
            for path in sorted(path for path in folder.rglob("*") if path.suffix in EXTENSIONS[language]):
                if path.is_file() and size < most * 1e6 and "site-packages" not in path.parts:
                    found.append((path.name, path.read_bytes().decode("utf-8", "replace").encode()))
                    size += len(found[-1][1])
        return found


def seconds(work, files: list[tuple[str, bytes]]) -> float:
    """The better of two runs."""
    times = []
    for _ in range(2):
        begin = time.process_time()
        for path, content in files:
            work(path, content)
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirrors", type=Path, required=True, help="folder of the repositories' git directories")
    parser.add_argument("--megabytes", type=float, default=3)
    parser.add_argument("--language", choices=sorted(languages_with_dependencies()))
    args = parser.parse_args()
    print(f"{'language':<12}{'MB':>7}{'parse':>8}{'extract':>9}{'share of parse':>16}{'wrong bytes':>13}   (MB/s)")
    for language in [args.language] if args.language else sorted(languages_with_dependencies()):
        files = files_of(language, args.mirrors, args.megabytes)
        size = sum(len(content) for _, content in files) / 1e6

        def grammar(path: str, language: str = language) -> str:
            return "tsx" if path.endswith(".tsx") else language

        wrong = sum(wrong_bytes(parse(grammar(path), content), content) for path, content in files) / 1e6
        parsing = seconds(lambda path, content: parse(grammar(path), content), files)
        extracting = seconds(lambda path, content, language=language: extract(language, path, content), files)
        print(f"{language:<12}{size:>7.2f}{size / parsing:>8.1f}{size / extracting:>9.1f}{parsing / extracting:>15.0%} "
              f"{wrong / size:>12.4%}", flush=True)


if __name__ == "__main__":
    main()
