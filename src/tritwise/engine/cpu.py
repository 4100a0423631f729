"""The CPU backend: `tritwise._native` behind the backend contract."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine.backend import BackendInfo, Batch, Output, available_cores
from tritwise.engine.native import native
from tritwise.engine.sampling import Sampling
from tritwise.engine.sizes import cache_sizes
from tritwise.formats import FileTensor, GGUFCodes, TernaryTensor

Weight = TernaryTensor | GGUFCodes | NDArray | FileTensor
HEADS = ("int8", "int4", "f16", "stored")
CACHE_TYPES = ("f16", "f32", "int8", "int4")


def kernels() -> list[str]:
    """Names of the kernels that this processor runs, fastest first."""
    return list(native().kernels())


def release_unused_memory() -> None:
    """Give memory that the C library keeps for later back to the system, where it can."""
    native().release_unused_memory()


def unpacked(codes: GGUFCodes, threads: int) -> TernaryTensor:
    """What a GGUF file holds of a ternary weight, unpacked by the core. Raises TritwiseError for impossible values."""
    try:
        packed = native().unpack_gguf(codes.type, codes.data, *codes.shape, codes.head_dim, threads)
    except ValueError:
        codes.refuse()
        raise
    return TernaryTensor(packed, np.array([codes.scale], np.float32), codes.shape)


class _NativeCache:
    """The native model's pages behind `PagedCache`."""

    def __init__(self, model, rows: int, context: int) -> None:
        self.page_tokens, self.rows, self.context = native().page_positions, rows, context
        self.pages_total = model.pages_total
        self.pages_needed, self.pages_held = model.pages_needed, model.pages_held
        self.share, self.reset = model.share, model.reset
        self._model = model

    @property
    def pages_in_use(self) -> int:
        return self._model.pages_in_use


class CpuBackend:
    """A whole forward pass in C++, on `threads` threads, with KV caches for `slots` sequences of `context` tokens.

    The caches share pages; there are enough for `cache_tokens` positions in all, rounded up, for 4 full sequences when
    not given (fewer with fewer slots). A page takes memory when it is first written.

    `tensors` gives every tensor of `config.tensor_shapes()` once, by name: a `TernaryTensor`, `GGUFCodes`, an array of
    float32, float16 or bfloat16, or a `FileTensor`. Arrays are repacked and dropped before the next one is asked for;
    files are read in pieces at the end, and of an embedding in a file only the rows that tokens need, when they need
    them.
    `head_pass` is "two" (the most likely id by one plane of the 8-bit head and exact rescoring) or "one".
    Raises TritwiseError for an unknown kernel or head, and for weights that do not fit the configuration.
    """

    def __init__(self, config: ModelConfig, tensors: Iterable[tuple[str, Weight]], *,
                 threads: int | None = None, kernel: str | None = None, head: str | None = None,
                 head_pass: str = "two", slots: int = 4, context: int | None = None, cache_type: str = "f16",
                 cache_tokens: int | None = None) -> None:
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
        if cache_type not in CACHE_TYPES:
            raise TritwiseError(f"there is no cache type {cache_type!r}",
                                why=f"the choices are {', '.join(CACHE_TYPES)}")
        threads = available_cores() if threads is None else threads
        if threads < 1:
            raise TritwiseError(f"threads is {threads}", why="at least 1 is needed")
        sizes = cache_sizes(config, slots=slots, context=context, cache_tokens=cache_tokens,
                            page_tokens=core.page_positions)
        self.slots, self.context, self.vocab_size = slots, sizes.context, config.vocab_size
        rotary = config.rotary()
        try:
            self._model = core.Model(config.model_dump(), threads=threads, kernel=kernel, head=head,
                                     head_pass=head_pass, slots=sizes.rows, context=sizes.context,
                                     cache_type=cache_type, pages=sizes.pages,
                                     inverse_frequencies=rotary.inverse_frequencies,
                                     rope_factor=rotary.attention_factor)
            files = {}
            for name, tensor in tensors:
                if isinstance(tensor, FileTensor):
                    files[name] = tensor
                else:
                    self._set(name, tensor, threads)
                del tensor
            self._set_files(files)
            self._model.finish()
        except (ValueError, IndexError) as error:
            raise TritwiseError("the weights do not make a model", why=str(error)) from None
        self.cache = _NativeCache(self._model, sizes.rows, sizes.context)
        self.info = BackendInfo(
            backend="cpu", kernel=self._model.kernel, head=self._model.head, threads=self._model.threads,
            weight_bytes=self._model.weight_bytes, weight_bytes_per_token=self._model.weight_bytes_per_token,
            weight_bytes_per_best=self._model.weight_bytes_per_best,
            cache_bytes_per_token=self._model.cache_bytes_per_token)

    @property
    def weight_bytes_skipped(self) -> int:
        """Bytes of weights that decode steps did not read so far, because what they are multiplied with was zero."""
        return self._model.weight_bytes_skipped

    def start_profile(self, on: bool = True) -> None:
        """Begin to count from zero where forward passes spend their time, or stop counting."""
        self._model.start_profile(on)

    @property
    def profile(self) -> dict[str, dict[str, float]]:
        """Of each part of the forward passes since `start_profile`: seconds, calls, bytes of weights read, products.

        Products are of a weight and an activation; the bytes of a weight count once a chunk of 256 tokens.
        """
        return self._model.profile

    def _set(self, name: str, tensor: TernaryTensor | GGUFCodes | NDArray, threads: int) -> None:
        if isinstance(tensor, GGUFCodes):
            tensor = unpacked(tensor, threads)
        if isinstance(tensor, TernaryTensor):
            scales = tensor.scales if tensor.scales.size == 1 else tensor.row_scales()
            self._model.set_ternary(name, tensor.packed, tensor.shape[0], scales)
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

    def draws(self, how: Sampling) -> bool:
        """Never: logits are in memory that the sampler reads at once."""
        return False

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
        self._model = self.cache = None
