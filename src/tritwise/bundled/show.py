"""What `tritwise try` shows: the same few beginnings and gaps for every model, and what is not to be expected."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tritwise.bundled.facts import Facts
from tritwise.bundled.gap import fit_gap, fit_prompt
from tritwise.engine import Model


@dataclass(frozen=True)
class Example:
    """A text to go on with (`suffix` None), or one with a gap before `suffix`."""

    title: str
    prompt: str
    suffix: str | None
    max_tokens: int


# What anyone would type first, not chosen by what comes of it.
EXAMPLES = (
    Example("go on: a function by its name and docstring",
            'def read_lines(path):\n    """Return the lines of a text file."""', None, 40),
    Example("go on: an algorithm",
            'def fibonacci(n):\n    """Return the n-th Fibonacci number."""', None, 40),
    Example("fill in: an expression", "def area(width, height):\n    return ", "\n", 24),
    Example("fill in: an assignment",
            "class Point:\n    def __init__(self, x, y):", "\n        self.y = y\n", 24),
    Example("fill in: the body of a loop",
            "def count_words(text):\n    counts = {}\n    for word in text.split():", "\n    return counts\n", 40),
)


@dataclass(frozen=True)
class Written:
    """What a model wrote. `prompt` and `suffix` are what it saw of them: `left_out` characters did not fit.

    Rates are in tokens per second, None when too few came to tell.
    """

    title: str
    prompt: str
    suffix: str | None
    text: str
    tokens: int
    prompt_tokens: int
    finish_reason: str
    left_out: int
    seconds: float
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def write(model: Model, example: Example, **sampling: Any) -> Written:
    """Let a model go on with a text or fill its gap; what does not fit the context beside `max_tokens` is left out.

    `sampling` as for `Model.generate`. Raises TritwiseError when nothing fits.
    """
    room = model.context - example.max_tokens
    began = time.perf_counter()
    if example.suffix is None:
        prompt, suffix = fit_prompt(model.codec, example.prompt, room), None
        result = model.generate(prompt, max_tokens=example.max_tokens, heal=True, **sampling)
    else:
        prompt, suffix = fit_gap(model.codec, example.prompt, example.suffix, room)
        result = model.infill(prompt, suffix, max_tokens=example.max_tokens, heal=True, **sampling)
    left_out = len(example.prompt) + len(example.suffix or "") - len(prompt) - len(suffix or "")
    return Written(example.title, prompt, suffix, result.text, len(result.token_ids), result.prompt_tokens,
                   result.finish_reason, left_out, time.perf_counter() - began, result.prefill_tokens_per_second,
                   result.decode_tokens_per_second)


def middle_rate(written: Sequence[Written]) -> float | None:
    """The median of the decode rates that there are."""
    rates = sorted(each.decode_tokens_per_second for each in written if each.decode_tokens_per_second)
    return rates[len(rates) // 2] if rates else None


def limits(facts: Facts) -> str:
    """One paragraph on what cannot be expected, with the model's own numbers."""
    scored = facts.infilling
    exactly = "" if scored is None else (
        f" Of the {scored.tasks:,} single lines taken out of HumanEval's solutions it writes {scored.exact:,} "
        f"({100 * scored.exact_match:.1f} %) as they were.")
    return (
        f"This is a toy: {facts.parameters / 1e6:.1f} million parameters that have seen "
        f"{facts.training.tokens / 1e6:.0f} million tokens of Python. It knows what Python code looks like - "
        "indentation, self, what often follows what - and neither facts nor algorithms: it will be wrong, invents "
        f"names and repeats itself.{exactly} It sees {facts.context} tokens at once, about "
        f"{facts.context * facts.training.data_bytes // facts.training.data_tokens:,} characters, was not taught to "
        "follow instructions, and knows no language but Python. Read what it writes before you use it.")
