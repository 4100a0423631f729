"""Ternary codes in few bits: four in a byte (2 bits each) or five (base 3, 3^5 = 243 <= 256).

Both work along the last axis and put the first code in the least significant place. File layouts (Hugging Face's
row stripes, GGUF blocks) are the business of `tritwise.formats`.
"""

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError

_POWERS_OF_3 = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)


def _grouped(codes: NDArray, group: int) -> NDArray[np.uint8]:
    """Codes + 1 as uint8 [..., ceil(K / group), group]; the tail is filled with code 0."""
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu" or codes.ndim == 0:
        raise TritwiseError(f"cannot pack an array of type {codes.dtype} and shape {codes.shape}",
                            why="ternary codes are an integer array of at least one axis")
    if codes.size and (codes.min() < -1 or codes.max() > 1):
        raise TritwiseError("cannot pack codes outside -1..+1",
                            why=f"the array holds {int(codes.min())}..{int(codes.max())}")
    padding = -codes.shape[-1] % group
    padded = np.pad(codes.astype(np.int8), [(0, 0)] * (codes.ndim - 1) + [(0, padding)])
    return (padded + np.int8(1)).astype(np.uint8).reshape(*codes.shape[:-1], -1, group)


def _check_packed(packed: NDArray[np.uint8], length: int, group: int) -> None:
    if packed.dtype != np.uint8 or packed.ndim == 0 or packed.shape[-1] != -(-length // group):
        raise TritwiseError(f"{length} codes do not fit an array of {packed.dtype} with shape {packed.shape}",
                            why=f"uint8 [..., {-(-length // group)}] is needed, {group} codes a byte")


def pack_2bit(codes: NDArray) -> NDArray[np.uint8]:
    """Codes [..., K] to uint8 [..., ceil(K/4)]: code + 1 in bits 0-1, 2-3, 4-5, 6-7; the tail is padded with code 0."""
    return np.bitwise_or.reduce(_grouped(codes, 4) << _SHIFTS, axis=-1)


def unpack_2bit(packed: NDArray[np.uint8], length: int) -> NDArray[np.int8]:
    """The inverse of `pack_2bit` for K = `length`. The field 3, which no code has, is refused."""
    _check_packed(packed, length, 4)
    fields = (packed[..., None] >> _SHIFTS) & np.uint8(3)
    if (fields == 3).any():
        raise TritwiseError("the packed array is not ternary", why="a 2-bit field holds 3; codes + 1 are 0, 1, 2")
    return fields.reshape(*packed.shape[:-1], -1)[..., :length].astype(np.int8) - np.int8(1)


def pack_base3(codes: NDArray) -> NDArray[np.uint8]:
    """Codes [..., K] to uint8 [..., ceil(K/5)]: five codes + 1 as one base-3 number, the first least significant."""
    return (_grouped(codes, 5) * _POWERS_OF_3).sum(axis=-1, dtype=np.uint8)


def unpack_base3(packed: NDArray[np.uint8], length: int) -> NDArray[np.int8]:
    """The inverse of `pack_base3` for K = `length`. Bytes above 242 are refused."""
    _check_packed(packed, length, 5)
    if packed.size and packed.max() > 242:
        raise TritwiseError("the packed array is not base 3", why=f"a byte holds {int(packed.max())}; 3^5 - 1 is 242")
    digits = packed[..., None] // _POWERS_OF_3 % np.uint8(3)
    return digits.reshape(*packed.shape[:-1], -1)[..., :length].astype(np.int8) - np.int8(1)
