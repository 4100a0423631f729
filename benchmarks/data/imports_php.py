"""PHP dependencies against nikic/PHP-Parser, whose NameResolver gives every name in full.

    apt-get install php-cli php-parser
    python benchmarks/data/imports_php.py --mirrors DIR --set scoring

A file depends on the one that defines a class, function or constant it names (in `use` too) and on what it requires by
a constant path. Names that several files define are left out on both sides.
"""

import argparse
import os.path
import subprocess
from collections import defaultdict
from pathlib import Path

from scoring import Verdict, main

_parser = Path()


def judge(folder: Path, dependencies: dict[str, set[str]], repository: str) -> Verdict:
    program = Path(__file__).with_name("php_edges") / "main.php"
    child = subprocess.run(["php", "-d", "memory_limit=2G", program, _parser, folder], capture_output=True, text=True,
                           errors="replace", check=True)
    rows = [line.split("\t") for line in child.stdout.splitlines() if line]
    known = {row[1] for row in rows if row[0] == "file"} & dependencies.keys()
    definers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row[0] == "define":
            definers[row[1], row[2].lower()].add(row[3])
    true, unsure = set(), set()
    for row in rows:
        if row[0] == "use":
            names = [name.lower() for name in row[2:4] if name]
            targets = next((definers[row[1], name] for name in names if (row[1], name) in definers), set())
            if row[4] not in targets:
                (true if len(targets) == 1 else unsure).update((row[4], target) for target in targets)
        elif row[0] == "include":
            place = row[1] if row[1].startswith("/") else str(folder / os.path.dirname(row[2]) / row[1])
            target = os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
            true.add((row[2], target))
    found = {(a, b) for a in known for b in dependencies[a] if b in known}
    unsure -= true
    return Verdict(frozenset(found - unsure), frozenset((a, b) for a, b in true if {a, b} <= known and a != b),
                   f"{len(known)} files parsed by both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parser", type=Path, default=Path("/usr/share/php"), help="the folder that holds PhpParser/")


def configure(args: argparse.Namespace) -> None:
    global _parser
    _parser = args.parser


if __name__ == "__main__":
    main(__doc__, {"php": ("php",)}, judge, add_arguments, configure)
