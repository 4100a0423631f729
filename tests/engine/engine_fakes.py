"""What the engine's tests share: a backend in ten lines of numpy, a real tokenizer, and small random models."""

import zlib

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tritwise.config import ModelConfig
from tritwise.config.tokens import SPECIAL_TOKENS
from tritwise.engine.backend import BackendInfo, Batch, Output

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


class FakeBackend:
    """Logits that are a hash of all tokens of the row's sequence up to it, and a record of every batch.

    Refuses what the contract forbids: a position beyond what the slot holds, rows of a slot out of order.
    """

    def __init__(self, vocab_size: int = 300, slots: int = 3, context: int = 96) -> None:
        self.vocab_size, self.slots, self.context = vocab_size, slots, context
        self.cache: list[list[int]] = [[] for _ in range(slots)]
        self.batches: list[Batch] = []
        self.info = BackendInfo("fake", "numpy", "stored", 1, 0, 0, 0, 0)
        self.before_forward = lambda batch: None

    def logits_after(self, tokens: list[int]) -> np.ndarray:
        seed = zlib.crc32(np.array(tokens, dtype=np.int32).tobytes())
        return np.random.default_rng(seed).normal(0, 3, self.vocab_size).astype(np.float32)

    def forward(self, batch: Batch) -> Output:
        self.before_forward(batch)
        self.batches.append(batch)
        rows = []
        for token, slot, position in zip(batch.tokens, batch.slots, batch.positions, strict=True):
            assert position <= len(self.cache[slot])
            self.cache[slot] = [*self.cache[slot][:position], int(token)]
            rows.append(list(self.cache[slot]))
        wanted = [self.logits_after(rows[row]) for row in batch.logits_for]
        candidates = [self.logits_after(rows[row]) for row in batch.best_for]
        best = [int(logits.argmax()) if np.isfinite(logits.max()) else -1 for logits in candidates]
        return Output(np.array(wanted, dtype=np.float32).reshape(len(wanted), self.vocab_size),
                      np.array(best, dtype=np.int32))

    def close(self) -> None:
        self.cache = []
