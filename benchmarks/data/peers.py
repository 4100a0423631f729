"""The speed of the data stage beside its peers': one core, one corpus, one run.

    taskset -c 0 python benchmarks/data/peers.py CORPUS --checkout CHECKOUT --peer-python VENV/bin/python
        [--peer-packages DIR ...] [--sets PATH ...] [--megabytes 4] [--rounds 3] [--resolver-rounds 1] [--json FILE]

CORPUS is a directory of bare git repositories, or of links to them, taken at HEAD. Three comparisons, all of processor
seconds:

- the whole stage, step by step, beside the bounds of the machine (pipeline_speed.py);
- IBM's resolver and order (resolver_peer.py tells how to install it): every file of the languages that both know, each
  repository in turn by both;
- signatures of datatrove, text-dedup, rensa and datasketch (dedup_speed.py): texts of the corpus, evenly sampled.
  `pip install --target DIR ...` of what dedup_speed.py names; DIR is searched last, after the project's own versions.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dedup_speed
import pipeline_speed
from git_texts import read_blobs, tree
from resolver_peer import Peer, add_arguments, compare
from scoring import paths_below, unpack

from tritwise.config.data_sources import SourceSettings
from tritwise.data.languages import detect
from tritwise.data.sources import unwanted

# Languages whose files both read and link.
BOTH = frozenset(("c", "c++", "go", "java", "javascript", "kotlin", "python", "ruby", "swift", "typescript"))
SIGNATURES_GOAL, PIPELINE_GOAL = 8.0, 3.0


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers have three digits that count."""
    def cell(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) and value < 10 else (
            f"{value:.1f}" if isinstance(value, float) and value < 100 else (
                f"{value:.0f}" if isinstance(value, float) else str(value)))

    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def texts_of(repositories: Iterable[Path], size: int) -> list[str]:
    """Source texts at HEAD, by repository and path, evenly sampled to about `size` characters."""
    texts = []
    for repository in repositories:
        paths = tree(repository, "HEAD")
        contents = read_blobs(repository, set(paths.values()))
        texts += [contents[blob] for _, blob in sorted(paths.items()) if len(contents.get(blob, "")) >= 500]
    return texts[::max(1, round(sum(map(len, texts)) / size))]


def common_files(folder: Path, settings: SourceSettings) -> dict[str, str]:
    """Path -> language of the files that the pipeline keeps and both resolvers know."""
    result = {}
    for path in paths_below(folder):
        content = (folder / path).read_bytes()
        language = detect(path, content)
        if language in BOTH and len(content) <= settings.max_bytes and unwanted(
                path, content, language, settings.kinds) is None:
            result[path] = language
    return result


def name_of(repository: Path) -> str:
    """owner/name of a link to OWNER+NAME/repo (see scoring.py): the peer looks for a repository's name in imports."""
    target = repository.resolve()
    return (target.parent.name if target.name == "repo" else target.name.removesuffix(".git")).replace("+", "/")


def resolvers(repositories: Iterable[Path], peer: Peer, rounds: int) -> list[dict[str, Any]]:
    """A row for each repository that has common files, and one of the sums."""
    rows = []
    for repository in repositories:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "files")
            unpack(repository.parent, repository.name, "HEAD", folder)
            if files := common_files(folder, SourceSettings()):
                rows.append(row := compare(folder, files, name_of(repository), peer, rounds)[0])
                print(f"  {row['repository']}: {row['times']:.1f} times", file=sys.stderr, flush=True)
    whole = {key: sum(row[key] for row in rows)
             for key in ("files", "MB", "ours_seconds", "ibm_seconds", "unparsed_by_ibm")}
    for name in ("ours", "ibm"):
        whole[f"{name}_MB_per_s"] = whole["MB"] / whole[f"{name}_seconds"]
    return [*rows, whole | {"repository": "all", "times": whole["ibm_seconds"] / whole["ours_seconds"]}]


def summary(result: Mapping[str, Any]) -> str:
    """One table of all comparisons: what is measured, by whom, and how many times as fast ours is."""
    rows: list[tuple[object, ...]] = []
    speeds = {name: statistics.median(values) for name, values in result["signatures"].items() if values}
    base = speeds[dedup_speed.OURS]
    for name, values in result["signatures"].items():
        if name.startswith("tritwise"):
            continue
        goal = f">= {SIGNATURES_GOAL:.0f}" if name.startswith("datatrove") else ""
        rows.append(("signatures", name, speeds[name], base, base / speeds[name], goal) if values else
                    ("signatures", name, "not installed", base, "", goal))
    if whole := next((row for row in result["resolver"] if row["repository"] == "all"), None):
        rows.append(("dependencies and order", "IBM data-prep-kit", whole["ibm_MB_per_s"], whole["ours_MB_per_s"],
                     whole["times"], ""))
    rows += [(f"whole stage, {row['name']}", "", "", row["MB_per_s"], "", f">= {PIPELINE_GOAL:.0f} MB/s")
             for row in result["pipeline"]["overall"]]
    return markdown(("what", "peer", "peer MB/s", "tritwise MB/s", "times as fast", "goal"), rows)


def stage_table(result: Mapping[str, Any]) -> str:
    """The steps beside two bounds: what part of their time a copy in memory and a file written and read would take."""
    bounds = {row["name"]: row["MB_per_s"] for row in result["pipeline"]["bounds"]}
    copy, disk = bounds["copy in memory"], bounds["a file written, synchronised, read (wall)"]
    rows = [(row["name"], row["MB"], row["seconds"], row["MB_per_s"], f"{row['MB_per_s'] / copy:.3%}",
             f"{row['MB_per_s'] / disk:.2%}") for row in result["pipeline"]["stages"] + result["pipeline"]["overall"]]
    rows += [(row["name"], row["MB"], row["seconds"], row["MB_per_s"], "", "") for row in result["pipeline"]["bounds"]]
    return markdown(("step", "MB", "cpu s", "MB/s", "of copying in memory", "of writing and reading a file"), rows)


def resolver_table(rows: Iterable[Mapping[str, Any]]) -> str:
    return markdown(("repository", "files", "MB", "tritwise MB/s", "IBM MB/s", "times"),
                    [(row["repository"], row["files"], row["MB"], row["ours_MB_per_s"], row["ibm_MB_per_s"],
                      row["times"]) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="directory of bare git repositories")
    add_arguments(parser)
    parser.add_argument("--peer-packages", type=Path, nargs="*", default=[], help="folders of the deduplicating peers")
    parser.add_argument("--sets", nargs="*", default=(), help="test sets for decontamination")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--megabytes", type=float, default=4, help="of texts for signatures")
    parser.add_argument("--resolver-rounds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of the signatures")
    parser.add_argument("--json", type=Path, help="also write all numbers here")
    arguments = parser.parse_args()
    repositories = sorted(path for path in arguments.corpus.iterdir() if (path / "objects").is_dir())
    if not repositories:
        raise SystemExit(f"{arguments.corpus} holds no bare git repository (a folder with objects/)")
    peer = Peer(arguments.checkout.resolve(), arguments.peer_python.absolute())
    peer.check()
    # The stage comes first: what the peers import would lie in its memory.
    result: dict[str, Any] = {"pipeline": pipeline_speed.measure(pipeline_speed.recipe_of(
        [str(arguments.corpus)], arguments.sets, arguments.vocab), with_functions=False)}
    result["resolver"] = resolvers(repositories, peer, arguments.resolver_rounds)
    sys.path += map(str, arguments.peer_packages)
    result["signatures"] = dedup_speed.compare(texts_of(repositories, int(arguments.megabytes * 1e6)),
                                               arguments.rounds)
    for text in (summary(result), stage_table(result), resolver_table(result["resolver"])):
        print(f"\n{text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
