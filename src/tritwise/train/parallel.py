"""Training on several ranks with FSDP2: master weights, gradients and moments are sharded, codes are gathered.

    torchrun --nproc-per-node 2 -m tritwise.cli.app train RECIPE --variant ternary --data DATA --out OUT

A quantised linear's all-gather moves 2 bits a weight. Its scale is that of the whole tensor: `quantise_shards`, called
once an optimizer step, adds up exact integer sums of all linears' shards in ONE all-reduce (`kernels.training_twins`),
so that scales and codes are equal bit for bit at any number of ranks, however uneven their shards.

Experts are sharded like any linear, and every rank runs all of them on its own tokens. Their load-balancing loss is
that of the tokens that all ranks see at once: W ranks with micro-batches of m have the losses of one process with
micro-batches of m W, where no target is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves, tree_map_only

from tritwise.config import RankSettings
from tritwise.kernels.training_twins import exact_sums, pack_codes, scale_of_sums, weight_codes
from tritwise.model import BitLinear, Decoder
from tritwise.model.packed import PackedWeight

_aten = torch.ops.aten
_VIEWS = {_aten.detach.default, _aten.view.default, _aten.as_strided.default, _aten.slice.Tensor,
          _aten.split.Tensor, _aten.alias.default}
_NEW_STORAGE = {_aten.clone.default, _aten.new_zeros.default, _aten._to_copy.default}


@dataclass
class _Quantised:
    """What `quantise_shards` made of a shard, float32 [2] and uint8 [rows, ceil(K / 4)]; None after a write to it."""

    means: Tensor | None = None
    packed: Tensor | None = None


class ShardedMaster(Tensor):
    """A float32 master weight, or the rows of it that a rank has, which FSDP gathers as 2-bit codes.

    `plain` is the ordinary tensor, `whole` the shape of the whole weight; views of it share `quantised`.
    """

    @staticmethod
    def __new__(cls, plain: Tensor, linear_type: str, whole: torch.Size,
                quantised: _Quantised | None = None) -> "ShardedMaster":
        return Tensor._make_wrapper_subclass(cls, plain.shape, plain.stride(), plain.storage_offset(),
                                             dtype=plain.dtype, device=plain.device)

    def __init__(self, plain: Tensor, linear_type: str, whole: torch.Size,
                 quantised: _Quantised | None = None) -> None:
        self.plain, self.linear_type, self.whole = plain, linear_type, whole
        self.quantised = quantised or _Quantised()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"ShardedMaster(rows={self.shape[0]}, whole={tuple(self.whole)})"

    def quantise(self, means: Tensor) -> None:
        """Keep the codes of these rows, given the whole weight's means."""
        self.quantised.means = means
        self.quantised.packed = pack_codes(weight_codes(self.plain, means, self.linear_type))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        some = next(each for each in tree_leaves((args, kwargs)) if isinstance(each, cls))
        plain_args, plain_kwargs = tree_map_only(cls, lambda each: each.plain, (args, kwargs or {}))
        out = func(*plain_args, **plain_kwargs)
        if func._schema.is_mutable:
            _forget_codes(func, args, kwargs or {})
        if func is _aten.copy_.default:
            if isinstance(args[0], cls) and isinstance(args[1], cls) and args[0].shape == args[1].shape:
                # FSDP moves a shard into padded memory before the first forward.
                args[0].quantised.means, args[0].quantised.packed = args[1].quantised.means, args[1].quantised.packed
            return args[0]
        if func in _NEW_STORAGE:
            made = _Quantised() if func is _aten.new_zeros.default else replace(some.quantised)
            return tree_map_only(Tensor, lambda each: cls(each, some.linear_type, some.whole, made), out)
        if func in _VIEWS:
            return tree_map_only(Tensor, lambda each: cls(each, some.linear_type, some.whole, some.quantised), out)
        return out

    # One argument beside self: the form in which FSDP leaves the sizes of what is gathered to us.
    def fsdp_pre_all_gather(self, mesh: DeviceMesh) -> tuple[tuple[Tensor, ...], tuple[Tensor, torch.Size]]:
        """The codes of this rank's rows, with rows of zero bytes where it has fewer than the others."""
        made = self.quantised
        if made.packed is None:
            raise RuntimeError("the master weights changed: quantise_shards(model) has to follow each optimizer step")
        rows = -(-self.whole[0] // mesh.size())
        return (nn.functional.pad(made.packed, (0, 0, 0, rows - len(made.packed))),), (made.means, self.whole)

    def fsdp_post_all_gather(self, gathered: tuple[Tensor, ...], metadata: tuple[Tensor, torch.Size],
                             dtype: torch.dtype, *, out: Tensor | None = None) -> Any:
        """The whole weight as codes; no copy is made of what was gathered."""
        (packed,), (means, whole) = gathered, metadata
        packed = packed[:whole[0]]
        if out is None:
            return PackedWeight(packed, means, whole), ()
        out.packed, out.means = packed, means
        return None


def _forget_codes(func: Any, args: tuple, kwargs: dict) -> None:
    """Codes of what an operation wrote to are those of older weights."""
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[at] if at < len(args) else kwargs.get(argument.name)
            for each in tree_leaves(given):
                if isinstance(each, ShardedMaster):
                    each.quantised.means = each.quantised.packed = None


def shard(model: Decoder, device: str = "cpu", settings: RankSettings = RankSettings()) -> Decoder:  # noqa: B008
    """Shard a model in place, each block and the rest as a group; every rank gives it with equal weights."""
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for layer in model.model.layers:
        for linear in layer.modules():
            if isinstance(linear, BitLinear) and linear.linear_type != "dense":
                weight = linear.weight.detach()
                linear.weight = nn.Parameter(ShardedMaster(weight, linear.linear_type, weight.shape))
        fully_shard(layer, mesh=mesh, reshard_after_forward=not settings.keep_gathered)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "loss")
    quantise_shards(model)
    return model


def set_exchange(model: nn.Module, settings: RankSettings, *, last: bool) -> None:
    """Before each micro-batch of a step: whether its backward exchanges gradients and lets go of gathered weights.

    After the last one both happen, so that no weight outlives the optimizer's step as codes of its old values.
    `set_is_last_backward` is left alone: without a pending reduction it would only keep the order of earlier forwards,
    after which FSDP prefetches.
    """
    model.set_requires_gradient_sync(last or settings.reduce_gradients == "micro_batch")
    model.set_reshard_after_backward(last or not settings.keep_gathered)


def quantise_shards(model: nn.Module) -> None:
    """Scales and codes of all quantised linears, from the master weights as they are; one all-reduce for all."""
    shards = [p.to_local() for p in model.parameters() if isinstance(p, DTensor)]
    shards = [each for each in shards if isinstance(each, ShardedMaster)]
    if not shards:
        return
    sums = torch.stack([_sums(each.plain) for each in shards])
    dist.all_reduce(sums)
    counts = torch.tensor([[each.whole.numel()] for each in shards], dtype=torch.float64, device=sums.device)
    for each, means in zip(shards, scale_of_sums(sums, counts), strict=True):
        each.quantise(means)


def _sums(plain: Tensor) -> Tensor:
    if plain.is_cuda:
        from tritwise.kernels import training

        return training.exact_sums(plain)
    return exact_sums(plain)


def local_rows(whole: Tensor, world: int, rank: int) -> Tensor:
    """The rows of a whole tensor that FSDP keeps on a rank."""
    chunks = torch.chunk(whole, world)
    return chunks[rank] if rank < len(chunks) else whole[:0]


def whole_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on every rank; all ranks have to ask."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    local = tensor.detach().to_local()
    if isinstance(local, ShardedMaster):
        local = local.plain
    return DTensor.from_local(local, tensor.device_mesh, tensor.placements, shape=tensor.shape,
                              stride=tensor.stride(), run_check=False).full_tensor()


def like_shard(whole: Tensor, parameter: DTensor) -> DTensor:
    """A whole tensor, which every rank has, sharded as a parameter is."""
    mesh = parameter.device_mesh
    local = local_rows(whole, mesh.size(), mesh.get_local_rank()).clone()
    return DTensor.from_local(local, mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride(),
                              run_check=False)


def shard_with_optimizer(model: Decoder, optimizer: torch.optim.Optimizer,
                         make: Callable[[Decoder], torch.optim.Optimizer], device: str,
                         settings: RankSettings) -> torch.optim.Optimizer:
    """Shard a model and its optimizer, which may have been restored; returns the optimizer of the shards."""
    before = {name: optimizer.state.get(parameter) for name, parameter in model.named_parameters()}
    shard(model, device, settings)
    sharded = make(model)
    for name, parameter in model.named_parameters():
        if before[name]:
            sharded.state[parameter] = {key: like_shard(value, parameter) if value.ndim else value
                                        for key, value in before[name].items()}
    return sharded
