"""The CPU backend: `tritwise._native` behind the backend contract."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine.backend import BackendInfo, Batch, Output, available_cores
from tritwise.engine.native import native
from tritwise.formats import FileTensor, TernaryTensor

HEADS = ("int8", "int4", "f16", "stored")


def kernels() -> list[str]:
    """Names of the kernels that this processor runs, fastest first."""
    return list(native().kernels())


def release_unused_memory() -> None:
    """Give memory that the C library keeps for later back to the system, where it can."""
    native().release_unused_memory()


class CpuBackend:
    """A whole forward pass in C++, on `threads` threads, with KV caches for `slots` sequences of `context` tokens.

    `tensors` gives every tensor of `config.tensor_shapes()` once, by name: a `TernaryTensor`, an array of float32,
    float16 or bfloat16, or a `FileTensor`. Arrays are repacked and dropped before the next one is asked for; files are
    read in pieces at the end, and of an embedding in a file only the rows that tokens need, when they need them.
    `head_pass` is "two" (the most likely id by one plane of the 8-bit head and exact rescoring) or "one".
    Raises TritwiseError for an unknown kernel or head, and for weights that do not fit the configuration.
    """

    def __init__(self, config: ModelConfig, tensors: Iterable[tuple[str, TernaryTensor | NDArray | FileTensor]], *,
                 threads: int | None = None, kernel: str | None = None, head: str | None = None,
                 head_pass: str = "two", slots: int = 4, context: int | None = None) -> None:
        core = native()
        available = core.kernels()
        kernel = available[0] if kernel is None else kernel
        if kernel not in available:
            raise TritwiseError(f"there is no kernel {kernel!r} on this processor",
                                why=f"it runs {', '.join(available)}")
        # Ternary weights make the head the largest part of a token's bytes; a dense model is taken as it is.
        head = ("stored" if config.linear_type == "dense" else "int8") if head is None else head
        if head not in HEADS:
            raise TritwiseError(f"there is no head {head!r}", why=f"the choices are {', '.join(HEADS)}")
        self.context = config.max_position_embeddings if context is None else context
        self.slots = slots
        self.vocab_size = config.vocab_size
        threads = available_cores() if threads is None else threads
        for name, value in (("threads", threads), ("slots", slots), ("context", self.context)):
            if value < 1:
                raise TritwiseError(f"{name} is {value}", why="at least 1 is needed")
        if self.context > config.longest_context:
            raise TritwiseError(f"the context cannot be {self.context} tokens long",
                                why=f"the model knows {config.longest_context} positions",
                                fix="stretch them: rope_scaling={'rope_type': 'yarn'}, or --rope-scaling yarn")
        rotary = config.rotary()
        try:
            self._model = core.Model(config.model_dump(), threads=threads, kernel=kernel, head=head,
                                     head_pass=head_pass, slots=slots, context=self.context,
                                     inverse_frequencies=rotary.inverse_frequencies,
                                     rope_factor=rotary.attention_factor)
            files = {}
            for name, tensor in tensors:
                if isinstance(tensor, FileTensor):
                    files[name] = tensor
                else:
                    self._set(name, tensor)
                del tensor
            self._set_files(files)
            self._model.finish()
        except (ValueError, IndexError) as error:
            raise TritwiseError("the weights do not make a model", why=str(error)) from None
        self.info = BackendInfo(
            backend="cpu", kernel=self._model.kernel, head=self._model.head, threads=self._model.threads,
            weight_bytes=self._model.weight_bytes, weight_bytes_per_token=self._model.weight_bytes_per_token,
            weight_bytes_per_best=self._model.weight_bytes_per_best,
            cache_bytes_per_token=self._model.cache_bytes_per_token)

    def _set(self, name: str, tensor: TernaryTensor | NDArray) -> None:
        if isinstance(tensor, TernaryTensor):
            self._model.set_ternary(name, tensor.packed, tensor.shape[0], tensor.scale)
        elif tensor.dtype == np.float32:
            self._model.set_dense(name, np.ascontiguousarray(tensor))
        else:
            bits = np.ascontiguousarray(tensor).view(np.uint16)
            self._model.set_dense(name, bits, dtype=tensor.dtype.name)

    def _set_files(self, files: dict[str, FileTensor]) -> None:
        """All in one call: Python's lock is free meanwhile, for a tokenizer that is parsed on another thread."""
        try:
            self._model.set_files([(name, tensor.descriptor, tensor.offset, tensor.dtype, tensor.shape, tensor.scale,
                                    tensor.binary) for name, tensor in files.items()])
        except ValueError as error:
            refused = files.get(str(error).split(":")[0])
            if refused is not None:
                refused.refuse()
            raise

    def forward(self, batch: Batch) -> Output:
        """Logits and most likely ids as `batch` asks; other threads run Python meanwhile.

        Raises TritwiseError when the file that holds the embedding has become shorter.
        """
        try:
            return Output(*self._model.forward(batch.tokens, batch.slots, batch.positions, batch.logits_for,
                                               batch.best_for))
        except RuntimeError as error:
            raise TritwiseError("the model's file cannot be read any more", why=str(error),
                                fix="put the whole file back and open the model again") from None

    def close(self) -> None:
        """Give the weights and caches back."""
        self._model = None
