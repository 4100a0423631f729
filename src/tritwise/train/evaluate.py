"""Held-out bits per byte of a model in training, over the same windows that `tritwise.evaluate` uses on the engine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from tritwise.common.progress import progress
from tritwise.config.tokens import END_OF_TEXT
from tritwise.data import Document, document_text
from tritwise.data.windows import scoring_windows
from tritwise.model import Decoder

WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class HeldOut:
    """Sum of negative log-likelihoods in nats, and what it is divided by."""

    total_nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.total_nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        return math.exp(self.total_nats / self.tokens)


@torch.inference_mode()
def held_out_bits_per_byte(model: Decoder, tokenizer_file: Path, documents: Sequence[Document], *,
                           context: int, stride: int, end_of_text: str = END_OF_TEXT) -> HeldOut:
    """Score documents, each as [`end_of_text`] + ids of `document_text`, every id after the first.

    `bytes` counts the documents' own text, without the path comment that `document_text` puts before it. `context` and
    `stride` are in tokens. Raises TritwiseError when there is nothing to score.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.encode_special_tokens = True
    begin = tokenizer.token_to_id(end_of_text)
    jobs = []
    for document in documents:
        ids = [begin, *tokenizer.encode(document_text(document), add_special_tokens=False).ids]
        jobs += [(ids[window.start:window.stop], window.first_scored - window.start)
                 for window in scoring_windows(len(ids), context, stride)]
    jobs.sort(key=lambda job: len(job[0]))
    total, tokens = 0.0, 0
    with progress("held-out", len(jobs)) as bar:
        for at in range(0, len(jobs), WINDOWS_AT_ONCE):
            part = jobs[at:at + WINDOWS_AT_ONCE]
            length = max(len(ids) for ids, _ in part)
            batch = torch.zeros(len(part), length, dtype=torch.int64)
            scored = torch.zeros(len(part), length, dtype=torch.bool)
            for row, (ids, first) in enumerate(part):
                batch[row, :len(ids)] = torch.tensor(ids)
                scored[row, first:len(ids)] = True
            targets, wanted = batch[:, 1:].flatten(), scored[:, 1:].flatten()
            hidden = model.hidden(batch[:, :-1]).flatten(0, 1)[wanted]
            logits = F.linear(hidden, model.head_weight.to(hidden.dtype)).float()
            total += F.cross_entropy(logits, targets[wanted], reduction="none").sum(dtype=torch.float64).item()
            tokens += int(wanted.sum())
            bar.update(at + len(part))
    return HeldOut(total, tokens, sum(len(document.text.encode()) for document in documents))
