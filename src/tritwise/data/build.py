"""The data stage: from repositories to documents, a tokenizer and token shards, in one directory.

    documents.parquet   every file, kept or dropped, with its fate
    tokenizer.json      trained on the training documents
    train.ds            repositories in seeded order, files dependencies first, a share of documents in FIM form
    held_out.ds         whole repositories that nothing else has seen, plain; one document a file
    report.json         counts, drops, hashes, seconds

Equal sources and recipe give equal bytes in all of them but for the seconds in report.json.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_directory, atomic_write_json, canonical_json, sha256_bytes, sha256_file
from tritwise.common.progress import Progress, progress
from tritwise.config import DataRecipe, FimSettings, Recipe
from tritwise.data.documents import DOCUMENTS_FILE, Document, document_text, path_comment, save_documents
from tritwise.data.encoder import Encoder
from tritwise.data.fim import Plain, Turned, document_ids, known_fim_ids, turn
from tritwise.data.imports import dependencies
from tritwise.data.order import order_files
from tritwise.data.read import FactsOf, read_source
from tritwise.data.rules import RULES
from tritwise.data.shards import write_shard
from tritwise.data.sources import may_be_held_out
from tritwise.data.split import choose_held_out, seeded_order
from tritwise.data.tokenizer import load_tokenizer, sample_evenly, train_tokenizer

TOKENIZER_FILE = "tokenizer.json"
REPORT_FILE = "report.json"
_SAMPLE_PATHS = 3
# Files whose texts are encoded in one call: enough to fill the cores, few enough for a live progress bar.
_BATCH = 64


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds.

    `bytes` are the files' texts in UTF-8; `documents` are the shard's, each closed by <|end_of_text|>; and
    `bytes_per_token` counts texts with their path comments over all ids, special tokens included (None: no tokens).
    """

    repositories: int
    files: int
    bytes: int
    documents: int
    fim_documents: int
    tokens: int
    bytes_per_token: float | None


@dataclass(frozen=True)
class DropCounts:
    """What a rule dropped: why, how many files, their bytes on disk, and the first few paths."""

    why: str
    files: int
    bytes: int
    samples: tuple[str, ...]


@dataclass(frozen=True)
class BuildReport:
    """report.json: counts of both splits, drops by rule, hash of every other file, seconds of each step."""

    recipe: str
    seed: int
    vocab_size: int
    tokenizer_hash: str
    train: SplitCounts
    held_out: SplitCounts
    held_out_repositories: tuple[str, ...]
    dropped: dict[str, DropCounts]
    hashes: dict[str, str]
    seconds: dict[str, float] = field(compare=False)


def build(recipe: Recipe, out: Path) -> BuildReport:
    """Run the data stage of a recipe into the directory `out`, which appears whole or not at all.

    Raises TritwiseError when the source is missing, when everything is filtered out, when there are too few
    repositories to hold one out, or when the training text cannot fill the vocabulary.
    """
    seconds: dict[str, float] = {}
    with atomic_directory(Path(out)) as directory:
        with _timed(seconds, "read"):
            documents, facts = read_source(recipe.data)
        if not any(document.is_kept for document in documents):
            drops = ", ".join(f"{rule} {drop.files}" for rule, drop in _count_drops(documents).items())
            raise TritwiseError("no file is left to train on", why=f"the filters dropped all: {drops or 'none found'}",
                                fix="other data.paths, or wider data.filters")
        with _timed(seconds, "order"):
            documents = split_and_order(documents, facts, recipe.data, recipe.seed)
            save_documents(directory / DOCUMENTS_FILE, documents)
        files = {split: [d for d in documents if d.split == split] for split in ("train", "held_out")}
        files["train"] = _shuffle_repositories(files["train"], recipe.seed)
        with _timed(seconds, "tokenizer"), progress("tokenizer", 1) as bar:
            tokenizer = _tokenizer(recipe, files["train"])
            tokenizer.save(str(directory / TOKENIZER_FILE))
            bar.update(1, f"{recipe.tokenizer.vocab_size} tokens")
        encoder = Encoder(tokenizer)
        end = tokenizer.token_to_id(recipe.tokenizer.end_of_text)
        counts: dict[str, SplitCounts] = {}
        with _timed(seconds, "tokens"), progress("tokens", sum(map(len, files.values()))) as bar:
            for split, fim in (("train", recipe.data.fim), ("held_out", None)):
                counts[split] = _write_split(directory, split, files[split], encoder, end, fim, recipe, bar)
        report = BuildReport(
            recipe=recipe.name, seed=recipe.seed, vocab_size=tokenizer.get_vocab_size(),
            tokenizer_hash=sha256_file(directory / TOKENIZER_FILE), train=counts["train"],
            held_out=counts["held_out"],
            held_out_repositories=tuple(sorted({d.repository for d in files["held_out"]})),
            dropped=_count_drops(documents),
            hashes={file.name: sha256_file(file) for file in sorted(directory.iterdir())}, seconds=seconds)
        atomic_write_json(directory / REPORT_FILE, asdict(report))
    return report


def recipe_hash(recipe: Recipe) -> str:
    """Of all that a recipe says about its shards, but for the place where the source lies."""
    settings = {"seed": recipe.seed, "data": recipe.data.model_dump(mode="json", exclude={"paths"}),
                "tokenizer": recipe.tokenizer.model_dump(mode="json", exclude={"file"})}
    return sha256_bytes(canonical_json(settings).encode())


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 2)


def split_and_order(documents: list[Document], facts: FactsOf, recipe: DataRecipe, seed: int) -> list[Document]:
    """Kept documents with split and position, sorted by (repository, position); the dropped ones last, by path."""
    by_repository: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_repository[document.repository].append(document)
    kept_bytes = {name: sum(len(d.text.encode()) for d in members if d.is_kept)
                  for name, members in by_repository.items()}
    held_out = set(choose_held_out({name: size for name, size in kept_bytes.items() if size},
                                   recipe.held_out_fraction, seed,
                                   may_be_held_out=partial(may_be_held_out, recipe.source)))
    kept: list[Document] = []
    for name in sorted(by_repository):
        members = {d.path: d for d in by_repository[name] if d.is_kept}
        known = {path: facts[name, path] for path in members if (name, path) in facts}
        edges = dependencies(known, paths=[d.path for d in by_repository[name]], repository=name)
        order = order_files({path: edges.get(path, set()) for path in members}, recipe.order,
                            seed if recipe.order == "random" else None)
        kept += [replace(members[path], split="held_out" if name in held_out else "train", position=position)
                 for position, path in enumerate(order)]
    dropped = sorted((d for d in documents if not d.is_kept), key=lambda d: (d.repository, d.path))
    return kept + dropped


def _shuffle_repositories(documents: list[Document], seed: int) -> list[Document]:
    """Whole repositories in seeded order, so that the token stream is not alphabetical."""
    by_repository: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_repository[document.repository].append(document)
    return [d for name in seeded_order(by_repository, seed, "train order") for d in by_repository[name]]


def _tokenizer(recipe: Recipe, files: list[Document]) -> Tokenizer:
    """The tokenizer that the recipe names, checked, or a new one."""
    settings = recipe.tokenizer
    if settings.file is None:
        total = sum(len(document_text(d).encode()) for d in files)
        sample = sample_evenly(map(document_text, files), total, settings.max_training_bytes)
        return train_tokenizer(sample, settings.vocab_size, pattern=settings.pattern)
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


def _write_split(directory: Path, split: str, files: list[Document], encoder: Encoder, end: int,
                 fim: FimSettings | None, recipe: Recipe, bar: Progress) -> SplitCounts:
    tally: Counter[str] = Counter()
    facts = write_shard(directory / f"{split}.ds", _encode(files, encoder, end, fim, recipe.seed, tally, bar),
                        vocab_size=encoder.tokenizer.get_vocab_size(),
                        tokenizer_hash=sha256_file(directory / TOKENIZER_FILE), recipe_hash=recipe_hash(recipe))
    with_comments = sum(len(document_text(d).encode()) for d in files)
    return SplitCounts(
        repositories=len({d.repository for d in files}), files=len(files),
        bytes=sum(len(d.text.encode()) for d in files), documents=facts["documents"], fim_documents=tally["fim"],
        tokens=facts["tokens"],
        bytes_per_token=round(with_comments / facts["tokens"], 4) if facts["tokens"] else None)


def _encode(files: list[Document], encoder: Encoder, end: int, fim: FimSettings | None, seed: int,
            tally: Counter[str], bar: Progress) -> Iterator[NDArray[np.int64]]:
    """Ids of each shard document; adds the number of those in FIM form to `tally["fim"]`."""
    fim_ids = known_fim_ids(encoder.tokenizer)
    for start in range(0, len(files), _BATCH):
        batch = files[start:start + _BATCH]
        documents: list[Plain | Turned] = []
        for file in batch:
            text = document_text(file)
            documents += [Plain(text)] if fim is None else turn(
                text, fim, seed=seed, key=file.sha256, header=len(path_comment(file)))
        encoded = encoder.encode_all(text for document in documents for text in document.parts)
        for document in documents:
            tally["fim"] += isinstance(document, Turned)
            yield document_ids(document, [next(encoded) for _ in document.parts], end, fim_ids)
        bar.update(bar.completed + len(batch))


def _count_drops(documents: list[Document]) -> dict[str, DropCounts]:
    """Drops by rule, in the order of `RULES`; rules that dropped nothing are left out."""
    dropped: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        if document.dropped_by:
            dropped[document.dropped_by].append(document)
    return {rule: DropCounts(why, len(dropped[rule]), sum(d.size for d in dropped[rule]),
                             tuple(f"{d.repository}: {d.path}" for d in dropped[rule][:_SAMPLE_PATHS]))
            for rule, why in RULES.items() if dropped[rule]}
