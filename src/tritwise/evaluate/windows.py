"""The one loop over scoring windows: what is measured of each is the caller's business.

    for result in over_windows(score, documents, context=512, stride=None, title="scoring", note=...):
        ...
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from tritwise.common.errors import TritwiseError
from tritwise.common.progress import progress
from tritwise.data.windows import scoring_windows

Result = TypeVar("Result")


class Fed(NamedTuple):
    """Ids that go through a model together; those from index `first` on (at least 1) are scored."""

    ids: list[int]
    first: int


def over_windows(score: Callable[[Iterable[Fed]], Iterator[Result]], documents: Iterable[list[int]], *, context: int,
                 stride: int | None, title: str, note: Callable[[int], str]) -> Iterator[Result]:
    """What `score` yields for each window of each document, in order; it may read windows ahead.

    `context` and `stride` (half the context when not given) as for `tritwise.data.windows.scoring_windows`. Shows
    progress in scored tokens; `note(done)` is the text beside it, asked for after the caller has used a result.
    Raises TritwiseError when there is nothing to score.
    """
    stride = max(1, context // 2) if stride is None else stride
    windows = [Fed(ids[window.start:window.stop], window.first_scored - window.start)
               for ids in documents for window in scoring_windows(len(ids), context, stride)]
    if not windows:
        raise TritwiseError("there is nothing to score", why="no document has two tokens or more")
    done = 0
    with progress(title, sum(len(fed.ids) - fed.first for fed in windows)) as bar:
        for fed, result in zip(windows, score(iter(windows)), strict=True):
            yield result
            done += len(fed.ids) - fed.first
            bar.update(done, note(done))


def not_numbers() -> TritwiseError:
    """The error for log-probabilities that are NaN or infinite."""
    return TritwiseError("the model's logits are not numbers", why="a log-probability is NaN or infinite",
                         fix="check the weights with: tritwise inspect MODEL")
