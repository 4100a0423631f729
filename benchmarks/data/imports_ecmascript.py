"""JavaScript and TypeScript dependencies against dependency-cruiser or madge.

    npm install --prefix NODE typescript@5 madge@8 dependency-cruiser@18
    python benchmarks/data/imports_ecmascript.py --mirrors DIR --node NODE --set scoring

Packages of a workspace get the links below node_modules that `npm install` would make; nothing is installed.
dependency-cruiser gets the conditions that the repository's tsconfig.json adds to those of `exports`. Compared are
edges between files of the folders in FOLDERS that both sides read.
"""

import argparse
import json
import os
import posixpath
import re
import subprocess
from pathlib import Path

from scoring import Verdict, main

# Folders that are compared, where not the whole repository is: fixtures that are wrong on purpose are left out.
FOLDERS: dict[str, tuple[str, ...]] = {
    "expressjs/express": ("index.js", "lib", "test", "examples"),
    "axios/axios": ("index.js", "lib", "test"),
    "eslint/eslint": ("lib", "bin", "tests/lib", "tests/tools", "tools"),
    "webpack/webpack": ("lib", "bin", "hot", "schemas", "tooling"),
    "chartjs/Chart.js": ("src", "test/specs", "test/utils.js", "test/fixture.js", "types"),
    "lodash/lodash": ("lodash.js", "fp", "perf", "test", "lib"),
    "mochajs/mocha": ("lib", "bin", "index.js"),
    "jquery/jquery": ("src", "build", "test"),
    "colinhacks/zod": ("packages", "scripts"),
    "vuejs/core": ("packages", "packages-private", "scripts"),
    "reduxjs/redux": ("src", "test", "scripts"),
    "trpc/trpc": ("packages",),
    "date-fns/date-fns": ("src", "pkgs"),
}

_oracle = "dependency-cruiser"
_node = Path()


def _link_workspaces(folder: Path) -> None:
    """node_modules/NAME -> the package's folder, as every package manager does for a workspace."""
    root = folder / "package.json"
    value = json.loads(root.read_text()) if root.is_file() else {}
    globs = value.get("workspaces", [])
    globs = globs.get("packages", []) if isinstance(globs, dict) else globs
    listed = folder / "pnpm-workspace.yaml"
    if listed.is_file():
        lines = listed.read_text().splitlines()
        block = lines[next((i for i, line in enumerate(lines) if line.startswith("packages:")), len(lines)) + 1:]
        for line in block:
            if not line.strip().startswith(("-", "#")):
                break
            globs = [*globs, line.strip().lstrip("- ").strip("'\"")]
    for pattern in globs:
        for package in sorted(folder.glob(pattern.rstrip("/") + "/package.json")) if pattern[:1] != "!" else ():
            name = json.loads(package.read_text()).get("name")
            link = folder / "node_modules" / str(name)
            if name and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                os.symlink(package.parent, link)


def _cruise(folder: Path, place: str, roots: list[str], conditions: list[str]) -> dict[str, set[str]]:
    """The graph that dependency-cruiser finds from a place in the folder, with the tsconfig.json that lies there."""
    config = folder / ".cruiser.json"
    config.write_text(json.dumps({"options": {"enhancedResolveOptions": {
        "exportsFields": ["exports"], "conditionNames": [*conditions, "import", "require", "node", "default"]}}}))
    command = [str(_node / "node_modules/.bin/depcruise"), "--config", str(config), "--ts-pre-compilation-deps",
               "--output-type", "json", "--exclude", "(^|/)node_modules/"]
    if (folder / place / "tsconfig.json").is_file():
        command += ["--ts-config", "tsconfig.json"]
    child = subprocess.run([*command, *roots], cwd=folder / place, capture_output=True, text=True, check=False)
    if not child.stdout:
        raise SystemExit(f"dependency-cruiser failed: {child.stderr[-2000:]}")

    def from_root(path: str) -> str:
        return posixpath.normpath(posixpath.join(place, path))

    return {from_root(module["source"]): {from_root(each["resolved"]) for each in module["dependencies"]
                                          if not each["couldNotResolve"]}
            for module in json.loads(child.stdout)["modules"] if not module.get("couldNotResolve")}


def _cruiser(folder: Path, roots: list[str]) -> dict[str, set[str]]:
    """With the root's tsconfig.json, then again below each other one that has aliases of its own."""
    settings = folder / "tsconfig.json"
    own = re.search(r'"customConditions":\s*\[([^\]]*)\]', settings.read_text()) if settings.is_file() else None
    conditions = [each.strip(' \n"') for each in own[1].split(",")] if own else []
    graph = _cruise(folder, ".", roots, conditions)
    for settings in sorted(folder.glob("*/**/tsconfig.json")):
        place = settings.parent.relative_to(folder).as_posix()
        if '"paths"' in settings.read_text() and "node_modules" not in place and any(
                root == "." or place == root or place.startswith(root + "/") for root in roots):
            inner = _cruise(folder, place, ["."], conditions)
            graph |= {source: targets for source, targets in inner.items() if source.startswith(place + "/")}
    return graph


def _madge(folder: Path, roots: list[str]) -> dict[str, set[str]]:
    command = [str(_node / "node_modules/.bin/madge"), "--json", "--extensions", "ts,tsx,mts,cts,js,jsx,mjs,cjs",
               "--basedir", "."]
    if (folder / "tsconfig.json").is_file():
        command += ["--ts-config", "tsconfig.json"]
    child = subprocess.run([*command, *roots], cwd=folder, capture_output=True, text=True, check=False)
    if not child.stdout:
        raise SystemExit(f"madge failed: {child.stderr[-2000:]}")
    return {source: set(targets) for source, targets in json.loads(child.stdout).items()}


def judge(folder: Path, dependencies: dict[str, set[str]], repository: str) -> Verdict:
    _link_workspaces(folder)
    roots = [root for root in FOLDERS.get(repository, (".",)) if (folder / root).exists()]
    graph = (_cruiser if _oracle == "dependency-cruiser" else _madge)(folder, roots)
    known = {path for path in dependencies if path in graph and any(
        root == "." or path == root or path.startswith(root + "/") for root in roots)}
    return Verdict(frozenset((a, b) for a in known for b in dependencies[a] if b in known),
                   frozenset((a, b) for a in known for b in graph[a] if b in known and a != b),
                   f"{len(known)} files in both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", type=Path, required=True, help="folder that the oracles were installed in")
    parser.add_argument("--oracle", choices=("dependency-cruiser", "madge"), default="dependency-cruiser")


def configure(args: argparse.Namespace) -> None:
    global _node, _oracle
    _node, _oracle = args.node.resolve(), args.oracle


if __name__ == "__main__":
    both = ("javascript", "typescript")
    main(__doc__, {"javascript": both, "typescript": both}, judge, add_arguments, configure)
