"""What a model directory holds: configuration, parameters, bytes, and every tensor's codes or statistics."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritwise.config import ModelConfig
from tritwise.formats import TernaryTensor, open_model

# counts[byte, field, code]: how often field `field` of a packed byte is `code` + 1.
_BYTES = np.arange(256)
_FIELD_CODES = np.stack([[(_BYTES >> 2 * field & 3) == code for code in range(3)] for field in range(4)]).astype(int)


@dataclass(frozen=True)
class QuantisedTensor:
    """A ternary or binary weight [out, in]: how many codes are -1, 0 and +1, and the scale that multiplies them.

    Where blocks of rows have scales of their own, `scale` is the mean of the `scales`.
    """

    name: str
    shape: tuple[int, int]
    scale: float
    minus: int
    zero: int
    plus: int
    scales: int = 1

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of -1, 0 and +1."""
        count = self.minus + self.zero + self.plus
        return self.minus / count, self.zero / count, self.plus / count


@dataclass(frozen=True)
class DenseTensor:
    """A weight in floating point: its type, mean and standard deviation (float64 sums)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    std: float


@dataclass(frozen=True)
class InspectReport:
    """A model directory in numbers. `stored_bytes` counts weights and scales as they lie in the files."""

    path: str
    config: ModelConfig
    parameters_block: int
    parameters_embedding: int
    parameters_norm: int
    stored_bytes: int
    quantised_bytes: int
    quantised: tuple[QuantisedTensor, ...]
    dense: tuple[DenseTensor, ...]
    parameters_router: int = 0

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.parameters_block + self.parameters_embedding + self.parameters_norm + self.parameters_router

    @property
    def bits_per_weight(self) -> float:
        """Stored bits a parameter, over the whole model."""
        return 8 * self.stored_bytes / self.parameters

    @property
    def bits_per_quantised_weight(self) -> float | None:
        """Stored bits a parameter of the quantised tensors, scales included; None in a dense model."""
        return 8 * self.quantised_bytes / self.parameters_block if self.quantised else None

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dumps`; each quantised tensor with its shares."""
        answer = asdict(self) | {
            "config": self.config.model_dump(mode="json", exclude_none=True),
            "parameters": self.parameters,
            "bits_per_weight": self.bits_per_weight,
            "bits_per_quantised_weight": self.bits_per_quantised_weight,
        }
        for entry, tensor in zip(answer["quantised"], self.quantised, strict=True):
            entry["shares"] = tensor.shares
        return answer


def inspect_model(path: str | Path) -> InspectReport:
    """Read every tensor of a model directory once. Raises TritwiseError as `open_model` and its `read` do."""
    directory = open_model(path)
    count = directory.config.parameter_count()
    quantised, dense, quantised_bytes = [], [], 0
    for name in directory.names():
        tensor = directory.read(name)
        if isinstance(tensor, TernaryTensor):
            quantised.append(QuantisedTensor(name, tensor.shape, float(tensor.scales.mean()),
                                             *code_counts(tensor), scales=tensor.scales.size))
            quantised_bytes += directory.tensor_bytes(name)
        else:
            dense.append(DenseTensor(name, tensor.shape, tensor.dtype.name, *_mean_std(tensor)))
    return InspectReport(str(path), directory.config, count.block, count.embedding, count.norm,
                         directory.stored_bytes, quantised_bytes, tuple(quantised), tuple(dense), count.router)


def code_counts(tensor: TernaryTensor) -> tuple[int, int, int]:
    """How many codes of a weight are -1, 0 and +1; rows that only pad the last stripes are not counted."""
    rows = len(tensor.packed)
    total = np.zeros(3, dtype=np.int64)
    for field in range(4):
        valid = max(0, min(tensor.shape[0] - field * rows, rows))
        # Row by row blocks: bincount widens what it counts to 8 bytes.
        for start in range(0, valid, 256):
            histogram = np.bincount(tensor.packed[start:min(start + 256, valid)].ravel(), minlength=256)
            total += _FIELD_CODES[field] @ histogram
    return int(total[0]), int(total[1]), int(total[2])


def _mean_std(array: NDArray) -> tuple[float, float]:
    flat = array.reshape(-1)
    starts = range(0, len(flat), 1 << 20)  # in blocks: the array may be a map of a large file

    def blocks() -> Iterator[NDArray[np.float64]]:
        return (flat[start:start + (1 << 20)].astype(np.float64) for start in starts)

    mean = sum(float(block.sum()) for block in blocks()) / len(flat)
    return mean, (sum(float(((block - mean) ** 2).sum()) for block in blocks()) / len(flat)) ** 0.5
