"""The steps from documents to token shards: the tokenizer, then a shard of each split for each part."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write, canonical_json, sha256_bytes, sha256_file
from tritwise.config import CorpusRecipe, FimSettings, PackingSettings
from tritwise.config.tokens import END_OF_TEXT
from tritwise.data.corpus_steps import Corpus
from tritwise.data.documents import Document, document_text, part_files, read_documents
from tritwise.data.encoder import Encoder
from tritwise.data.fim import known_fim_ids
from tritwise.data.flow import Counts, Step, counts_of, each_count, run_steps, sizes_of
from tritwise.data.megatron import export_megatron
from tritwise.data.shard_parts import open_shards, part_path, write_split_index
from tritwise.data.single import WORK, free_directory
from tritwise.data.tokenizer import load_tokenizer, sample_evenly, train_tokenizer
from tritwise.data.writing import WINDOW_COUNTS, Writing, add_counts, write_split_part

VERSIONS = {"tokenizer": 1, "tokens": 2}
TOKENIZER = "tokenizer.json"
SPLITS = ("train", "held_out")


class Tokens:
    """The tokenizer and the shards of a recipe in the making."""

    def __init__(self, recipe: CorpusRecipe, out: Path, corpus: Corpus) -> None:
        self.recipe, self.out, self.corpus = recipe, Path(out), corpus
        self.recipe_hash = recipe_hash(recipe)
        file = recipe.tokenizer.file
        keys: list[Any] = [corpus.key(), recipe.tokenizer.model_dump(mode="json", exclude={"file"}),
                           None if file is None else _file_hash(file)]
        training_bytes = partial(_training_bytes, corpus.work, corpus.order)
        self.training = Step("tokenizer", 1, partial(_make_tokenizer, recipe, out, corpus.parts(), training_bytes),
                             _key("tokenizer", keys))
        self.encoding = Step("tokens", corpus.part_count, partial(_encode_part, recipe, out, corpus.parts()),
                             _key("tokens", [*keys, recipe.data.fim.model_dump(mode="json"),
                                        recipe.data.packing.model_dump(mode="json"), recipe.seed]),
                             size=sizes_of(corpus.parts()))

    def steps(self) -> list[Step]:
        """Both, in their order."""
        return [self.training, self.encoding]

    def vocab_size(self) -> int:
        """Of the finished tokenizer."""
        return load_tokenizer(self.out / TOKENIZER).get_vocab_size()

    def timed(self, work: Path) -> Iterator[tuple[str, list[Step], int]]:
        """Steps under their names, with the bytes of text that went into them."""
        encoded = sum(counts[split]["encoded_bytes"] for counts in each_count(work, self.encoding) for split in SPLITS)
        yield "tokenizer", [self.training], min(encoded, self.recipe.tokenizer.max_training_bytes)
        yield "tokens", [self.encoding], encoded


def recipe_hash(recipe: CorpusRecipe) -> str:
    """Of all that a recipe says about its shards, but for the places where files lie."""
    settings = {"seed": recipe.seed, "data": recipe.data.model_dump(
        mode="json", exclude={"sources": {"paths", "folders"}, "decontamination": {"sets"}, "partitions": True,
                              "screening": {"quality_model"}}),
                "tokenizer": recipe.tokenizer.model_dump(mode="json", exclude={"file"})}
    return sha256_bytes(canonical_json(settings).encode())


def _key(name: str, values: list[Any]) -> str:
    return sha256_bytes(canonical_json([name, VERSIONS[name], *values]).encode())


def _file_hash(path: str) -> str:
    if not Path(path).is_file():
        raise TritwiseError(f"{path} does not exist", why="tokenizer.file names a tokenizer.json")
    return sha256_file(Path(path))


def _training_bytes(work: Path, order: Step) -> int:
    """About how many bytes of text the training documents have."""
    return sum(files[1] for counts in each_count(work, order) for files in counts["tally"]["kept"].values())


def _documents(parts: Iterable[Path], split: str) -> Iterator[Document]:
    for part in parts:
        yield from read_documents(part, split, facts=False)


def _encoder(file: Path) -> Encoder:
    """Of a tokenizer.json; kept for the tasks that a process does after this one."""
    return _encoder_of(file, sha256_file(file))


@lru_cache(maxsize=1)
def _encoder_of(file: Path, sha256: str) -> Encoder:
    return Encoder(load_tokenizer(file))


def sampled_parts(parts: Sequence[Path], total_bytes: int, wanted_bytes: int) -> list[Path]:
    """Parts, evenly spaced, that hold at least eight times what is wanted, so that no task reads a whole crawl."""
    count = -(-8 * wanted_bytes * len(parts) // max(total_bytes, 1))
    if count >= len(parts):
        return list(parts)
    return [parts[number * len(parts) // count] for number in range(count)]


def _make_tokenizer(recipe: CorpusRecipe, out: Path, parts: Sequence[Path], training_bytes: Any, rank: int) -> Counts:
    settings = recipe.tokenizer
    if settings.file is not None:
        tokenizer = _given_tokenizer(recipe)
    else:
        parts = sampled_parts(parts, training_bytes(), settings.max_training_bytes)
        total = sum(len(document_text(d).encode()) for d in _documents(parts, "train"))
        sample = sample_evenly(map(document_text, _documents(parts, "train")), total, settings.max_training_bytes)
        tokenizer = train_tokenizer(sample, settings.vocab_size, pattern=settings.pattern)
    atomic_write(out / TOKENIZER, tokenizer.to_str(pretty=True))
    return {"vocab_size": tokenizer.get_vocab_size()}


def _given_tokenizer(recipe: CorpusRecipe) -> Tokenizer:
    """The tokenizer that the recipe names, checked."""
    settings = recipe.tokenizer
    tokenizer = load_tokenizer(Path(settings.file))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= settings.vocab_size:
        raise TritwiseError(f"{settings.file} does not fit tokenizer.vocab_size {settings.vocab_size}",
                            why=f"it has ids up to {largest}", fix=f"tokenizer.vocab_size = {largest + 1} or more, "
                            "as many as the model has embeddings")
    if tokenizer.token_to_id(settings.end_of_text) is None:
        raise TritwiseError(f"{settings.file} has no token {settings.end_of_text!r}",
                            why="every document ends with it", fix="tokenizer.end_of_text = the token that ends a text")
    if recipe.data.fim.rate and known_fim_ids(tokenizer) is None:
        raise TritwiseError(f"{settings.file} has no tokens for filling the middle",
                            why="data.fim asks for documents in that form", fix="data.fim.rate = 0")
    return tokenizer


def _encode_part(recipe: CorpusRecipe, out: Path, parts: Sequence[Path], rank: int) -> Counts:
    """The shards of one part, and what they hold."""
    encoder = _encoder(out / TOKENIZER)
    end = encoder.tokenizer.token_to_id(recipe.tokenizer.end_of_text)
    data = recipe.data
    return {split: write_split_part(part_path(out, split, rank), _documents(parts[rank:rank + 1], split), Writing(
        encoder, end, fim, packing, recipe.seed, sha256_file(out / TOKENIZER), recipe_hash(recipe)))
        for split, fim, packing in (("train", data.fim, data.packing), ("held_out", None, PackingSettings()))}


def train_on(corpus: Path, out: Path, *, vocab_size: int, pattern: str, max_bytes: int) -> int:
    """Train a tokenizer on the kept documents of a corpus and write it; returns how many entries it has."""
    parts = part_files(corpus)

    def kept() -> Iterator[str]:
        for part in parts:
            yield from (document_text(d) for d in read_documents(part, facts=False)
                       if d.is_kept and d.split != "held_out")

    total = sum(len(text.encode()) for text in kept())
    trained = train_tokenizer(sample_evenly(kept(), total, max_bytes), vocab_size, pattern=pattern)
    atomic_write(Path(out), trained.to_str(pretty=True))
    return trained.get_vocab_size()


def encode_corpus(corpus: Path, out: Path, tokenizer: Path, fim: FimSettings, packing: PackingSettings, *,
                  seed: int = 0, workers: int | None = None, megatron: bool = False) -> dict[str, int]:
    """Write shards `train-00000.ds`, ... of the kept documents of a corpus that are not held out; returns their counts.

    `megatron` writes all of them as one `train.bin` and `train.idx` besides.
    """
    if megatron and packing.window is not None:
        raise TritwiseError("windows cannot be written for Megatron-LM",
                            why="it joins documents in an order of its own, and cuts them where its samples end",
                            fix='data.packing.method = "concatenate", and data.fim.level = "document" or "piece"')
    parts, out = part_files(corpus), free_directory(out)
    key = sha256_bytes(canonical_json(["tokens", [sha256_file(part) for part in parts], _file_hash(str(tokenizer)),
                                       fim.model_dump(mode="json"), packing.model_dump(mode="json"), seed]).encode())
    step = Step("tokens", len(parts), partial(_encode_alone, parts, out, Path(tokenizer), fim, packing, seed, key), key,
                size=sizes_of(parts))
    work = out / WORK
    work.mkdir(parents=True, exist_ok=True)
    run_steps(work, [step], workers=workers)
    counts = add_counts(counts_of(work, step))
    write_split_index(out, "train", len(parts))
    if megatron:
        export_megatron(open_shards(out, "train"), out / "train")
    shutil.rmtree(work)
    names = ["files", "bytes", "documents", "fim_documents", "tokens"]
    return {name: counts[name] for name in [*names, *(WINDOW_COUNTS if packing.window is not None else ())]}


def _encode_alone(parts: Sequence[Path], out: Path, file: Path, fim: FimSettings, packing: PackingSettings, seed: int,
                  key: str, rank: int) -> Counts:
    encoder = _encoder(file)
    end = encoder.tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise TritwiseError(f"{file} has no token {END_OF_TEXT!r}", why="every document ends with it")
    if fim.rate and known_fim_ids(encoder.tokenizer) is None:
        raise TritwiseError(f"{file} has no tokens for filling the middle", fix="data.fim.rate = 0")
    documents = (d for d in read_documents(parts[rank], facts=False) if d.is_kept and d.split != "held_out")
    return write_split_part(part_path(out, "train", rank), documents,
                            Writing(encoder, end, fim, packing, seed, sha256_file(file), key))
