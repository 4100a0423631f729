"""What the scripts imports_*.py share: repositories at a commit, our edges, and how they are judged by an oracle's.

An oracle is a program that we did not write and that knows which file depends on which. A script has a function

    judge(folder: Path, dependencies: {path: {path, ...}}, repository: str) -> Verdict

and calls `main(__doc__, languages, judge)`. Repositories are git directories `MIRRORS/OWNER+NAME/repo` (or
`MIRRORS/OWNER/NAME`), read at the commits of repositories.toml and unpacked to a temporary folder.
"""

import argparse
import io
import json
import random
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tritwise.data.imports import Facts, dependencies, extract, extract_manifest
from tritwise.data.order import dependency_order

Edge = tuple[str, str]  # dependent, dependency

LIST = Path(__file__).with_name("repositories.toml")
EXTENSIONS = {
    "c": (".c", ".h"),
    "c++": (".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".inl", ".ipp"),
    "c#": (".cs",),
    "go": (".go",),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs", ".jsx"),
    "kotlin": (".kt", ".kts"),
    "php": (".php",),
    "python": (".py",),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala",),
    "swift": (".swift",),
    "typescript": (".ts", ".tsx", ".mts", ".cts"),
}


@dataclass(frozen=True)
class Verdict:
    """Edges (or pairs of a closure) that were found and that are true, over the same files."""

    found: frozenset[Edge]
    true: frozenset[Edge]
    note: str = ""
    # Direct edges for the order when `true` is a closure; the pairs of a closure serve as well.
    order: frozenset[Edge] = field(default_factory=frozenset)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Right, wrong, missed."""
        right = len(self.found & self.true)
        return right, len(self.found) - right, len(self.true) - right


def precision(right: int, wrong: int) -> float:
    return right / (right + wrong) if right + wrong else 1.0


def repositories(language: str, which: str) -> list[tuple[str, str]]:
    """(owner/name, commit) of the frozen list; `which` is "tuning" or "scoring"."""
    entries = tomllib.loads(LIST.read_text())[language].get(which, [])  # few have a second list to score on
    return [tuple(entry.split("@")) for entry in entries]


def unpack(mirrors: Path, name: str, commit: str, folder: Path) -> None:
    """The files of a commit, without symbolic links. A file whose content the mirror lacks is left out."""
    candidates = (mirrors / name.replace("/", "+") / "repo", mirrors / name.replace("/", "+"), mirrors / name)
    git = next((path for path in candidates if path.is_dir()), None)
    if git is None:
        raise SystemExit(f"{name} is not below {mirrors}; a bare clone is expected as {candidates[-1]}")
    tree = subprocess.run(["git", "-C", git, "ls-tree", "-r", "-z", commit], capture_output=True, check=True).stdout
    entries = [entry.split("\t", 1) for entry in tree.decode("utf-8", "surrogateescape").split("\0") if entry]
    files = {path: meta.split()[2] for meta, path in entries if meta.startswith("100")}
    objects = subprocess.run(["git", "-C", git, "cat-file", "--batch"], input="\n".join(files.values()).encode(),
                             capture_output=True, check=True).stdout
    stream = io.BytesIO(objects)
    for path in files:
        header = stream.readline().split()
        if header[1] == b"missing":
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stream.read(int(header[2])))
        stream.read(1)


def paths_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def by_extension(folder: Path, languages: Collection[str]) -> dict[str, str]:
    """The language of each file below a folder: the first of these that has the file's extension."""
    language_of = {extension: language for language in reversed(list(languages)) for extension in EXTENSIONS[language]}
    suffixes = {path: PurePosixPath(path).suffix.lower() for path in paths_below(folder)}
    return {path: language_of[suffix] for path, suffix in suffixes.items() if suffix in language_of}


def read_facts(folder: Path, language_of: Mapping[str, str]) -> tuple[dict[str, Facts], int, float]:
    """Facts of the files that have a language and of the manifests; bytes read; processor seconds of extracting."""
    facts, size, seconds = {}, 0, 0.0
    for path in paths_below(folder):
        content = (folder / path).read_bytes()
        language = language_of.get(path)
        begin = time.process_time()
        if language:
            content = content.decode("utf-8", "replace").encode()
            found = extract(language, path, content)
            size += len(content)
        else:
            found = extract_manifest(path, content)
        seconds += time.process_time() - begin
        if found:
            facts[path] = found
    return facts, size, seconds


def closure(edges: Mapping[str, Iterable[str]], start: str) -> set[str]:
    """What can be reached from a file, without the file itself."""
    seen, frontier = {start}, [start]
    while frontier:
        new = set(edges.get(frontier.pop(), ())) - seen
        seen |= new
        frontier += new
    return seen - {start}


def _components(edges: Iterable[Edge]) -> dict[str, int]:
    """The strongly connected component of each file (Kosaraju), so that edges inside cycles can be set apart."""
    ahead: dict[str, list[str]] = {}
    back: dict[str, list[str]] = {}
    for a, b in edges:
        ahead.setdefault(a, []).append(b)
        ahead.setdefault(b, [])
        back.setdefault(b, []).append(a)
        back.setdefault(a, [])
    finished, seen = [], set()
    for start in ahead:
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(ahead[start]))]
        while stack:
            node, rest = stack[-1]
            step = next((n for n in rest if n not in seen), None)
            if step is None:
                finished.append(stack.pop()[0])
            else:
                seen.add(step)
                stack.append((step, iter(ahead[step])))
    component: dict[str, int] = {}
    for number, start in enumerate(reversed(finished)):
        frontier = [start] if start not in component else []
        while frontier:
            node = frontier.pop()
            if node not in component:
                component[node] = number
                frontier += back[node]
    return component


def order_scores(edges: Mapping[str, set[str]], true: Collection[Edge], *, seed: int = 0) -> dict[str, float]:
    """Share of true edges whose dependency comes first, in each order.

    `topological*` counts only edges whose ends are not in one cycle of the oracle's graph: no order can satisfy all
    edges of a cycle.
    """
    files = sorted(edges)
    shuffled = files.copy()
    random.Random(seed).shuffle(shuffled)
    topological, acyclic = order_score(dependency_order(edges), true)
    return {"topological": topological, "topological*": acyclic, "path": order_score(files, true)[0],
            "random": order_score(shuffled, true)[0]}


def order_score(order: Sequence[str], true: Collection[Edge]) -> tuple[float, float]:
    """Share of true edges whose dependency comes first: of all, and of those whose ends are not in one cycle."""
    place = {path: i for i, path in enumerate(order)}
    true = [(a, b) for a, b in true if a in place and b in place and a != b]
    component = _components(true)

    def share(pairs: list[Edge]) -> float:
        return sum(place[b] < place[a] for a, b in pairs) / len(pairs) if pairs else 1.0

    return share(true), share([(a, b) for a, b in true if component[a] != component[b]])


def main(description: str, languages: Mapping[str, Collection[str]],
         judge: Callable[[Path, dict[str, set[str]], str], Verdict],
         add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
         configure: Callable[[argparse.Namespace], None] | None = None) -> None:
    """The command line of a script.

    `languages` gives, for each section of repositories.toml, the languages whose files are read. `judge` gets the
    folder, our edges and the repository's name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirrors", type=Path, required=True, help="folder of the repositories' git directories")
    parser.add_argument("--set", choices=("tuning", "scoring", "second_scoring"), default="tuning", dest="which")
    parser.add_argument("--only", help="one repository (owner/name) instead of the whole list")
    parser.add_argument("--language", choices=tuple(languages), help="one section instead of all")
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="print N wrong and N missed edges each")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    if add_arguments:
        add_arguments(parser)
    args = parser.parse_args()
    if configure:
        configure(args)
    rows = []
    print(f"{'repository':<28}{'files':>6}{'true':>7}{'found':>7}{'P':>8}{'R':>8}"
          f"{'topol.':>8}{'topol.*':>8}{'path':>8}{'random':>8}{'MB/s':>7}")
    for section in [args.language] if args.language else languages:
        for name, commit in repositories(section, args.which):
            if args.only and args.only != name:
                continue
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                unpack(args.mirrors, name, commit, folder)
                facts, size, seconds = read_facts(folder, by_extension(folder, languages[section]))
                edges = dependencies(facts, paths=paths_below(folder), repository=name.split("/")[1])
                verdict = judge(folder, edges, name)
            right, wrong, missed = verdict.counts
            row = {"section": section, "repository": name, "files": len(edges), "right": right, "wrong": wrong,
                   "missed": missed, "precision": precision(right, wrong), "recall": precision(right, missed),
                   **order_scores(edges, verdict.order or verdict.true), "megabytes_per_second": size / 1e6 / seconds}
            rows.append(row)
            print(f"{name:<28}{len(edges):>6}{right + missed:>7}{right + wrong:>7}{row['precision']:>8.4f}"
                  f"{row['recall']:>8.4f}{row['topological']:>8.4f}{row['topological*']:>8.4f}{row['path']:>8.4f}"
                  f"{row['random']:>8.4f}{row['megabytes_per_second']:>7.1f}  {verdict.note}", flush=True)
            for title, pairs in (("wrong", verdict.found - verdict.true), ("missed", verdict.true - verdict.found)):
                for a, b in sorted(pairs)[:args.wrong]:
                    print(f"  {title}: {a} -> {b}")
    if rows:
        count = len(rows)
        sums = [sum(row[key] for row in rows) for key in ("right", "wrong", "missed")]
        print(f"{'micro':<28}{'':>20}{precision(sums[0], sums[1]):>8.4f}{precision(sums[0], sums[2]):>8.4f}")
        means = {key: sum(row[key] for row in rows) / count for key in
                 ("precision", "recall", "topological", "topological*", "path", "random")}
        print(f"{'macro':<28}{'':>20}" + "".join(f"{value:>8.4f}" for value in means.values()))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
