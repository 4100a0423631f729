"""Parts: every repository once, whole, in an order that neither the alphabet nor the machine decides."""

import pickle
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tritwise.data.plan import PART_BYTES, WANTED_PARTS, SavedParts, part_bytes, partition_count, share_out
from tritwise.data.sources import Repository


class Named(NamedTuple):
    name: str
    size: int


REPOSITORIES = st.lists(st.tuples(st.text(max_size=5), st.integers(0, 1 << 26)), unique_by=lambda pair: pair[0])


@given(pairs=REPOSITORIES, seed=st.integers(0, 5))
def test_every_repository_is_in_one_part_whatever_the_order_they_are_found_in(pairs, seed):
    repositories = [Named(*pair) for pair in pairs]
    parts = share_out(repositories, seed)
    assert sorted(r for part in parts for r in part) == sorted(repositories)
    assert all(parts)
    assert share_out(reversed(repositories), seed) == parts


@given(pairs=REPOSITORIES)
def test_a_part_without_its_last_repository_is_below_the_limit(pairs):
    repositories = [Named(*pair) for pair in pairs]
    limit = part_bytes(sum(r.size for r in repositories))
    assert limit <= PART_BYTES
    for part in share_out(repositories, 0)[:-1]:
        assert sum(r.size for r in part[:-1]) < limit <= sum(r.size for r in part)


def test_the_order_is_not_the_alphabet_and_changes_with_the_seed():
    repositories = [Named(f"{number:03}", 1 << 20) for number in range(100)]
    orders = [[r.name for part in share_out(repositories, seed) for r in part] for seed in (0, 1)]
    assert orders[0] != sorted(orders[0])
    assert orders[0] != orders[1]


def test_a_corpus_of_a_few_megabytes_is_cut_for_many_cores_and_a_large_one_by_size():
    assert len(share_out([Named(str(i), 1 << 22) for i in range(64)], 0)) == WANTED_PARTS
    assert part_bytes(10 ** 12) == PART_BYTES
    assert part_bytes(0) == part_bytes(1) == 4 << 20


def test_a_crawl_is_cut_into_larger_parts_when_the_recipe_says_so():
    assert part_bytes(10 ** 14, 1 << 30) == 1 << 30
    assert len(share_out([Named(str(i), 1 << 26) for i in range(64)], 0, 1 << 30)) == 16


def test_a_task_reads_its_part_of_a_saved_plan_whatever_the_names(tmp_path):
    names = ["a", "é/日本", "not-utf8-\udcff", 'quote"\n']
    parts = [[Repository(name, "git", f"/home/{name}", None, 7)] for name in names] + [
        [Repository("b", "tar", "/b.tar", "abc", 0), Repository("c", "folder", "/c", None, 2)]]
    saved = SavedParts.save(tmp_path / "plan.jsonl", parts)
    assert len(saved) == len(parts)
    assert [saved[number] for number in range(len(saved))] == parts
    assert len(pickle.dumps(saved)) < 400


def test_a_shuffled_step_has_more_tasks_for_a_larger_corpus_and_never_fewer_than_asked_for():
    assert [partition_count(size, 8) for size in (0, 4 << 30, 5 << 30, 1 << 40, 1 << 50)] == [8, 8, 10, 2048, 4096]
    assert partition_count(0, 5000) == 5000
