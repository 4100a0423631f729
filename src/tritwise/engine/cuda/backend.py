"""The CUDA backend: pages and slots, graphs for decode steps, launches one by one for prompts.

A step that only decodes is a replay of a captured graph (graphs.py). While the host reads what it gave, and decides
what comes next, the device computes the step that follows if all sequences go on: when that is what the next call asks
for, its result is there or under way. What was computed in vain is written behind the end of a sequence, where nothing
looks and what comes next is written.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine.backend import BackendInfo, Batch, Draw, Output, available_cores
from tritwise.engine.cpu import Weight
from tritwise.engine.cuda.adjusting import Adjusting
from tritwise.engine.cuda.decoder import Decoder
from tritwise.engine.cuda.device import (
    Arriving,
    captures,
    forget_peak,
    open_device,
    out_of_memory,
    peak_bytes,
    working_on,
)
from tritwise.engine.cuda.graphs import GREEDY, DecodeGraph, graph_room, settings_of, steps_of
from tritwise.engine.cuda.weights import ModelWeights, load_weights
from tritwise.engine.page_tables import PageTables
from tritwise.engine.sampling import Sampling
from tritwise.engine.sizes import cache_sizes
from tritwise.kernels.adjustments import adjust_rows, count_drawn
from tritwise.kernels.attention import chunks_of, plan_attention, workspace
from tritwise.kernels.cache import CACHE_TYPES, KVCache
from tritwise.kernels.device_sampling import draw_room, sample_rows
from tritwise.kernels.head import HEAD_KINDS, head_room, logits_of

PAGE_TOKENS = 64
_LIKELIEST = Draw(GREEDY)
MOST_GRAPH_ROWS = 1024


@dataclass(frozen=True)
class _Ahead:
    """A step that was started before it was asked for: its rows by slot, and where its tokens will be."""

    graph: DecodeGraph
    slots: list[int]
    tokens: list[int]      # that it was computed from
    positions: list[int]
    draws: list[Draw]
    result: Arriving

    def is_for(self, slots: list[int], tokens: list[int], positions: list[int], draws: list[Draw]) -> bool:
        """Whether this is the step that is asked for now."""
        return (self.slots, self.tokens, self.positions) == (slots, tokens, positions) and all(
            mine.how == theirs.how and mine.history is theirs.history and theirs.mask is None
            for mine, theirs in zip(self.draws, draws, strict=True))


def graph_rows(rows: int) -> int:
    """Rows of the graph that serves `rows`: a power of two up to 16, then in steps of 16 up to 128, and of 64."""
    if rows <= 16:
        return 1 << (rows - 1).bit_length()
    step = 16 if rows <= 128 else 64
    return -(-rows // step) * step


class CudaBackend:
    """A whole forward pass in Triton's kernels, with KV caches for `slots` sequences of `context` tokens.

    `config`, `tensors`, `slots`, `context`, `cache_type` and `cache_tokens` as of `CpuBackend`; the memory of the cache
    is taken at once. `tensors` may be what `load_weights` makes of them, on the device. `head`: "int8" when not given
    for quantised models, "stored" for dense ones, or "f16".
    `device` may be "cpu" where Triton's interpreter was chosen, for tests. `run_ahead` starts decode steps before they
    are asked for. `page_tokens`: positions of a page of the cache.
    A row of a ternary or binary model gives the same bits in any batch. The products of a dense one are cuBLAS's, whose
    sums may be taken in another order when other rows stand beside.
    Raises TritwiseError where there is no GPU, for models with experts, and for weights that do not fit.
    """

    def __init__(self, config: ModelConfig, tensors: Iterable[tuple[str, Weight]] | ModelWeights, *,
                 threads: int | None = None, kernel: str | None = None, head: str | None = None, slots: int = 4,
                 context: int | None = None, cache_type: str = "f16", cache_tokens: int | None = None,
                 device: str = "cuda", run_ahead: bool = True, page_tokens: int = PAGE_TOKENS) -> None:
        if kernel is not None:
            raise TritwiseError(f"there is no kernel {kernel!r} on a GPU", why="kernels are chosen on the CPU only",
                                fix="leave it out, or use backend=\"cpu\"")
        if config.num_experts is not None:
            raise TritwiseError("backend=\"cuda\" does not run models with experts", fix="use backend=\"cpu\"")
        head = ("stored" if config.linear_type == "dense" else "int8") if head is None else head
        for what, value, choices in (("head", head, HEAD_KINDS), ("cache type", cache_type, CACHE_TYPES)):
            if value not in choices:
                raise TritwiseError(f"there is no {what} {value!r} on a GPU",
                                    why=f"the choices are {', '.join(choices)}", fix="or use backend=\"cpu\"")
        place = open_device(device)
        forget_peak(place)
        sizes = cache_sizes(config, slots=slots, context=context, cache_tokens=cache_tokens, page_tokens=page_tokens)
        self.slots, self.context, self.vocab_size = slots, sizes.context, config.vocab_size
        self.cache = PageTables(rows=sizes.rows, context=sizes.context, pages=sizes.pages, page_tokens=page_tokens)
        try:
            with working_on(place):
                weights = tensors if isinstance(tensors, ModelWeights) else load_weights(
                    config, tensors, head=head, device=place,
                    threads=available_cores() if threads is None else threads)
                cache = KVCache(cache_type, layers=config.num_hidden_layers, pages=sizes.pages,
                                kv_heads=config.num_key_value_heads, head_dim=config.head_dim, page_tokens=page_tokens,
                                device=place)
                tables = torch.zeros(self.cache.table.shape, dtype=torch.int32, device=place)
                self._decoder = Decoder(config, weights, cache, tables, sizes.context)
        except torch.cuda.OutOfMemoryError as error:
            raise out_of_memory(error) from None
        self._group = config.num_attention_heads // config.num_key_value_heads
        self._most_rows = min(MOST_GRAPH_ROWS, graph_rows(max(16, slots)))
        self._adjusting = Adjusting(slots, config.vocab_size, place)
        self._room = None
        self._graphs: dict[tuple, DecodeGraph] = {}
        self._captures = captures(place)
        self._run_ahead, self._ahead, self._last_slots = run_ahead, None, None
        token_bytes = weights.linear_bytes + weights.head.bytes + config.hidden_size * weights.embedding.itemsize
        self.info = BackendInfo(
            backend="cuda", kernel="triton" if place.type == "cuda" else "triton's interpreter",
            head=weights.head.kind, threads=0, weight_bytes=weights.bytes, weight_bytes_per_token=token_bytes,
            weight_bytes_per_best=token_bytes, cache_bytes_per_token=cache.bytes_per_token)

    @property
    def weights(self) -> ModelWeights:
        """The weights on the device."""
        return self._decoder.weights

    @property
    def peak_bytes(self) -> int | None:
        """The most of the GPU's memory that was allocated at once since this backend was begun, by all of PyTorch."""
        return peak_bytes(self._decoder.tables.device)

    @property
    def keys_and_values(self) -> KVCache:
        """The cache's pages; `cache` says which sequence holds which."""
        return self._decoder.cache

    def draws(self, how: Sampling) -> bool:
        """Whether these settings can be followed on the device: all but several biases of one token."""
        ids = [id_ for id_, _ in how.logit_bias]
        return len(set(ids)) == len(ids)  # the core adds them up one by one

    def forward(self, batch: Batch) -> Output:
        """Logits, most likely ids and drawn tokens as `batch` asks. Raises OutOfPages, and nothing has changed then."""
        if self._decoder is None:
            raise TritwiseError("this backend is closed")
        ahead, self._ahead = self._ahead, None
        try:
            with torch.no_grad(), working_on(self._decoder.tables.device):
                self._make_writable(batch)
                output = self._step(batch, ahead)
        except BaseException as error:  # an interrupt too: what the device has counted by now is not known
            self._last_slots = None
            self._adjusting.forget(range(self.slots))
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise out_of_memory(error) from None
            raise
        for slot, position in zip(batch.slots.tolist(), batch.positions.tolist(), strict=True):
            self.cache.set_length(slot, position + 1)
        return output

    def close(self) -> None:
        """Give the weights and the cache back."""
        self._decoder = self._room = self._ahead = self._captures = self._adjusting = None
        self._graphs = {}
        self.cache = None

    def _make_writable(self, batch: Batch) -> None:
        """Pages for the batch's rows, and the device's tables as the host's."""
        extents: dict[int, tuple[int, int, int]] = {}
        for slot, position in zip(batch.slots.tolist(), batch.positions.tolist(), strict=True):
            first = extents[slot][1] if slot in extents else position
            extents[slot] = (slot, first, position + 1)
        self._decoder.cache.copy_pages(self.cache.reserve(list(extents.values())))
        if self.cache.changed:
            rows = sorted(self.cache.changed)
            new = torch.from_numpy(self.cache.table[rows])
            tables = self._decoder.tables
            tables[torch.tensor(rows, device=tables.device)] = new.to(tables.device)
            self.cache.changed.clear()

    def _step(self, batch: Batch, ahead: _Ahead | None) -> Output:
        n, asked = len(batch.tokens), len(batch.logits_for) + len(batch.best_for) + len(batch.draw_for)
        if n == asked and n <= self._most_rows:
            return self._decode(batch, ahead)
        self._last_slots = None
        if ahead is not None:
            self._adjusting.forget(ahead.slots)
        device, decoder = self._decoder.tables.device, self._decoder
        plan = plan_attention(batch.slots, batch.positions, group=self._group, device=device)
        room = None
        if plan.chunks > 1:
            room = workspace(n, decoder.config.num_attention_heads, plan.chunks, decoder.cache.layer(0).width, device)
        x = decoder.hidden(torch.from_numpy(batch.tokens).to(device), plan, room, decoder.mixed(n))
        wanted = np.concatenate([batch.logits_for, batch.best_for, batch.draw_for])
        if not len(wanted):
            return Output(np.empty((0, self.vocab_size), np.float32), np.empty(0, np.int32))
        states = decoder.states(x.index_select(0, torch.from_numpy(wanted).to(device)))
        logits = torch.empty(len(wanted), self.vocab_size, device=device)
        logits_of(states, decoder.weights.head, head_room(decoder.weights.head, len(wanted)), logits)
        count = len(batch.logits_for)
        tokens = np.empty(0, np.int32)
        if len(wanted) > count:
            draws = [_LIKELIEST] * len(batch.best_for) + list(batch.draws)
            how = [draw.how for draw in draws]
            slots = batch.slots[wanted[count:]]
            adjusted = self._adjusting.prepare(slots.tolist(), draws)
            if adjusted:
                on_device_slots = torch.from_numpy(slots).to(device)
                adjust_rows(logits[count:], on_device_slots, self._adjusting.tensors, logits[count:])
            behind = torch.from_numpy(batch.positions[wanted[count:]].astype(np.int64) + 1).to(device)
            drawn = torch.empty(len(how), dtype=torch.int32, device=device)
            head = decoder.weights.head
            sample_rows(logits[count:], settings_of(how, self.vocab_size, device), behind, head_room(head, len(how)),
                        draw_room(len(how), self.vocab_size, device), drawn, **steps_of(how, self.vocab_size))
            if adjusted:
                count_drawn(drawn, on_device_slots, self._adjusting.tensors)
                self._adjusting.drew(slots.tolist())
            tokens = drawn.cpu().numpy()
        return Output(logits[:count].cpu().numpy(), *np.split(tokens, [len(batch.best_for)]))

    def _decode(self, batch: Batch, ahead: _Ahead | None) -> Output:
        """A step of which every row has an answer: a graph, with the rows in the order of their slots."""
        n = len(batch.tokens)
        order = np.lexsort((batch.positions, batch.slots))
        slots, positions, tokens = (each[order].tolist() for each in (batch.slots, batch.positions, batch.tokens))
        draws = [_LIKELIEST] * n
        for row, draw in zip(batch.draw_for.tolist(), batch.draws, strict=True):
            draws[row] = draw
        draws = [draws[row] for row in order]
        carried = not len(batch.logits_for)
        if ahead is not None and carried and ahead.is_for(slots, tokens, positions, draws):
            graph, result = ahead.graph, ahead.result
        else:
            if ahead is not None:
                self._adjusting.forget(ahead.slots)
            adjusted = self._adjusting.prepare(slots, draws)
            graph = self._graph(n, max(positions) + 1, [draw.how for draw in draws], adjusted)
            graph.fill(*(np.array(each, np.int32) for each in (tokens, slots, positions)),
                       tuple(draw.how for draw in draws))
            graph.replay()
            result = Arriving(graph.drawn)
        self._adjusting.drew(slots)
        follow = None
        # A mask is of one step.
        free = carried and slots == self._last_slots and all(draw.mask is None for draw in draws)
        if self._run_ahead and free and self._can_follow(graph, slots, positions):
            graph.replay()
            follow = Arriving(graph.drawn)
        self._last_slots = slots
        drawn = result.first(n)
        if follow is not None:
            self._ahead = _Ahead(graph, slots, drawn.tolist(), [position + 1 for position in positions], draws,
                                 follow)
        place = np.empty(n, np.int64)  # of each row of the batch among the graph's
        place[order] = np.arange(n)
        logits = np.empty((0, self.vocab_size), np.float32)
        if not carried:
            rows = torch.from_numpy(place[batch.logits_for]).to(graph.logits.device)
            logits = graph.logits.index_select(0, rows).cpu().numpy()
        return Output(logits, drawn[place[batch.best_for]], drawn[place[batch.draw_for]])

    def _can_follow(self, graph: DecodeGraph, slots: list[int], positions: list[int]) -> bool:
        """Whether every sequence has one row, and the page of its next position, to itself."""
        if len(set(slots)) < len(slots) or max(positions) + 2 > self.context:
            return False
        if chunks_of(max(positions) + 2) > graph.chunks:
            return False
        return all(self.cache.is_own(slot, position + 1) for slot, position in zip(slots, positions, strict=True))

    def _graph(self, rows: int, length: int, how: list[Sampling], adjusted: bool) -> DecodeGraph:
        """The smallest graph for so many rows of sequences up to `length`, captured when it is first needed."""
        steps = steps_of(how, self.vocab_size)
        rows = graph_rows(rows)
        chunks = min(1 << (chunks_of(length) - 1).bit_length(), chunks_of(self.context))
        key = rows, chunks, adjusted, *steps.values()
        if key not in self._graphs:
            if self._room is None:
                self._room = graph_room(self._decoder, self._most_rows, self.context)
            self._graphs[key] = DecodeGraph(self._decoder, self._room, rows, chunks, steps=steps,
                                            adjusted=self._adjusting.tensors if adjusted else None,
                                            shared=self._captures)
        return self._graphs[key]
