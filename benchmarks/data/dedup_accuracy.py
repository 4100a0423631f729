"""Near-duplicates on real histories and a real fork, beside exact Jaccard and the curve that the settings promise.

    python benchmarks/data/dedup_accuracy.py --history GIT [GIT ...] --fork GIT GIT [--commits 16]

GIT is the directory of a clone, bare or not. For each history: commits over its whole length, closer together towards
the newest, are repositories whose similarity falls step by step; all different texts of their files are compared too.
For the fork: the newest commits. "curve" is the mean of what the settings promise for just these pairs.
A repository pair is one coin: it is thrown with --seeds different seeds. Texts are without the licence at their head,
as near-duplicates are compared; --whole leaves it there. Nothing is timed here.
"""

import argparse
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from git_texts import commits, read_blobs, tree

from tritwise import _native
from tritwise.config.data_dedup import DedupRecipe
from tritwise.data.dedup import decision_path, read_decisions, run, signatures, steps
from tritwise.data.dedup.heads import licence_head
from tritwise.data.dedup.job import Job, place_in_part
from tritwise.data.dedup.signatures import band_keys, sketches
from tritwise.data.dedup.tables import gather
from tritwise.data.documents import Document, save_documents
from tritwise.data.languages import detect

THRESHOLDS = (0.7, 0.85)
BINS = ((0.0, 0.5), (0.5, 0.6), (0.6, 0.7), (0.7, 0.75), (0.75, 0.8), (0.8, 0.85), (0.85, 0.9), (0.9, 1.0))


@dataclass
class Pairs:
    """Of all pairs: exact similarity, whether they share a band, equal bins."""

    exact: np.ndarray
    candidate: np.ndarray
    estimate: np.ndarray

    def found(self, threshold: float) -> np.ndarray:
        return self.candidate & (self.estimate >= threshold - 1e-9)


def shingle_sets(texts: list[str], recipe: DedupRecipe) -> list[np.ndarray]:
    return [_native.shingles(text, recipe.shingle, recipe.seed) for text in texts]


def exact_matrix(sets: list[np.ndarray]) -> np.ndarray:
    """Jaccard similarity float64 [n, n] of sorted arrays: counts of common elements by their posting lists."""
    count, sizes = len(sets), np.array([len(s) for s in sets], np.int64)
    element = np.concatenate(sets)
    owner = np.repeat(np.arange(count), sizes)
    order = np.argsort(element, kind="stable")
    element, owner = element[order], owner[order]
    starts = np.flatnonzero(np.append(True, element[1:] != element[:-1]))
    lengths = np.diff(np.append(starts, len(element)))
    common = np.zeros((count, count), np.int64)
    for length in np.unique(lengths[lengths > 1]):
        first = starts[lengths == length]
        if length <= 32:
            one, two = np.triu_indices(length, 1)
            for i in range(0, len(first), 200_000 // len(one) + 1):
                lists = owner[first[i : i + 200_000 // len(one) + 1, None] + np.arange(length)]
                np.add.at(common, (lists[:, one].reshape(-1), lists[:, two].reshape(-1)), 1)
        else:
            for i in range(0, len(first), 2048):
                has = np.zeros((len(first[i : i + 2048]), count), np.float32)
                np.put_along_axis(has, owner[first[i : i + 2048, None] + np.arange(length)], 1, axis=1)
                common += np.triu(has.T @ has, 1).astype(np.int64)
    common += common.T
    union = sizes[:, None] + sizes[None] - common
    return np.where(union > 0, common / np.maximum(union, 1), 0.0)


def compare(exact: np.ndarray, values: np.ndarray, recipe: DedupRecipe) -> Pairs:
    """All pairs of signatures whose exact similarities are the matrix."""
    one, two = np.triu_indices(len(values), 1)
    keys = band_keys(values, recipe)
    candidate, estimate = [], []
    for i in range(0, len(one), 20_000):
        a, b = one[i : i + 20_000], two[i : i + 20_000]
        candidate.append((keys[a] == keys[b]).any(axis=1))
        estimate.append((values[a] == values[b]).mean(axis=1))
    empty = np.empty(0)
    return Pairs(exact[one, two], np.concatenate([empty.astype(bool), *candidate]), np.concatenate([empty, *estimate]))


def joined(groups: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate([getattr(g, name) for g in groups]) for name in ("exact", "candidate", "estimate")))


def print_pairs(title: str, pairs: Pairs, recipe: DedupRecipe) -> None:
    """A table by exact similarity; `curve` columns are the mean of what the settings promise for those pairs."""
    print(f"\n{title}: {len(pairs.exact)} pairs")
    error = pairs.estimate - pairs.exact
    deviation = np.sqrt(pairs.exact * (1 - pairs.exact) / recipe.permutations)
    inside = (pairs.exact > 0) & (pairs.exact < 1)
    if inside.any():
        print(f"  estimate - exact: mean {error[inside].mean():+.5f}, largest {np.abs(error).max():.3f}, "
              f"root mean square of error / deviation {np.sqrt(np.mean((error[inside] / deviation[inside]) ** 2)):.2f}")
    print("  exact        pairs   candidates  curve   found 0.70  curve   found 0.85  curve")
    grid = tuple(np.arange(101) / 100)
    curves = {t: recipe.curve(t, grid) for t in THRESHOLDS}
    for low, high in (*BINS, (1.0, 1.01)):
        here = (pairs.exact >= low) & (pairs.exact < high)
        if not here.any():
            continue
        exact = pairs.exact[here]
        row = [pairs.candidate[here].mean(), np.interp(exact, grid, [p.candidate for p in curves[0.7]]).mean()]
        for t in THRESHOLDS:
            row += [pairs.found(t)[here].mean(), np.interp(exact, grid, [p.pair for p in curves[t]]).mean()]
        label = f"{low:.2f}-{high:.2f}" if high <= 1 else "1.00     "
        print(f"  {label} {here.sum():9d}   {row[0]:8.4f}  {row[1]:7.4f}  {row[2]:8.4f}  {row[3]:7.4f}   "
              f"{row[4]:8.4f}  {row[5]:7.4f}")
    for t in THRESHOLDS:
        true = (pairs.exact >= t) & (pairs.exact < 1)
        expected = np.interp(pairs.exact[true], grid, [p.pair for p in curves[t]])
        recall = f"{pairs.found(t)[true].mean():.4f}, curve {expected.mean():.4f}" if true.any() else "no such pair"
        print(f"  recall at {t}: {recall} ({true.sum()} pairs that are not equal); "
              f"found below 0.5: {(pairs.found(t) & (pairs.exact < 0.5)).sum()}")


def compared(repository: Path, trees: list[dict[str, str]], whole: bool) -> dict[str, str]:
    """Blob -> what of its text is compared."""
    path_of = {blob: path for t in trees for path, blob in t.items()}
    blobs = {blob: text.encode() for blob, text in read_blobs(repository, set(path_of)).items()}
    if not whole:
        blobs = {blob: text[licence_head(text, detect(path_of[blob], text) or ""):] for blob, text in blobs.items()}
    return {blob: text.decode() for blob, text in blobs.items()}


def versions_of(repository: Path, count: int, whole: bool) -> tuple[list[dict[str, str]], dict[str, str]]:
    trees = [tree(repository, commit) for commit in commits(repository, count)]
    return trees, compared(repository, trees, whole)


def union(parts: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def repository_pairs(groups: list[list[str]], recipe: DedupRecipe, seeds: int) -> tuple[Pairs, np.ndarray]:
    """Pairs of repositories, each a list of texts, under several seeds; and their exact similarities."""
    texts = sorted({text for group in groups for text in group})
    place = {text: i for i, text in enumerate(texts)}
    sets = shingle_sets(texts, recipe)
    exact = exact_matrix([union([sets[place[t]] for t in group]) for group in groups])
    found = []
    for seed in range(seeds):
        seeded = recipe.model_copy(update={"seed": seed})
        values = sketches(texts, seeded)[0]
        merged = np.stack([values[[place[t] for t in group]].min(axis=0) for group in groups]).astype(np.uint32)
        found.append(compare(exact, merged, seeded))
    return joined(found), exact


def check_drops(texts: list[str], matrix: np.ndarray, recipe: DedupRecipe) -> None:
    """The tasks themselves on these texts: whom is each dropped text like, and does any keep a twin?"""
    for threshold in THRESHOLDS:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "00000.parquet"
            save_documents(part, (Document(f"r{i}", "f", "c", t, len(t), "") for i, t in enumerate(texts)))
            settings = recipe.model_copy(update={"file_threshold": threshold, "repositories": False, "exact": False,
                                                 "skip_licence_heads": False})  # they are gone by now
            run(steps([part], Path(folder) / "steps", settings, 2))
            decisions = read_decisions(decision_path(Path(folder) / "steps", 0))
            job = Job((part,), Path(folder) / "steps", settings, 2)
            rows = gather(job.partition_paths("files/joined"), job.made_by, (0, 2**64 - 1))
            chain = [matrix[place_in_part(v), place_in_part(r)]
                     for v, r in {*zip(rows["vertex"].tolist(), rows["root"].tolist(), strict=True)} if v != r]
        gone = {int(d.repository[1:]): int(d.survivor_repository[1:]) for d in decisions}
        likeness = np.array([matrix[a, b] for a, b in gone.items()] or [1.0])
        kept = [i for i in range(len(texts)) if i not in gone]
        left = np.triu(matrix[np.ix_(kept, kept)], 1)
        print(f"  tasks at {threshold}: {len(gone)} of {len(texts)} dropped; exact similarity to the survivor at least "
              f"{likeness.min():.3f}, below 0.5: {(likeness < 0.5).sum()}; pairs of {threshold} or more among the "
              f"kept: {(left >= threshold).sum()}; members of components below 0.5 to their middle: "
              f"{(np.array(chain) < 0.5).sum()}")


def python_jaccard(a: list[str], b: list[str]) -> float:
    """Jaccard of sets of tuples of five tokens by Python's `re`: shares no code with ours."""
    one, two = set(), set()
    for texts, grams in ((a, one), (b, two)):
        for text in texts:
            words = re.findall(r"\w+", text)
            grams.update(zip(*(words[i:] for i in range(5)), strict=False))
    return len(one & two) / len(one | two)


def fork(origin: Path, other: Path, recipe: DedupRecipe, seeds: int, whole: bool) -> None:
    trees = [tree(repository, "HEAD") for repository in (origin, other)]
    blobs = [compared(r, [t], whole) for r, t in zip((origin, other), trees, strict=True)]
    for folder in ("", "src/", "deps/"):
        groups = [[b[blob] for path, blob in t.items() if path.startswith(folder) and blob in b]
                  for t, b in zip(trees, blobs, strict=True)]
        if not all(groups):
            continue
        pairs, exact = repository_pairs(groups, recipe, seeds)
        print(f"\nfork, {folder or 'all folders'}: {len(groups[0])} and {len(groups[1])} files, exact "
              f"{exact[0, 1]:.4f}, by Python's re {python_jaccard(*groups):.4f}; {seeds} seeds: estimate "
              f"{pairs.estimate.mean():.4f} +- {pairs.estimate.std():.4f}")
        for t in THRESHOLDS:
            point = recipe.curve(t, (float(exact[0, 1]),))[0]
            print(f"  found at {t}: {pairs.found(t).mean():.2f} of the seeds, curve {point.pair:.2f}; "
                  f"candidate {pairs.candidate.mean():.2f}, curve {point.candidate:.2f}")
    texts = sorted({text for b in blobs for text in b.values()})
    file_level("files of the fork and its origin, equal ones once", texts, recipe)


def file_level(title: str, texts: list[str], recipe: DedupRecipe) -> None:
    tokens = _native.minhash(texts, 1, recipe.shingle, 0)[1]
    texts = [text for text, count in zip(texts, tokens, strict=True) if count >= recipe.min_tokens]
    matrix = exact_matrix(shingle_sets(texts, recipe))
    print_pairs(title, compare(matrix, signatures(texts, recipe), recipe), recipe)
    check_drops(texts, matrix, recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, nargs="*", default=[])
    parser.add_argument("--fork", type=Path, nargs=2)
    parser.add_argument("--commits", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    recipe = DedupRecipe()
    print(f"{recipe.permutations} bins, {recipe.bands} bands of {recipe.rows}, shingles of {recipe.shingle} tokens")
    print("  exact   P(candidate)   P(found) at " + "   at ".join(map(str, THRESHOLDS)))
    for points in zip(*(recipe.curve(t) for t in THRESHOLDS), strict=True):
        row = "   ".join(f"{p.pair:.3e}" for p in points)
        print(f"  {points[0].similarity:.2f}   {points[0].candidate:10.6f}   {row}")
    for repository in arguments.history:
        trees, blobs = versions_of(repository, arguments.commits, arguments.whole)
        groups = [[blobs[b] for b in t.values() if b in blobs] for t in trees]
        groups = [group for group in groups if group]
        pairs, exact = repository_pairs(groups, recipe, arguments.seeds)
        print("\nexact similarity of the newest commit to older ones: " + " ".join(f"{x:.2f}" for x in exact[0, 1:]))
        print_pairs(f"{repository}: {len(groups)} commits as repositories, {arguments.seeds} seeds", pairs, recipe)
        file_level(f"{repository}: all different texts of their files", sorted(set(blobs.values())), recipe)
    if arguments.fork:
        fork(*arguments.fork, recipe, arguments.seeds, arguments.whole)


if __name__ == "__main__":
    main()
