"""The checks that every launcher makes before Triton would fail in its own words, or a kernel read past an end."""

import torch

from tritwise.common.errors import TritwiseError


def check_tensor(name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...],
                 device: torch.device) -> None:
    """Refuse what a kernel would read past, or read as something else."""
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous() or tensor.device != device:
        raise TritwiseError(f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}",
                            why=f"contiguous {dtype} {list(shape)} on {device} is needed")


def check_device(device: torch.device) -> None:
    """Refuse a device that Triton's kernels cannot run on, before Triton says it in its own words.

    Raises TritwiseError for CPU tensors, unless Triton's interpreter was chosen (TRITON_INTERPRET=1), for others
    than CUDA's, and where Triton is not installed.
    """
    try:
        from triton import knobs
    except ImportError as error:
        raise TritwiseError("the GPU kernels need Triton", why=str(error), fix="pip install triton") from error
    if device.type == "cpu" and not knobs.runtime.interpret:
        raise TritwiseError("the GPU kernels cannot run on CPU tensors",
                            why="Triton compiles for a GPU; its interpreter, for tests, was not chosen",
                            fix="use a CUDA device or backend=\"cpu\"; in a test, TRITON_INTERPRET=1")
    if device.type not in ("cpu", "cuda"):
        raise TritwiseError(f"there are no kernels for the device {device}", why="they are written for CUDA",
                            fix="use backend=\"cpu\"")
