"""Arrays to the bytes of a GGUF tensor (the layouts stand in gguf_types.py); gguf_values.py is the way back.

    pack_ternary("TQ2_0", codes, scale)     uint8 bytes of codes int8 [out, in] that one scale multiplies
    pack_floats("Q8_0", array)              uint8 bytes of floats
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.formats.gguf_types import GGUF_TYPES

TYPE_NUMBERS = {kind.name: number for number, kind in GGUF_TYPES.items()}
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
_SCALE_DTYPES = {"TQ1_0": np.dtype("<f2"), "TQ2_0": np.dtype("<f2"), "I2_S": np.dtype("<f4")} | _DTYPES
_SHIFTS = np.array([[0], [2], [4], [6]], np.uint8)


def pack_ternary(kind: str, codes: NDArray[np.int8], scale: np.float32) -> NDArray[np.uint8]:
    """The bytes of a ternary type for codes int8 [out, in], in whole blocks, and the scale that multiplies them.

    TQ1_0 and TQ2_0 keep the scale as a float16 in each block, I2_S as a float32 behind all. F32, F16 and BF16 hold the
    products, -s, 0 and +s, as other programs' quantisers take them.
    Raises TritwiseError where a float16 cannot hold the scale.
    """
    if kind in _DTYPES:
        return pack_floats(kind, codes * stored_scale(kind, scale))
    return _TERNARY[kind]((codes + np.int8(1)).view(np.uint8), np.float32(scale))


def stored_scale(kind: str, scale: np.float32) -> np.float32:
    """The scale as the type keeps it: rounded once. Raises TritwiseError where it is zero or infinite then."""
    with np.errstate(over="ignore"):
        stored = np.float32(np.asarray(scale).astype(_SCALE_DTYPES[kind]))
    if not (np.isfinite(stored) and stored > 0):
        raise TritwiseError(f"the scale {float(scale):g} cannot be written",
                            why=f"{kind} keeps it as {_SCALE_DTYPES[kind].name}",
                            fix="use I2_S, which keeps a float32")
    return stored


def pack_floats(kind: str, array: NDArray) -> NDArray[np.uint8]:
    """The bytes of F32, F16, BF16 or Q8_0 for a float array, rounded to nearest.

    Raises TritwiseError for a value that is infinite in the type.
    """
    if kind == "Q8_0":
        return _q8_0(np.ascontiguousarray(array, np.float32).reshape(-1, 32))
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array).astype(_DTYPES[kind])
    if not np.isfinite(stored).all():
        raise TritwiseError(f"{float(np.abs(array.astype(np.float32)).max()):g} cannot be written as {kind}",
                            why="the type ends before it", fix="use F32 or BF16")
    return stored.reshape(-1).view(np.uint8)


def _q8_0(blocks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """d = max|w| / 127 as float32, q = w / d rounded half away from zero, and d kept as float16."""
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(d > 0, np.float32(1) / d, np.float32(0))
        half = d.astype("<f2")
    if not np.isfinite(half).all():
        raise TritwiseError(f"{float(d.max() * 127):g} cannot be written as Q8_0", why="its scale is a float16",
                            fix="use F32 or BF16")
    scaled = blocks * inverse
    rounded = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    return np.concatenate([half.view(np.uint8), rounded.view(np.uint8)], axis=1).reshape(-1)


def _crumbs(fields: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[..., 4, n] fields of two bits to [..., n] bytes, the first field in the lowest bits."""
    return np.bitwise_or.reduce(fields << _SHIFTS, axis=-2)


def _trits(fields: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[..., k, n] digits, the first one the most significant, to [..., n] bytes: a fraction of 256 in base 3.

    256 / 243 times the number of five digits, rounded up, so that multiplying by 3 brings one digit after the other.
    """
    powers = np.array([[81], [27], [9], [3], [1]], np.uint16)[:fields.shape[-2]]
    number = (fields * powers).sum(axis=-2, dtype=np.uint16)
    return ((number * 256 + 242) // 243).astype(np.uint8)


def _tq1_0(fields: NDArray[np.uint8], scale: np.float32) -> NDArray[np.uint8]:
    blocks = fields.reshape(-1, 256)
    fives, more, fours = blocks[:, :160], blocks[:, 160:240], blocks[:, 240:]
    parts = [_trits(fives.reshape(-1, 5, 32)), _trits(more.reshape(-1, 5, 16)), _trits(fours.reshape(-1, 4, 4))]
    return _with_half(np.concatenate(parts, axis=1), stored_scale("TQ1_0", scale))


def _tq2_0(fields: NDArray[np.uint8], scale: np.float32) -> NDArray[np.uint8]:
    blocks = _crumbs(fields.reshape(-1, 2, 4, 32)).reshape(-1, 64)
    return _with_half(blocks, stored_scale("TQ2_0", scale))


def _with_half(blocks: NDArray[np.uint8], scale: np.float32) -> NDArray[np.uint8]:
    half = np.frombuffer(np.array(scale, "<f2").tobytes(), np.uint8)
    return np.concatenate([blocks, np.broadcast_to(half, (len(blocks), 2))], axis=1).reshape(-1)


def _i2_s(fields: NDArray[np.uint8], scale: np.float32) -> NDArray[np.uint8]:
    codes = _crumbs(fields.reshape(-1, 4, 32)[:, ::-1]).reshape(-1)
    tail = np.zeros(GGUF_TYPES[TYPE_NUMBERS["I2_S"]].tensor_bytes, np.uint8)
    tail[:4] = np.frombuffer(np.array(scale, "<f4").tobytes(), np.uint8)
    return np.concatenate([codes, tail])


_TERNARY: dict[str, Callable[[NDArray[np.uint8], np.float32], NDArray[np.uint8]]] = {
    "TQ1_0": _tq1_0, "TQ2_0": _tq2_0, "I2_S": _i2_s}
