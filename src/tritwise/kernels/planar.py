"""Ternary weights in the layout that the kernels read: four planes of a row in the bit fields of one byte.

    row of K codes, padded with 0 to Kp, a multiple of 64; K4 = Kp / 4

    code      0 ....... K4-1 | K4 ..... 2 K4-1 | 2 K4 ... 3 K4-1 | 3 K4 ..... Kp-1
    field          0         |        1        |        2        |        3
    byte j    bits 0-1       | bits 2-3        | bits 4-5        | bits 6-7
    holds     code + 1       | code + 1        | code + 1        | code, two's complement

So the packed matrix is an ordinary row-major int8 [N, K4], and one AND makes int8 operands of it, with no shift:
byte & 0x03 = w + 1, byte & 0x0C = 4 (w + 1), byte & 0x30 = 16 (w + 1), byte & 0xC0 = 64 w. The product is
a0 + a1 / 4 + a2 / 16 + a3 / 64 minus the sum of the activations under fields 0 to 2; every division is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tritwise.common.errors import TritwiseError

MULTIPLE = 64  # K is padded to it, so that a row of K4 bytes begins at a multiple of 16 bytes: one 128-bit load
MASKS = (0x03, 0x0C, 0x30, -0x40)  # of the fields, as int8
_CHUNK = 1 << 25  # codes that are unpacked at once: what packing a matrix takes beside its input and its output
LONGEST_ROW = 1 << 19  # 64 * 128 * K4 stays inside int32


def padded(length: int) -> int:
    """K padded to the kernels' multiple."""
    return -(-length // MULTIPLE) * MULTIPLE


@dataclass(frozen=True)
class Planar:
    """A ternary matrix [N, K] for the kernels: `packed` int8 [N, K4], `scales` float32 [N], `shape` (N, K).

    A scale a row, so that several matrices (q, k, v; gate and up) lie in one.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        n, k = self.shape
        expected = (n, padded(k) // 4)
        if self.packed.dtype != torch.int8 or self.packed.shape != expected or not self.packed.is_contiguous():
            raise TritwiseError(f"planar weights are {self.packed.dtype} {list(self.packed.shape)}",
                                why=f"contiguous int8 {list(expected)} is needed for the shape {list(self.shape)}")
        if (self.scales.dtype != torch.float32 or self.scales.shape != (n,) or not self.scales.is_contiguous()
                or self.scales.device != self.packed.device):
            raise TritwiseError(f"the scales are {self.scales.dtype} {list(self.scales.shape)} on {self.scales.device}",
                                why=f"contiguous float32 [{n}] on {self.packed.device} is needed")
        if not 0 < k <= LONGEST_ROW or not n:
            raise TritwiseError(f"there are no kernels for a matrix of shape {list(self.shape)}",
                                why=f"rows of 1 to {LONGEST_ROW} codes keep every sum inside int32")

    @property
    def bytes(self) -> int:
        """What a product reads of it."""
        return self.packed.numel() + 4 * self.scales.numel()

    def to(self, device: torch.device | str) -> "Planar":
        return Planar(self.packed.to(device), self.scales.to(device), self.shape)


def _row_scales(scale: torch.Tensor | float, rows: int, device: torch.device) -> torch.Tensor:
    """One scale, or one for each of n blocks of rows, as float32 [rows]."""
    scales = torch.as_tensor(scale, dtype=torch.float32, device=device).reshape(-1)
    if not scales.numel() or rows % scales.numel():
        raise TritwiseError(f"{scales.numel()} scales do not fit {rows} rows",
                            why="one for each of equal blocks of rows is needed")
    return scales.repeat_interleave(rows // scales.numel()).contiguous()


def _pack_rows(codes: torch.Tensor, out: torch.Tensor) -> None:
    """Codes int8 [n, K] into `out`, int8 [n, K4]."""
    k4 = out.shape[1]
    planes = torch.nn.functional.pad(codes, (0, 4 * k4 - codes.shape[1])).reshape(len(codes), 4, k4)
    out.copy_(planes[:, 3] << 6)
    for field in range(3):
        out |= (planes[:, field] + 1) << 2 * field


def _chunks(rows: int, codes_a_row: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, codes_a_row))
    for begin in range(0, rows, step):
        yield slice(begin, min(rows, begin + step))


def _fields(packed: torch.Tensor) -> torch.Tensor:
    """Four codes of each byte, int8 [..., 4], from code + 1 in bits 0-1, 2-3, 4-5, 6-7."""
    if bool((packed & (packed >> 1) & 0x55).any()):
        raise TritwiseError("the packed array is not ternary", why="a 2-bit field holds 3; codes + 1 are 0, 1, 2")
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 3).to(torch.int8) - 1


def _check_packed(packed: torch.Tensor, expected: tuple[int, int], length: str) -> None:
    if packed.dtype != torch.uint8 or packed.shape != expected:
        raise TritwiseError(f"{length} do not fit {packed.dtype} {list(packed.shape)}",
                            why=f"uint8 {list(expected)} is needed, four codes a byte")


def from_codes(codes: torch.Tensor, scale: torch.Tensor | float) -> Planar:
    """Planar weights of codes int8 [N, K] and one scale, or one for each of n equal blocks of rows.

    Raises TritwiseError for another type or shape and for codes outside -1..1.
    """
    if codes.dtype != torch.int8 or codes.dim() != 2 or not codes.numel():
        raise TritwiseError(f"cannot pack {codes.dtype} {list(codes.shape)}", why="int8 [N, K] is needed")
    n, k = codes.shape
    packed = torch.empty(n, padded(k) // 4, dtype=torch.int8, device=codes.device)
    for rows in _chunks(n, k):
        part = codes[rows]
        low, high = torch.aminmax(part)
        if low < -1 or high > 1:
            raise TritwiseError("cannot pack codes outside -1..+1", why=f"the matrix holds {int(low)}..{int(high)}")
        _pack_rows(part, packed[rows])
    return Planar(packed, _row_scales(scale, n, codes.device), (n, k))


def from_consecutive(packed: torch.Tensor, shape: tuple[int, int], scale: torch.Tensor | float) -> Planar:
    """Planar weights of `tritwise.ternary.pack_2bit`'s bytes: uint8 [N, ceil(K/4)], four codes of a row in each."""
    n, k = shape
    _check_packed(packed, (n, -(-k // 4)), f"rows of {k} codes")
    out = torch.empty(n, padded(k) // 4, dtype=torch.int8, device=packed.device)
    for rows in _chunks(n, k):
        _pack_rows(_fields(packed[rows]).flatten(1)[:, :k], out[rows])
    return Planar(out, _row_scales(scale, n, packed.device), (n, k))


def from_stripes(packed: torch.Tensor, shape: tuple[int, int], scale: torch.Tensor | float) -> Planar:
    """Planar weights of Hugging Face's row stripes: uint8 [R, K], R = ceil(N/4).

    Byte [r, k] holds the codes + 1 of rows r, r + R, r + 2 R and r + 3 R in bits 0-1, 2-3, 4-5 and 6-7.
    """
    n, k = shape
    stripe = -(-n // 4)
    _check_packed(packed, (stripe, k), f"{n} rows of {k} codes")
    out = torch.empty(n, padded(k) // 4, dtype=torch.int8, device=packed.device)
    for rows in _chunks(stripe, 4 * k):
        codes = _fields(packed[rows])
        for field in range(4):
            target = out[field * stripe + rows.start:field * stripe + rows.stop]
            _pack_rows(codes[:len(target), :, field], target)
    return Planar(out, _row_scales(scale, n, packed.device), (n, k))


def concatenate(parts: list[Planar]) -> Planar:
    """The rows of several matrices of one K as one matrix."""
    if not parts or len({part.shape[1] for part in parts}) != 1:
        raise TritwiseError("these matrices cannot be one", why=f"shapes are {[list(part.shape) for part in parts]}")
    return Planar(torch.cat([part.packed for part in parts]), torch.cat([part.scales for part in parts]),
                  (sum(part.shape[0] for part in parts), parts[0].shape[1]))


def codes_of(weights: Planar) -> torch.Tensor:
    """The codes int8 [N, K]: the inverse, in shifts and with its own arithmetic, for tests and the torch twin."""
    wide = weights.packed.to(torch.int32) & 0xFF
    fields = [((wide >> 2 * field) & 3) - 1 for field in range(3)]
    last = weights.packed.to(torch.int32) >> 6  # arithmetic: brings the sign along
    return torch.cat([*fields, last], dim=1)[:, :weights.shape[1]].to(torch.int8).contiguous()
