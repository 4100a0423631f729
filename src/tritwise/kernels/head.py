"""The output head on the device: its weights, the launches for logits, and the most likely ids (head_products.py)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tritwise.common.errors import TritwiseError

HEAD_KINDS = ("stored", "f16", "int8")
_PADDING = 128
_BEST_BLOCK = 1024
_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True)
class HeadWeights:
    """`matrix` [vocab, hidden padded to 128] in bfloat16, float16 or int8; `scales` float32 [vocab] of int8."""

    kind: str
    matrix: Tensor
    scales: Tensor
    hidden: int

    @property
    def vocab(self) -> int:
        return self.matrix.shape[0]

    @property
    def bytes(self) -> int:
        return self.matrix.nbytes + self.scales.nbytes


def make_head(weight: Tensor, kind: str = "int8") -> HeadWeights:
    """The head from its matrix [vocab, hidden]; rows of int8 are rounded as in the CPU core (absmax, -128..127).

    "stored" keeps bfloat16 and float16 as they are. Raises TritwiseError for float32 that shall be kept, an unknown
    kind, and values that are not finite or beyond float16.
    """
    if kind not in HEAD_KINDS:
        raise TritwiseError(f"there is no head {kind!r} on a GPU", why=f"the choices are {', '.join(HEAD_KINDS)}")
    if kind == "stored":
        kinds = {torch.bfloat16: "bf16", torch.float16: "f16"}
        if weight.dtype not in kinds:
            raise TritwiseError(f"a head in {str(weight.dtype).removeprefix('torch.')} cannot be kept on a GPU",
                                why="products are in bfloat16, float16 or int8", fix="take the head int8 or f16")
        kind = kinds[weight.dtype]
    vocab, hidden = weight.shape
    padded = -(-hidden // _PADDING) * _PADDING
    matrix = torch.zeros(vocab, padded, dtype=_DTYPES[kind], device=weight.device)
    scales = torch.empty(vocab if kind == "int8" else 0, device=weight.device)
    step = max(1, (1 << 24) // hidden)  # rows at once: their float32 copies stay small
    for begin in range(0, vocab, step):
        rows = weight[begin:begin + step].float()
        if kind == "int8":
            top = rows.abs().amax(-1, keepdim=True).clamp(min=1e-5)
            matrix[begin:begin + step, :hidden] = torch.round(rows * (1 / top * 127)).clamp(-128, 127).to(torch.int8)
            scales[begin:begin + step] = (top / 127)[:, 0]
            finite = top.isfinite().all()
        else:
            matrix[begin:begin + step, :hidden] = rows.to(_DTYPES[kind])
            finite = matrix[begin:begin + step].isfinite().all()
        if not finite:
            raise TritwiseError("the head holds values that are not finite" if not rows.isfinite().all() else
                                "the head's values are beyond the range of float16", fix="take the head int8")
    return HeadWeights(kind, matrix, scales, hidden)


@dataclass(frozen=True)
class HeadRoom:
    """What a call works in, for up to m states; made once and kept by captured graphs."""

    planes: Tensor   # [3 or 2, m, padded], flat
    scales: Tensor   # float32 [m]
    tops: Tensor     # float32 [m, blocks], with ids and bad alike
    ids: Tensor
    bad: Tensor
    largest: Tensor  # float32 [m]


def head_room(head: HeadWeights, rows: int) -> HeadRoom:
    """Room for `rows` states."""
    device, planes = head.matrix.device, 2 if head.kind == "int8" else 3
    blocks = -(-head.vocab // _BEST_BLOCK)
    return HeadRoom(torch.empty(planes * rows * head.matrix.shape[1], dtype=head.matrix.dtype, device=device),
                    torch.empty(rows, device=device), torch.empty(rows, blocks, device=device),
                    *(torch.empty(rows, blocks, dtype=torch.int32, device=device) for _ in range(2)),
                    torch.empty(rows, device=device))


def logits_of(states: Tensor, head: HeadWeights, room: HeadRoom, out: Tensor) -> None:
    """Normed states float32 [m, hidden] to logits float32 [m, vocab]. A state that is not finite gives NaN."""
    import triton

    from tritwise.kernels import head_products

    interpreted = not isinstance(head_products.head_rows, triton.JITFunction)
    m, hidden = states.shape
    assert states.dtype == out.dtype == torch.float32
    assert states.is_contiguous()
    assert out.is_contiguous()
    assert (hidden, out.shape) == (head.hidden, (m, head.vocab)), (states.shape, out.shape)
    assert room.scales.shape[0] >= m, "the room is too small"
    padded = head.matrix.shape[1]
    head_products.split_state[m,](states, room.planes, room.scales, H=hidden,
                                  BLOCK_H=1 << (padded - 1).bit_length(), KIND=head.kind, PADDED=padded, num_warps=4,
                                  enable_fp_fusion=False)
    tile = head_tile(head.kind, m)
    grid = (-(-m // (tile.parts * tile.states)), -(-head.vocab // tile.rows))
    head_products.head_rows[grid](room.planes, room.scales, head.matrix, head.scales, out, m, head.vocab, H=hidden,
                                  PADDED=padded, KIND=head.kind, BLOCK_M=tile.states, PARTS=tile.parts,
                                  BLOCK_V=tile.rows, BLOCK_K=tile.depth, WIDEN=interpreted and head.kind == "bf16",
                                  num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=False)


@dataclass(frozen=True)
class HeadTile:
    """`parts` products of `states` states each by `rows` rows of the head, `depth` numbers a step."""

    states: int
    parts: int
    rows: int
    depth: int
    warps: int
    stages: int


def head_tile(kind: str, m: int) -> HeadTile:
    """The smallest tile that holds m states, up to the largest that registers hold on sm_80 and sm_90."""
    if kind == "int8":
        if m <= 32:
            return HeadTile(16 if m <= 16 else 32, 1, 128, 128, 4, 4)
        return HeadTile(64, 1, 128, 128, 8, 3) if m <= 64 else HeadTile(128, 1, 128, 64, 8, 3)
    # One depth, so that sums are in one order wherever a product has an order of its own (the interpreter's).
    if m <= 32:
        return HeadTile(16 if m <= 16 else 32, 1, 64, 64, 4, 6 if m <= 16 else 4)
    return HeadTile(32, 2, 128, 64, 8, 3)


def best_of(logits: Tensor, room: HeadRoom, best: Tensor) -> None:
    """int32 [m]: the lowest id among equal largest logits float32 [m, vocab], -1 where that logit is NaN or infinite.

    The largest finite logit of each row is left in `room.largest`.
    """
    from tritwise.kernels import head_products

    m, vocab = logits.shape
    blocks = -(-vocab // _BEST_BLOCK)
    assert logits.is_contiguous()
    assert (best.dtype, room.tops.shape[1]) == (torch.int32, blocks), (best.dtype, room.tops.shape)
    head_products.best_of_block[m, blocks](logits, room.tops, room.ids, room.bad, vocab, blocks, BLOCK=_BEST_BLOCK,
                                           num_warps=4)
    head_products.best_of_blocks[m,](room.tops, room.ids, room.bad, best, room.largest, blocks,
                                     BLOCK=1 << (blocks - 1).bit_length(), num_warps=1)
