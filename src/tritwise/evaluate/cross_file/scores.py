"""How well a model completes lines that use names of other files, with those files in its window and without.

A window holds, from the left: other files, each closed by the id that ends a text in training, the last tokens of the
file before the cursor, and room for the answer. The share for other files stays free where there are none, so that all
arms see the same part of the file itself and differ in nothing but the other files. Each part is cut on its left.

The arms:
    alone         no other file
    dependencies  the files that this one imports and the one that defines the name, dependencies first
    definition    of the file that defines the name, what stands from the definition on, cut on the right: where to
                  look is given, so this is the most that a retriever could do
    others        as many files of the same repository that this one does not depend on
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.progress import progress
from tritwise.config.cross_file import CrossFileWindow
from tritwise.engine import Model
from tritwise.engine.text import TextCodec
from tritwise.evaluate.cross_file.line_match import match
from tritwise.evaluate.cross_file.tasks import CrossFileTask
from tritwise.evaluate.windows import Fed

ARMS = ("alone", "dependencies", "definition", "others")
_STREAMS_AT_ONCE = 32
_BITS = 1.4426950408889634  # in a nat
_LEAST_PREFIX = 16


@dataclass(frozen=True)
class LineScore:
    """One task in one arm.

    `bits` of the reference and `name_bits` of the cross-file name at its beginning, given the window; a token that
    begins one sign before the cursor (`.name`) counts whole. What was generated greedily, to the end of its line, and
    how near it is to the reference (`line_match`); None when nothing was generated.
    """

    bits: float
    name_bits: float
    generated: str | None = None
    exact: bool | None = None
    edit_similarity: float | None = None
    identifiers_exact: bool | None = None
    identifier_f1: float | None = None


@dataclass(frozen=True)
class CrossFileScore:
    """Scores of each arm in the order of the tasks, whose ids and sizes in UTF-8 bytes stand beside."""

    tasks: tuple[str, ...]
    repositories: tuple[str, ...]
    bytes: tuple[int, ...]
    name_bytes: tuple[int, ...]
    arms: dict[str, tuple[LineScore, ...]]

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Of each arm bits per byte of reference and name, and means of what was generated."""
        result = {}
        for arm, scores in self.arms.items():
            means = {name: None if scores[0].generated is None else float(np.mean([getattr(s, name) for s in scores]))
                     for name in ("exact", "edit_similarity", "identifiers_exact", "identifier_f1")}
            result[arm] = {"bits_per_byte": sum(s.bits for s in scores) / sum(self.bytes),
                           "name_bits_per_byte": sum(s.name_bits for s in scores) / sum(self.name_bytes)} | means
        return result

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CrossFileScore":
        """The way back from `to_json`."""
        arms = {arm: tuple(LineScore(**score) for score in scores) for arm, scores in values["arms"].items()}
        return cls(**{key: tuple(values[key]) for key in ("tasks", "repositories", "bytes", "name_bytes")}, arms=arms)


class _Prompt(NamedTuple):
    """The file before the cursor and the reference as ids.

    `healed` is what stands before the cursor in a token that goes on behind it: it is asked for again, because the
    model has seen the two only as one. The first `name_tokens` of `answer` hold the name.
    """

    before: list[int]
    healed: str
    answer: list[int]
    name_tokens: int


def score(model: Model, tasks: Sequence[CrossFileTask], settings: CrossFileWindow | None = None, *,
          arms: Iterable[str] = ARMS, generate: Iterable[str] = ARMS) -> CrossFileScore:
    """Score every task in each of `arms`, and complete it greedily in those of `generate`.

    Raises TritwiseError when there are no tasks, when the window does not fit the model, leaves no room for the file
    itself, and when the model has no id that ends a text.
    """
    settings = settings or CrossFileWindow()
    arms, generate = tuple(arms), frozenset(generate)
    context = model.context if settings.context is None else settings.context
    cross = int(context * settings.cross_file_share)
    if not tasks:
        raise TritwiseError("there is nothing to score", why="there are no cross-file tasks")
    if unknown := sorted({*arms, *generate} - set(ARMS)):
        raise TritwiseError(f"there is no arm {unknown[0]!r}", why=f"there are {', '.join(ARMS)}")
    if model.codec.start_id is None:
        raise TritwiseError("this model cannot put files one after the other",
                            why="neither its configuration nor its tokenizer names an end of text")
    if context > model.context or context - cross - settings.max_tokens < _LEAST_PREFIX:
        raise TritwiseError(f"a window of {context} tokens, {cross} of them for other files and {settings.max_tokens} "
                            "for the answer, does not fit", why=f"the model's context holds {model.context}")
    prompts = [_prompt(model.codec, task) for task in tasks]
    heads = {arm: [_window(model.codec, task, prompt, arm, context, cross, settings.max_tokens)
                   for task, prompt in zip(tasks, prompts, strict=True)] for arm in arms}
    scores = {arm: _likelihoods(model, heads[arm], prompts, arm) for arm in arms}
    for arm in arms:
        if arm in generate:
            texts = _generated(model, heads[arm], prompts, settings.max_tokens, arm)
            scores[arm] = [replace(found, generated=text, **match(text, task.reference)._asdict())
                           for found, text, task in zip(scores[arm], texts, tasks, strict=True)]
    return CrossFileScore(
        tuple(task.id for task in tasks), tuple(task.repository for task in tasks),
        tuple(len(task.reference.encode()) for task in tasks), tuple(len(task.name.encode()) for task in tasks),
        {arm: tuple(scores[arm]) for arm in arms})


def _common(a: list[int], b: list[int]) -> int:
    """How many ids two lists begin with alike."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _prompt(codec: TextCodec, task: CrossFileTask) -> _Prompt:
    whole = codec.encode(task.prefix + task.reference)
    before = codec.encode(task.prefix)
    kept = _common(before, whole)
    name = codec.encode(task.prefix + task.name)
    shared = _common(name, whole)
    # A last token that holds the end of the name and more is the name's, too.
    end = shared if shared == len(name) else shared + 1
    return _Prompt(whole[:kept], codec.tokenizer.decode(before[kept:], skip_special_tokens=False), whole[kept:],
                   max(1, end - kept))


def _window(codec: TextCodec, task: CrossFileTask, prompt: _Prompt, arm: str, context: int, cross: int,
            max_tokens: int) -> list[int]:
    """The ids before the answer."""
    end = codec.start_id
    if arm == "definition":
        file = next(file for file in task.dependencies if file.path == task.definition)
        comment, text = file.text.split("\n", 1)
        starts = [0, *(found.end() for found in re.finditer(r"\r\n?|\n", text))]
        shown = comment + "\n" + text[starts[task.definition_line - 1]:]
        others = [end, *codec.encode(shown)[:cross - 2], end]
    else:
        files = {"alone": (), "dependencies": task.dependencies, "others": task.others}[arm]
        others = [end, *(id_ for file in files for id_ in (*codec.encode(file.text), end))][-cross:]
    room = context - cross - max(max_tokens, len(prompt.answer))
    return others + prompt.before[-max(1, room):]


def _likelihoods(model: Model, heads: list[list[int]], prompts: list[_Prompt], arm: str) -> list[LineScore]:
    windows = [Fed(head + prompt.answer, len(head)) for head, prompt in zip(heads, prompts, strict=True)]
    scores = []
    with progress(f"lines, {arm}", len(windows)) as bar:
        for nats, prompt in zip(model.score(iter(windows)), prompts, strict=True):
            scores.append(LineScore(float(nats.sum()) * _BITS, float(nats[:prompt.name_tokens].sum()) * _BITS))
            bar.update(len(scores))
    return scores


def _generated(model: Model, heads: list[list[int]], prompts: list[_Prompt], max_tokens: int, arm: str) -> list[str]:
    """What the model writes behind each cursor, greedily, to the end of the line."""
    words = _Vocabulary(model)
    texts = []
    with progress(f"completions, {arm}", len(heads)) as bar:
        for start in range(0, len(heads), _STREAMS_AT_ONCE):
            part = range(start, min(start + _STREAMS_AT_ONCE, len(heads)))
            streams = [model.stream(heads[n], max_tokens=max_tokens,
                                    stop=() if "\n" in prompts[n].healed else "\n",
                                    constraint=_BeginsWith(words, prompts[n].healed)) for n in part]
            for number, stream in zip(part, streams, strict=True):
                line = "".join(stream).removeprefix(prompts[number].healed)
                texts.append(line.split("\n")[0].rstrip("\r"))
            bar.update(len(texts))
    return texts


class _Vocabulary:
    """The text of every token alone."""

    def __init__(self, model: Model) -> None:
        size = model.config.vocab_size
        known = model.codec.tokenizer.get_vocab_size(with_added_tokens=True)
        decoded = model.codec.tokenizer.decode_batch([[id_] for id_ in range(min(size, known))])
        self.texts = decoded + [""] * (size - len(decoded))


class _BeginsWith:
    """A constraint: the text has to begin with `text`. Where no token can, nothing is asked."""

    def __init__(self, words: _Vocabulary, text: str) -> None:
        self._words, self._left = words, text

    def mask(self, ids: Sequence[int]) -> NDArray[np.uint32] | None:
        """Tokens that begin with what is left of the text, or that it begins with."""
        if not self._left:
            return None
        allowed = np.array([bool(word) and (word.startswith(self._left) or self._left.startswith(word))
                            for word in self._words.texts])
        if not allowed.any():
            return None
        bits = np.packbits(allowed, bitorder="little")
        return np.frombuffer(bits.tobytes() + bytes(-len(bits) % 4), dtype="<u4")

    def accept(self, token: int) -> None:
        """Take what the token said off the text that is left."""
        self._left = self._left[len(self._words.texts[token]):]
