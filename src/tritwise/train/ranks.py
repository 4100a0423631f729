"""The processes of a training, as torchrun starts them. What several of them share is in `parallel`."""

import importlib.util
import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tritwise.common.errors import TritwiseError
from tritwise.config import TrainRecipe

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training; `local` counts those of this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_ranks(device: Device = "cpu") -> Ranks:
    """The ranks that torchrun started, connected; a single process without it. Raises TritwiseError without the device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TritwiseError("there is no CUDA device here", why=f"torch {torch.__version__} finds none",
                            fix="--device cpu, or a build of torch with CUDA on a machine with a GPU")
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise TritwiseError("training on a GPU needs Triton", why="BitLinear's kernels are written in it",
                            fix="pip install 'tritwise[gpu]'")
    if world_size() == 1:
        return Ranks()
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    local = os.environ.get("LOCAL_RANK", dist.get_rank()), os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size())
    return Ranks(dist.get_rank(), dist.get_world_size(), *map(int, local))


def micro_batch_size(train: TrainRecipe, ranks: Ranks) -> int:
    """Sequences that go through a rank's model at once; TritwiseError where its share is no multiple of them."""
    if train.batch_size % ranks.world:
        raise TritwiseError(f"batch_size {train.batch_size} cannot be shared by {ranks.world} ranks",
                            fix="choose a batch_size that is a multiple of the number of ranks")
    share = train.batch_size // ranks.world
    size = min(train.micro_batch_size or share, share)
    if share % size:
        raise TritwiseError(f"a rank's {share} sequences of a step are no multiple of micro_batch_size {size}",
                            fix="change train.micro_batch_size or the number of ranks")
    return size


def mean_over_ranks(value: float, flag: bool, ranks: Ranks) -> tuple[float, bool]:
    """The mean of a value over the ranks, and whether any of them raised the flag."""
    if ranks.world == 1:
        return value, flag
    import torch.distributed as dist

    both = torch.tensor([value / ranks.world, float(flag)], dtype=torch.float64)
    dist.all_reduce(both)
    return both[0].item(), bool(both[1] > 0)


def sum_over_ranks(counts: Tensor) -> Tensor:
    """The sum of a tensor over the ranks."""
    import torch.distributed as dist

    total = counts.clone()
    dist.all_reduce(total)
    return total
