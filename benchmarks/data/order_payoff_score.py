"""Scores of one model for order_payoff.py: held-out files alone and behind others, and cross-file tasks."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tritwise.common.files import atomic_write_json
from tritwise.config.cross_file import CrossFileWindow
from tritwise.data import Document, document_text
from tritwise.data.documents import by_repository
from tritwise.data.windows import scoring_windows
from tritwise.engine import Model, load
from tritwise.evaluate import CrossFileTask, score
from tritwise.evaluate.windows import over_windows

GENERATED = ("alone", "dependencies", "definition")


def score_model(path: Path, tasks: list[CrossFileTask], files: dict[str, list[Document]], window: CrossFileWindow,
                directory: Path) -> None:
    """Write score.json: `held_out` and `cross_file`."""
    directory.mkdir(parents=True)
    with load(path) as model:
        held_out = held_out_bits(model, files, window.context)
        lines = score(model, tasks, window, generate=GENERATED)
    atomic_write_json(directory / "score.json", {"held_out": held_out, "cross_file": lines.to_json()})


def held_out_bits(model: Model, files: dict[str, list[Document]], context: int) -> dict[str, Any]:
    """Bits of each held-out file, alone and in the stream of its repository in each order; `bytes` are its text's.

    A stream is one text: the files, each closed by the id that ends a text, in windows of `context` that are half of it
    apart. What a file's own tokens cost counts for the file, what the ends between files cost for none.
    """
    first = next(iter(files.values()))
    names = [f"{d.repository}/{d.path}" for d in first]
    modes = {"alone": [[d] for d in first]} | {
        order: [members for _, members in by_repository(documents)] for order, documents in files.items()}
    bits = {}
    for mode, streams in modes.items():
        found = _bits(model, streams, context, f"held-out, {mode}")
        bits[mode] = [found[name] for name in names]
    return {"files": names, "repositories": [d.repository for d in first],
            "bytes": [len(d.text.encode()) for d in first], "bits": bits}


def _bits(model: Model, streams: list[list[Document]], context: int, title: str) -> dict[str, float]:
    end, names, ids, owners = model.codec.start_id, [], [], []
    for stream in streams:
        ids.append([end])
        owners.append([-1])
        for document in stream:
            tokens = model.codec.encode(document_text(document))
            ids[-1] += [*tokens, end]
            owners[-1] += [len(names)] * len(tokens) + [-1]
            names.append(f"{document.repository}/{document.path}")
        ids[-1].pop()  # nothing is asked after the last file
        owners[-1].pop()
    places = [np.array(owner[window.first_scored:window.stop]) for owner in owners
              for window in scoring_windows(len(owner), context, context // 2)]
    nats = np.zeros(len(names))
    found = over_windows(model.score, ids, context=context, stride=context // 2, title=title, note=lambda done: "")
    for values, place in zip(found, places, strict=True):
        mine = place >= 0
        nats += np.bincount(place[mine], values[mine], len(names))
    return dict(zip(names, (nats / math.log(2)).tolist(), strict=True))
