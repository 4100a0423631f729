"""A weight of which only codes and scale are here: what a rank holds of a linear whose master weight is sharded."""

from typing import Any

import torch
from torch import Tensor

from tritwise.kernels.training_twins import unpack_codes

_SAME = {torch.ops.aten.detach.default, torch.ops.aten.as_strided.default, torch.ops.aten.alias.default,
         torch.ops.aten.view.default}


class PackedWeight(Tensor):
    """Looks like a float32 [N, K] to autograd; `packed` is uint8 [N, ceil(K / 4)], `means` float32 [2].

    Both are what `tritwise.kernels.training_twins` makes: `pack_codes` and `scale_of_sums`. BitLinear is all that can
    read it; its gradient is an ordinary float32 tensor.
    """

    packed: Tensor
    means: Tensor

    @staticmethod
    def __new__(cls, packed: Tensor, means: Tensor, shape: torch.Size) -> "PackedWeight":
        return Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32, device=packed.device)

    def __init__(self, packed: Tensor, means: Tensor, shape: torch.Size) -> None:
        self.packed, self.means = packed, means

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"PackedWeight(shape={tuple(self.shape)})"

    def codes(self) -> Tensor:
        """int8 [N, K]."""
        return unpack_codes(self.packed, self.shape[1])

    def scale(self, scale_dtype: torch.dtype) -> Tensor:
        """float32 without axes, rounded to `scale_dtype`."""
        return self.means[0].to(scale_dtype).float()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _SAME and (len(args) == 1 or tuple(args[1]) == tuple(args[0].shape)):
            return cls(args[0].packed, args[0].means, args[0].shape)
        raise NotImplementedError(f"{func} of a weight whose values are on other ranks; only BitLinear reads it")
