"""Duplicates of a corpus, found by tasks over files: who is dropped for whom, against a plain all-pairs oracle."""

import json
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tritwise.common.errors import TritwiseError
from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup import apply, decision_path, exact_jaccard, read_decisions, run, signatures, steps
from tritwise.data.dedup.signatures import band_keys
from tritwise.data.documents import Document, read_documents, save_documents

RECIPE = DedupRecipe(max_rounds=5)


def text_of(seed: str, tokens: int = 150) -> str:
    return " ".join(f"{seed}_{i}" for i in range(tokens))


def edited(text: str, share: float, seed: int) -> str:
    """The text with a share of its tokens replaced, in one run, so that few shingles change."""
    words, count = text.split(), round(len(text.split()) * share)
    first = random.Random(seed).randrange(len(words) - count + 1)
    words[first : first + count] = [f"new_{seed}_{i}" for i in range(count)]
    return " ".join(words)


def document(repository: str, path: str, text: str) -> Document:
    return Document(repository, path, "python", text, len(text), "00", split="train")


def save_corpus(folder: Path, parts: list[list[Document]]) -> list[Path]:
    paths = [folder / f"{i:05d}.parquet" for i in range(len(parts))]
    for path, documents in zip(paths, parts, strict=True):
        save_documents(path, documents)
    return paths


def deduplicate(tmp_path: Path, parts: list[list[Document]], recipe: DedupRecipe = RECIPE, partitions: int = 2):
    """{(repository, path): (rule, survivor's repository, survivor's path)} and the kept documents."""
    folder = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
    paths = save_corpus(folder, parts)
    run(steps(paths, folder / "steps", recipe, partitions))
    found, kept = {}, []
    for number, path in enumerate(paths):
        decisions = read_decisions(decision_path(folder / "steps", number))
        found |= {(d.repository, d.path): (d.dropped_by, d.survivor_repository, d.survivor_path) for d in decisions}
        kept += [d for d in apply(read_documents(path), decisions) if d.is_kept]
    return found, kept


def test_a_fork_goes_as_a_whole_and_its_origin_keeps_every_file(tmp_path):
    origin = [document("origin", f"f{i}.py", text_of(f"o{i}")) for i in range(6)]
    fork = [document("fork", f"f{i}.py", d.text if i < 3 else edited(d.text, 0.03, i)) for i, d in enumerate(origin)]
    origin.append(document("origin", "more.py", text_of("m", 40)))
    found, kept = deduplicate(tmp_path, [fork, origin])
    assert found == {("fork", None): ("near_duplicate_repository", "origin", None)}
    assert kept == origin


def test_files_are_compared_where_repositories_stay_and_equal_text_goes_first(tmp_path):
    a, b = text_of("a"), text_of("b")
    one = [document("one", "lib/a.py", a), document("one", "own.py", text_of("own", 900))]
    two = [document("two", "third_party/lib/a.py", a), document("two", "b.py", b + " # the longer one " * 3),
           document("two", "z.py", text_of("z"))]
    three = [document("three", "b2.py", edited(b, 0.05, 1)), document("three", "s.py", "x = 1"),
             document("three", "t.py", "x = 1"), document("three", "q.py", text_of("q", 500))]
    found, _ = deduplicate(tmp_path, [one + two, three])
    assert found == {("two", "third_party/lib/a.py"): ("duplicate", "one", "lib/a.py"),
                     ("three", "b2.py"): ("near_duplicate", "two", "b.py"),
                     ("three", "t.py"): ("duplicate", "three", "s.py")}
    for switch, rule in (("exact", "duplicate"), ("files", "near_duplicate")):
        without, _ = deduplicate(tmp_path, [one + two, three], RECIPE.model_copy(update={switch: False}))
        assert rule not in {fate[0] for fate in without.values()}
        # With equal text left to signatures, the long one is still found; x = 1 is too short for them.
        assert len(without) == 2
    neither = RECIPE.model_copy(update={"exact": False, "files": False})
    assert deduplicate(tmp_path, [one + two, three], neither)[0] == {}


def test_a_chain_of_small_changes_never_drops_a_text_for_one_that_it_does_not_resemble(tmp_path):
    versions = [" ".join(f"w{i:04d}" for i in range(25 * step, 25 * step + 300)) for step in range(12)]
    documents = [document(f"r{i:02d}", "f.py", text) for i, text in enumerate(versions)]
    recipe = RECIPE.model_copy(update={"repositories": False})
    found, kept = deduplicate(tmp_path, [documents[:5], documents[5:]], recipe)
    assert exact_jaccard(versions[0], versions[-1], recipe) < 0.05
    assert len(kept) >= 4
    text = {d.repository: d.text for d in documents}
    for (repository, _), (rule, survivor, _) in found.items():
        assert rule == "near_duplicate"
        assert survivor in {d.repository for d in kept}
        assert exact_jaccard(text[repository], text[survivor], recipe) > 0.55
    clusters = json.loads(next(tmp_path.glob("*/steps/clusters.json")).read_text())["near_duplicate"]
    assert [(c["members"], c["kept"], len(c["listed"])) for c in clusters] == [(12, len(kept), 12)]
    assert clusters[0]["listed"][0] == ["r00", "f.py"]


def corpus(seed: int) -> list[list[Document]]:
    """Families of edited texts in random repositories, and texts of their own."""
    numbers = random.Random(seed)
    texts = []
    for family in range(6):
        origin = text_of(f"s{seed}f{family}", numbers.randrange(30, 200))
        texts += [edited(origin, numbers.choice([0, 0.02, 0.05, 0.1, 0.2]), i) for i in range(numbers.randrange(1, 7))]
    texts += [text_of(f"own{i}", 60) for i in range(4)]
    numbers.shuffle(texts)
    documents = [document(f"r{i // 4}", f"{'d/' * numbers.randrange(3)}f{i}.py", text) for i, text in enumerate(texts)]
    return [documents[:8], documents[8:12], documents[12:]]


def all_pairs_oracle(parts: list[list[Document]], recipe: DedupRecipe):
    """Files only: every pair of signatures looked at, greedy by rank. Shares nothing but signatures and band keys."""
    order = sorted(((d.path.count("/"), -len(d.text), number, i, d)
                    for number, part in enumerate(parts) for i, d in enumerate(part)), key=lambda row: row[:4])
    kept, found = [], {}
    for *_, d in order:
        same = next((k for k in kept if k.text == d.text), None)
        if same is not None:
            found[d.repository, d.path] = ("duplicate", same.repository, same.path)
        else:
            kept.append(d)
    values = signatures([d.text for d in kept], recipe)
    keys = band_keys(values, recipe)
    staying: list[int] = []
    for i, d in enumerate(kept):
        equal = [(int((values[i] == values[j]).sum()), -j) for j in staying
                 if (keys[i] == keys[j]).any() and (values[i] == values[j]).mean() >= recipe.file_threshold]
        if equal:
            survivor = kept[-max(equal)[1]]
            found[d.repository, d.path] = ("near_duplicate", survivor.repository, survivor.path)
        else:
            staying.append(i)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_tasks_decide_as_an_all_pairs_comparison_does_whatever_the_number_of_partitions(tmp_path, seed):
    recipe = RECIPE.model_copy(update={"repositories": False, "min_tokens": 5})
    expected = all_pairs_oracle(corpus(seed), recipe)
    assert {fate[0] for fate in expected.values()} == {"duplicate", "near_duplicate"}
    for partitions in (1, 3):
        assert deduplicate(tmp_path, corpus(seed), recipe, partitions)[0] == expected


def test_large_buckets_are_compared_with_their_leaders_and_end_the_same_way(tmp_path):
    families = [[edited(text_of(f"family{f}"), 0.01, i) for i in range(20)] for f in range(3)]
    documents = [document(f"r{i}", f"{f}.py", family[i]) for i in range(20) for f, family in enumerate(families)]
    recipe = RECIPE.model_copy(update={"repositories": False, "max_bucket": 1024})
    found = [deduplicate(tmp_path, [documents[:30], documents[30:]], recipe.model_copy(update=change))[0]
             for change in ({}, {"max_bucket": 2}, {"max_bucket": 2, "max_leaders": 1})]
    assert len(found[0]) == 57
    for fates in found[1:]:
        assert fates.keys() == found[0].keys()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_any_number_of_processes_any_order_and_a_second_run_give_the_same_bytes(tmp_path):
    paths = save_corpus(tmp_path, corpus(7))
    one, other = tmp_path / "one", tmp_path / "other"
    run(steps(paths, one, RECIPE, 3))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for step in steps(paths, other, RECIPE, 3):
            ranks = random.Random(step.name).sample(range(step.tasks), step.tasks)
            list(pool.map(pickle.loads(pickle.dumps(step.run)), ranks))
            step.run(ranks[0])  # as after a crash
    assert files_of(one) == files_of(other)


def test_a_documents_detail_names_its_survivor_and_what_was_dropped_before_stays_so(tmp_path):
    earlier = Document("b", "gone.py", "python", "", 9, "00", dropped_by="syntax")
    found, kept = deduplicate(tmp_path, [[document("a", "x.py", text_of("x")), document("a", "y.py", text_of("y", 400)),
                                          document("b", "x.py", text_of("x")), earlier, document("b", "z.py", "pass")]])
    assert found == {("b", "x.py"): ("duplicate", "a", "x.py")}
    assert {(d.repository, d.path) for d in kept} == {("a", "x.py"), ("a", "y.py"), ("b", "z.py")}
    steps_folder = next(tmp_path.glob("*/steps"))
    decisions = read_decisions(decision_path(steps_folder, 0))
    rows = list(apply(read_documents(steps_folder.parent / "00000.parquet"), decisions))
    assert (rows[2].text, rows[2].dropped_by, rows[2].detail) == ("", "duplicate", "a x.py, Jaccard 1.000")
    assert rows[3] == earlier


def test_an_empty_corpus_and_names_of_any_kind_go_through(tmp_path):
    assert deduplicate(tmp_path, [[]])[0] == {}
    odd = "new\nline \U0001f642"
    documents = [document(odd, "a\nb.py", text_of("x")), document(odd, "é/a.py", text_of("x"))]
    found, _ = deduplicate(tmp_path, [documents, []])
    assert found == {(odd, "é/a.py"): ("duplicate", odd, "a\nb.py")}


def test_damaged_missing_and_foreign_files_are_refused_by_name(tmp_path):
    paths = save_corpus(tmp_path, corpus(1))
    planned = steps(paths, tmp_path / "w", RECIPE, 1)
    with pytest.raises(TritwiseError, match="an earlier step has not run"):
        planned[1].run(0)
    planned[0].run(0)
    table = tmp_path / "w/signatures/00000.safetensors"
    content = table.read_bytes()
    for damaged in (b"", content[:5], content[:200], content[:-1], content + b"x", b"\xff" * 300,
                    content.replace(b'"U32"', b'"U64"'), content.replace(b"made_by", b"made_up")):
        table.write_bytes(damaged)
        with pytest.raises(TritwiseError, match=r"00000.safetensors is not readable"):
            planned[1].run(0)
    table.write_bytes(content)
    with pytest.raises(TritwiseError, match="made with other settings"):
        steps(paths, tmp_path / "w", RECIPE.model_copy(update={"seed": 1}), 1)[1].run(0)
    with pytest.raises(TritwiseError, match="nothing to deduplicate"):
        steps([], tmp_path / "w", RECIPE, 1)
    torn = [document("a", "1", "x"), document("b", "1", "y"), document("a", "2", "z")]
    with pytest.raises(TritwiseError, match="a do not stand together"):
        deduplicate(tmp_path, [torn])
    good = '{"repository":"r","path":null,"dropped_by":"duplicate","survivor_repository":"s","survivor_path":null,'
    for line in ("", "[]", "{}", good + '"jaccard":2}', good + '"jaccard":1,"x":0}',
                 good.replace("dup", "dap") + '"jaccard":1}'):
        (tmp_path / "d.jsonl").write_text(line + "\n")
        with pytest.raises(TritwiseError, match="does not hold decisions"):
            read_decisions(tmp_path / "d.jsonl")
    with pytest.raises(TritwiseError, match="does not exist"):
        read_decisions(tmp_path / "none.jsonl")


def test_the_curve_is_that_of_random_bins_and_settings_that_cannot_be_are_refused():
    recipe = DedupRecipe(permutations=40, bands=6, rows=5, file_threshold=0.7)
    assert recipe.needed(0.7) == 28
    numbers = np.random.default_rng(0)
    for similarity, candidate, pair in recipe.curve(similarities=(0.5, 0.7, 0.9)):
        equal = numbers.random((40_000, 40)) < similarity
        share_band = equal[:, :30].reshape(-1, 6, 5).all(axis=2).any(axis=1)
        found = share_band & (equal.sum(axis=1) >= 28)
        for expected, drawn in ((candidate, share_band), (pair, found)):
            assert abs(drawn.mean() - expected) < 5 * (expected * (1 - expected) / len(drawn)) ** 0.5
    assert DedupRecipe().curve()[4].pair < 1e-10  # at 0.5: no false merge
    with pytest.raises(ValidationError, match="more than permutations"):
        DedupRecipe(bands=33)
