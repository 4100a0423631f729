"""The plan of the evidence: sizes, variants, the sweep's grid and changes of the recipe; which training comes next.

A plan is a TOML file. Every variant of a size sees the same tokens in the same order; what differs is the linear, the
layout of its block and its own schedule's shape, whose values are shares: of the peak, or of the steps.
"""

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tritwise.common.errors import TritwiseError
from tritwise.config import Recipe
from tritwise.config.model import LinearType, ModelConfig, config_error
from tritwise.config.recipe import CorpusRecipe
from tritwise.config.settings import Count, Fraction, NonNegative, Positive, Settings

Kind = Literal["sweep", "variant", "search"]
KINDS: tuple[Kind, ...] = ("sweep", "variant", "search")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Keys = Annotated[dict[str, Any], Field(default_factory=dict)]
DENSE = "dense"  # the variant that gaps are taken to


class Shape(Settings):
    """A schedule (`ScheduleRecipe`) with second peak and floor as shares of the peak, warm-up as a share of steps."""

    shape: Literal["two_stage", "cosine"]
    second_peak: Fraction | None = None
    floor: Fraction
    warmup: Fraction
    switch: Fraction = 0.5
    weight_decay: NonNegative = 0.1


class Variant(Settings):
    """One kind of model. `model` and `train` hold keys of its own beside the plan's."""

    model_type: Literal["bitnet", "llama", "qwen3"]
    linear_type: LinearType
    schedule: Shape
    # Initial weights have the standard deviation initial_deviation / sqrt(hidden_size).
    initial_deviation: Positive = 1.0
    # Of the peak that the sweep found.
    peak_factor: Positive = 1.0
    model: Keys
    train: Keys


class Size(Settings):
    """One shape of a model and what it is trained on. Without `sweep_tokens` it takes the peaks of the size before."""

    name: Name
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    tokens: Count
    sweep_tokens: Count | None = None
    batch_size: Count
    micro_batch_size: Count | None = None


class Change(Settings):
    """A named change of one variant; each key given here replaces the variant's."""

    name: Name
    variant: str = "ternary"
    model_type: Literal["bitnet", "llama", "qwen3"] | None = None
    initial_deviation: Positive | None = None
    peak_factor: Positive | None = None
    schedule: Keys
    model: Keys
    train: Keys

    def of(self, variant: Variant) -> Variant:
        """The changed variant."""
        values = variant.model_dump(exclude_none=True)
        for key, value in self.model_dump(exclude_none=True, exclude={"name", "variant"}).items():
            values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
        return _checked(Variant, values, f"the change {self.name}")


class Search(Settings):
    """Changes of the recipe, each trained at one size against what it changes."""

    size: Name
    changes: tuple[Change, ...]


class Plan(Settings):
    """What is to be trained. Unknown keys are refused."""

    name: Name
    context: Annotated[int, Field(gt=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    # The sweep's grid. While a variant's best peak stands at an end, the grid grows there by one step, for every
    # variant, at most so many times.
    peaks: Annotated[tuple[Positive, ...], Field(min_length=2)]
    extensions: Annotated[int, Field(ge=0)] = 2
    # Shares of the steps after which a training is scored, besides its end.
    points: tuple[Fraction, ...] = (0.1, 0.25, 0.5, 0.75)
    checkpoints: Count = 10  # of a training: what a kill may cost is one part of so many
    held_out_bytes: Count    # whole documents, chosen by a seeded order while they fit
    model: Keys
    train: Keys
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    search: Search | None = None

    @model_validator(mode="after")
    def _check_names(self) -> "Plan":
        names = [size.name for size in self.sizes]
        if len(set(names)) != len(names):
            raise ValueError("two sizes have one name")
        if self.sizes[0].sweep_tokens is None:
            raise ValueError("the first size needs sweep_tokens: there are no peaks before it")
        if list(self.peaks) != sorted(set(self.peaks)):
            raise ValueError("peaks must rise")
        if self.search is not None:
            changes = [change.name for change in self.search.changes]
            if self.search.size not in names:
                raise ValueError(f"search.size {self.search.size} is none of {', '.join(names)}")
            if len(set(changes)) != len(changes):
                raise ValueError("two changes have one name")
            for change in self.search.changes:
                if change.variant not in self.variants:
                    raise ValueError(f"the change {change.name} is of the variant {change.variant}, which is not there")
                change.of(self.variants[change.variant])
        return self

    def size(self, name: str) -> Size:
        """The size of that name."""
        return next(size for size in self.sizes if size.name == name)


def load_plan(path: Path) -> Plan:
    """Read and check a plan file."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TritwiseError(f"the plan {path} cannot be read", why=str(error)) from None
    return _checked(Plan, values, f"the plan {path}")


def _checked(kind: type[Any], values: Mapping[str, Any], source: str) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise config_error(error, source) from None


@dataclass(frozen=True)
class Training:
    """One training of the plan; equal trainings have equal names."""

    kind: Kind
    size: Size
    variant: str
    peak: float
    tokens: int
    seed: int
    change: Change | None = None

    @property
    def name(self) -> str:
        """Of its directory."""
        what = {"sweep": f"{self.variant}-{self.peak:g}", "variant": self.variant,
                "search": self.change.name if self.change else ""}[self.kind]
        return f"{self.kind}-{self.size.name}-{what}-seed{self.seed}"


def recipe_of(plan: Plan, training: Training, corpus: CorpusRecipe) -> Recipe:
    """The recipe of a training: the corpus's data and tokenizer, one variant."""
    variant = plan.variants[training.variant]
    if training.change is not None:
        variant = training.change.of(variant)
    size, shape, peak = training.size, variant.schedule, training.peak * variant.peak_factor
    steps = max(1, training.tokens // (size.batch_size * plan.context))
    schedule = {"shape": shape.shape, "peak": peak, "floor": shape.floor * peak, "switch": shape.switch,
                "warmup_steps": round(shape.warmup * steps), "weight_decay": shape.weight_decay}
    if shape.shape == "two_stage" and shape.second_peak is not None:
        schedule["second_peak"] = shape.second_peak * peak
    parts = plan.checkpoints if training.kind != "sweep" else 1
    return _checked(Recipe, corpus.model_dump(exclude_none=True, include=set(CorpusRecipe.model_fields)) | {
        "name": plan.name, "seed": training.seed,
        "model": {"initializer_range": variant.initial_deviation / math.sqrt(size.hidden_size)} | plan.model
        | size.model_dump(include={"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
        | variant.model,
        "train": {"steps": steps, "sequence_length": plan.context, "checkpoint_every": -(-steps // parts)} | plan.train
        | size.model_dump(include={"batch_size", "micro_batch_size"}) | variant.train,
        "variants": {training.variant: {"model_type": variant.model_type, "linear_type": variant.linear_type,
                                        "schedule": schedule}}}, f"the recipe of {training.name}")


def points_of(plan: Plan, training: Training, steps: int) -> tuple[int, ...]:
    """The steps after which a training is scored, its last one included; a sweep's is scored at its end only."""
    shares = plan.points if training.kind == "variant" else ()
    return tuple(sorted({max(1, round(share * steps)) for share in shares} | {steps}))


def flops_per_token(config: ModelConfig) -> int:
    """Of a training step: 6 for each parameter of a linear of the blocks and of the head; attention is left out."""
    return 6 * (config.parameter_count().block + config.vocab_size * config.hidden_size)


# Held-out bits per byte of a finished training (infinite for one that diverged), None of one that is to come.
Score = Callable[[Training], float | None]


@dataclass(frozen=True)
class Sweep:
    """What the sweep of a size found: bits per byte by variant and peak, the best peaks, the variants at an end."""

    size: str
    grid: tuple[float, ...]
    scores: dict[str, dict[float, float]]
    best: dict[str, float]
    at_end: tuple[str, ...]


def sweep_trainings(plan: Plan, size: Size, grid: tuple[float, ...]) -> list[Training]:
    """The trainings of a grid: every peak for every variant, with the first seed."""
    return [Training("sweep", size, variant, peak, size.sweep_tokens, plan.seeds[0])
            for peak in grid for variant in plan.variants]


def sweep_of(plan: Plan, size: Size, score: Score) -> Sweep | Training:
    """The finished sweep of a size, or its next training; both grow the grid in the same way."""
    if size.sweep_tokens is None:
        return sweep_of(plan, plan.sizes[plan.sizes.index(size) - 1], score)
    grid = plan.peaks
    for extension in range(plan.extensions + 1):
        scores: dict[str, dict[float, float]] = {variant: {} for variant in plan.variants}
        for training in sweep_trainings(plan, size, grid):
            found = score(training)
            if found is None:
                return training
            scores[training.variant][training.peak] = found
        best = {variant: min(found, key=found.__getitem__) for variant, found in scores.items()}
        hopeless = [variant for variant, found in scores.items() if math.isinf(found[best[variant]])]
        at_end = tuple(variant for variant, peak in best.items() if peak in (grid[0], grid[-1]))
        if not at_end or extension == plan.extensions:
            break
        if grid[0] in best.values():
            grid = (_rounded(grid[0] ** 2 / grid[1]), *grid)
        if grid[-1] in best.values():
            grid = (*grid, _rounded(grid[-1] ** 2 / grid[-2]))
    if hopeless:
        raise TritwiseError(f"every peak diverged for {', '.join(hopeless)} at {size.name}",
                            fix="a grid of lower peaks")
    return Sweep(size.name, grid, scores, best, at_end)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def next_training(plan: Plan, score: Score, kinds: tuple[Kind, ...] = KINDS) -> Training | None:
    """The first training that is not finished, cheap and telling ones first; None when all are.

    Size by size the sweep and the variants with the first seed; then the other seeds of the first size, which show how
    far two trainings are apart; the changes of the recipe; the other seeds of the other sizes.
    """
    for found in _in_order(plan, score):
        if found.kind in kinds and score(found) is None:
            return found
    return None


def _in_order(plan: Plan, score: Score) -> Iterator[Training]:
    first, *others = plan.seeds
    for size in plan.sizes:
        sweep = sweep_of(plan, size, score)
        if isinstance(sweep, Training):
            yield sweep
            return  # what follows needs its peaks
        yield from variant_trainings(plan, size, sweep, (first,))
    sweeps = {size.name: sweep_of(plan, size, score) for size in plan.sizes}
    yield from variant_trainings(plan, plan.sizes[0], sweeps[plan.sizes[0].name], tuple(others))
    if plan.search is not None:
        yield from search_trainings(plan, sweeps[plan.search.size])
    for size in plan.sizes[1:]:
        yield from variant_trainings(plan, size, sweeps[size.name], tuple(others))


def variant_trainings(plan: Plan, size: Size, sweep: Sweep, seeds: tuple[int, ...]) -> list[Training]:
    """The trainings of a size whose gaps are the result."""
    return [Training("variant", size, variant, sweep.best[variant], size.tokens, seed)
            for seed in seeds for variant in plan.variants]


def search_trainings(plan: Plan, sweep: Sweep) -> list[Training]:
    """The trainings of the changes, at the peak that their variant has at this size."""
    size = plan.size(plan.search.size)
    return [Training("search", size, change.variant, sweep.best[change.variant], size.tokens, plan.seeds[0], change)
            for change in plan.search.changes]
