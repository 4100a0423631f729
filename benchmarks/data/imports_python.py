"""Edges of Python files against grimp's and modulefinder's, on packages of PyPI.

    pip install --no-deps --target FOLDER requests==2.32.5 ...      (the packages of repositories.toml)
    python benchmarks/data/imports_python.py --packages FOLDER [--set scoring] [--wrong 20]

Neither program sees folders without __init__.py: they get a copy of the package in which every folder has one. Edges
are judged between files that are in the package itself. modulefinder takes `from p import *` for an import of all
modules of p, as Python does only where __all__ says so: files with a star are left out of its judgement.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from scoring import LIST, Verdict, by_extension, order_scores, paths_below, precision, read_facts

from tritwise.data.imports import dependencies

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "data"))
from import_recorder import modulefinder_edges

IMPORTED_AS = {"scikit-learn": "sklearn"}
GRIMP = """
import json, sys
import grimp
sys.path.insert(0, sys.argv[1])
graph = grimp.build_graph(sys.argv[2], cache_dir=None)
json.dump({module: sorted(graph.find_modules_directly_imported_by(module)) for module in graph.modules}, sys.stdout)
"""
STAR = re.compile(rb"^\s*from\s+\S+\s+import\s+\*", re.MULTILINE)


def packages_of(which: str) -> list[str]:
    """Names of the frozen list's packages; `which` is "tuning" or "scoring"."""
    return [entry.partition("==")[0] for entry in tomllib.loads(LIST.read_text())["python"].get(which, ())]


def copy_with_packages(source: Path, target: Path) -> None:
    """The Python files of a folder; every folder with some below it is a package in the copy."""
    for path in source.rglob("*.py"):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
        for folder in copied.parents:
            (folder / "__init__.py").touch()
            if folder == target:
                break


def by_grimp(folder: Path, package: str, ours: dict[str, set[str]]) -> Verdict:
    # In a process of its own: this one may have imported another version of the package.
    text = subprocess.run([sys.executable, "-c", GRIMP, str(folder), package], capture_output=True, text=True,
                          check=True).stdout
    imported_by = json.loads(text)
    files = {}
    for path in ours:
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if module in imported_by and (module not in files or path.endswith("/__init__.py")):
            files[module] = path
    true = {(files[a], files[b]) for a in files for b in imported_by[a] if b in files and a != b}
    known = set(files.values())
    return Verdict(frozenset((a, b) for a, targets in ours.items() for b in targets if a in known and b in known),
                   frozenset(true))


def by_modulefinder(folder: Path, package: str, ours: dict[str, set[str]]) -> Verdict:
    starred = {path for path in ours if STAR.search((folder / path).read_bytes())}
    true = {(a, b) for a, b in modulefinder_edges(folder / package, folder) if a in ours and b in ours}
    true = {(a, b) for a, b in true if a not in starred}
    return Verdict(frozenset((a, b) for a, targets in ours.items() if a not in starred for b in targets),
                   frozenset(true))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder into which the packages are installed")
    parser.add_argument("--set", choices=("tuning", "scoring"), default="tuning", dest="which")
    parser.add_argument("--only", help="one package instead of the whole list")
    parser.add_argument("--oracle", choices=("grimp", "modulefinder"), help="one instead of both")
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="print N wrong and N missed edges each")
    args = parser.parse_args()
    sums: dict[str, list[tuple[int, int, int]]] = {}
    print(f"{'package':<17}{'oracle':<13}{'files':>6}{'true':>7}{'found':>7}{'P':>8}{'R':>8}"
          f"{'topol.':>8}{'topol.*':>8}{'path':>8}{'random':>8}{'MB/s':>7}{'edges s':>8}")
    for name in packages_of(args.which):
        if args.only and args.only != name:
            continue
        package = IMPORTED_AS.get(name, name)
        facts, size, seconds = read_facts(args.packages / package, by_extension(args.packages / package, ["python"]))
        facts = {f"{package}/{path}": each for path, each in facts.items()}
        begin = time.process_time()
        ours = dependencies(facts, paths=[f"{package}/{path}" for path in paths_below(args.packages / package)])
        edges_seconds = time.process_time() - begin
        for oracle, judge in (("grimp", by_grimp), ("modulefinder", by_modulefinder)):
            if args.oracle and args.oracle != oracle:
                continue
            with tempfile.TemporaryDirectory() as temporary:
                copy_with_packages(args.packages / package, Path(temporary, package))
                verdict = judge(Path(temporary), package, ours)
            right, wrong, missed = verdict.counts
            sums.setdefault(oracle, []).append(verdict.counts)
            scores = order_scores(ours, verdict.true)
            print(f"{name:<17}{oracle:<13}{len(ours):>6}{right + missed:>7}{right + wrong:>7}"
                  f"{precision(right, wrong):>8.4f}{precision(right, missed):>8.4f}"
                  + "".join(f"{scores[key]:>8.4f}" for key in ("topological", "topological*", "path", "random"))
                  + f"{size / 1e6 / seconds:>7.1f}{edges_seconds:>8.2f}", flush=True)
            for title, pairs in (("wrong", verdict.found - verdict.true), ("missed", verdict.true - verdict.found)):
                for a, b in sorted(pairs)[:args.wrong]:
                    print(f"  {title}: {a} -> {b}")
    for oracle, counts in sums.items():
        right, wrong, missed = (sum(each[i] for each in counts) for i in range(3))
        macro = [sum(precision(each[0], each[i]) for each in counts) / len(counts) for i in (1, 2)]
        print(f"{oracle}: micro P {precision(right, wrong):.4f} R {precision(right, missed):.4f}, "
              f"macro P {macro[0]:.4f} R {macro[1]:.4f}")


if __name__ == "__main__":
    main()
