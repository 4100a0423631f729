"""What of torch.cuda the backend uses, on CPU tensors: a late stream, late copies, graphs that are recorded.

Nothing that is queued happens before somebody waits for it, or something else is asked of the device: a result that is
read too early is zeros, page-locked memory that is written too early is what the device gets. A graph holds the
operations and launches of its capture with the tensors that they had there; a replay runs these again, so whatever a
step takes from Python between replays is not seen.
"""

import contextlib
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

from tritwise.engine.cuda import backend, device


class Pinned(torch.Tensor):
    """Page-locked memory: copies from and to it that need not be waited for are queued."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        fake, kwargs = Pinned.fake, kwargs or {}
        if func is torch.Tensor.copy_ and kwargs.get("non_blocking"):
            target, source = (each.as_subclass(torch.Tensor) for each in args)
            assert target.shape == source.shape
            fake.queue.append(lambda: target.copy_(source))
            return args[0]
        with fake.of_the_host():
            return super().__torch_function__(func, types, args, kwargs)


class InOrder(TorchDispatchMode):
    """What is done at once comes behind what is queued; what is done in a capture is recorded."""

    def __init__(self, fake: "FakeCuda") -> None:
        super().__init__()
        self.fake = fake

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        fake, kwargs = self.fake, kwargs or {}
        if fake.capture is None and not fake.host:
            fake.drain()
        out = func(*args, **kwargs)
        if fake.capture is not None:
            fake.capture.steps.append((func, args, kwargs, out))
        return out


class Graph:
    """Operations on the memory that they had when they were captured."""

    def __init__(self) -> None:
        self.steps, self.replays, self.fake = [], 0, Pinned.fake

    def replay(self) -> None:
        assert self.steps, "nothing was captured"
        assert self.fake.current == "default"
        self.replays += 1
        self.fake.queue.append(self._run)

    def _run(self) -> None:
        for func, args, kwargs, out in self.steps:
            again = func(*args, **kwargs)
            if isinstance(out, torch.Tensor) and (
                    again.untyped_storage().data_ptr() != out.untyped_storage().data_ptr()):
                out.copy_(again)


class Event:
    """Waits for all that was queued before it was recorded."""

    def record(self) -> None:
        self.fake, self.until = Pinned.fake, Pinned.fake.done + len(Pinned.fake.queue)

    def synchronize(self) -> None:
        self.fake.drain(self.until)


class FakeCuda:
    """`install` it, then make a backend; `graphs` are those that were captured."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError
    Event, CUDAGraph = Event, Graph

    def __init__(self) -> None:
        self.queue, self.done, self.capture, self.host, self.current = [], 0, None, False, None
        self.graphs, self.run_kernel = [], InterpretedFunction.run

    def install(self, monkeypatch) -> None:
        fake = Pinned.fake = self

        def zeros(shape, *, dtype, pin_memory):
            assert pin_memory
            assert fake.capture is None
            return torch.zeros(shape, dtype=dtype).as_subclass(Pinned)

        def run(kernel, *args, **kwargs):
            assert fake.current is not None, "a launch outside of working_on"
            if fake.capture is not None:
                fake.capture.steps.append((lambda *a, **k: fake.run_kernel(kernel, *a, **k), args, kwargs, None))
                return
            fake.drain()
            fake.run_kernel(kernel, *args, **kwargs)

        monkeypatch.setattr(device, "torch", SimpleNamespace(**{**vars(torch), "cuda": self, "zeros": zeros}))
        monkeypatch.setattr(device, "on_gpu", lambda _: True)
        monkeypatch.setattr(backend, "open_device", torch.device)
        monkeypatch.setattr(InterpretedFunction, "run", run)

    def drain(self, until: int | None = None) -> None:
        """Do what is queued, in order."""
        while self.queue and (until is None or self.done < until):
            step, self.done = self.queue.pop(0), self.done + 1
            host, self.host = self.host, True  # what it does is not behind itself
            step()
            self.host = host

    @contextlib.contextmanager
    def of_the_host(self):
        host, self.host = self.host, True
        yield
        self.host = host

    # What torch.cuda has:

    def default_stream(self, _) -> str:
        return "default"

    def Stream(self, _) -> str:  # noqa: N802
        return "the backend's"

    def graph_pool_handle(self) -> str:
        return "pool"

    def reset_peak_memory_stats(self, _) -> None:
        self.peak = 0

    def max_memory_allocated(self, _) -> int:
        return self.peak

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        with InOrder(self):
            yield
        self.current = before

    @contextlib.contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert (pool, stream, capture_error_mode) == ("pool", "the backend's", "thread_local")
        assert self.capture is None
        assert not graph.steps
        self.drain()
        self.graphs.append(graph)
        self.capture, before, self.current = graph, self.current, stream
        yield
        self.capture, self.current = None, before
