"""How much of each test set stands in a corpus, and where."""

from collections.abc import Iterable
from dataclasses import dataclass

from tritwise.data.contamination.index import Hit, TestSets
from tritwise.data.documents import Document

_MOST_SAMPLES = 20


@dataclass(frozen=True)
class SetContamination:
    """One test set against a corpus.

    `hit_items` are the items of which some file holds a part, `files` (repository, path) of those files in the order
    of the corpus, `samples` the first 20 hits, each with its file and the text around it.
    """

    set: str
    items: int
    hit_items: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    samples: tuple[tuple[str, str, Hit, str], ...]

    @property
    def fraction(self) -> float:
        """Share of the set's items that the corpus holds a part of."""
        return len(self.hit_items) / self.items


def contamination_report(documents: Iterable[Document], sets: TestSets) -> list[SetContamination]:
    """One entry a test set, by name. Documents without text (dropped ones) hold nothing."""
    names = sorted({item.set for item in sets.items})
    items: dict[str, dict[str, None]] = {name: {} for name in names}
    files: dict[str, dict[tuple[str, str], None]] = {name: {} for name in names}
    samples: dict[str, list[tuple[str, str, Hit, str]]] = {name: [] for name in names}
    for document in documents:
        for hit in sets.find(document.text):
            items[hit.set][hit.item] = None
            files[hit.set][document.repository, document.path] = None
            if len(samples[hit.set]) < _MOST_SAMPLES:
                around = document.text[max(0, hit.position - 40):hit.position + 200]
                samples[hit.set].append((document.repository, document.path, hit, around))
    return [SetContamination(name, sum(item.set == name for item in sets.items), tuple(sorted(items[name])),
                             tuple(files[name]), tuple(samples[name])) for name in names]
