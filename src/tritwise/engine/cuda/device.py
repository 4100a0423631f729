"""What the backend asks of CUDA: which device, its stream, page-locked memory, captured graphs.

On CPU tensors (Triton's interpreter, for tests) there is nothing to ask for: functions run, copies are there at once.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritwise.common.errors import TritwiseError
from tritwise.kernels import prepare
from tritwise.kernels.checks import check_device

_OLDEST = (8, 0)  # compute capability that Triton and bfloat16 products need
_capturing = threading.Lock()  # PyTorch allows one capture at a time in a process


def on_gpu(device: torch.device) -> bool:
    """Whether work is queued on a stream, and graphs can be captured."""
    return device.type == "cuda"


def open_device(name: str) -> torch.device:
    """The device "cuda", "cuda:N", or "cpu" where Triton's interpreter was chosen.

    Raises TritwiseError where there is no such GPU, for GPUs without the instructions, and for other devices.
    """
    device = torch.device(name)
    if on_gpu(device):
        if not torch.cuda.is_available():
            built = torch.version.cuda
            raise TritwiseError("there is no GPU for backend=\"cuda\"",
                                why=f"PyTorch {torch.__version__} " + (
                                    "was built without CUDA" if built is None else "finds no NVIDIA GPU or no driver"),
                                fix="use backend=\"cpu\", which runs on this machine")
        index = torch.cuda.current_device() if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise TritwiseError(f"there is no GPU {index}", why=f"PyTorch finds {torch.cuda.device_count()}")
        device = torch.device("cuda", index)
        capability = torch.cuda.get_device_capability(device)
        if capability < _OLDEST:
            raise TritwiseError(f"{torch.cuda.get_device_name(device)} is too old for backend=\"cuda\"",
                                why=f"its compute capability is {capability[0]}.{capability[1]}, and "
                                    f"{_OLDEST[0]}.{_OLDEST[1]} is needed",
                                fix="use backend=\"cpu\", which runs on this machine")
    check_device(device)
    return device


def working_on(device: torch.device) -> AbstractContextManager:
    """What is launched inside goes to the default stream of the device, whatever the calling thread has chosen.

    Triton launches on the thread's current device, and steps that follow each other, from whatever threads, are in
    order on one stream only.
    """
    return torch.cuda.stream(torch.cuda.default_stream(device)) if on_gpu(device) else nullcontext()


def staging(*shape: int, device: torch.device) -> Tensor:
    """int32 zeros on the host, from and to where copies of `device` need not be waited for."""
    return torch.zeros(shape, dtype=torch.int32, pin_memory=on_gpu(device))


class Arriving:
    """int32 [n] on its way to the host."""

    def __init__(self, values: Tensor) -> None:
        self._event = None
        self._host = staging(len(values), device=values.device)
        self._host.copy_(values, non_blocking=True)
        if on_gpu(values.device):
            self._event = torch.cuda.Event()
            self._event.record()

    def first(self, count: int) -> NDArray[np.int32]:
        """The first `count` values, when they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host[:count].numpy().copy()


@dataclass(frozen=True)
class Captures:
    """What the graphs of one backend share: memory for what a step allocates, and the stream that owns it.

    A stream of our own: PyTorch's belongs to the device of the process's first capture.
    """

    pool: object
    stream: "torch.cuda.Stream"


def captures(device: torch.device) -> Captures | None:
    """None where there are no graphs."""
    if not on_gpu(device):
        return None
    return Captures(torch.cuda.graph_pool_handle(), torch.cuda.Stream(device))


def captured(step: Callable[[], None], device: torch.device, shared: Captures | None) -> Callable[[], None]:
    """What repeats `step` on the same memory: the replay of a graph, or `step` itself where there are no graphs.

    The step runs once before: a capture allows no kernel to be compiled or loaded.
    """
    if shared is None:
        return step
    prepare(device)
    step()
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on with theirs: only this one must not allocate or wait.
    with _capturing, torch.cuda.graph(graph, pool=shared.pool, stream=shared.stream,
                                      capture_error_mode="thread_local"):
        step()
    return graph.replay


def forget_peak(device: torch.device) -> None:
    """Count the peak of the device's memory anew from what is allocated now."""
    if on_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most that PyTorch had allocated there at once since `forget_peak`; None where it does not count."""
    return torch.cuda.max_memory_allocated(device) if on_gpu(device) else None


def out_of_memory(error: torch.cuda.OutOfMemoryError) -> TritwiseError:
    """The same in words of this library."""
    return TritwiseError("the model and its cache do not fit into the GPU's memory", why=str(error),
                         fix="give less context, cache_tokens or slots, or cache_type=\"int8\"")
