"""Which tokens a step sees: a pure function of (seed, step, rank, world, shard). There is no loader state.

The shard is cut into windows of `sequence_length`; each epoch cuts at another offset and visits the windows in another
pseudo-random order. The order is a keyed permutation that is computed, not stored: window i of an epoch is found in
constant time, so a run can start at any step, and a second rank reads its share of the same stream. Shards that hold
windows (`data.packing`) are cut where those end, in every epoch.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.data.shard_parts import JoinedIds, TokenStream

# What stands in a batch for padding: there is nothing to be learned there.
NO_TARGET = -1
_ROUNDS = 4


def _hash(*values: int) -> int:
    text = ",".join(str(value) for value in values)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    # The finaliser of splitmix64 (Steele, Lea, Flood 2014, figure 16): every input bit reaches every output bit.
    with np.errstate(over="ignore"):
        z = values + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permute(indices: NDArray[np.uint64], size: int, key: int) -> NDArray[np.uint64]:
    """Where a keyed permutation of range(size) sends each index.

    A Feistel network over the next even number of bits, walked until it lands inside (Black and Rogaway 2002,
    "Ciphers with Arbitrary Finite Domains"): a bijection for every size and key.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = [_hash(key, number) for number in range(_ROUNDS)]
    values = indices.astype(np.uint64)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right, round_key) & mask)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= np.uint64(size)
    return values


class SampleOrder:
    """Windows of a token stream in training order.

    `ids` is the 1-D array of the shard (a memory map serves, `JoinedIds` too), `sequence_length` the number of inputs
    of a sample; a sample holds one id more, so that inputs and targets are its two shifted views.
    """

    def __init__(self, ids: NDArray | JoinedIds, sequence_length: int, seed: int) -> None:
        self.ids, self.sequence_length, self.seed = ids, sequence_length, seed
        # One window less than fit, so that every epoch's offset below leaves the same number.
        self.windows = (len(ids) - 1) // sequence_length - 1
        if self.windows < 1:
            raise TritwiseError(
                f"the training shard holds {len(ids)} tokens, too few for sequences of {sequence_length}",
                fix="add repositories, or lower train.sequence_length")

    def starts(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """First position of each sample, counted from the beginning of training."""
        result = np.empty(len(samples), dtype=np.int64)
        epochs = samples // self.windows
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            key = _hash(self.seed, int(epoch))
            window = permute((samples[chosen] % self.windows).astype(np.uint64), self.windows, key)
            result[chosen] = self._starts_in_epoch(window.astype(np.int64), key)
        return result

    def _starts_in_epoch(self, windows: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        return windows * self.sequence_length + key % self.sequence_length

    def batch(self, step: int, batch_size: int, *, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Ids int64 [batch_size / world, sequence_length + 1] of update `step` (0-based) for one rank.

        Rank r takes samples r, r + world, ... of the global batch: the union over ranks is the same at any world size.
        """
        check_ranks(batch_size, rank, world)
        return self.rows(np.arange(step * batch_size + rank, (step + 1) * batch_size, world, dtype=np.int64))

    def rows(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids int64 [samples, sequence_length + 1] of samples, counted from the beginning of training."""
        length = self.sequence_length + 1
        return np.stack([np.asarray(self.ids[start:start + length], dtype=np.int64) for start in self.starts(samples)])


class WindowOrder(SampleOrder):
    """The stored windows of shards in training order; a window is a sample, and its padding is `NO_TARGET`."""

    def __init__(self, stream: TokenStream, sequence_length: int, seed: int) -> None:
        self.ids, self.sequence_length, self.seed = stream.ids, sequence_length, seed
        size = stream.windows.size
        if size != sequence_length + 1:
            raise TritwiseError(f"{stream.shards[0].path} holds windows of {size} tokens, not of {sequence_length + 1}",
                                why=f"a model reads {size - 1} of them, and train.sequence_length is {sequence_length}",
                                fix=f"train.sequence_length = {size - 1}, or data.packing.window = {sequence_length} "
                                    "and new shards")
        self.windows = len(stream.ids) // size
        if self.windows < 1:
            raise TritwiseError(f"{stream.shards[0].path} holds no window", fix="add repositories")
        self._shards = stream.shards
        self._firsts = np.cumsum([0, *(len(shard.ids) for shard in stream.shards)])

    def _starts_in_epoch(self, windows: NDArray[np.int64], key: int) -> NDArray[np.int64]:
        return windows * (self.sequence_length + 1)

    def rows(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids int64 [samples, sequence_length + 1] of samples, counted from the beginning of training."""
        rows = super().rows(samples)
        for row, start in zip(rows, self.starts(samples), strict=True):
            number = int(np.searchsorted(self._firsts, start, side="right")) - 1
            # Padding is the last document of its window, and made of one id with which no other document begins.
            ends = self._shards[number].ends
            last = int(np.searchsorted(ends, np.uint64(start - self._firsts[number] + len(row))))
            begin = max(0, (int(ends[last - 1]) if last else 0) + int(self._firsts[number]) - int(start))
            if row[begin] == self._shards[number].windows.padding:
                row[begin:] = NO_TARGET
        return rows


def sample_order(stream: TokenStream, sequence_length: int, seed: int) -> SampleOrder:
    """The samples of a stream: its windows, when it holds such."""
    return (SampleOrder(stream.ids, sequence_length, seed) if stream.windows is None else
            WindowOrder(stream, sequence_length, seed))


def check_ranks(batch_size: int, rank: int, world: int) -> None:
    """Raise TritwiseError unless `world` ranks can share a batch evenly, and `rank` is one of them."""
    if batch_size % world or not 0 <= rank < world:
        raise TritwiseError(f"batch_size {batch_size} cannot be shared by {world} ranks (this is rank {rank})",
                            fix="choose a batch_size that is a multiple of the number of ranks")
