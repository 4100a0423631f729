"""A model's tensors on the device, in the layouts that the kernels read."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine.cpu import Weight, unpacked
from tritwise.formats import FileTensor, GGUFCodes, TernaryTensor
from tritwise.kernels import Planar, codes_of, concatenate, from_stripes, linear, quantise
from tritwise.kernels.head import HeadWeights, make_head
from tritwise.kernels.norm import normed

_ROWS_AT_ONCE = 4096  # of which codes are looked at together


@dataclass(frozen=True)
class TernaryLinears:
    """Ternary or binary matrices that read one input: one below the other, or each with a norm of its own inside.

    `gains` float32 [K] are those inner norms, with `eps`; without them there is one matrix.
    """

    matrices: tuple[Planar, ...]
    gains: tuple[Tensor, ...]
    eps: float

    @property
    def bytes(self) -> int:
        return sum(matrix.bytes for matrix in self.matrices)

    def __call__(self, x: Tensor, gain: Tensor | None, eps: float, *, activation: str = "none",
                 residual: Tensor | None = None) -> Tensor:
        """float32 [M, N] of x float32 [M, K] (or [M, 2 K] behind an activation), normed by `gain` if given.

        With a residual, which one matrix takes, the sum is written over it.
        """
        if not self.gains:
            return linear(quantise(x, gain, eps, activation), self.matrices[0], residual, out=residual)
        if gain is not None or activation != "none":
            x = normed(x, gain, eps, activation=activation)
        parts = [linear(quantise(x, own, self.eps), matrix, residual, out=residual)
                 for matrix, own in zip(self.matrices, self.gains, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@dataclass(frozen=True)
class DenseLinears:
    """Dense matrices one below the other, [N, K] as they are stored, for torch's products."""

    matrix: Tensor

    @property
    def bytes(self) -> int:
        return self.matrix.nbytes

    def __call__(self, x: Tensor, gain: Tensor | None, eps: float, *, activation: str = "none",
                 residual: Tensor | None = None) -> Tensor:
        """[M, N] in the matrix's type of x [M, K], as `TernaryLinears`."""
        if gain is not None or activation != "none":
            x = normed(x, gain, eps, activation=activation, dtype=self.matrix.dtype)
        if residual is None:
            return torch.nn.functional.linear(x, self.matrix)
        return residual.addmm_(x, self.matrix.T)


Linears = TernaryLinears | DenseLinears


@dataclass(frozen=True)
class BlockWeights:
    """A block: linears that read one input together, and the gains of its norms (None where the layout has none)."""

    qkv: Linears
    o: Linears
    gate_up: Linears
    down: Linears
    input_norm: Tensor
    post_norm: Tensor
    attn_sub_norm: Tensor | None
    ffn_sub_norm: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None


@dataclass(frozen=True)
class ModelWeights:
    """Everything a forward pass reads. The embedding keeps its stored type."""

    embedding: Tensor
    blocks: list[BlockWeights]
    final_norm: Tensor
    head: HeadWeights

    @property
    def linear_bytes(self) -> int:
        return sum(each.bytes for block in self.blocks for each in (block.qkv, block.o, block.gate_up, block.down))

    @property
    def bytes(self) -> int:
        """Held on the device, norms left out."""
        return self.linear_bytes + self.embedding.nbytes + self.head.bytes


def _bytes_of(tensor: FileTensor) -> NDArray:
    """The values as they lie in the file; bfloat16 as uint16."""
    dtype = np.dtype("u2" if tensor.dtype == "bfloat16" else tensor.dtype)
    rows = -(-tensor.shape[0] // 4) if tensor.dtype == "uint8" else tensor.shape[0]
    values = np.empty((rows, *tensor.shape[1:]), dtype)
    view, at = memoryview(values.reshape(-1).view(np.uint8)), 0
    while at < len(view):
        count = os.preadv(tensor.descriptor, [view[at:at + (1 << 30)]], tensor.offset + at)
        if not count:
            raise TritwiseError("the model's file cannot be read any more", why="it has become shorter",
                                fix="put the whole file back and open the model again")
        at += count
    return values


def _floats(tensor: FileTensor | NDArray, device: torch.device) -> Tensor:
    """float32, float16 or bfloat16 on the device, checked to be finite where nobody has."""
    if isinstance(tensor, FileTensor):
        values, name = _bytes_of(tensor), tensor.dtype
    else:
        name = tensor.dtype.name
        values = np.array(tensor.view(np.uint16) if name == "bfloat16" else tensor)  # mapped files are read-only
    result = torch.from_numpy(values).to(device)
    result = result.view(torch.bfloat16) if name == "bfloat16" else result
    if isinstance(tensor, FileTensor) and not bool(torch.isfinite(result).all()):
        tensor.refuse()
    return result


def _codes(tensor: FileTensor | TernaryTensor | GGUFCodes, threads: int, device: torch.device) -> Planar:
    if isinstance(tensor, GGUFCodes):
        tensor = unpacked(tensor, threads)
    if isinstance(tensor, TernaryTensor):
        packed = torch.from_numpy(np.array(tensor.packed)).to(device)
        return from_stripes(packed, tensor.shape, torch.from_numpy(np.array(tensor.scales)))
    packed = torch.from_numpy(_bytes_of(tensor)).to(device)
    try:
        weights = from_stripes(packed, tensor.shape, tensor.scale)
    except TritwiseError:
        tensor.refuse()
        raise
    if tensor.binary:
        for begin in range(0, tensor.shape[0], _ROWS_AT_ONCE):
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            part = Planar(weights.packed[rows], weights.scales[rows], (len(weights.scales[rows]), tensor.shape[1]))
            if bool((codes_of(part) == 0).any()):
                tensor.refuse()
    return weights


def _linears(parts: list[Planar | Tensor], gains: list[Tensor], eps: float | None) -> Linears:
    if isinstance(parts[0], Planar):
        if gains:
            return TernaryLinears(tuple(parts), tuple(gains), eps)
        return TernaryLinears((parts[0] if len(parts) == 1 else concatenate(parts),), (), 0.0)
    if len({part.dtype for part in parts}) > 1:
        raise TritwiseError("matrices that read the same input are stored in different types",
                            why=", ".join(str(part.dtype) for part in parts),
                            fix="use backend=\"cpu\"")
    return DenseLinears(parts[0] if len(parts) == 1 else torch.cat(parts))


def _block(config: ModelConfig, tensors: dict[str, Planar | Tensor]) -> BlockWeights:
    """From tensors by their names in the block, which are taken out as they are used."""

    def linears(*names: str) -> Linears:
        gains = [tensors.pop(f"{name}.rms_norm").float() for name in names if f"{name}.rms_norm" in tensors]
        return _linears([tensors.pop(name) for name in names], gains, config.linear_rms_norm_eps)

    def gain(name: str) -> Tensor | None:
        return tensors.pop(name).float() if name in tensors else None

    return BlockWeights(
        linears("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), linears("self_attn.o_proj"),
        linears("mlp.gate_proj", "mlp.up_proj"), linears("mlp.down_proj"), gain("input_layernorm"),
        gain("post_attention_layernorm"), gain("self_attn.attn_sub_norm"), gain("mlp.ffn_sub_norm"),
        gain("self_attn.q_norm"), gain("self_attn.k_norm"))


def load_weights(config: ModelConfig, tensors: Iterable[tuple[str, Weight]], *, head: str, threads: int,
                 device: torch.device) -> ModelWeights:
    """Put every tensor of `config.tensor_shapes()` on the device; each is dropped before the next one is asked for.

    `head` is a kind of `kernels.head.HEAD_KINDS`, `threads` those that unpack GGUF's types.
    Raises TritwiseError for tensors that are missing, unknown or of another shape, and as their readers do.
    """
    shapes = config.tensor_shapes()
    in_block = len(config.linear_shapes()) + len(config.norm_shapes())
    blocks: list[BlockWeights | None] = [None] * config.num_hidden_layers
    waiting: list[dict[str, Planar | Tensor]] = [{} for _ in blocks]
    others: dict[str, Tensor] = {}
    missing = dict(shapes)
    for name, tensor in tensors:
        shape = missing.pop(name, None)
        if shape is None or tuple(tensor.shape) != shape:
            raise TritwiseError("the weights do not make a model",
                                why=f"{name} is unknown or comes twice" if shape is None else
                                f"{name} has the shape {list(tensor.shape)}, not {list(shape)}")
        quantised = isinstance(tensor, TernaryTensor | GGUFCodes) or (
            isinstance(tensor, FileTensor) and tensor.dtype == "uint8")
        values = _codes(tensor, threads, device) if quantised else _floats(tensor, device)
        del tensor
        if not name.startswith("model.layers."):
            others[name.removesuffix(".weight")] = values
            continue
        number, _, inner = name.removeprefix("model.layers.").partition(".")
        layer = waiting[int(number)]
        layer[inner.removesuffix(".weight")] = values
        if len(layer) == in_block:
            blocks[int(number)] = _block(config, layer)
    if missing:
        raise TritwiseError("the weights do not make a model", why=f"{next(iter(missing))} is missing")
    embedding = others["model.embed_tokens"]
    return ModelWeights(embedding, blocks, others["model.norm"].float(),
                        make_head(others.get("lm_head", embedding), head))
