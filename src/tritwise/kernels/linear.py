"""The product of quantised activations and planar weights: checks, workspace, choice of the kernel, launch.

    y = linear(x, weights, residual)           # product, rescaling, residual: one kernel

It can be captured in a CUDA graph once `prepare(device)` was called: it allocates only its result. The kernels, and
with them Triton, are imported at the first call.
"""

from dataclasses import dataclass, replace

import torch

from tritwise.common.errors import TritwiseError
from tritwise.kernels.checks import check_device, check_tensor
from tritwise.kernels.planar import Planar, padded
from tritwise.kernels.quantise import Quantised
from tritwise.kernels.tiles import GEMV_TOKENS, Tile, choose

# Partial sums of split products: 32 MiB and one counter a tile. A product that needs more is not split, which changes
# no bit of it: only products with few tiles gain from splits.
PARTIAL_SUMS = 1 << 23
COUNTERS = 1 << 16
GEMV_SUMS = 1024  # of the gemv kernel: rows * tokens * words a step, of a warp
_TOKEN_GROUP = 8  # token tiles that prefill walks through before the next row tile's weights


@dataclass(frozen=True)
class Workspace:
    """What the splits of a product share: int32 sums and counters, all zero before and after every product.

    Products that run at the same time (two streams) need one each; those of one stream share one.
    """

    sums: torch.Tensor
    counters: torch.Tensor


_workspaces: dict[torch.device, Workspace] = {}


def new_workspace(device: torch.device | str) -> Workspace:
    """Zeroed, 32.25 MiB. For a second stream; the first one's is allocated by itself."""
    return Workspace(torch.zeros(PARTIAL_SUMS, dtype=torch.int32, device=device),
                     torch.zeros(COUNTERS, dtype=torch.int32, device=device))


def prepare(device: torch.device | str) -> Workspace:
    """The workspace of a device, allocated once for the process: its address never changes, so graphs can hold it."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    found = _workspaces.get(device)
    if found is None:
        check_device(device)
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise TritwiseError("the workspace of the linear kernels would be allocated inside a CUDA graph",
                                fix="call tritwise.kernels.prepare(device) before the capture")
        found = _workspaces[device] = new_workspace(device)
    return found


def linear(x: Quantised, weights: Planar, residual: torch.Tensor | None = None, *, out: torch.Tensor | None = None,
           tile: Tile | None = None, workspace: Workspace | None = None) -> torch.Tensor:
    """x @ weights.T, rescaled, plus `residual`: float32 [M, N] (into `out`, which may be the residual itself).

    The integer sums equal `tritwise.ternary.matmul`'s; the value is acc * (x_scale * w_scale) in float32, so it is the
    same at any batch size, `tile` (chosen by the table if None) and number of splits.
    Raises TritwiseError for other types, shapes and devices.
    """
    m, (n, k) = x.tokens, weights.shape
    device = weights.packed.device
    if x.length != k or not m:
        raise TritwiseError(f"activations [{m}, {x.length}] do not fit weights {list(weights.shape)}")
    check_tensor("codes", x.codes, torch.int8, (m, padded(k)), device)
    for name, tensor in (("residual", residual), ("out", out)):
        if tensor is not None:
            check_tensor(name, tensor, torch.float32, (m, n), device)
    if max(m * padded(k), weights.packed.numel(), m * n) >= 1 << 31:
        raise TritwiseError(f"a product of {m} tokens with weights {list(weights.shape)} is too large",
                            why="the kernels count in 32 bits", fix="give the tokens in several parts")
    check_device(device)
    if out is None:
        out = torch.empty(m, n, dtype=torch.float32, device=device)
    k4 = weights.packed.shape[1]
    launch(x, weights, residual, out, tile or choose(m, n, k4, device), workspace or prepare(device))
    return out


def launch(x: Quantised, weights: Planar, residual: torch.Tensor | None, out: torch.Tensor, tile: Tile,
           workspace: Workspace) -> None:
    """Start the kernel of `tile`; operands were checked."""
    m, n, k4 = x.tokens, weights.shape[0], weights.packed.shape[1]
    if tile.kernel == "gemv" and m > GEMV_TOKENS:
        raise TritwiseError(f"the gemv kernel takes no {m} tokens", why=f"{GEMV_TOKENS} is the most")
    tokens = 1 << (m - 1).bit_length()
    if tile.kernel == "gemv":
        # A thread's accumulators stay in registers up to 128 of them.
        tile = replace(tile, bn=min(tile.bn, max(1, GEMV_SUMS * tile.warps // (tokens * tile.bk))))
    steps, splits, even = tile.divided(k4)
    tiles_n, tiles_m = -(-n // tile.bn), -(-m // tile.bm)
    counters = tiles_n * (tokens if tile.kernel == "gemv" else tiles_m)
    sums = tiles_n * tile.bn * tokens if tile.kernel == "gemv" else tile.partial_sums(m, n)
    if splits > 1 and (sums > workspace.sums.numel() or counters > workspace.counters.numel()):
        return launch(x, weights, residual, out, replace(tile, splits=1), workspace)
    shared = (x.scale, x.sums)
    end = (weights.scales, out if residual is None else residual, out, workspace.sums, workspace.counters, m, n)
    options = {"BN": tile.bn, "BK": tile.bk, "STEPS": 0 if out.is_cuda else steps, "SPLIT": splits > 1, "EVEN": even,
               "HAS_RESIDUAL": residual is not None, "num_warps": tile.warps, "num_stages": tile.stages,
               "enable_fp_fusion": False}
    if tile.kernel == "gemv":
        from tritwise.kernels.gemv import gemv

        gemv[(tiles_n * splits,)](x.codes.view(torch.int32), *shared, weights.packed.view(torch.int32), *end,
                                  k4 // 16, steps, splits, TOKENS=tokens, ASM=out.is_cuda, **options)
    elif tile.kernel == "small_batch":
        from tritwise.kernels.small_batch import small_batch

        small_batch[(tiles_n * splits, tiles_m)](x.codes, *shared, weights.packed, *end, k4, steps, splits, BM=tile.bm,
                                                 **options)
    else:
        from tritwise.kernels.prefill import prefill

        prefill[(tiles_n * tiles_m * splits,)](x.codes, *shared, weights.packed, *end, k4, steps, splits, BM=tile.bm,
                                               GROUP=_TOKEN_GROUP, **options)
    return None
