"""Continuous batching: sequences share every forward pass, and each gets what it would get alone.

    step:  retire cancelled -> admit waiting into free slots -> one token of every decoding sequence, the rest of
           the step's budget in equal parts to prompts -> guesses behind decoding sequences where they pay
           -> one forward pass -> hand out logits -> retire finished

Guesses that were not drawn stay in the cache until the sequence's next row, whose smaller position rewinds it.
Nothing is changed in a sequence before its logits are there, so a step that is interrupted can be repeated.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.engine.backend import Backend, Batch, Draw
from tritwise.engine.pages import Pages
from tritwise.engine.sequence import Sequence
from tritwise.engine.speculation import Outlook, StepCosts

# Bound on the logits of a step: 64 MiB of float32.
_LOGITS_PER_STEP = 1 << 24


def _closed_error() -> TritwiseError:
    return TritwiseError("this model is closed", fix="open it again with tritwise.load")


@dataclass
class Part:
    """What one sequence has in a step: its ids [start, stop) and then its draft; answers are wanted from `first` on."""

    slot: int
    sequence: Sequence
    start: int
    stop: int
    first: int
    decodes: bool
    answer: str = "logits"
    draw: Draw | None = None

    @property
    def end(self) -> int:
        return self.stop + len(self.sequence.draft)


class Scheduler:
    """Runs sequences on the slots of a backend.

    Any thread may `submit`, cancel a sequence and `advance`. One thread at a time steps, for all sequences; the others
    wait until their own sequence has moved. There is no thread of its own: when nobody asks, nothing runs.
    """

    def __init__(self, backend: Backend, *, prefill_chunk: int) -> None:
        self._backend = backend
        self._prefill_chunk = prefill_chunk
        self._rows_per_step = max(backend.slots + 1, _LOGITS_PER_STEP // backend.vocab_size)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # in the order of admission
        self._pages = Pages(backend.cache, backend.slots)
        self._turn = 0
        self._stepping = False
        self._closed = False
        self._changed = threading.Condition()
        self.steps = 0
        self._costs = StepCosts()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; slots are given in order of submission. Raises TritwiseError after `close`."""
        with self._changed:
            if self._closed:
                raise _closed_error()
            self._waiting.append(sequence)

    def close(self) -> None:
        """Wait for the step in progress and end every sequence with an error."""
        with self._changed:
            self._closed = True
            while self._stepping:
                self._changed.wait()
            for sequence in (*list(self._running.values()), *self._waiting):
                self._fail(sequence, _closed_error())
            self._waiting.clear()
            self._changed.notify_all()

    def advance(self, sequence: Sequence) -> None:
        """Return after a step of all sequences, own or of another thread, or when `sequence` is finished.

        Raises what stopped this sequence. An error of the backend itself ends every sequence it had.
        """
        with self._changed:
            before = self.steps
            while self._stepping and self.steps == before and not sequence.finished:
                self._changed.wait()
            mine = not self._stepping and self.steps == before and not sequence.finished
            self._stepping = self._stepping or mine
        if mine:
            try:
                self._step()
            finally:
                with self._changed:
                    self._stepping = False
                    self.steps += 1
                    self._changed.notify_all()
        if sequence.error is not None:
            raise sequence.error

    def finish(self, sequence: Sequence) -> None:
        """Advance until `sequence` is finished; when that is interrupted, it is cancelled."""
        try:
            while not sequence.finished:
                self.advance(sequence)
        finally:
            sequence.cancel()
        if sequence.error is not None:
            raise sequence.error

    def _step(self) -> None:
        self._retire_and_admit()
        parts = self._plan()
        if not parts:
            return
        outlook = self._draft(parts)
        parts = self._make_room([part for part in parts if not part.sequence.finished])
        parts = [part for part in parts if self._choose_answer(part)]
        if not parts:
            return
        tokens, slots, positions, draws = [], [], [], []
        asked = {"logits": [], "best": [], "drawn": []}
        for part in parts:
            sequence, count, row = part.sequence, part.end - part.start, len(tokens)
            tokens += sequence.ids[part.start:part.stop] + sequence.draft
            slots += [part.slot] * count
            positions += range(part.start, part.end)
            asked[part.answer] += range(row + part.first - part.start, row + count)
            if part.draw is not None:
                draws += [part.draw] * (part.end - part.first)
        batch = Batch(*(np.array(column, dtype=np.int32) for column in (tokens, slots, positions, *asked.values())),
                      tuple(draws))
        began = time.perf_counter()
        try:
            output = self._backend.forward(batch)
        except Exception as error:
            for part in parts:
                self._fail(part.sequence, error)
            return
        seconds = time.perf_counter() - began
        drafted = sum(len(part.sequence.draft) for part in parts)
        without = self._costs.seconds(len(tokens) - drafted)
        extra = 0.0 if without is None else max(0.0, seconds - without)
        self._costs.record(len(tokens), seconds)
        given = dict.fromkeys(asked, 0)  # rows of each kind that were handed out
        for part in parts:
            sequence, count = part.sequence, part.end - part.first
            begin = given[part.answer]
            given[part.answer] += count
            answer = getattr(output, part.answer)[begin:begin + count]
            try:
                if count:
                    (sequence.take if part.answer == "logits" else sequence.take_tokens)(part.first, answer)
                if part.decodes:
                    sequence.learn(extra * len(sequence.draft) / max(1, drafted), outlook)
                # Of a draft, the cache holds what was drawn; behind the last token drawn nothing is cached yet.
                sequence.fed = len(sequence.ids) - 1 if sequence.draft else part.stop
                self._pages.settle(part.slot, sequence)
                if sequence.done:
                    self._leave(part.slot)
                    sequence.end()
            except Exception as error:  # the fault of this sequence; its batch mates go on
                self._fail(sequence, error)
            except BaseException as interrupt:  # this one is half changed; the others repeat the step
                self._fail(sequence, interrupt)
                raise

    def _choose_answer(self, part: Part) -> bool:
        """What of `Output` serves the sequence with the least work; False where its constraint failed."""
        sequence, count = part.sequence, part.end - part.first
        if sequence.only_best:
            part.answer = "best"
        elif count and sequence.drawn_by is not None and self._backend.draws(sequence.drawn_by):
            try:
                part.draw = sequence.draw(self._backend.vocab_size, count)
            except Exception as error:  # the fault of this sequence; its batch mates go on
                self._fail(sequence, error)
                return False
            part.answer = "logits" if part.draw is None else "drawn"
        return True

    def _draft(self, parts: list[Part]) -> Outlook | None:
        """Ask the decoding sequences for guesses, in turn; each knows what those before it added."""
        decoding = [part for part in parts if part.decodes]
        rows = sum(part.stop - part.start for part in parts)
        outlook = Outlook(self._costs, len(decoding), rows) if decoding else None
        room = self._rows_per_step - sum(part.stop - part.first for part in parts)
        for part in parts:
            part.sequence.draft = []
        for part in decoding:
            try:
                part.sequence.propose(room, outlook)
            except Exception as error:
                self._fail(part.sequence, error)
            room -= len(part.sequence.draft)
        return outlook

    def _make_room(self, parts: list[Part]) -> list[Part]:
        """The parts whose pages are there. When some lack, guesses are dropped first; while some lack, the sequence
        that came last goes back to wait: what it drew stays, and is computed again."""
        if not self._pages.make_room([(part.slot, part.start, part.end) for part in parts]):
            for part in parts:
                part.sequence.draft = []
        while not self._pages.make_room([(part.slot, part.start, part.end) for part in parts]):
            slot, sequence = next(reversed(self._running.items()))
            self._leave(slot)
            sequence.draft = []
            with self._changed:
                self._waiting.appendleft(sequence)
            parts = [part for part in parts if part.slot != slot]
        return parts

    def _leave(self, slot: int) -> None:
        sequence = self._running.pop(slot)
        self._pages.leave(slot, sequence)
        sequence.release()

    def _fail(self, sequence: Sequence, error: BaseException) -> None:
        for slot in [slot for slot, other in self._running.items() if other is sequence]:
            self._pages.forget(slot)
            self._running.pop(slot).release()
        sequence.error, sequence.finished = error, True

    def _retire_and_admit(self) -> None:
        for slot, sequence in list(self._running.items()):
            if sequence.cancelled:
                self._leave(slot)
                sequence.end()
        with self._changed:
            given_up = [sequence for sequence in self._waiting if sequence.cancelled]
            self._waiting = deque(sequence for sequence in self._waiting if not sequence.cancelled)
            for slot in range(self._backend.slots):
                if slot not in self._running and self._waiting:
                    if not self._pages.admit(slot, self._waiting[0], self._running):
                        break
                    self._running[slot] = self._waiting.popleft()
                    self._running[slot].begin()
        for sequence in given_up:
            sequence.end()

    def _plan(self) -> list[Part]:
        """This step's parts without drafts, at least one if any sequence runs."""
        turn = sorted(self._running, key=lambda slot: (slot - self._turn) % self._backend.slots)
        self._turn += 1
        # A sequence that lacks one id decodes: it goes with every step, however long the prompts beside it are.
        decoding = [slot for slot in turn if len(self._running[slot].ids) - self._running[slot].fed == 1]
        prompts = self._pages.leaders([slot for slot in turn if slot not in decoding], self._running)
        budget, rows = self._prefill_chunk, self._rows_per_step
        parts = []
        for slot in decoding:
            sequence = self._running[slot]
            first = sequence.first_row(sequence.fed, sequence.fed + 1)
            parts.append(Part(slot, sequence, sequence.fed, sequence.fed + 1, first, decodes=True))
            rows -= sequence.fed + 1 - first
        # Equal parts; what a short prompt leaves over goes to the longer ones.
        prompts.sort(key=lambda slot: len(self._running[slot].ids) - self._running[slot].fed)
        for index, slot in enumerate(prompts):
            sequence = self._running[slot]
            start = sequence.fed
            stop = min(len(sequence.ids), start + max(1, budget // (len(prompts) - index)))
            first = sequence.first_row(start, stop)
            if stop - first > rows:  # too many logits for one step: fewer ids of this sequence
                stop = first + rows
            if stop > start:
                parts.append(Part(slot, sequence, start, stop, first, decodes=False))
                budget, rows = budget - (stop - start), rows - (stop - first)
        return parts
