"""Hugging Face's row stripes: four ternary codes of four different rows in one byte.

With R = ceil(out / 4), packed row r holds the codes of rows r, R + r, 2R + r and 3R + r in bits 0-1, 2-3, 4-5, 6-7,
each as code + 1:

    packed[r, k]     bits 7 6 | 5 4 | 3 2 | 1 0
    code + 1 of row      3R+r | 2R+r| R+r | r        column k

Rows beyond `out` are padded with the field 0, as transformers' `pack_weights` does. The stripes of two matrices
interleave, so packed tensors are never concatenated or cut along rows: unpack first.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.ternary import absmean, sign

CODES_PER_BYTE = 4
_SCALE_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1, 1)


def packed_rows(rows: int) -> int:
    """Number of packed rows that hold `rows` rows of codes."""
    return -(-rows // CODES_PER_BYTE)


def pack_rows(codes: NDArray) -> NDArray[np.uint8]:
    """Codes [out, in] (integers -1..+1) to uint8 [ceil(out/4), in] in row stripes.

    Raises TritwiseError for another shape, type or code. Source: transformers, integrations/bitnet.py `pack_weights`.
    """
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu" or codes.ndim != 2:
        raise TritwiseError(f"cannot pack an array of type {codes.dtype} and shape {codes.shape}",
                            why="ternary codes are an integer array [out, in]")
    if codes.size and (codes.min() < -1 or codes.max() > 1):
        raise TritwiseError("cannot pack codes outside -1..+1",
                            why=f"the array holds {int(codes.min())}..{int(codes.max())}")
    out, inner = codes.shape
    fields = np.zeros((CODES_PER_BYTE * packed_rows(out), inner), dtype=np.uint8)
    fields[:out] = (codes + 1).astype(np.uint8)
    return np.bitwise_or.reduce(fields.reshape(CODES_PER_BYTE, -1, inner) << _SHIFTS, axis=0)


def unpack_rows(packed: NDArray[np.uint8], rows: int) -> NDArray[np.int8]:
    """The inverse of `pack_rows` for out = `rows`: int8 [rows, in]. The field 3, which no code has, is refused."""
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[0] != packed_rows(rows):
        raise TritwiseError(f"{rows} rows of codes do not fit an array of {packed.dtype} with shape {packed.shape}",
                            why=f"uint8 [{packed_rows(rows)}, in] is needed, {CODES_PER_BYTE} rows a byte")
    if holds_field_3(packed):
        raise TritwiseError("the packed array is not ternary", why="a 2-bit field holds 3; codes + 1 are 0, 1, 2")
    fields = (packed >> _SHIFTS) & np.uint8(3)
    return fields.reshape(-1, packed.shape[1])[:rows].view(np.int8) - np.int8(1)


def holds_field_3(packed: NDArray[np.uint8]) -> bool:
    """Whether any 2-bit field of the bytes is 3, which stands for no code."""
    # Row by row blocks keep the temporaries small: the array may be a map of a large file.
    step = max(1, (1 << 20) // max(1, packed.shape[-1]))
    return any(bool((block & (block >> 1) & 0x55).any())
               for block in (packed[i:i + step] for i in range(0, len(packed), step)))


def quantise(config: ModelConfig, latent: NDArray) -> "TernaryTensor":
    """A latent weight [out, in] as a quantised model computes with it, the scale rounded to `scale_dtype`."""
    codes, scale = (sign if config.linear_type == "binary" else absmean)(latent)
    return TernaryTensor.from_codes(codes, np.asarray(scale).astype(_SCALE_TYPES[config.scale_dtype]))


@dataclass(frozen=True, eq=False)
class TernaryTensor:
    """A quantised weight: W ~ codes() * row_scales()[:, None].

    `packed` is uint8 [ceil(out/4), in] in row stripes, `shape` (out, in). `scales` is float32 [n] that multiplies: one
    for each of n blocks of out / n rows. One for the whole weight is the rule; models whose shards were quantised each
    by itself have a few. Binary weights have the same form with no zero among the codes.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        expected = (packed_rows(self.shape[0]), self.shape[1])
        if self.packed.dtype != np.uint8 or self.packed.shape != expected:
            raise ValueError(f"packed is {self.packed.dtype} {self.packed.shape}; uint8 {expected} is needed")
        count = self.scales.size
        if self.scales.dtype != np.float32 or self.scales.shape != (count,) or not count or self.shape[0] % count:
            raise ValueError(f"scales are {self.scales.dtype} {self.scales.shape}; float32 (n,) is needed, "
                             f"with n a divisor of {self.shape[0]} rows")

    @classmethod
    def from_codes(cls, codes: NDArray, scale: NDArray[np.float32] | np.float32) -> "TernaryTensor":
        """Pack codes [out, in] with the scale, or the scales [n] of blocks of rows, that multiply them."""
        return cls(pack_rows(codes), np.atleast_1d(np.asarray(scale, dtype=np.float32)),
                   (codes.shape[0], codes.shape[1]))

    @property
    def scale(self) -> NDArray[np.float32]:
        """The one scale, float32 [1], for whatever has room for one. Raises TritwiseError where there are several."""
        if self.scales.size != 1:
            raise TritwiseError(f"a weight of shape {list(self.shape)} has {self.scales.size} scales",
                                why="one scale a weight is all that can be held here")
        return self.scales

    def row_scales(self) -> NDArray[np.float32]:
        """The scale of each row, float32 [out]."""
        return np.repeat(self.scales, self.shape[0] // self.scales.size)

    def latent(self) -> NDArray[np.float32]:
        """Float weights [out, in] that quantise to these codes and, but for a rounding, to this one scale.

        The mean of |w| has to be the scale, and only a share of the codes is not zero, so those are larger than it.
        Raises TritwiseError where there are several scales.
        """
        codes = self.codes()
        share = np.count_nonzero(codes) / codes.size
        return codes * np.float32(self.scale[0] / share)

    def codes(self) -> NDArray[np.int8]:
        """The codes -1, 0, +1 as int8 [out, in]."""
        return unpack_rows(self.packed, self.shape[0])
