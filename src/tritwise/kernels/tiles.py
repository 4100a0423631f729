"""Kernel and tiles of a product by (M, N, K) and device: a measured table, and a rule where it has no row.

`tiles.json` beside this file is written by `benchmarks/gpu/linear.py --tune`: nothing is tried out at run time, so the
same shapes always run the same code. It maps a device's name to "NxK" to M (a power of two) to the fields of a `Tile`.
No choice changes a result: every sum is an exact integer.
"""

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json

TABLE = Path(__file__).with_name("tiles.json")
LARGEST_BUCKET = 4096
GEMV_TOKENS = 4
SMALL_BATCH_TOKENS = 64
# Programs that run at once when there is no GPU to ask (the interpreter): those of an H100 or H200.
_PROCESSORS = 132


@dataclass(frozen=True)
class Tile:
    """Kernel ("gemv", "small_batch", "prefill"), `bn` rows by `bm` tokens, `bk` bytes (gemv: words of four) a step.

    `splits` parts of K are wanted; `warps` and `stages` are Triton's.
    """

    kernel: str
    bn: int
    bm: int
    bk: int
    splits: int
    warps: int
    stages: int

    def __post_init__(self) -> None:
        limits = {"gemv": GEMV_TOKENS, "small_batch": 128, "prefill": 256}
        if self.kernel not in limits:
            raise TritwiseError(f"there is no kernel {self.kernel!r}", why=f"the kernels are {', '.join(limits)}")
        for name, value in asdict(self).items():
            power = isinstance(value, int) and value > 0 and value & (value - 1) == 0
            if name in ("bn", "bm", "bk", "warps") and not power:
                raise TritwiseError(f"{name} of a tile is {value!r}", why="a power of two is needed")
            if name in ("splits", "stages") and not (isinstance(value, int) and 0 < value <= 256):
                raise TritwiseError(f"{name} of a tile is {value!r}", why="a number of 1 to 256 is needed")
        if self.bm > limits[self.kernel] or self.warps > 32:
            raise TritwiseError(f"{self.kernel} has no tiles of {self.bm} tokens and {self.warps} warps",
                                why=f"at most {limits[self.kernel]} tokens and 32 warps")

    def divided(self, k4: int) -> tuple[int, int, bool]:
        """Steps of a split, splits (none of them empty), and whether they end exactly with the row of k4 bytes."""
        length = k4 // 4 if self.kernel == "gemv" else k4
        steps = -(-length // self.bk)
        each = -(-steps // self.splits)
        splits = -(-steps // each)
        return each, splits, each * splits * self.bk == length

    def partial_sums(self, m: int, n: int) -> int:
        """int32 values that the splits of all tiles add to."""
        return -(-n // self.bn) * self.bn * (-(-m // self.bm) * self.bm)


def bucket(m: int) -> int:
    """The M under which a table has a row: the next power of two, 4096 for all above."""
    return min(LARGEST_BUCKET, 1 << max(0, m - 1).bit_length())


def default_tile(m: int, n: int, k4: int, processors: int = _PROCESSORS, capability: int = 9) -> Tile:
    """The rule where nothing was measured.

    One token: dp4a. Up to 64: the smallest tile of tokens that holds them, and rows so many that the codes a tile
    reads from L2 (bm K) stay below its weights (bn K / 4) where registers allow. Above: 128 x 128, and 128 x 256 when
    these tiles alone fill the GPU twice. K is split until the GPU is full (twice, below 64 tokens, where two programs
    share a multiprocessor), with four steps left in each split so that the loads of a pipeline are hidden.
    """
    if m <= 1:
        warps = 1 if k4 <= 512 else 2
        bn, bm, bk, stages, wanted, kernel = 4, 1, 128 * warps, 2, 8 * processors, "gemv"
    elif m <= SMALL_BATCH_TOKENS:
        bm = max(16, bucket(m))
        bn, bk, warps = {16: (64, 128, 4), 32: (128, 128, 8), 64: (128, 64, 8)}[bm]
        if capability < 9:  # operands of mma.sync take registers that wgmma reads from shared memory
            bn, bk, warps = {16: (64, 128, 4), 32: (64, 128, 8), 64: (32, 64, 4)}[bm]
        stages, wanted, kernel = 4 if capability >= 9 else 3, 2 * processors, "small_batch"
    else:
        kernel, bn, bk, stages, warps, wanted = "prefill", 128, 64, 4, 8, processors
        bm = 256 if capability >= 9 and -(-n // bn) * -(-m // 256) >= 2 * processors else 128
    tiles = -(-n // bn) * -(-m // bm)
    steps = -(-(k4 // 4 if kernel == "gemv" else k4) // bk)
    splits = max(1, min(wanted // tiles, steps // (2 if kernel == "gemv" else 4), 16))
    return Tile(kernel, bn, bm, bk, splits, warps, stages)


def read_table(path: Path = TABLE) -> dict[str, dict[str, dict[int, Tile]]]:
    """Device to "NxK" to M to `Tile`. A missing file is an empty table; raises TritwiseError for a damaged one."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(device): {str(shape): {int(m): Tile(**fields) for m, fields in rows.items()}
                              for shape, rows in shapes.items()}
                for device, shapes in content.items()}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise TritwiseError(f"cannot read the table of tiles {path}", why=str(error),
                            fix="write it again: benchmarks/gpu/linear.py --tune") from error


def write_table(table: dict[str, dict[str, dict[int, Tile]]], path: Path = TABLE) -> None:
    content = {device: {shape: {str(m): asdict(tile) for m, tile in sorted(rows.items())}
                        for shape, rows in sorted(shapes.items())}
               for device, shapes in sorted(table.items())}
    atomic_write_json(path, content)


@functools.cache
def _table() -> dict[str, dict[str, dict[int, Tile]]]:
    return read_table()


@functools.cache
def _properties(device: torch.device) -> tuple[str, int, int]:
    if device.type != "cuda":
        return "interpreter", _PROCESSORS, 9
    found = torch.cuda.get_device_properties(device)
    return found.name, found.multi_processor_count, found.major


@functools.lru_cache(maxsize=4096)
def choose(m: int, n: int, k4: int, device: torch.device) -> Tile:
    """The tile of a product: the table's row for this device, N, K (padded) and bucket of M, else `default_tile`."""
    name, processors, capability = _properties(device)
    row = _table().get(name, {}).get(f"{n}x{4 * k4}", {}).get(bucket(m))
    return row or default_tile(bucket(m) if m <= LARGEST_BUCKET else m, n, k4, processors, capability)
