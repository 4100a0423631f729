"""What the bytes of a GGUF tensor mean (the layouts stand in gguf_types.py): floats, or ternary codes and their scale.

    floats(type, bytes, shape)      float array of the shape
    ternary(type, bytes, shape)     codes int8 [out, in], scale float32 that multiplies
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.formats.gguf_types import GGUF_TYPES, tensor_bytes

Bytes = NDArray[np.uint8]
I2SLayout = Literal["x86", "arm", "rows"]
PLAIN_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}


def floats(number: int, data: Bytes, shape: tuple[int, ...]) -> NDArray:
    """Values of a float type as they are stored, read-only, and of Q4_0, Q8_0, Q4_K and Q6_K as float32.

    Raises KeyError for a ternary type, ValueError when the bytes do not have the length of the shape.
    """
    kind = _checked(number, data, shape)
    if kind.name in PLAIN_TYPES:
        dtype = PLAIN_TYPES[kind.name]
        whole = data if data.ctypes.data % dtype.itemsize == 0 else data.copy()
        return whole.view(dtype).reshape(shape)
    with np.errstate(invalid="ignore", over="ignore"):  # of factors that are no numbers; whoever asked looks for those
        return _FLOATS[kind.name](data.reshape(-1, kind.block_bytes)).reshape(shape)


def ternary(number: int, data: Bytes, shape: tuple[int, int],
            i2s_layout: I2SLayout = "x86") -> tuple[NDArray[np.int8], np.float32]:
    """Codes int8 [out, in] and the scale that multiplies them, of TQ1_0, TQ2_0, I2_S, IQ1_BN, IQ2_BN and IQ2_BN_R4.

    Nothing in a file says in which of three layouts I2_S is. `x86` is what converter and quantiser write there, `arm`
    the same with groups of 16 for 32, `rows` has four rows of a column in a byte (x86 without ACT_PARALLEL).
    Raises KeyError for a float type, ValueError for another length, TritwiseError for a field that is no code, for a
    scale that is not positive and finite, and where parts of the tensor have different scales: that is another model
    than codes times one scale.
    """
    kind = _checked(number, data, shape)
    fields = (_I2_S[i2s_layout] if kind.name == "I2_S" else _FIELDS[kind.name])(data, *shape)
    if fields.max() > 2:
        raise TritwiseError("the tensor is not ternary", why=f"a field of {kind.name} holds {int(fields.max())}; "
                            "codes + 1 are 0, 1, 2")
    scale, whole = ternary_scale(number, data, shape)
    codes = fields.view(np.int8) - np.int8(1)
    if not whole:
        scales = _SCALES[kind.name](data, *shape)
        idle = codes.reshape(scales.size, -1)[scales == 0]
        codes.reshape(scales.size, -1)[scales == 0] = np.zeros_like(idle)
    return codes, scale


def ternary_scale(number: int, data: Bytes, shape: tuple[int, int]) -> tuple[np.float32, bool]:
    """The scale that multiplies the codes, and whether every part of the tensor has it.

    A block of zeros has the scale 0 when it was quantised by itself; any scale means the same for it, and its fields
    mean nothing. Raises as `ternary` does.
    """
    kind = _checked(number, data, shape)
    scales = _SCALES[kind.name](data, *shape)
    used = scales[scales != 0]
    scale = np.float32(used[0]) if used.size else np.float32(0)
    if not (np.isfinite(used).all() and scale > 0):
        raise TritwiseError("the tensor has no scale", why=f"{kind.name} stores {float(scale)} where a positive number "
                            "is needed")
    if (used != scale).any():
        raise TritwiseError("the tensor has several scales", why=f"{kind.name} stores {len(np.unique(used))} different "
                            f"ones, from {float(used.min())} to {float(used.max())}; a ternary matrix here has one")
    return scale, used.size == scales.size


def _checked(number: int, data: Bytes, shape: tuple[int, ...]):
    if data.dtype != np.uint8 or data.shape != (tensor_bytes(number, shape),):
        raise ValueError(f"{data.dtype} {data.shape} was given for {GGUF_TYPES[number].name} {shape}, which takes "
                         f"uint8 ({tensor_bytes(number, shape)},)")
    return GGUF_TYPES[number]


def _half(columns: Bytes) -> NDArray[np.float32]:
    """Two bytes a row as float16, to float32 [rows, 1]."""
    return np.ascontiguousarray(columns).view("<f2").astype(np.float32)


def _crumbs(data: Bytes) -> Bytes:
    """[..., n] bytes to [..., 4, n] fields of two bits, the lowest first."""
    return data[..., None, :] >> np.array([[0], [2], [4], [6]], np.uint8) & np.uint8(3)


def _trits(data: Bytes, count: int) -> Bytes:
    """[..., n] bytes to [..., count, n]: byte / 256 as a fraction in base 3, its first digit first."""
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:count, None]
    with np.errstate(over="ignore"):
        rest = data[..., None, :] * powers  # modulo 256
    return (rest.astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _q8_0(blocks: Bytes) -> NDArray[np.float32]:
    return _half(blocks[:, :2]) * blocks[:, 2:].view(np.int8)


def _q4_0(blocks: Bytes) -> NDArray[np.float32]:
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return _half(blocks[:, :2]) * (nibbles.view(np.int8) - np.int8(8))


def _q4_k(blocks: Bytes) -> NDArray[np.float32]:
    six = blocks[:, 4:16]  # scales of 0-3, minima of 0-3 with two bits of 4-7 above each, low nibbles of 4-7
    scales = np.concatenate([six[:, :4] & 63, six[:, 8:] & 15 | six[:, :4] >> 6 << 4], axis=1)
    minima = np.concatenate([six[:, 4:8] & 63, six[:, 8:] >> 4 | six[:, 4:8] >> 6 << 4], axis=1)
    pairs = blocks[:, 16:].reshape(-1, 4, 32)
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
    factor, least = _half(blocks[:, :2]) * scales, _half(blocks[:, 2:4]) * minima
    return factor[..., None] * nibbles - least[..., None]


def _q6_k(blocks: Bytes) -> NDArray[np.float32]:
    low = blocks[:, :128].reshape(-1, 2, 2, 32)  # halves of 128 weights, of 64 bytes each
    low = np.stack([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = _crumbs(blocks[:, 128:192].reshape(-1, 2, 32))
    values = (low | high << 4).view(np.int8) - np.int8(32)
    factor = _half(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)
    return factor[..., None] * values.reshape(-1, 16, 16)


_FLOATS: dict[str, Callable[[Bytes], NDArray[np.float32]]] = {
    "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_K": _q4_k, "Q6_K": _q6_k}


def _tq1_0(data: Bytes, out: int, inner: int) -> Bytes:
    blocks = data.reshape(-1, 54)
    parts = [_trits(blocks[:, :32], 5), _trits(blocks[:, 32:48], 5), _trits(blocks[:, 48:52], 4)]
    return np.concatenate([part.reshape(len(blocks), -1) for part in parts], axis=1).reshape(out, inner)


def _tq2_0(data: Bytes, out: int, inner: int) -> Bytes:
    return _crumbs(data.reshape(-1, 66)[:, :64].reshape(-1, 2, 32)).reshape(out, inner)


def _i2_s(data: Bytes, out: int, inner: int, group: int = 32) -> Bytes:
    return _crumbs(data[:-32].reshape(-1, group))[:, ::-1].reshape(out, inner)


def _i2_s_rows(data: Bytes, out: int, inner: int) -> Bytes:
    if out % 4:
        raise TritwiseError("the tensor is not in this layout", why=f"four rows share a byte, and there are {out}")
    return _crumbs(data[:-32].reshape(out // 4, inner))[:, ::-1].reshape(out, inner)


def _iq1_bn(data: Bytes, out: int, inner: int) -> Bytes:
    blocks = data.reshape(out, -1)[:, 2:].reshape(-1, 13)
    fives = _trits(blocks[:, :12].reshape(-1, 4, 3), 5)[:, :, ::-1]  # [.., 5, 3]; the last digit first
    singles = _trits(blocks[:, 12:], 5)[:, 4:0:-1]
    return np.concatenate([fives.swapaxes(-1, -2).reshape(-1, 4, 15), singles], axis=2).reshape(out, inner)


def _iq2_bn(data: Bytes, out: int, inner: int) -> Bytes:
    return _crumbs(data.reshape(out, -1)[:, 4:].reshape(-1, 16)).reshape(out, inner)


def _iq2_bn_r4(data: Bytes, out: int, inner: int) -> Bytes:
    packed = data.reshape(out // 4, -1)[:, 16:].reshape(out // 4, inner // 16, 4, 4)  # byte i of row k: 16 l + 4 f + i
    return _crumbs(packed).transpose(0, 2, 1, 3, 4).reshape(out, inner)


def _single(columns: Bytes) -> NDArray[np.float32]:
    return np.ascontiguousarray(columns).view("<f4").reshape(-1)


_FIELDS: dict[str, Callable[[Bytes, int, int], Bytes]] = {
    "TQ1_0": _tq1_0, "TQ2_0": _tq2_0, "I2_S": _i2_s, "IQ1_BN": _iq1_bn, "IQ2_BN": _iq2_bn, "IQ2_BN_R4": _iq2_bn_r4}
_I2_S: dict[I2SLayout, Callable[[Bytes, int, int], Bytes]] = {
    "x86": _i2_s, "arm": partial(_i2_s, group=16), "rows": _i2_s_rows}
_SCALES: dict[str, Callable[[Bytes, int, int], NDArray[np.float32]]] = {
    "TQ1_0": lambda data, out, inner: _half(data.reshape(-1, 54)[:, 52:]).reshape(-1),
    "TQ2_0": lambda data, out, inner: _half(data.reshape(-1, 66)[:, 64:]).reshape(-1),
    "I2_S": lambda data, out, inner: _single(data[-32:-28]),
    "IQ1_BN": lambda data, out, inner: _half(data.reshape(out, -1)[:, :2]).reshape(-1),
    "IQ2_BN": lambda data, out, inner: _single(data.reshape(out, -1)[:, :4]),
    "IQ2_BN_R4": lambda data, out, inner: _single(data.reshape(out // 4, -1)[:, :16]),
}
TERNARY_TYPES = frozenset(_FIELDS)
