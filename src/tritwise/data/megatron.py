"""Token shards as Megatron-LM's indexed dataset (megatron/core/datasets/indexed_dataset.py), and nothing of it here.

    OUT.bin   the ids, one document after the other
    OUT.idx   "MMIDIDX\\0\\0", uint64 1 (version), uint8 code of the ids' type (8: uint16, 4: int32),
              uint64 documents, uint64 documents + 1, int32 length of each document, int64 byte where each begins,
              int64 0 .. documents (each document is one sequence); all little-endian
"""

import struct
from pathlib import Path

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_file
from tritwise.data.shard_parts import TokenStream, join_shards
from tritwise.data.shards import TokenShard

_MAGIC, _VERSION = b"MMIDIDX\0\0", 1
_CODES = {"uint16": 8, "uint32": 4}
_LONGEST = 2**31 - 1
# Ids copied at once.
_CHUNK = 1 << 22


def export_megatron(source: TokenShard | TokenStream, out: Path) -> tuple[Path, Path]:
    """Write OUT.bin and OUT.idx, each whole or not at all, and return their paths.

    Raises TritwiseError for a document, or an id, that Megatron's 32-bit numbers do not hold, and for shards of
    windows.
    """
    stream = source if isinstance(source, TokenStream) else join_shards((source,))
    if stream.windows is not None:
        raise TritwiseError(f"{stream.shards[0].path} holds windows, which Megatron-LM would not keep",
                            why="it joins documents in an order of its own, and cuts them where its samples end",
                            fix='data.packing.method = "concatenate", and data.fim.level = "document" or "piece"')
    lengths = np.concatenate([np.diff(shard.ends.astype(np.int64), prepend=0) for shard in stream.shards])
    dtype = stream.shards[0].ids.dtype
    if lengths.size and lengths.max() > _LONGEST:
        raise TritwiseError(f"a document of {lengths.max()} tokens is too long for Megatron's index",
                            why="it holds lengths as 32-bit numbers")
    if stream.vocab_size > _LONGEST:
        raise TritwiseError(f"ids up to {stream.vocab_size - 1} are too large for Megatron's datasets",
                            why="they hold ids as 32-bit numbers with a sign")
    # Megatron opens OUT when both are there; the index comes last.
    binary, index = (Path(f"{out}{suffix}") for suffix in (".bin", ".idx"))
    index.unlink(missing_ok=True)
    with atomic_file(binary) as file:
        for shard in stream.shards:
            for start in range(0, len(shard.ids), _CHUNK):
                file.write(shard.ids[start:start + _CHUNK].tobytes())  # of uint32 and int32 the bytes are the same
    pointers = np.cumsum(lengths, dtype=np.int64) - lengths
    with atomic_file(index) as file:
        file.write(_MAGIC + struct.pack("<QBQQ", _VERSION, _CODES[dtype.name], len(lengths), len(lengths) + 1))
        file.write(lengths.astype("<i4").tobytes())
        file.write((pointers * dtype.itemsize).astype("<i8").tobytes())
        file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
    return binary, index
