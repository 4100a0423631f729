"""Time to order a repository of many files: random graphs, seconds of processor time.

    python benchmarks/data/order_speed.py [--files 100000] [--edges 1000000]

In "acyclic" every file depends on earlier ones, in "cyclic" on any.
"""

import argparse
import random
import time

from tritwise.data.order import order_files


def graph(files: int, edges: int, acyclic: bool) -> dict[str, set[str]]:
    draw = random.Random(0)
    paths = [f"folder{i % 97}/file{i}.py" for i in range(files)]
    dependencies: dict[str, set[str]] = {path: set() for path in paths}
    for _ in range(edges):
        a, b = draw.randrange(files), draw.randrange(files)
        if a != b:
            dependencies[paths[max(a, b) if acyclic else a]].add(paths[min(a, b) if acyclic else b])
    return dependencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    args = parser.parse_args()
    for kind in ("acyclic", "cyclic"):
        dependencies = graph(args.files, args.edges, kind == "acyclic")
        for how, seed in (("topological", None), ("topological", 1), ("path", None), ("random", 1)):
            begin = time.process_time()
            order = order_files(dependencies, how, seed)
            seconds = time.process_time() - begin
            place = {path: i for i, path in enumerate(order)}
            edges = [(a, b) for a, targets in dependencies.items() for b in targets]
            share = sum(place[b] < place[a] for a, b in edges) / len(edges)
            print(f"{kind:<8} {how:<12} seed {seed!s:<5} {seconds:6.2f} s, {share:.4f} of the edges satisfied",
                  flush=True)


if __name__ == "__main__":
    main()
