"""What the engine's tests share: a backend in ten lines of numpy, a real tokenizer, and small random models."""

import zlib
from collections import Counter

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tritwise.config import ModelConfig
from tritwise.config.tokens import SPECIAL_TOKENS
from tritwise.engine.backend import BackendInfo, Batch, Output
from tritwise.engine.sampling import Sampler, Sampling

CORPUS = ["def add(a, b):\n    return a + b\n", "for i in range(10):\n    print(i)\n",
          "class Größe:\n    'naïve café, 漢字 and 😀'\n"] * 4


def byte_level_tokenizer(vocab_size: int = 300, special_tokens: tuple[str, ...] = SPECIAL_TOKENS) -> Tokenizer:
    """A byte-level BPE tokenizer trained on a few lines, of the kind that the data room trains."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special_tokens), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.encode_special_tokens = True
    return tokenizer


def tiny_config(vocab_size: int = 300, **changes) -> ModelConfig:
    values = {"vocab_size": vocab_size, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
              "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96}
    return ModelConfig(**values | changes)


class FakeCache:
    """Pages as objects in lists, shared by identity; `held` are the tokens of each slot."""

    def __init__(self, rows: int, context: int, pages: int, page_tokens: int) -> None:
        self.page_tokens, self.rows, self.context, self.pages_total = page_tokens, rows, context, pages
        self.tables: list[list[object]] = [[] for _ in range(rows)]
        self.held: list[list[int]] = [[] for _ in range(rows)]

    @property
    def pages_in_use(self) -> int:
        return self.pages_held(list(range(self.rows)))

    def pages_held(self, slots: list[int]) -> int:
        return len({id(page) for slot in slots for page in self.tables[slot]})

    def _own(self, slot: int) -> list[bool]:
        names = Counter(id(page) for table in self.tables for page in table)
        return [names[id(page)] == 1 for page in self.tables[slot]]

    def pages_needed(self, slot: int, first: int, end: int) -> int:
        assert 0 <= first <= len(self.held[slot])
        assert first <= end <= self.context
        own, last = self._own(slot), -(-end // self.page_tokens)
        return max(0, last - len(own)) - sum(own[last:]) + own[first // self.page_tokens:last].count(False)

    def write(self, slot: int, first: int, tokens: list[int]) -> None:
        end = first + len(tokens)
        needed = self.pages_needed(slot, first, end)
        assert needed <= self.pages_total - self.pages_in_use, "out of pages"
        own, table = self._own(slot), self.tables[slot][:-(-end // self.page_tokens)]
        for i in range(first // self.page_tokens, -(-end // self.page_tokens)):
            table[i:i + 1] = [table[i] if i < len(table) and own[i] else object()]
        self.tables[slot] = table
        self.held[slot] = self.held[slot][:first] + tokens

    def share(self, source: int, target: int, positions: int) -> None:
        assert 0 <= positions <= len(self.held[source])
        self.tables[target] = self.tables[source][:-(-positions // self.page_tokens)]
        self.held[target] = self.held[source][:positions]

    def reset(self, slot: int) -> None:
        self.tables[slot], self.held[slot] = [], []


class FakeBackend:
    """Logits that are a hash of all tokens of the row's sequence up to it, and a record of every batch.

    Refuses what the contract forbids: a position beyond what the slot holds, rows of a slot out of order.
    """

    def __init__(self, vocab_size: int = 300, slots: int = 3, context: int = 96, page_tokens: int = 16,
                 pages: int | None = None, parked: int = 8) -> None:
        self.vocab_size, self.slots, self.context = vocab_size, slots, context
        pages = slots * -(-context // page_tokens) if pages is None else pages
        self.cache = FakeCache(slots + parked, context, pages, page_tokens)
        self.batches: list[Batch] = []
        self.info = BackendInfo("fake", "numpy", "stored", 1, 0, 0, 0, 0)
        self.before_forward = lambda batch: None
        self.draws_by: set[Sampling] | None = None

    def logits_after(self, tokens: list[int]) -> np.ndarray:
        seed = zlib.crc32(np.array(tokens, dtype=np.int32).tobytes())
        return np.random.default_rng(seed).normal(0, 3, self.vocab_size).astype(np.float32)

    def draws(self, how: Sampling) -> bool:
        return self.draws_by is not None and how in self.draws_by

    def forward(self, batch: Batch) -> Output:
        self.before_forward(batch)
        self.batches.append(batch)
        rows = []
        for slot in dict.fromkeys(batch.slots.tolist()):
            mine = batch.slots == slot
            positions, first = batch.positions[mine], int(batch.positions[mine][0])
            assert positions.tolist() == list(range(first, first + len(positions)))
            self.cache.write(slot, first, batch.tokens[mine].tolist())
        for slot, position in zip(batch.slots.tolist(), batch.positions.tolist(), strict=True):
            rows.append(self.cache.held[slot][:position + 1])
        wanted = [self.logits_after(rows[row]) for row in batch.logits_for]
        candidates = [self.logits_after(rows[row]) for row in batch.best_for]
        best = [int(logits.argmax()) if np.isfinite(logits.max()) else -1 for logits in candidates]
        drawn = [Sampler(draw.how).draw(self.logits_after(rows[row]), len(rows[row]), draw.history, draw.mask)
                 for row, draw in zip(batch.draw_for, batch.draws, strict=True)]
        return Output(np.array(wanted, dtype=np.float32).reshape(len(wanted), self.vocab_size),
                      np.array(best, dtype=np.int32), np.array(drawn, dtype=np.int32))

    def close(self) -> None:
        self.cache = None
