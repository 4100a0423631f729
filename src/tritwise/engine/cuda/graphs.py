"""A decode step as one CUDA graph: token ids, slots and positions in, drawn tokens out, and ready for the next step.

The graph ends by putting what was drawn in the place of what went in, one position further. So a replay without new
contents is the step that follows if every sequence goes on, which the backend starts before anybody asks for it.
On a device without graphs (Triton's interpreter, for tests) the same function runs as it is.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritwise.engine.cuda.decoder import Decoder
from tritwise.engine.cuda.device import Captures, captured, staging
from tritwise.engine.sampling import Sampling
from tritwise.kernels.adjustments import Adjustments, adjust_rows, count_drawn
from tritwise.kernels.attention import AttentionPlan, Workspace, chunks_of, workspace
from tritwise.kernels.device_sampling import DrawRoom, RowSettings, draw_room, row_settings, sample_rows
from tritwise.kernels.head import HeadRoom, head_room, logits_of

GREEDY = Sampling()


def settings_of(how: list[Sampling], vocab: int, device: torch.device | str) -> RowSettings:
    """`RowSettings` of the sampling settings of rows."""
    return row_settings([(each.temperature, each.top_k, each.top_p, each.min_p, each.seed) for each in how], vocab,
                        device)


def steps_of(how: list[Sampling], vocab: int) -> dict[str, bool]:
    """What of the sampling these rows need (of `sample_rows`): any draw, any top-k, any top-p."""
    random = [each for each in how if each.temperature > 0]
    return {"draws": bool(random), "top_k": any(0 < each.top_k < vocab for each in random),
            "top_p": any(each.top_p < 1 for each in random)}


@dataclass(frozen=True)
class GraphRoom:
    """What all graphs of a model work in, one at a time, for up to `rows` rows and `chunks` chunks."""

    attention: Workspace
    mixed: Tensor    # [rows, heads, head size]
    head: HeadRoom
    logits: Tensor   # float32 [rows, vocab]
    drawn: Tensor    # int32 [rows]
    draws: DrawRoom


def graph_room(decoder: Decoder, rows: int, context: int) -> GraphRoom:
    """Room for every graph of at most `rows` rows."""
    head, config, device = decoder.weights.head, decoder.config, decoder.tables.device
    width = decoder.cache.layer(0).width
    return GraphRoom(workspace(rows, config.num_attention_heads, chunks_of(context), width, device),
                     decoder.mixed(rows), head_room(head, rows), torch.empty(rows, head.vocab, device=device),
                     torch.empty(rows, dtype=torch.int32, device=device), draw_room(rows, head.vocab, device))


class DecodeGraph:
    """A step of up to `rows` rows over sequences of up to `chunks` chunks, for whatever sequences.

    `steps` says which parts of the sampling are in it (`steps_of`); `adjusted` are the slots' masks, biases and
    penalties where it has them. Rows may belong to any slots, several to one; they go through the decode kernel of
    attention, which gives a row the same bits as prefill does.
    """

    def __init__(self, decoder: Decoder, room: GraphRoom, rows: int, chunks: int, *,
                 steps: dict[str, bool], adjusted: Adjustments | None = None, shared: Captures | None = None) -> None:
        device = decoder.tables.device
        self.rows, self.chunks, self._decoder, self._room = rows, chunks, decoder, room
        self._steps, self._adjusted = steps, adjusted
        vocab = decoder.weights.head.vocab
        self._inputs = torch.zeros(3, rows, dtype=torch.int32, device=device)  # tokens, slots, positions
        self._tokens, slots, self._positions = self._inputs
        slots.fill_(-1)
        self._slots = slots
        self._plan = AttentionPlan(slots, slots, self._positions, torch.empty(0, 2, dtype=torch.int32, device=device),
                                   chunks)
        self._settings = settings_of([GREEDY] * rows, vocab, device)
        self._how: tuple[Sampling, ...] = (GREEDY,) * rows
        self._staged = staging(3, rows, device=device)
        self.logits, self.drawn = room.logits[:rows], room.drawn[:rows]
        self._head = head_room_of(room.head, rows)
        # No row belongs to a slot yet: the step that comes before the capture writes nothing into the cache.
        self._replay = captured(self._step, device, shared)

    def _step(self) -> None:
        decoder, room = self._decoder, self._room
        states = decoder.states(decoder.hidden(self._tokens, self._plan, room.attention,
                                               room.mixed[:self.rows]))
        logits_of(states, decoder.weights.head, self._head, self.logits)
        if self._adjusted is not None:
            adjust_rows(self.logits, self._slots, self._adjusted, self.logits)
        behind = self._positions.to(torch.int64) + 1
        sample_rows(self.logits, self._settings, behind, self._head, draw_room_of(room.draws, self.rows), self.drawn,
                    **self._steps)
        if self._adjusted is not None:
            count_drawn(self.drawn, self._slots, self._adjusted)
        self._tokens.copy_(self.drawn.clamp(min=0))  # -1 ends the sequence on the host; here it has to be an id
        self._positions.add_((self._slots >= 0).to(torch.int32))

    def fill(self, tokens: NDArray[np.int32], slots: NDArray[np.int32], positions: NDArray[np.int32],
             how: tuple[Sampling, ...]) -> None:
        """New contents for the next replay: int32 [n] each and the settings of n rows, n at most `rows`."""
        n = len(tokens)
        staged = self._staged.numpy()
        staged[:, :n] = tokens, slots, positions
        staged[0, n:], staged[1, n:], staged[2, n:] = 0, -1, 0
        self._inputs.copy_(self._staged, non_blocking=True)
        how += (GREEDY,) * (self.rows - n)
        if how != self._how:
            new = settings_of(list(how), self.logits.shape[1], "cpu")
            for name in RowSettings.__dataclass_fields__:
                getattr(self._settings, name).copy_(getattr(new, name))
            self._how = how

    def replay(self) -> None:
        """The step; it is under way when this returns."""
        self._replay()


def head_room_of(room: HeadRoom, rows: int) -> HeadRoom:
    """The part of a room that `rows` rows work in."""
    return HeadRoom(room.planes, room.scales[:rows], room.tops[:rows], room.ids[:rows], room.bad[:rows],
                    room.largest[:rows])


def draw_room_of(room: DrawRoom, rows: int) -> DrawRoom:
    """The part of a room that `rows` rows work in."""
    return DrawRoom(room.weights[:rows], room.sums[:rows], room.cuts[:rows], room.bins[:rows])
