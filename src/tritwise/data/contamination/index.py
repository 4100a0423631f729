"""`TestSets`: all n-grams of test sets in one index, and where a file holds one of them."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write, open_regular, unique_keys
from tritwise.config.data_screening import ContaminationSettings
from tritwise.data.contamination.lookup import Table, distinct_names
from tritwise.data.contamination.sources import TestItem
from tritwise.data.words import Words, ngram_hashes, words_of

_FORMAT = "tritwise-test-sets"
_MOST_BYTES = 1 << 30
# The first words of a short string, which it is found by.
_SHORT = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A part of a test item that stands in a text: its set, its item, the words found, where (in characters)."""

    set: str
    item: str
    ngram: str
    position: int


@dataclass(frozen=True)
class TestSets:
    """The n-grams and the short strings of test sets, looked for together. Made by `build` or `load`; it pickles."""

    __test__ = False  # no test of pytest's

    settings: ContaminationSettings
    items: tuple[TestItem, ...]
    boilerplate: tuple[str, ...]  # n-grams that do not count, for the reference corpus has them
    # Of each text of the items: the words, the number of its item, and what it was found to be.
    texts: tuple[str, ...]
    item_of: np.ndarray        # int64 [texts]
    # Of each n-gram that counts: the text that holds it, and the word where it begins there.
    owners: np.ndarray         # int64 [n-grams]
    offsets: np.ndarray        # int64 [n-grams]
    table: Table               # of their hashes; a row is a number into `owners` and `offsets`
    short: tuple[int, ...]     # numbers of the texts that are looked for as they are
    short_words: np.ndarray    # uint64 [short texts, n - 1]: hashes of their first words, then zeros
    short_table: Table         # of the hashes of their first three words
    left_out: dict[str, int]   # how many n-grams and texts do not count, by reason

    @classmethod
    def build(cls, items: Iterable[TestItem], settings: ContaminationSettings | None = None,
              reference: Iterable[tuple[str, str]] = ()) -> "TestSets":
        """Index test items.

        Args:
            items: of any number of sets (`load_test_sets`).
            settings: what counts.
            reference: (source, text) of files that hold no test item, say because they are older than the sets: the
                standard libraries of languages. N-grams that `max_reference_sources` of its sources or more have are
                boilerplate. A crawl is no such reference: it has copies of the test sets.
        """
        settings = settings or ContaminationSettings()
        items = tuple(items)
        sets = _index(items, settings, ())
        seen: dict[str, set[str]] = {}
        for source, text in reference:
            words = words_of(text)
            positions, _ = sets.table.find(words.hashes, settings.ngram)
            for position in np.unique(positions).tolist():
                seen.setdefault(words.joined(position, settings.ngram).decode(), set()).add(source)
        boilerplate = tuple(sorted(n for n, sources in seen.items() if len(sources) >= settings.max_reference_sources))
        return _index(items, settings, boilerplate) if boilerplate else sets

    def find(self, text: str) -> list[Hit]:
        """The test items that a text holds a part of, each once, with the first part of it; empty for a clean text."""
        words = words_of(text)
        found = [*self._long_hits(words), *self._short_hits(text, words)]
        first: dict[tuple[str, str], Hit] = {}
        for each in sorted(found, key=lambda hit: (hit.set, hit.item, hit.position)):
            first.setdefault((each.set, each.item), each)
        return list(first.values())

    def _long_hits(self, words: Words) -> list[Hit]:
        n = self.settings.ngram
        positions, rows = self.table.find(words.hashes, n)
        hits: list[Hit] = []
        if not len(rows):
            return hits
        items = self.item_of[self.owners[rows]]
        for item in np.unique(items).tolist():
            # The first part of the item that is really there: hashes can be equal by chance.
            for index in np.flatnonzero(items == item).tolist():
                row, ngram = int(rows[index]), words.joined(int(positions[index]), n)
                if ngram == words_of(self.texts[self.owners[row]]).joined(int(self.offsets[row]), n):
                    hits.append(Hit(self.items[item].set, self.items[item].item, ngram.decode(),
                                    words.character(int(positions[index]))))
                    break
        return hits

    def _short_hits(self, text: str, words: Words) -> list[Hit]:
        positions, rows = self.short_table.find(words.hashes, _SHORT)
        if not len(positions):
            return []
        for place in range(_SHORT, self.short_words.shape[1]):
            wanted = self.short_words[rows, place]
            there = words.hashes[np.minimum(positions + place, len(words.hashes) - 1)]
            same = (wanted == 0) | ((wanted == there) & (positions + place < len(words.hashes)))
            positions, rows = positions[same], rows[same]
            if not len(positions):
                return []
        hits = []
        for position, row in zip(positions.tolist(), rows.tolist(), strict=True):
            wanted = self.texts[self.short[row]]
            item = self.items[int(self.item_of[self.short[row]])]
            word = words.character(position)
            match = _exactly(wanted).search(text, max(0, word - len(wanted)))
            if match and match.start() <= word < match.end():
                hits.append(Hit(item.set, item.item, match.group(), match.start()))
        return hits

    def save(self, path: Path) -> None:
        """Write the items, the settings and the boilerplate as JSON; `load` builds the index from them again."""
        atomic_write(Path(path), json.dumps({
            "format": _FORMAT, "settings": self.settings.model_dump(), "boilerplate": self.boilerplate,
            "items": [asdict(item) for item in self.items]}, indent=0) + "\n")

    @classmethod
    def load(cls, path: Path) -> "TestSets":
        """Read what `save` wrote. Raises TritwiseError when the file is missing or something else."""
        path = Path(path)
        try:
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                    raise ValueError(f"it has more than {_MOST_BYTES} bytes")
                document = json.loads(file.read(_MOST_BYTES + 1), object_pairs_hook=unique_keys)
            if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
                raise ValueError("it holds no test sets of this program")
            settings = ContaminationSettings.model_validate(document.pop("settings"))
            boilerplate = tuple(_texts(document.pop("boilerplate")))
            items = tuple(TestItem(*_texts([row["set"], row["item"]]), tuple(_texts(row["texts"])))
                          for row in document.pop("items"))
            if document:
                raise ValueError(f"it has a field {next(iter(document))} too many")
        except FileNotFoundError:
            raise TritwiseError(f"{path} does not exist", why="test sets were expected there") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
            raise TritwiseError(f"{path} is not readable as test sets", why=str(error)) from None
        return _index(items, settings, boilerplate)


def _texts(values: list[str]) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values!r:.40} is no list of texts")
    return values


def _index(items: tuple[TestItem, ...], settings: ContaminationSettings, boilerplate: tuple[str, ...]) -> TestSets:
    texts = tuple(text for item in items for text in item.texts)
    item_of = np.repeat(np.arange(len(items)), [len(item.texts) for item in items])
    if not texts:
        raise TritwiseError("there is no test item to look for", why="no set was given, or all are empty")
    n = settings.ngram
    words = words_of("\0".join(texts))  # a zero separates words and stands in no word
    first_words = _first_words(words, texts)
    lengths = np.diff(first_words)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    # Words from which on n stand in the same text, and what they are.
    begins = np.flatnonzero(text_of[: max(len(text_of) - n + 1, 0)] == text_of[n - 1:])
    hashes = ngram_hashes(words.hashes, n)[begins]
    named = (distinct_names(words, n)[begins] >= settings.min_distinct_names) if len(begins) else begins > 0
    common = np.isin(hashes, [ngram_hashes(words_of(each).hashes, n)[0] for each in boilerplate])
    counts = named & ~common
    owners = text_of[begins[counts]]
    # A text is looked for as it stands when it is short, and when none of its n-grams counts.
    has_ngrams = np.isin(np.arange(len(texts)), owners)
    short = [number for number in np.flatnonzero((lengths >= settings.min_short_words) & ~has_ngrams).tolist()
             if len(" ".join(texts[number].split())) >= settings.min_short_characters]
    short_words = np.zeros((len(short), n - 1), dtype=np.uint64)
    for row, number in enumerate(short):
        first = words.hashes[first_words[number]:first_words[number + 1]][:n - 1]
        short_words[row, :len(first)] = first
    return TestSets(
        settings, items, boilerplate, texts, item_of, owners, begins[counts] - first_words[owners],
        Table.of(hashes[counts]), tuple(short), short_words,
        Table.of(np.array([ngram_hashes(each, _SHORT)[0] for each in short_words], dtype=np.uint64)),
        {"ngrams of few names": int((~named).sum()), "ngrams of the reference": int((named & common).sum()),
         "short texts": int((~has_ngrams).sum()) - len(short)})


def _first_words(words: Words, texts: tuple[str, ...]) -> np.ndarray:
    """The number of the first word of each text in the words of all, and last the number of all words."""
    ends = np.cumsum([len(words_of(text).codes) + 1 for text in texts])
    return np.concatenate([[0], np.searchsorted(words.starts, ends)])


def _exactly(wanted: str) -> re.Pattern[str]:
    """The text as it stands, runs of white space as any run of it, and no letter or digit more at either end."""
    return re.compile(r"(?<!\w)" * (wanted.lstrip()[:1].isalnum())
                      + r"\s+".join(map(re.escape, wanted.split())) + r"(?!\w)" * (wanted.rstrip()[-1:].isalnum()))
