"""How many near-duplicates are owed to the licence at the head of files: real repositories, with and without it.

    python benchmarks/data/dedup_heads.py REPOSITORY [REPOSITORY ...]

REPOSITORY is what `data.sources.paths` takes. All files that pass the rule filters are one corpus. It is deduplicated
twice, whole texts compared and then texts without their heads; of each file that went the exact Jaccard similarity to
the one it went for, of their bodies, is what tells: below 0.5 it was a mistake. Nothing is timed here.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tritwise import _native
from tritwise.config.data_dedup import DedupRecipe
from tritwise.config.data_rules import FilterSettings
from tritwise.config.data_sources import SourceSettings
from tritwise.data.dedup import decision_path, exact_jaccard, read_decisions, run, steps
from tritwise.data.dedup.heads import licence_head
from tritwise.data.documents import Document, read_documents, save_documents
from tritwise.data.read import Reader
from tritwise.data.sources import find_repositories
from tritwise.data.stages import Filter

BINS = (0.0, 0.3, 0.5, 0.6, 0.7, 1.01)


def body(document: Document) -> bytes:
    text = document.text.encode()
    return text[licence_head(text, document.language):]


def compare(part: Path, recipe: DedupRecipe, work: Path) -> None:
    """Deduplicate a part and print how alike the bodies are of what went and what it went for."""
    run(steps([part], work, recipe, 2))
    decisions = [d for d in read_decisions(decision_path(work, 0)) if d.dropped_by == "near_duplicate"]
    documents = {(d.repository, d.path): d for d in read_documents(part, facts=False)}
    mistakes: Counter[str] = Counter()
    likeness, few = [], 0
    for decision in decisions:
        texts = [body(documents[decision.repository, decision.path]),
                 body(documents[decision.survivor_repository, decision.survivor_path])]
        likeness.append(exact_jaccard(*texts, recipe))
        few += min(_native.minhash(texts, 1, recipe.shingle, 0)[1]) < recipe.min_tokens
        if likeness[-1] < 0.5:
            mistakes[documents[decision.repository, decision.path].language] += 1
    counts = np.histogram(likeness, BINS)[0]
    shares = ", ".join(f"{low:.1f}-{min(high, 1):.1f} {count}"
                       for low, high, count in zip(BINS, BINS[1:], counts, strict=False))
    print(f"\n{'without' if recipe.skip_licence_heads else 'with'} heads: {len(decisions)} near-duplicates went; by "
          f"the similarity of bodies: {shares}")
    print(f"  a body of fewer than {recipe.min_tokens} tokens: {few}; below 0.5 by language: {dict(mistakes)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+")
    arguments = parser.parse_args()
    settings = SourceSettings(paths=tuple(arguments.repositories), broken_repository="skip")
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "00000.parquet"
        read = Reader(settings, 1 << 30).repositories(find_repositories(settings))
        save_documents(part, (d for d in Filter(FilterSettings())(read) if d.is_kept))
        heads = [licence_head(d.text.encode(), d.language) for d in read_documents(part, facts=False)]
        size = sum(len(d.text.encode()) for d in read_documents(part, facts=False))
        print(f"{len(heads)} files of {size / 1e6:.1f} MB; {np.count_nonzero(heads)} have a head, "
              f"{sum(heads) / size:.3f} of all bytes")
        for skip in (False, True):
            compare(part, DedupRecipe(repositories=False, skip_licence_heads=skip), Path(folder) / f"work-{skip}")


if __name__ == "__main__":
    main()
