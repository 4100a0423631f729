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


def _strong_components(targets: list[list[int]]) -> list[list[int]]:
    """Strongly connected components (Tarjan, SIAM J. Comput. 1972, without recursion)."""
    size = len(targets)
    index, low = [-1] * size, [0] * size
    looked_at = [0] * size  # how many of a node's targets
    closed = bytearray(size)
    open_nodes: list[int] = []
    components: list[list[int]] = []
    count = 0
    for start in range(size):
        path = [start] if index[start] < 0 else []
        while path:
            node = path[-1]
            if index[node] < 0:
                index[node] = low[node] = count
                count += 1
                open_nodes.append(node)
            if looked_at[node] < len(targets[node]):
                target = targets[node][looked_at[node]]
                looked_at[node] += 1
                if index[target] < 0:
                    path.append(target)
                elif not closed[target]:
                    low[node] = min(low[node], index[target])
                continue
            path.pop()
            if path:
                low[path[-1]] = min(low[path[-1]], low[node])
            if low[node] == index[node]:
                component = []
                while not closed[node]:
                    component.append(open_nodes.pop())
                    closed[component[-1]] = 1
                components.append(component)
    return components


def _weak_components(targets: list[list[int]]) -> list[int]:
    """For each node the smallest node that edges connect it with, whatever their direction."""
    parent = list(range(len(targets)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for node, reached in enumerate(targets):
        for target in reached:
            a, b = root(node), root(target)
            parent[max(a, b)] = min(a, b)
    return [root(node) for node in range(len(targets))]


def _cycle_order(members: list[int], targets: list[list[int]]) -> list[int]:
    """Algorithm 1 inside a cycle: the node with the fewest targets not yet taken is next, the smallest of equals."""
    size = len(targets)
    inside = set(members)
    waiting_for = {node: len(inside.intersection(targets[node])) for node in members}
    dependents: dict[int, list[int]] = {node: [] for node in members}
    for node in members:
        for target in inside.intersection(targets[node]):
            dependents[target].append(node)
    # One integer an entry, count * size + node: compares as the pair does and is several times faster.
    heap = [count * size + node for node, count in waiting_for.items()]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        count, node = divmod(heapq.heappop(heap), size)
        if node not in inside or count != waiting_for[node]:
            continue  # taken, or an entry of before
        inside.remove(node)
        order.append(node)
        for dependent in dependents[node]:
            if dependent in inside:
                waiting_for[dependent] -= 1
                heapq.heappush(heap, waiting_for[dependent] * size + dependent)
    return order


def dependency_order(dependencies: Mapping[str, Collection[str]], ranking: list[str] | None = None) -> list[str]:
    """All files, dependencies before dependents, whatever connects files staying together.

    Without cycles this is Algorithm 1 of DeepSeek-Coder (arXiv 2401.14196): component by component, the file with the
    fewest dependencies not yet taken is next. With cycles, that algorithm also tears edges that are in none: files that
    wait for one file overtake a cycle in which all wait for two. So cycles (strongly connected components) are taken as
    one first, then each is ordered by the algorithm. Ties, and the order of components, go by `ranking`, all files in
    some order; by path when it is None. O((edges + files) log files) steps; the paper's loop is quadratic.

    Every target must itself be a key of `dependencies`.
    """
    files = sorted(dependencies) if ranking is None else ranking
    size = len(files)
    number = {path: rank for rank, path in enumerate(files)}
    targets = [sorted({number[target] for target in dependencies[path]} - {rank}) for rank, path in enumerate(files)]
    connected_with = _weak_components(targets)
    cycles = _strong_components(targets)
    cycle_of = [0] * size
    for cycle, members in enumerate(cycles):
        for node in members:
            cycle_of[node] = cycle
    waiting_for = [0] * len(cycles)
    dependents: list[list[int]] = [[] for _ in cycles]
    for node, reached in enumerate(targets):
        for target in reached:
            if cycle_of[target] != cycle_of[node]:
                waiting_for[cycle_of[node]] += 1
                dependents[cycle_of[target]].append(cycle_of[node])
    # Whatever connects comes together, and begins with its smallest member; so does a cycle. `first` gives it back.
    first = {min(members): cycle for cycle, members in enumerate(cycles)}
    key = {cycle: connected_with[node] * size + node for node, cycle in first.items()}
    ready = [key[cycle] for cycle, count in enumerate(waiting_for) if not count]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        cycle = first[heapq.heappop(ready) % size]
        members = cycles[cycle]
        order += [files[node] for node in (members if len(members) == 1 else _cycle_order(members, targets))]
        for dependent in dependents[cycle]:
            waiting_for[dependent] -= 1
            if not waiting_for[dependent]:
                heapq.heappush(ready, key[dependent])
    return order
