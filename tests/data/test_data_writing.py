"""Stored windows of a corpus: every byte of it, in windows that are whole, the same from any number of workers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tritwise import TritwiseError
from tritwise.config import DataRecipe, FimSettings, PackingSettings
from tritwise.config.tokens import END_OF_TEXT, FIM_BEGIN, FIM_END, FIM_HOLE, SPECIAL_TOKENS
from tritwise.data import document_text, load_documents, load_tokenizer, open_shards
from tritwise.data.context import restore_window
from tritwise.data.documents import DOCUMENTS, part_file, save_documents
from tritwise.data.fim import known_fim_ids
from tritwise.data.token_steps import encode_corpus

IDS = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
END, CONTROLS = IDS[END_OF_TEXT], [IDS[FIM_BEGIN], IDS[FIM_HOLE], IDS[FIM_END]]
WINDOW = 128
SIZE = WINDOW + 1
PACKINGS = {
    "stream": (PackingSettings(), "document"),
    "best_fit": (PackingSettings(method="best_fit", window=WINDOW), "document"),
    "neighbours": (PackingSettings(method="best_fit", window=WINDOW, keep_neighbours=True), "document"),
    "pieces": (PackingSettings(method="best_fit", window=WINDOW), "piece"),
    "context": (PackingSettings(window=WINDOW), "context"),
    "context, best_fit": (PackingSettings(method="best_fit", window=WINDOW), "context"),
}
STORED = [name for name in PACKINGS if name != "stream"]


@pytest.fixture(scope="module")
def corpus(built, tmp_path_factory):
    """(a corpus of three parts, its texts, a tokenizer.json)."""
    directory, _, _ = built
    root = tmp_path_factory.mktemp("writing")
    documents = [replace(d, text=d.text[:150 if number % 2 else None]) for number, d in enumerate(
        d for d in load_documents(directory, "train") if d.size < 20_000)]  # every second one fits a window
    for number in range(3):
        save_documents(part_file(root / DOCUMENTS, number), documents[number * 8:number * 8 + 8])
    return root, [document_text(d) for d in documents[:24]], directory / "tokenizer.json"


def encode(corpus, out, name, **options):
    packing, level = PACKINGS[name]
    return encode_corpus(corpus[0], out, corpus[2], FimSettings(level=level), packing, **{"workers": 1} | options)


@pytest.fixture(scope="module")
def written(corpus, tmp_path_factory):
    """By name: (counts, open shards) of the corpus in each way."""
    root = tmp_path_factory.mktemp("shards")
    return {name: (encode(corpus, root / name, name), open_shards(root / name, "train")) for name in PACKINGS}


def windows_of(stream):
    return np.array(stream.ids[:]).reshape(-1, SIZE)


def entries_of(stream):
    return [shard.document(number).tolist() for shard in stream.shards for number in range(len(shard.ends))]


def test_at_context_level_the_windows_in_a_row_are_the_corpus_byte_for_byte(corpus, written):
    tokenizer = load_tokenizer(corpus[2])

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False)

    restored = {name: [text for window in windows_of(written[name][1])
                       for text in restore_window(window, END, known_fim_ids(tokenizer), decode)]
                for name in ("context", "context, best_fit")}
    assert "".join(restored["context"]) == "".join(corpus[1])
    # Packed they stand elsewhere: every piece is of a text, and together they have its characters.
    assert all(any(piece in text for text in corpus[1]) for piece in restored["context, best_fit"])
    assert sorted("".join(restored["context, best_fit"])) == sorted("".join(corpus[1]))


@pytest.mark.parametrize("name", ["context", "context, best_fit"])
def test_a_turned_text_of_context_level_never_leaves_its_window(name, written):
    counts, stream = written[name]
    begun = 0
    for window in windows_of(stream).tolist():
        controls = [id_ for id_ in window if id_ in CONTROLS]
        assert controls == CONTROLS * (len(controls) // 3)
        begun += len(controls) // 3
    assert begun == counts["fim_documents"]
    assert abs(begun - counts["documents"] / 2) < 5 * (counts["documents"] / 4) ** 0.5


def test_best_fit_cuts_no_document_that_a_window_holds_and_loses_none(written):
    counts, stream = written["stream"]
    documents = entries_of(stream)
    assert (counts["tokens"], "windows" in counts) == (sum(map(len, documents)), False)
    fitting = [document for document in documents if len(document) <= SIZE]
    assert 8 < len(fitting) < len(documents)
    places = np.cumsum([0, *(len(document) for document in documents)]).tolist()
    for name in ("best_fit", "neighbours"):
        packed, shards = written[name]
        entries = [entry for entry in entries_of(shards) if entry[0] != END]
        assert all(document in entries for document in fitting)
        assert sum(map(len, entries)) == packed["tokens"] == counts["tokens"]
        # A cut document's pieces are in a row in neither, but each of its windows is there.
        for document in (document for document in documents if len(document) > SIZE):
            assert document[:SIZE - (len(document) == SIZE + 1)] in entries
        assert packed["cut_documents"] == sum(len(document) > SIZE for document in documents)
        # Each part begins a stream of its own.
        firsts = np.cumsum([0, *(len(shard.ids) for shard in stream.shards)]).tolist()
        starts = [max(first for first in firsts if first <= place) for place in places]
        assert packed["cut_if_concatenated"] == sum((a - s) // SIZE != (b - 1 - s) // SIZE
                                                    for (a, b), s in zip(pairwise(places), starts, strict=False))
        assert packed["cut_documents"] < packed["cut_if_concatenated"]


@pytest.mark.parametrize("name", STORED)
def test_padding_and_windows_are_counted_and_padding_is_the_end_of_its_window(name, written):
    counts, stream = written[name]
    assert stream.windows == (SIZE, END)
    assert counts["tokens"] + counts["padding"] == len(stream.ids) == counts["windows"] * SIZE
    place = padding = 0
    for entry in entries_of(stream):
        place += len(entry)
        if entry[0] == END:
            assert set(entry) == {END}
            assert place % SIZE == 0
            padding += len(entry)
    assert padding == counts["padding"]


def test_files_of_a_repository_stay_together_where_that_is_asked_for(corpus, written):
    """How many files share a window with the next file of their repository."""
    shared = {}
    for name in ("best_fit", "neighbours"):
        stream = written[name][1]
        window_of = {}
        place = 0
        for entry in entries_of(stream):
            window_of.setdefault(tuple(entry), place // SIZE)
            place += len(entry)
        documents = [tuple(document) for document in entries_of(written["stream"][1])]
        shared[name] = sum(window_of[a] == window_of[b] for a, b in pairwise(documents)
                           if a in window_of and b in window_of)
    assert shared["neighbours"] >= shared["best_fit"]


def test_windows_do_not_depend_on_the_number_of_workers(corpus, written, tmp_path):
    for name in ("neighbours", "context, best_fit"):
        encode(corpus, tmp_path / name, name, workers=2)
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        home = written[name][1].shards[0].path.parent
        assert files == sorted(path.name for path in home.iterdir())
        for file in files:
            assert (tmp_path / name / file).read_bytes() == (home / file).read_bytes()


def test_windows_are_not_written_for_megatron(corpus, tmp_path, written):
    from tritwise.data import export_megatron

    with pytest.raises(TritwiseError, match="windows cannot be written for Megatron-LM"):
        encode(corpus, tmp_path / "out", "best_fit", megatron=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(TritwiseError, match="holds windows, which Megatron-LM would not keep"):
        export_megatron(written["best_fit"][1], tmp_path / "train")


@pytest.mark.parametrize(("data", "message"), [
    ({"packing": {"method": "best_fit"}}, "is needed there"), ({"fim": {"level": "context"}}, "is needed there"),
    ({"packing": {"window": 128}}, "packing.window belongs to"), ({"packing": {"window": 8}}, "greater than or equal"),
    ({"packing": {"keep_neighbours": True}}, "keep_neighbours belongs to"),
    ({"packing": {"method": "first_fit"}}, "concatenate")])
def test_settings_of_packing_that_say_nothing_or_too_little_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        DataRecipe.model_validate(data)
