"""Which source a sample comes from when several are mixed by weights: a pure function of its number, like its place.

A mix has stages, each with weights from a step on. In a stage the sources follow one another in a fixed pattern: the
schedule of R. Tijdeman, "The chairman assignment problem" (Discrete Mathematics 32, 1980), which keeps the samples of
each source, at every moment, less than one away from its share. Sample i of a stage is looked up in one period of the
pattern, and so is how many samples of its source came before it; nothing is counted up. All samples have one length, so
shares of samples are shares of tokens.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.files import sha256_bytes, sha256_file
from tritwise.config import MixSettings, Recipe
from tritwise.data.shard_parts import TokenStream, check_tokenizer, join_shards, open_shards, shard_paths
from tritwise.data.shards import TokenShard
from tritwise.train.samples import SampleOrder, check_ranks, sample_order

# The longest period of a pattern. Weights in percent or per mille need 100 or 1000 and are exact.
LONGEST_PERIOD = 10_000


def integer_weights(weights: Sequence[float], longest: int = LONGEST_PERIOD) -> list[int]:
    """Whole numbers in the ratio of the weights, as small as can be.

    Weights are taken as the decimal numbers that they were written as. Where their sum would exceed `longest`, each
    weight above 0 gets 1 and what is left of `longest` is shared out by the largest remainder; a share is then off by
    less than (sources + 1) / `longest`.
    """
    exact = [Fraction(repr(float(weight))) for weight in weights]
    total = sum(exact)
    shares = [weight / total for weight in exact]
    period = math.lcm(*(share.denominator for share in shares))
    if period <= longest:
        return [int(share * period) for share in shares]
    rest = longest - sum(share > 0 for share in shares)
    counts = [int(share * rest) for share in shares]
    missing = rest - sum(counts)
    for i in sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i] * rest, i))[:missing]:
        counts[i] += 1
    return [count + (share > 0) for count, share in zip(counts, shares, strict=True)]


def pattern(counts: Sequence[int]) -> NDArray[np.int64]:
    """One period: source i stands in it counts[i] times, and in its first k places k * share times, off by less than 1.

    With n sources the bound is 1 - 1 / (2n - 2), which no schedule can better (Tijdeman, theorem 1).
    """
    period, taken = sum(counts), [0] * len(counts)
    present = [i for i, count in enumerate(counts) if count]
    if len(present) == 1:
        return np.full(period, present[0], dtype=np.int64)
    scale = 2 * len(present) - 2
    common = math.lcm(*(counts[i] for i in present))
    result = np.empty(period, dtype=np.int64)
    for k in range(1, period + 1):
        # How far a source is behind its share, in units of 1 / (period * scale).
        behind = {i: scale * (counts[i] * k - period * taken[i]) for i in present}
        # Of those far enough behind to be taken, the one that would fall too far behind first.
        chosen = min((i for i in present if behind[i] >= period),
                     key=lambda i: (((scale - 1) * period - behind[i]) * (common // counts[i]), i))
        taken[chosen] += 1
        result[k - 1] = chosen
    return result


class _Stage(NamedTuple):
    """`first` sample, `pattern` [period], `earlier` [period] samples of the same source before it in the period,
    `counts` [sources] in a period, `before` [sources] samples in earlier stages."""

    first: int
    pattern: NDArray[np.int64]
    earlier: NDArray[np.int64]
    counts: NDArray[np.int64]
    before: NDArray[np.int64]

    def taken(self, samples: int) -> NDArray[np.int64]:
        """Samples of each source in the first `samples` of this stage."""
        periods, rest = divmod(samples, len(self.pattern))
        return periods * self.counts + np.bincount(self.pattern[:rest], minlength=len(self.counts))


class MixedOrder:
    """Samples of several sources in training order; has `batch` as a `SampleOrder` has.

    `stages` are (first sample, weights of the sources), the first of them at 0. A source goes on in a stage where it
    stopped in the one before.
    """

    def __init__(self, orders: Sequence[SampleOrder], stages: Sequence[tuple[int, Sequence[float]]]) -> None:
        self.orders = tuple(orders)
        self._stages: list[_Stage] = []
        before = np.zeros(len(orders), dtype=np.int64)
        for first, weights in stages:
            if self._stages:
                before = before + self._stages[-1].taken(first - self._stages[-1].first)
            counts = integer_weights(weights)
            places = pattern(counts)
            earlier = np.empty(len(places), dtype=np.int64)
            for source in range(len(orders)):
                earlier[places == source] = np.arange(counts[source])
            self._stages.append(_Stage(first, places, earlier, np.array(counts, dtype=np.int64), before))
        self._firsts = np.array([stage.first for stage in self._stages], dtype=np.int64)

    def locate(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source of each sample, and which of its source's samples it is."""
        sources, numbers = np.empty_like(samples), np.empty_like(samples)
        stage_of = np.searchsorted(self._firsts, samples, side="right") - 1
        for number in np.unique(stage_of):
            stage, here = self._stages[number], stage_of == number
            periods, places = np.divmod(samples[here] - stage.first, len(stage.pattern))
            source = stage.pattern[places]
            sources[here] = source
            numbers[here] = stage.before[source] + periods * stage.counts[source] + stage.earlier[places]
        return sources, numbers

    def taken(self, samples: int) -> NDArray[np.int64]:
        """How many of the first `samples` samples each source gives."""
        stage = self._stages[int(np.searchsorted(self._firsts, max(samples - 1, 0), side="right")) - 1]
        return stage.before + stage.taken(samples - stage.first)

    def batch(self, step: int, batch_size: int, *, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Ids int64 [batch_size / world, sequence_length + 1] of update `step` (0-based) for one rank."""
        check_ranks(batch_size, rank, world)
        sources, numbers = self.locate(np.arange(step * batch_size + rank, (step + 1) * batch_size, world))
        rows = np.empty((len(sources), self.orders[0].sequence_length + 1), dtype=np.int64)
        for source in np.unique(sources):
            rows[sources == source] = self.orders[source].rows(numbers[sources == source])
        return rows


class SourceUse(NamedTuple):
    """What a training takes of a source: `tokens` it has, `samples` taken, their share of all, passes over it."""

    name: str
    tokens: int
    samples: int
    share: float
    epochs: float


def source_use(mix: MixSettings, order: MixedOrder, samples: int) -> list[SourceUse]:
    """What the first `samples` samples take of each source."""
    return [SourceUse(source.name, len(part.ids), int(taken), int(taken) / samples, int(taken) / part.windows)
            for source, part, taken in zip(mix.sources, order.orders, order.taken(samples), strict=True)]


def repeated(mix: MixSettings, use: Sequence[SourceUse]) -> list[str]:
    """A warning for each source that is seen more often than `max_epochs`."""
    return [f"the source {each.name} is repeated {each.epochs:.1f} times, more than mix.max_epochs {mix.max_epochs:g}: "
            f"it has {each.tokens:,} tokens" for each in use if each.epochs > mix.max_epochs]


def source_shards(paths: Sequence[str]) -> list[Path]:
    """The shards that a source's paths name: those of a directory's train split, or the shard itself."""
    return [shard for path in paths
            for shard in ([Path(path)] if path.endswith(".ds") else shard_paths(Path(path), "train"))]


def mix_key(mix: MixSettings) -> dict[str, Any]:
    """What decides a mix's samples: settings, and the hash of what each shard states of itself."""
    sources = [{"name": source.name, "weight": source.weight,
                "shards": [_facts_hash(shard) for shard in source_shards(source.paths)]} for source in mix.sources]
    return {"sources": sources, "stages": [stage.model_dump(mode="json") for stage in mix.stages]}


def _facts_hash(shard: Path) -> str:
    facts = shard.with_name(shard.name + ".json")
    if not facts.is_file():
        raise TritwiseError(f"{facts} does not exist", why="mix.sources names data directories and token shards")
    return sha256_file(facts)


def open_order(recipe: Recipe, data: Path) -> tuple[SampleOrder | MixedOrder, str]:
    """The samples of a recipe's training, and the hash of their tokenizer.

    `data` is what the recipe's data stage wrote; all sources must have its tokenizer. Raises TritwiseError.
    """
    own = open_shards(data, "train")
    length, train = recipe.train.sequence_length, recipe.train
    if recipe.mix is None:
        return sample_order(own, length, recipe.seed), own.tokenizer_hash
    orders = []
    for source in recipe.mix.sources:
        stream = _open_source(source.paths, own) if source.paths else own
        try:
            # A source's order depends on its name, not on its neighbours: it stays when others come.
            seed = int(sha256_bytes(f"mix\0{recipe.seed}\0{source.name}".encode())[:15], 16)
            orders.append(sample_order(stream, length, seed))
        except TritwiseError as error:
            raise TritwiseError(f"the source {source.name} cannot be used: {error.what}", why=error.why,
                                fix=error.fix) from None
    firsts = [0, *(math.ceil(Fraction(repr(stage.start)) * train.steps) * train.batch_size
                   for stage in recipe.mix.stages)]
    return MixedOrder(orders, list(zip(firsts, recipe.mix.weights_by_stage(), strict=True))), own.tokenizer_hash


def _open_source(paths: Sequence[str], own: TokenStream) -> TokenStream:
    streams = [join_shards((TokenShard.open(Path(path)),)) if path.endswith(".ds") else
               open_shards(Path(path), "train") for path in paths]
    stream = join_shards(tuple(shard for each in streams for shard in each.shards))
    check_tokenizer(own.shards[0], stream.shards[0])
    return stream
