"""Held-out bits per byte of a model in training, over the same windows that `tritwise.evaluate` uses on the engine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from tritwise.common.errors import TritwiseError
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
def held_out_by_document(model: Decoder, tokenizer_file: Path, documents: Sequence[Document], *,
                         context: int, stride: int, end_of_text: str = END_OF_TEXT) -> list[HeldOut]:
    """Score documents one by one, each as [`end_of_text`] + ids of `document_text`, every id after the first.

    `bytes` counts the document's own text, without the path comment that `document_text` puts before it. `context` and
    `stride` are in tokens. Windows of several documents go through the model at once, on the model's device. Raises
    TritwiseError when there is nothing to score.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.encode_special_tokens = True
    begin, place = tokenizer.token_to_id(end_of_text), model.head_weight.device
    jobs = []
    for number, document in enumerate(documents):
        ids = [begin, *tokenizer.encode(document_text(document), add_special_tokens=False).ids]
        jobs += [(ids[window.start:window.stop], window.first_scored - window.start, number)
                 for window in scoring_windows(len(ids), context, stride)]
    if not jobs:
        raise TritwiseError("there is nothing to score", why=f"{len(documents)} held-out documents hold no token")
    jobs.sort(key=lambda job: len(job[0]))
    nats, tokens = [0.0] * len(documents), [0] * len(documents)
    with progress("held-out", len(jobs)) as bar:
        for at in range(0, len(jobs), WINDOWS_AT_ONCE):
            part = jobs[at:at + WINDOWS_AT_ONCE]
            length = max(len(ids) for ids, _, _ in part)
            batch = torch.zeros(len(part), length, dtype=torch.int64)
            scored = torch.zeros(len(part), length, dtype=torch.bool)
            for row, (ids, first, _) in enumerate(part):
                batch[row, :len(ids)] = torch.tensor(ids)
                scored[row, first:len(ids)] = True
            batch, scored = batch.to(place), scored.to(place)
            targets, wanted = batch[:, 1:].flatten(), scored[:, 1:].flatten()
            hidden = model.hidden(batch[:, :-1]).flatten(0, 1)[wanted]
            logits = F.linear(hidden, model.head_weight.to(hidden.dtype)).float()
            losses = F.cross_entropy(logits, targets[wanted], reduction="none").cpu()
            counts = scored[:, 1:].sum(dim=1).tolist()
            for (_, _, number), count, own in zip(part, counts, losses.split(counts), strict=True):
                nats[number] += own.sum(dtype=torch.float64).item()
                tokens[number] += count
            bar.update(at + len(part))
    return [HeldOut(*each, len(document.text.encode()))
            for *each, document in zip(nats, tokens, documents, strict=True)]


def held_out_bits_per_byte(model: Decoder, tokenizer_file: Path, documents: Sequence[Document], *,
                           context: int, stride: int, end_of_text: str = END_OF_TEXT) -> HeldOut:
    """The sum of what `held_out_by_document` gives."""
    return whole(held_out_by_document(model, tokenizer_file, documents, context=context, stride=stride,
                                      end_of_text=end_of_text))


def whole(parts: Sequence[HeldOut]) -> HeldOut:
    """Several scores as one."""
    return HeldOut(math.fsum(part.total_nats for part in parts), sum(part.tokens for part in parts),
                   sum(part.bytes for part in parts))
