"""IBM's open resolver of file dependencies beside ours: speed on one core, edges against oracles, order.

    git clone https://github.com/data-prep-kit/data-prep-kit CHECKOUT
    python -m venv VENV     # never the project's own: its pins are others
    VENV/bin/pip install networkx==3.3 colorlog==6.8.2 func-timeout==4.3.5 'pandas<3' emerge-viz==2.0.0
    taskset -c 0 python benchmarks/data/resolver_peer.py --checkout CHECKOUT --peer-python VENV/bin/python --mirrors DIR
        [--set scoring] [--language java] [--rounds 3] [--go GO/bin/go] [--node NODE] [--packages FOLDER]

The two take turns on the same files, round after round; seconds are processor time from texts in memory to the order of
the files, the median of the rounds. Reading, start and imports count for neither. The oracles are those of imports_*.py
(which see for --go, --node and --packages); sections without their oracle are left out. "order" is the share of the
oracle's edges, outside its cycles, whose dependency comes first.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import imports_c
import imports_ecmascript
import imports_go
import imports_java
import imports_python
from ibm_resolver import PACKAGE
from scoring import Verdict, by_extension, order_score, paths_below, precision, read_facts, repositories, unpack

from tritwise.data.imports import dependencies
from tritwise.data.order import dependency_order

HERE = Path(__file__).parent
# Sections of repositories.toml that both know and whose oracle is no other option's: languages of their files, oracle.
SECTIONS: dict[str, tuple[tuple[str, ...], ModuleType]] = {
    "java": (("java",), imports_java), "c": (("c", "c++"), imports_c), "c++": (("c++", "c"), imports_c),
    "go": (("go",), imports_go), "javascript": (("javascript", "typescript"), imports_ecmascript),
    "typescript": (("javascript", "typescript"), imports_ecmascript)}
HOW = """{what} is missing. What to type:
    git clone https://github.com/data-prep-kit/data-prep-kit CHECKOUT
    python -m venv VENV
    VENV/bin/pip install networkx==3.3 colorlog==6.8.2 func-timeout==4.3.5 'pandas<3' emerge-viz==2.0.0
and give --checkout CHECKOUT --peer-python VENV/bin/python"""


@dataclass(frozen=True)
class Resolved:
    """What a resolver made of a repository; `edges` has every file as a key."""

    seconds: float
    edges: dict[str, set[str]]
    order: list[str]
    unparsed: int = 0


@dataclass(frozen=True)
class Peer:
    checkout: Path
    python: Path

    def check(self) -> None:
        if not (self.checkout / PACKAGE).is_dir():
            raise SystemExit(HOW.format(what=f"data-prep-kit at {self.checkout}"))
        probe = [self.python, "-c", "import emerge, networkx, func_timeout, pandas; assert pandas.__version__ < '3'"]
        if not self.python.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
            raise SystemExit(HOW.format(what=f"a Python with its packages at {self.python}"))

    def resolve(self, folder: Path, language_of: Mapping[str, str], repository: str) -> Resolved:
        rows = [{"title": path, "contents": (folder / path).read_bytes().decode("utf-8", "replace"),
                 "ext": PurePosixPath(path).suffix, "language": language, "repo_name": repository}
                for path, language in language_of.items()]
        with tempfile.TemporaryDirectory() as temporary:
            files = Path(temporary, "files.json")
            files.write_text(json.dumps(rows))
            child = subprocess.run([self.python, HERE / "ibm_resolver.py", self.checkout, files], capture_output=True,
                                   text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
        if child.returncode:
            raise SystemExit(f"IBM's resolver failed on {repository}: {child.stderr[-2000:]}")
        result = json.loads(child.stdout)
        edges: dict[str, set[str]] = {path: set() for path in language_of}
        for dependent, dependency in result["edges"]:
            edges[dependent].add(dependency)
        return Resolved(result["graph_seconds"] + result["order_seconds"], edges, result["order"], result["unparsed"])


def ours(folder: Path, language_of: Mapping[str, str], repository: str) -> Resolved:
    facts, _, seconds = read_facts(folder, language_of)
    began = time.process_time()
    edges = dependencies(facts, paths=paths_below(folder), repository=repository.rpartition("/")[2])
    order = dependency_order(edges)
    return Resolved(seconds + time.process_time() - began, edges, order)


def compare(folder: Path, language_of: Mapping[str, str], repository: str, peer: Peer,
            rounds: int) -> tuple[dict[str, Any], dict[str, Resolved]]:
    """A row of speeds, and what each made of the folder."""
    runs: dict[str, list[Resolved]] = {"ours": [], "ibm": []}
    for _ in range(rounds):
        for name, resolve in (("ours", ours), ("ibm", peer.resolve)):
            runs[name].append(resolve(folder, language_of, repository))
    size = sum((folder / path).stat().st_size for path in language_of) / 1e6
    seconds = {name: statistics.median(run.seconds for run in each) for name, each in runs.items()}
    row = {"repository": repository, "files": len(language_of), "MB": size, "unparsed_by_ibm": runs["ibm"][0].unparsed,
           **{f"{name}_seconds": value for name, value in seconds.items()},
           **{f"{name}_MB_per_s": size / value for name, value in seconds.items()},
           "times": seconds["ibm"] / seconds["ours"]}
    return row, {name: each[0] for name, each in runs.items()}


def judged(resolved: Resolved, verdict: Verdict) -> dict[str, float]:
    right, wrong, missed = verdict.counts
    whole, acyclic = order_score(resolved.order, verdict.order or verdict.true)
    return {"right": right, "wrong": wrong, "missed": missed, "precision": precision(right, wrong),
            "recall": precision(right, missed), "order_all": whole, "order": acyclic}


def score(section: str, repository: str, make: Callable[[Path], None],
          judge: Callable[[Path, dict[str, set[str]], str], Verdict], languages: tuple[str, ...], peer: Peer,
          rounds: int) -> dict[str, Any]:
    """A row of speeds and scores; `make` fills a folder with the files, for an oracle may change them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "files")
        make(folder)
        row, results = compare(folder, by_extension(folder, languages), repository, peer, rounds)
    for name, result in results.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "files")
            make(folder)
            row |= {f"{name}_{key}": value
                    for key, value in judged(result, judge(folder, result.edges, repository)).items()}
    return {"section": section, **row}


def line(row: Mapping[str, Any]) -> str:
    scores = "".join(f"{row[f'{name}_{key}']:>8.3f}" for key in ("precision", "recall", "order")
                     for name in ("ours", "ibm"))
    return (f"{row['section']:<11}{row['repository']:<27}{row['files']:>6}{row['MB']:>7.2f}{row['ours_MB_per_s']:>8.2f}"
            f"{row['ibm_MB_per_s']:>8.2f}{row['times']:>7.1f}{scores}")


def totals(rows: list[dict[str, Any]], section: str) -> dict[str, Any]:
    """All repositories as one: sums of bytes, seconds and edges; the mean of the orders' shares."""
    row: dict[str, Any] = {"section": section, "repository": "all", "files": sum(row["files"] for row in rows),
                           "MB": sum(row["MB"] for row in rows)}
    for name in ("ours", "ibm"):
        for key in ("seconds", "right", "wrong", "missed"):
            row[f"{name}_{key}"] = sum(each[f"{name}_{key}"] for each in rows)
        right, wrong, missed = (row[f"{name}_{key}"] for key in ("right", "wrong", "missed"))
        row |= {f"{name}_precision": precision(right, wrong), f"{name}_recall": precision(right, missed),
                f"{name}_order": statistics.mean(each[f"{name}_order"] for each in rows),
                f"{name}_MB_per_s": row["MB"] / row[f"{name}_seconds"]}
    return row | {"times": row["ibm_seconds"] / row["ours_seconds"]}


def python_packages(arguments: Namespace) -> list[tuple[str, Callable[[Path], None]]]:
    if not arguments.packages:
        return []
    packages = [imports_python.IMPORTED_AS.get(name, name)
                for name in imports_python.packages_of(arguments.which)]
    return [(name, lambda folder, name=name: imports_python.copy_with_packages(
        arguments.packages / name, folder / name)) for name in packages]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkout", type=Path, required=True, help="data-prep-kit's files")
    parser.add_argument("--peer-python", type=Path, required=True, help="the Python that has its packages")


def prepare(section: str, arguments: Namespace) -> str | None:
    """Gets a section's oracle ready, or says which option it needs."""
    if section == "go" and not arguments.go:
        return "--go"
    if section in ("javascript", "typescript") and not arguments.node:
        return "--node"
    SECTIONS[section][1].configure(Namespace(language=section, wrong=0, branches="all", kind="all", go=arguments.go,
                                             node=arguments.node, oracle="dependency-cruiser",
                                             mirrors=arguments.mirrors, jars=[]))
    return None


def scores(arguments: Namespace, peer: Peer) -> list[dict[str, Any]]:
    """Rows of the frozen list's repositories, one below the other as they come, each section with its sums."""
    print(f"{'':<51}{'MB/s':>8}{'':>8}{'':>7}{'precision':>16}{'recall':>16}{'order':>16}")
    print(f"{'section':<11}{'repository':<27}{'files':>6}{'MB':>7}{'ours':>8}{'IBM':>8}{'times':>7}"
          + f"{'ours':>8}{'IBM':>8}" * 3)
    rows = []
    for section in [arguments.language] if arguments.language else ("python", *SECTIONS):
        if section == "python":
            made = [(name, make, lambda folder, edges, name: imports_python.by_grimp(folder, name, edges))
                    for name, make in python_packages(arguments)]
            needed, languages = (None if made else "--packages"), ("python",)
        else:
            needed, (languages, oracle) = prepare(section, arguments), SECTIONS[section]
            made = [(name, lambda folder, name=name, commit=commit: unpack(arguments.mirrors, name, commit, folder),
                     oracle.judge) for name, commit in repositories(section, arguments.which)]
        if needed:
            print(f"{section:<11}left out: its oracle needs {needed}")
            continue
        found = []
        for name, make, judge in made:
            if not arguments.only or arguments.only == name:
                found.append(score(section, name, make, judge, languages, peer, arguments.rounds))
                print(line(found[-1]), flush=True)
        if len(found) > 1:
            print(line(totals(found, section)), flush=True)
        rows += found
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--mirrors", type=Path, required=True, help="folder of the repositories' git directories")
    parser.add_argument("--set", choices=("tuning", "scoring", "second_scoring"), default="scoring", dest="which")
    parser.add_argument("--language", choices=("python", *SECTIONS), help="one section instead of all")
    parser.add_argument("--only", help="one repository instead of a section's list")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--go", type=Path, help="the go command, for the oracle of Go")
    parser.add_argument("--node", type=Path, help="folder of the oracles of JavaScript and TypeScript")
    parser.add_argument("--packages", type=Path, help="folder of installed packages, for Python with grimp")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    peer = Peer(arguments.checkout.resolve(), arguments.peer_python.absolute())
    peer.check()
    rows = scores(arguments, peer)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
