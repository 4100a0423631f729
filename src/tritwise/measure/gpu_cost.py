"""What a model costs on a GPU, computed: bytes of weights and caches, the largest batch, seconds of a decode step.

For what does not fit on the card that is there. Bytes are those of `tritwise.engine.cuda`, to the byte (the tests
compare); seconds are a floor: the larger of all bytes by the bandwidth and all operations by the peak, and launches.
"""

from dataclasses import dataclass

from tritwise.config import ModelConfig

GIB = 1 << 30
# Left free on each card: the CUDA context, workspaces, fragmentation.
RESERVE = 3 * GIB
_PAGE = 64
_HEAD_BYTES = {"int8": 1, "f16": 2, "stored": 2}
# Launches of a block for one token (engine/cuda/decoder.py): products are the same number for a dense model.
_LAUNCHES, _LAUNCHES_OF_HEAD = 11, 8


@dataclass(frozen=True)
class Card:
    """A GPU: bytes of memory, bytes a second of a large copy, operations a second, seconds between a graph's nodes."""

    name: str
    memory: float
    bandwidth: float
    int8: float
    bf16: float
    node_gap: float = 1.3e-6  # H100, HazyResearch's megakernel article


# H200: copy and bf16 measured; int8 is the datasheet's 1 979e12 by the share that bf16 reached. The others: datasheets,
# by the same share (0.80) of operations and 0.90 of the bandwidth.
CARDS = {card.name: card for card in (
    Card("H200", 141e9, 4.3e12, 1576e12, 788e12),
    Card("H100", 80 * GIB, 0.9 * 3.35e12, 1576e12, 788e12),
    Card("A100", 80 * GIB, 0.9 * 2.04e12, 0.8 * 624e12, 0.8 * 312e12),
)}


def _padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def linear_bytes(config: ModelConfig) -> int:
    """Of all linears of all blocks: 2 bits a weight and a scale a row, or 16 bits a weight of a dense model."""
    shapes = config.linear_shapes().values()
    if config.linear_type == "dense":
        return config.num_hidden_layers * sum(2 * n * k for n, k in shapes)
    return config.num_hidden_layers * sum(n * (_padded(k, 64) // 4 + 4) for n, k in shapes)


def head_bytes(config: ModelConfig, head: str) -> int:
    """Of the output matrix as `head` ("int8", "f16" or "stored", 16 bits)."""
    width = _padded(config.hidden_size, 128)
    return config.vocab_size * (width * _HEAD_BYTES[head] + (4 if head == "int8" else 0))


def weight_bytes(config: ModelConfig, head: str) -> int:
    """Held on the device, norms left out: linears, the embedding in 16 bits, and the head beside it."""
    return linear_bytes(config) + 2 * config.vocab_size * config.hidden_size + head_bytes(config, head)


def cache_bytes_per_token(config: ModelConfig, cache_type: str) -> int:
    """Keys and values of a position in all layers, with scales and the padding of a head to 32."""
    width = _padded(config.head_dim, 32)
    of_a_head = {"f16": 2 * width, "int8": width + 4, "int4": width // 2 + width // 32 * 2}[cache_type]
    return 2 * config.num_hidden_layers * config.num_key_value_heads * of_a_head


def largest_batch(config: ModelConfig, card: Card, *, cards: int, sequence: int, cache_type: str, head: str) -> int:
    """Sequences of `sequence` positions whose caches fit beside the weights; 0 where the weights do not fit.

    Weights and caches are divided over the cards evenly, as tensor parallelism does.
    """
    free = cards * (card.memory - RESERVE) - weight_bytes(config, head)
    return max(0, int(free // (_padded(sequence, _PAGE) * cache_bytes_per_token(config, cache_type))))


def step_seconds(config: ModelConfig, card: Card, *, cards: int, batch: int, sequence: int, cache_type: str,
                 head: str) -> float:
    """A floor for one decode step of `batch` sequences of `sequence` positions; what cards tell each other is free."""
    moved = (linear_bytes(config) + head_bytes(config, head)
             + batch * sequence * cache_bytes_per_token(config, cache_type))
    peak = card.bf16 if config.linear_type == "dense" else card.int8
    block = config.num_hidden_layers * sum(n * k for n, k in config.linear_shapes().values())
    computed = 2 * batch * block / peak + 2 * batch * config.vocab_size * config.hidden_size / card.bf16
    launches = _LAUNCHES * config.num_hidden_layers + _LAUNCHES_OF_HEAD
    return max(moved / card.bandwidth, computed) / cards + launches * card.node_gap


@dataclass(frozen=True)
class Throughput:
    """Computed: the largest batch and the tokens a second that a floor of the step's time allows."""

    batch: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.batch / self.seconds if self.batch else 0.0


def throughput(config: ModelConfig, card: Card, *, cards: int, sequence: int, cache_type: str,
               head: str) -> Throughput:
    """At the largest batch, every sequence at its full length."""
    settings = {"cards": cards, "sequence": sequence, "cache_type": cache_type, "head": head}
    batch = largest_batch(config, card, **settings)
    return Throughput(batch, step_seconds(config, card, batch=max(1, batch), **settings))
