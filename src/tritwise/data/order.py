"""The order of a repository's files: what is depended on before what depends on it, by path, or at random."""

import hashlib
import heapq
from collections.abc import Collection, Mapping
from typing import Literal

Order = Literal["topological", "path", "random"]


def order_files(dependencies: Mapping[str, Collection[str]], how: Order = "topological",
                seed: int | None = None) -> list[str]:
    """All files of a repository in one of three orders.

    Args:
        dependencies: for each file the files that it depends on, all of them keys too.
        how: "topological" is `dependency_order`; "path" sorts; "random" is what DeepSeek-Coder-V2 went over to.
        seed: of "random"; also of ties in "topological" order, which the authors broke at random. None breaks ties by
            path, which keeps neighbours together.
    """
    if how == "path":
        return sorted(dependencies)
    if how == "random":
        return _shuffled(dependencies, 0 if seed is None else seed)
    if how != "topological":
        raise ValueError(f"no order is called {how!r}")
    return dependency_order(dependencies, None if seed is None else _shuffled(dependencies, seed))


def _shuffled(paths: Collection[str], seed: int) -> list[str]:
    """Paths in an order that depends on nothing but them and the seed."""
    return sorted(paths, key=lambda path: (hashlib.blake2b(f"{seed}\0{path}".encode(), digest_size=16).digest(), path))


def _components(neighbours: list[list[int]]) -> list[list[int]]:
    """Weakly connected components, sorted by their smallest member."""
    components: list[list[int]] = []
    seen = bytearray(len(neighbours))
    for start in range(len(neighbours)):
        if seen[start]:
            continue
        seen[start] = 1
        component = [start]
        for node in component:  # grows while it is walked
            for other in neighbours[node]:
                if not seen[other]:
                    seen[other] = 1
                    component.append(other)
        components.append(component)
    return components


def dependency_order(dependencies: Mapping[str, Collection[str]], ranking: list[str] | None = None) -> list[str]:
    """All files, dependencies before dependents (DeepSeek-Coder, arXiv 2401.14196, Algorithm 1).

    Component by component, the file with the fewest dependencies not yet taken is taken next - not necessarily none, so
    a cycle cannot stall it. Ties, and the order of components, go by `ranking`, all files in some order; by path when
    it is None. O(edges + files) steps, each on a heap whose stale entries are skipped; the paper's loop is quadratic.

    Every target must itself be a key of `dependencies`.
    """
    files = sorted(dependencies) if ranking is None else ranking
    size = len(files)
    number = {path: rank for rank, path in enumerate(files)}
    waiting_for = [0] * size
    dependents: list[list[int]] = [[] for _ in files]
    neighbours: list[list[int]] = [[] for _ in files]
    for path, targets in dependencies.items():
        node = number[path]
        distinct = {number[target] for target in targets}
        waiting_for[node] = len(distinct)
        neighbours[node] += distinct
        for target in distinct:
            dependents[target].append(node)
            neighbours[target].append(node)
    order: list[str] = []
    taken = bytearray(size)
    for component in _components(neighbours):
        # One integer an entry, count * size + rank: compares as the pair does and is several times faster.
        heap = [waiting_for[node] * size + node for node in component]
        heapq.heapify(heap)
        while heap:
            count, node = divmod(heapq.heappop(heap), size)
            if taken[node] or count != waiting_for[node]:
                continue
            taken[node] = 1
            order.append(files[node])
            for dependent in dependents[node]:
                waiting_for[dependent] -= 1
                if not taken[dependent]:
                    heapq.heappush(heap, waiting_for[dependent] * size + dependent)
    return order
