"""The stages of the evidence: its data, and one training each, scored along its way; what they leave, read again."""

import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evidence_plan import Plan, Training, flops_per_token, points_of, recipe_of

from tritwise.common.errors import Diverged, Interrupted, TritwiseError
from tritwise.common.files import atomic_write_json, read_json, sha256_file
from tritwise.config import Recipe
from tritwise.config.recipe import CorpusRecipe
from tritwise.data import Document, load_documents
from tritwise.data.documents import DOCUMENTS, part_file, save_documents
from tritwise.data.shard_parts import open_shards, shard_paths
from tritwise.data.split import seeded_order
from tritwise.pipeline.stages import RECORD, Stage, run_stages, stage_keys

DATA, SCORES, FACTS, DIVERGED = "data", "scores.json", "facts.json", "diverged.json"
VERSION = 1


@dataclass(frozen=True)
class Place:
    """Where the evidence works and with what. `data` is what the data stage of the recipe `corpus` wrote."""

    plan: Plan
    corpus: CorpusRecipe
    data: Path
    out: Path
    device: str = "cpu"
    threads: int | None = None


class Deadline:
    """Seconds after which a training ends as after Ctrl-C: with a checkpoint, from which the next call goes on."""

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.end is not None and time.monotonic() >= self.end

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the training loop hears the interruption that it listens for once the time is up."""
        if self.end is None:
            yield
            return
        outside = signal.getsignal(signal.SIGINT)

        def ring(_signal: int, _frame: object) -> None:
            # Only the loop replaces the handler; before and behind it, an interruption would be a crash.
            if signal.getsignal(signal.SIGINT) is not outside:
                signal.raise_signal(signal.SIGINT)

        previous = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self.end - time.monotonic()), 0.2)  # until the loop hears it
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def chosen_documents(documents: list[Document], limit: int, seed: int = 0) -> list[Document]:
    """Held-out documents in seeded order while they fit into `limit` bytes, in their own order."""
    sizes = {f"{d.repository}/{d.path}": len(d.text.encode()) for d in documents}
    chosen, total = set(), 0
    for name in seeded_order(sizes, seed, "scored in the evidence"):
        if total + sizes[name] <= limit:
            chosen.add(name)
            total += sizes[name]
    if not chosen:
        raise TritwiseError(f"no held-out document has at most {limit} bytes", fix="a larger held_out_bytes")
    return [d for d in documents if f"{d.repository}/{d.path}" in chosen]


def data_stage(place: Place) -> Stage:
    """What trainings read: all training shards, and of the held-out documents those that are scored."""
    shards = shard_paths(place.data, "train")
    files = [*place.data.glob("train-*.ds*"), *place.data.glob("train.*"), place.data / "tokenizer.json"]
    vocabulary = open_shards(place.data, "train").shards[0].vocab_size
    if vocabulary != place.corpus.tokenizer.vocab_size:
        raise TritwiseError(f"{place.data} has a vocabulary of {vocabulary}, the recipe one of "
                            f"{place.corpus.tokenizer.vocab_size}", fix="--recipe that the data was built with")

    def build(directory: Path) -> None:
        directory.mkdir(parents=True)
        for file in files:
            shutil.copy(file, directory / file.name)
        documents = chosen_documents(load_documents(place.data, split="held_out"), place.plan.held_out_bytes)
        save_documents(part_file(directory / DOCUMENTS, 0), documents)

    settings = {"held_out_bytes": place.plan.held_out_bytes, "tokenizer": sha256_file(place.data / "tokenizer.json"),
                "train": [sha256_file(path) for path in shards],
                "documents": [sha256_file(path) for path in sorted((place.data / DOCUMENTS).glob("*.parquet"))]}
    return Stage(DATA, build, settings=settings, version=VERSION)


def training_stage(place: Place, training: Training) -> Stage:
    """One training and its scores."""
    recipe = recipe_of(place.plan, training, place.corpus)
    points = points_of(place.plan, training, recipe.train.steps)
    settings = {"seed": recipe.seed, "model": recipe.model_config_of(training.variant).model_dump(mode="json"),
                "train": recipe.train.model_dump(mode="json", exclude={"checkpoint_every"}),
                "schedule": recipe.variants[training.variant].schedule.model_dump(mode="json"), "points": points,
                "end_of_text": place.corpus.tokenizer.end_of_text}
    return Stage(training.name, lambda directory: build_training(place, training, recipe, points, directory),
                 settings=settings, version=VERSION, reads=(DATA,), resumable=True)


def build_training(place: Place, training: Training, recipe: Recipe, points: tuple[int, ...], directory: Path) -> None:
    """Train from point to point and score each; a training that diverges is a result, too."""
    from tritwise.train import train  # imports PyTorch

    data, scores = place.out / DATA, []
    if (directory / SCORES).exists():
        scores = read_json(directory / SCORES, what="scores along a training")["scores"]
    atomic_write_json(directory / FACTS, facts_of(place, training, recipe))
    for step in points:
        if any(score["step"] == step for score in scores):
            continue
        try:
            checkpoint = train(recipe, training.variant, data, directory, stop_after=step, device=place.device,
                               threads=place.threads)
        except Diverged as error:
            atomic_write_json(directory / DIVERGED, {"what": error.what})
            break
        found = (read_json(directory / "result.json", what="a training's result")["held_out"]
                 if step == recipe.train.steps else score_checkpoint(place, recipe, checkpoint))
        scores.append({"step": step, "tokens": step * recipe.train.batch_size * recipe.train.sequence_length,
                       "bits_per_byte": found["bits_per_byte"]})
        atomic_write_json(directory / SCORES, {"scores": scores})
    checkpoints = sorted((directory / "checkpoints").glob("step-*"))
    # What is kept is the last state of the trainings that are the result.
    for path in checkpoints[:-1] if training.kind == "variant" else checkpoints:
        shutil.rmtree(path)


def score_checkpoint(place: Place, recipe: Recipe, checkpoint: Path) -> dict[str, float]:
    """Held-out bits per byte of a checkpoint, as the training loop scores its last one."""
    import torch

    from tritwise.model import Decoder
    from tritwise.train import held_out_bits_per_byte, load_checkpoint_model

    config, weights = load_checkpoint_model(checkpoint)
    model = Decoder(config)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    context = recipe.train.sequence_length
    score = held_out_bits_per_byte(model.to(place.device), place.out / DATA / "tokenizer.json",
                                   load_documents(place.out / DATA, split="held_out"), context=context,
                                   stride=context // 2, end_of_text=recipe.tokenizer.end_of_text)
    return {"bits_per_byte": score.bits_per_byte}


def facts_of(place: Place, training: Training, recipe: Recipe) -> dict[str, Any]:
    """What decided a training, what it cost, and which tokens it saw."""
    import torch

    from tritwise.train.loop import available_threads, compute_dtype
    from tritwise.train.mixes import open_order

    order, _ = open_order(recipe, place.out / DATA)
    config = recipe.model_config_of(training.variant)
    samples = recipe.train.steps * recipe.train.batch_size
    # Where each sample begins in the shards, in the order of training: equal for all variants, or they are no twins.
    starts = np.ascontiguousarray(order.starts(np.arange(samples, dtype=np.int64)))
    tokens = samples * recipe.train.sequence_length
    return {"name": training.name, "kind": training.kind, "size": training.size.name, "variant": training.variant,
            "change": training.change.name if training.change else None, "seed": training.seed,
            "tokens": tokens, "epochs": samples / order.windows, "flops": flops_per_token(config) * tokens,
            "sample_starts_sha256": _digest(starts), "parameters": config.parameter_count()._asdict(),
            "model": config.model_dump(mode="json", exclude_none=True),
            "train": recipe.train.model_dump(mode="json"),
            "schedule": recipe.variants[training.variant].schedule.model_dump(mode="json", exclude_none=True),
            "device": torch.cuda.get_device_name() if place.device == "cuda" else "cpu", "torch": torch.__version__,
            "threads": place.threads or available_threads(),
            "dtype": str(compute_dtype(recipe.train.dtype, place.device)).removeprefix("torch.")}


def _digest(starts: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(starts.astype("<i8").tobytes()).hexdigest()


class Results:
    """What is finished in an output folder, by the keys of its stages: what other settings made does not count."""

    def __init__(self, place: Place) -> None:
        self.place, self._data = place, data_stage(place)
        self._known: dict[str, float] = {}

    def score(self, training: Training) -> float | None:
        """Held-out bits per byte of a finished training, infinite for one that diverged; None of any other."""
        if training.name not in self._known:
            if not self._finished(training):
                return None
            directory = self.place.out / training.name
            self._known[training.name] = math.inf if (directory / DIVERGED).exists() else read_json(
                directory / "result.json", what="a training's result")["held_out"]["bits_per_byte"]
        return self._known[training.name]

    def _finished(self, training: Training) -> bool:
        record = self.place.out / training.name / RECORD
        if not record.exists():
            return False
        stage = training_stage(self.place, training)
        return read_json(record, what="the record of a finished stage").get("key") == stage_keys(
            [self._data, stage])[stage.name]

    def train(self, training: Training, deadline: Deadline) -> None:
        """Build a training. Raises Interrupted when the time is up, or after Ctrl-C."""
        if deadline.over:
            raise Interrupted("the time is up", why="--seconds", fix="the same command goes on from there")
        stages = [self._data, training_stage(self.place, training)]
        with deadline.watched():
            run_stages(stages, self.place.out, say=lambda _text: None)
