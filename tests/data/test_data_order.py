"""The order that Algorithm 1 makes of dependencies, and the two others."""

import graphlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.data.order import dependency_order, order_files


@st.composite
def graphs(draw, acyclic: bool) -> dict[str, set[str]]:
    size = draw(st.integers(1, 12))
    ranks = draw(st.permutations(range(size)))
    pairs = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=30))
    edges: dict[str, set[str]] = {f"{i:02}": set() for i in range(size)}
    for a, b in pairs:
        if ranks[a] > ranks[b] or (not acyclic and a != b):
            edges[f"{a:02}"].add(f"{b:02}")
    return edges


def component_of(edges: dict[str, set[str]]) -> dict[str, str]:
    """Union by repeated relabelling: slow and plain."""
    label = {path: path for path in edges}
    for _ in edges:
        for path, targets in edges.items():
            for target in targets:
                label[path] = label[target] = min(label[path], label[target])
    return label


@given(graphs(acyclic=False))
def test_every_file_is_taken_once_and_components_stay_together(edges):
    order = dependency_order(edges)
    assert sorted(order) == sorted(edges)
    labels = [component_of(edges)[path] for path in order]
    assert labels == sorted(labels)  # a component is named by its smallest path


@given(graphs(acyclic=True))
def test_without_cycles_dependencies_come_first(edges):
    assert len(list(graphlib.TopologicalSorter(edges).static_order())) == len(edges)  # the graph has none
    order = dependency_order(edges)
    assert all(order.index(target) < order.index(path) for path, targets in edges.items() for target in targets)


def algorithm_1(edges: dict[str, set[str]]) -> list[str]:
    """The paper's loop written out: the untaken file of the component with the fewest untaken dependencies."""
    order: list[str] = []
    labels = component_of(edges)
    for name in sorted(set(labels.values())):
        left = {path for path in edges if labels[path] == name}
        while left:
            path = min(left, key=lambda p: (len(edges[p] & left), p))
            order.append(path)
            left.remove(path)
    return order


def reached(edges: dict[str, set[str]], path: str) -> set[str]:
    found: set[str] = set()
    frontier = {path}
    while frontier:
        frontier = {target for each in frontier for target in edges[each]} - found
        found |= frontier
    return found


@given(graphs(acyclic=True))
def test_without_cycles_the_order_is_algorithm_1(edges):
    assert dependency_order(edges) == algorithm_1(edges)


@given(graphs(acyclic=False))
def test_only_edges_inside_cycles_are_torn_and_a_cycle_is_ordered_by_algorithm_1(edges):
    order = dependency_order(edges)
    for path, targets in edges.items():
        for target in targets:
            assert order.index(target) < order.index(path) or path in reached(edges, target)
    for path in edges:
        cycle = {path} | {other for other in reached(edges, path) if path in reached(edges, other)}
        inside = {member: edges[member] & cycle for member in cycle}
        assert [member for member in order if member in cycle] == algorithm_1(inside)
        positions = [order.index(member) for member in cycle]
        assert max(positions) - min(positions) == len(cycle) - 1


def test_the_order_does_not_depend_on_the_order_of_the_input():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set(), "e": {"d"}}
    assert dependency_order(edges) == dependency_order(dict(reversed(edges.items()))) == ["a", "c", "b", "d", "e"]


def test_ten_thousand_files_in_a_chain_take_no_recursion_and_little_time():
    edges = {f"{i:05}": {f"{i + 1:05}"} if i < 9_999 else set() for i in range(10_000)}
    assert dependency_order(edges) == sorted(edges, reverse=True)


def test_a_component_of_one_cycle_starts_at_the_first_path_and_no_file_is_lost():
    assert dependency_order({"c": {"a"}, "a": {"b"}, "b": {"c"}}) == ["a", "c", "b"]


def test_the_three_orders_hold_the_same_files():
    edges = {f"{i:03}": {f"{(i * 7 + 1) % 100:03}"} - {f"{i:03}"} for i in range(100)}
    assert order_files(edges) == order_files(edges, "topological") == dependency_order(edges)
    assert order_files(edges, "path") == sorted(edges)
    shuffled = order_files(edges, "random", 1)
    assert sorted(shuffled) == sorted(edges)
    assert shuffled != sorted(edges)


def test_a_random_order_depends_on_the_seed_and_the_paths_alone():
    edges = {f"{i:03}": set() for i in range(100)}
    assert order_files(edges, "random", 1) == order_files(dict(reversed(edges.items())), "random", 1)
    assert order_files(edges, "random", 1) != order_files(edges, "random", 2)
    fewer = {path: set() for path in edges if path != "050"}
    assert order_files(fewer, "random", 1) == [path for path in order_files(edges, "random", 1) if path != "050"]


@given(graphs(acyclic=True), st.integers(0, 3))
def test_with_a_seed_ties_are_broken_at_random_and_dependencies_still_come_first(edges, seed):
    order = order_files(edges, "topological", seed)
    assert sorted(order) == sorted(edges)
    assert all(order.index(target) < order.index(path) for path, targets in edges.items() for target in targets)


def test_files_that_nothing_connects_are_shuffled_by_a_seed():
    edges = {f"{i:03}": set() for i in range(100)}
    assert order_files(edges) == sorted(edges)
    assert order_files(edges, "topological", 3) == order_files(edges, "random", 3)


def test_an_unknown_order_is_an_error():
    with pytest.raises(ValueError, match="alphabetical"):
        order_files({}, "alphabetical")


def test_a_hub_and_a_cycle_through_thousands_of_files_take_linear_work():
    size = 20_000
    edges = {f"{i:05}": {"hub", f"{(i + 1) % size:05}"} for i in range(size)} | {"hub": set()}
    order = dependency_order(edges)
    assert order[0] == "hub"  # though every other file waits for two
    assert len(order) == size + 1
