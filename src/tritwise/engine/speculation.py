"""Speculation: guess the next tokens cheaply, check all guesses in one step, keep what plain decoding would have drawn.

The guesses go through the model as further rows of their sequence. The token of each row is drawn as without them,
from its own logits, seed and position; a row counts while the guess before it was the token that was drawn. So the
output is that of plain decoding by construction, greedy or seeded, whatever a drafter proposes. (Leviathan et al. 2023,
algorithm 1, keeps the distribution by rejection; here the very tokens are kept.)

Whether to guess is a matter of time alone, and is decided step by step:

    rate(k) = (tokens of the step + expected accepted of k guesses) / (seconds of a step with k more rows + drafting)

Seconds by rows are measured as the model runs (`StepCosts`); acceptance is counted for each kind of evidence that a
drafter reports (`Acceptance`), also for guesses that were not sent: what comes next tells whether they were right. What
speculation has cost beyond what it won is kept below a share of the sequence's time (`ALLOWED_LOSS`).
"""

import time
from abc import ABC, abstractmethod
from bisect import bisect, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tritwise.engine.sampling import Sampling

MAX_DRAFT = 24          # guesses in one step
ALLOWED_LOSS = 0.015    # of a sequence's time
_GAIN_WANTED = 1.03     # estimates are noisy: a smaller expected gain is none
_FRESH_STEPS = 256      # an older measurement is interpolated again, and so tried again


class Drafter(ABC):
    """Guesses for one sequence. Wrong ones cost time, never correctness."""

    seconds_per_token = 0.0     # of proposing, where that is worth counting
    seconds_to_begin = 0.0      # before the first proposal

    @abstractmethod
    def propose(self, ids: list[int], limit: int) -> list[int]:
        """At most `limit` ids that may follow `ids`, which only grow from call to call."""

    def evidence(self, count: int) -> Sequence[int]:
        """Kinds of the next `count` guesses, whole numbers from 0 to 32: acceptance is learnt for each kind apart."""
        return [1] * count

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """The sequence has ended."""


# Kinds of evidence that are counted together: the lengths of a match 0, 1, 2, 3, 4, 5-7, 8-11, 12-19, 20 and more.
_CLASS = [0, 1, 2, 3, 4, 5, 5, 5, *[6] * 4, *[7] * 8, *[8] * 13]
# Beliefs before anything is counted; of the weight of two guesses.
_PRIOR = (0.0, 0.6, 0.2, 0.25, 0.35, 0.55, 0.75, 0.85, 0.93)


class Acceptance:
    """How often guesses were right, for each kind of evidence; older ones count less."""

    def __init__(self, belief: "Acceptance | None" = None) -> None:
        self._belief = belief
        self._hits, self._tries = [0.0] * len(_PRIOR), [0.0] * len(_PRIOR)

    def add(self, evidence: int, right: bool) -> None:
        """Count one guess, here and in the belief."""
        kind = _CLASS[min(evidence, 32)]
        self._hits[kind] = 0.97 * self._hits[kind] + right
        self._tries[kind] = 0.97 * self._tries[kind] + 1
        if self._belief is not None:
            self._belief.add(evidence, right)

    def rate(self, evidence: int) -> float:
        """The share that was right, with what all sequences together have seen as the belief before."""
        kind = _CLASS[min(evidence, 32)]
        belief, weight = (_PRIOR[kind], 2.0) if self._belief is None else (self._belief.rate(evidence), 4.0)
        return (self._hits[kind] + weight * belief) / (self._tries[kind] + weight)


class StepCosts:
    """Seconds of a step by its rows: medians of the last five, between measured counts a straight line.

    `reach` is twice the count that was measured by doublings: more rows are not tried at once, as the line may err.
    """

    def __init__(self) -> None:
        self._recent: dict[int, deque[float]] = {}
        self._seen: dict[int, int] = {}
        self._steps = 0
        self._known: dict[int, float] = {}
        self._counts: list[int] = []    # rising
        self.reach = 0

    def record(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows took `seconds`."""
        self._steps += 1
        if rows not in self._known:
            insort(self._counts, rows)
            self._reach()
        recent = self._recent.setdefault(rows, deque(maxlen=5))
        recent.append(seconds)
        self._seen[rows] = self._steps
        self._known[rows] = median(recent)
        if self._steps % 64 == 0:
            for old in [count for count, seen in self._seen.items() if self._steps - seen > _FRESH_STEPS]:
                del self._recent[old], self._seen[old], self._known[old]
                self._counts.remove(old)
            self._reach()

    def _reach(self) -> None:
        self.reach = 2 * self._counts[0] if self._counts else 0
        for count in self._counts:
            if count > self.reach:
                break
            self.reach = 2 * count

    def seconds(self, rows: int) -> float | None:
        """Of a step of `rows` rows; None when nothing comparable has run."""
        known = self._known.get(rows)
        if known is not None:
            return known
        place = bisect(self._counts, rows)
        if place == 0:
            return None
        below = self._counts[place - 1]
        low = self._known[below]
        if place == len(self._counts):  # a guess that the first try corrects
            return low * (1 + 0.1 * (rows - below) / below)
        above = self._counts[place]
        return low + (max(self._known[above], low) - low) * (rows - below) / (above - below)


@dataclass
class Outlook:
    """One step as planned so far, for deciding on more rows: `decoding` sequences, `rows` rows, `tokens` expected."""

    costs: StepCosts
    decoding: int
    rows: int
    tokens: float = field(init=False)
    plain: float | None = field(init=False)   # seconds of a step that only decodes
    _extra: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.tokens = float(self.decoding)
        self.plain = self.costs.seconds(self.decoding)

    @property
    def seconds_per_token(self) -> float:
        """What a token costs without speculation."""
        return 0.0 if self.plain is None else self.plain / self.decoding

    def more(self, count: int) -> float:
        """Seconds that `count` more rows cost."""
        before, after = self.costs.seconds(self.rows), self.costs.seconds(self.rows + count)
        return 0.0 if before is None or after is None else max(0.0, after - before)

    def best(self, rates: Sequence[float], drafting: float, allowed: float) -> tuple[int, float]:
        """How many guesses of these acceptance rates make the step's rate largest, and the accepted ones expected.

        `drafting`: seconds for each guess; `allowed`: seconds that may be lost. 0 where the gain is too small to trust,
        or where costs are not known yet.
        """
        if self.plain is None or self.costs.seconds(self.rows) is None:
            return 0, 0.0
        base = self.plain + self._extra
        best, count, gained = _GAIN_WANTED * self.tokens / base, 0, 0.0
        probability, expected = 1.0, 0.0
        for index, rate in enumerate(rates):
            probability *= rate
            expected += probability
            more = self.more(index + 1) + drafting * (index + 1)
            if probability < 0.02 or more > allowed or self.rows + index + 1 > self.costs.reach:
                break
            value = (self.tokens + expected) / (base + more)
            if value > best:
                best, count, gained = value, index + 1, expected
        return count, gained

    def take(self, count: int, gained: float) -> None:
        """The step gets `count` more rows."""
        self._extra += self.more(count)
        self.rows += count
        self.tokens += gained


class Speculator:
    """Decides for one sequence how many guesses of its drafter go with a step, and learns from what came."""

    def __init__(self, drafter: Drafter, acceptance: Acceptance, *, adaptive: bool = True) -> None:
        self._drafter, self._adaptive = drafter, adaptive
        self._acceptance = Acceptance(acceptance)
        self._guesses: list[int] = []
        self._kinds: Sequence[int] = ()
        self._time, self._loss = 0.0, 0.0
        self._drafting = 0.0
        self._begun = False
        self.proposed = self.accepted = 0

    def plan(self, ids: list[int], limit: int, outlook: Outlook) -> list[int]:
        """The guesses that go with this step, at most `limit`."""
        self._guesses, self._kinds, self._drafting = [], (), 0.0
        limit = min(limit, MAX_DRAFT)
        if limit < 1:
            return []
        if not self._adaptive:
            return self._propose(ids, limit)
        drafter, token = self._drafter, outlook.seconds_per_token
        costs = drafter.seconds_per_token
        # This step may go wrong altogether, and the loss still has to be within the share (and half a token).
        allowed = ALLOWED_LOSS * self._time - self._loss
        if costs == 0:
            self._propose(ids, limit)
            count, gained = outlook.best(self._rates(self._kinds), 0.0, allowed + token / 2)
        else:
            count, gained = outlook.best(self._rates(drafter.evidence(limit)), costs, allowed + token / 2)
            trial = costs + outlook.more(1) + (0.0 if self._begun else drafter.seconds_to_begin)
            if count == 0 and token > 0 and trial <= allowed:
                count = 1  # what it would be worth now is seen only by trying
            count = len(self._propose(ids, count)) if count else 0
        if count:
            outlook.take(count, gained)
        return self._guesses[:count]

    def _rates(self, kinds: Sequence[int]) -> list[float]:
        return [self._acceptance.rate(kind) for kind in kinds]

    def _propose(self, ids: list[int], limit: int) -> list[int]:
        began = time.perf_counter()
        self._guesses = self._drafter.propose(ids, limit)[:limit]
        self._kinds = self._drafter.evidence(len(self._guesses))
        if self._begun and self._drafter.seconds_per_token > 0:
            self._drafting = time.perf_counter() - began
        self._begun = True  # what the beginning costs is weighed before it, and not charged to the steps
        return self._guesses

    def learn(self, sent: int, came: Sequence[int], seconds: float, outlook: Outlook) -> None:
        """`sent` guesses went along and `came` is what was drawn; they took `seconds` more than a step without them."""
        right = 0
        for guess, kind, token in zip(self._guesses, self._kinds, came, strict=False):
            self._acceptance.add(kind, guess == token)
            if guess != token:
                break
            right += 1
        self.proposed += sent
        self.accepted += (accepted := min(right, sent))
        token = outlook.seconds_per_token
        self._time += len(came) * token
        # What was won before pays for at most a few steps: a text may change.
        self._loss = max(self._loss + self._drafting + (seconds if sent else 0.0) - accepted * token, -8 * token)

    def close(self) -> None:
        """The sequence has ended."""
        self._drafter.close()


class Speculation(ABC):
    """A way to guess, for all sequences of a model. `adaptive=False` sends every guess, whatever it costs."""

    def __init__(self, *, adaptive: bool = True) -> None:
        self._adaptive = adaptive
        self._acceptance = Acceptance()

    @abstractmethod
    def drafter(self, how: Sampling) -> Drafter | None:
        """One for a new sequence that is drawn by `how`; None when there is no place for one."""

    def open(self, how: Sampling) -> Speculator | None:
        """A speculator for a new sequence."""
        drafter = self.drafter(how)
        return None if drafter is None else Speculator(drafter, self._acceptance, adaptive=self._adaptive)

    def finished(self, generated: list[int]) -> None:  # noqa: B027 (not every way learns from texts)
        """A sequence has ended, and this is what it generated."""

    def close(self) -> None:  # noqa: B027
        """Give back what it holds."""
