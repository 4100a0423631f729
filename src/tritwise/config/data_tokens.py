"""Settings of what happens to text on its way to samples: fill-in-the-middle, packing, and mixes of sources."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tritwise.config.settings import Count, Fraction, NonNegative, Positive, Settings

Weights = dict[str, NonNegative]


class FimSettings(Settings):
    """Fill-in-the-middle before packing (arXiv 2401.14196, section 3.1.2; arXiv 2207.14255, section 3).

    A turned document is PSM (begin prefix hole suffix end middle) or SPM, the second variant of arXiv 2207.14255
    (begin hole suffix end prefix middle): with nothing between prefix and middle, which are encoded apart, and with
    the tokens of PSM, so that what one mode learns serves the other.
    """

    # Share of documents that are turned; the paper's choice among 0, 0.5 and 1.
    rate: Fraction = 0.5
    # Share of the turned ones in SPM. DeepSeek-Coder trains PSM only, arXiv 2207.14255 half and half ("joint").
    spm_rate: Fraction = 0.0
    # What is turned. "document": the whole file, as in the paper; windows then cut long ones wherever they end.
    # "piece": a file of more than `max_document_chars` characters is cut at line ends into consecutive documents of at
    # most that size, each turned on its own before packing. "context": at context level (arXiv 2207.14255, section 4.4;
    # SantaCoder, StarCoder): files are cut where windows of `packing.window` end, and what a window has of a file is
    # turned on its own. So begin, hole and end of a turned text stand in one window, whatever its size.
    level: Literal["document", "piece", "context"] = "piece"
    # Of level "piece" alone.
    max_document_chars: Count = 2000


class PackingSettings(Settings):
    """How training documents become windows of one length.

    "concatenate": one after the other, in the order of their repositories; training cuts the stream wherever windows
    end, at other places in each epoch. "best_fit": best-fit decreasing (arXiv 2404.10830): only documents longer than a
    window are cut; what is left is put into windows by its length, each piece where it leaves the least room. The rest
    of a window is padding, on which no loss is taken. Files of a repository no longer stand behind what they depend on
    then, unless `keep_neighbours` is set.
    """

    method: Literal["concatenate", "best_fit"] = "concatenate"
    # Tokens of a window that a model reads: train.sequence_length. Only windows that are stored have one: those of
    # "best_fit", and of fim.level "context" with either method. They hold one token more, the last target.
    window: Annotated[int, Field(ge=32)] | None = None
    # Of "best_fit": what is packed is not a file but as many files of a repository, in their order, as one window
    # holds. No more documents are cut, and dependencies stay in the window; more padding is left.
    keep_neighbours: bool = False

    @model_validator(mode="after")
    def _check_neighbours(self) -> "PackingSettings":
        if self.keep_neighbours and self.method != "best_fit":
            raise ValueError("keep_neighbours belongs to method = 'best_fit'")
        return self


class MixSource(Settings):
    """A named corpus of tokens and its part of the mix."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    # Shares of the tokens; only their ratios count. 0: from a later stage on, or never.
    weight: NonNegative
    # Data directories (their train split) or single shards (NAME.ds), read as one stream. Empty: what this recipe's
    # own data stage made; one source at most.
    paths: tuple[str, ...] = ()


class MixStage(Settings):
    """Other weights from a share of the steps on."""

    start: Annotated[float, Field(gt=0, lt=1)]
    # Each source that is not named has weight 0 here.
    weights: Weights


class MixSettings(Settings):
    """Several sources by weights in tokens, and other weights from a step on ([[mix.sources]], [[mix.stages]]).

    DeepSeek-Coder: 87 % code, 10 % English about code, 3 % Chinese (arXiv 2401.14196, section 2). Its v1.5 goes on
    with 70 / 10 / 7 / 7 / 6 (section 5).
    """

    sources: Annotated[tuple[MixSource, ...], Field(min_length=1)]
    stages: tuple[MixStage, ...] = ()
    # A source that is seen more often than this many times is warned of: up to four passes are worth nearly as much as
    # new text (arXiv 2305.16264).
    max_epochs: Positive = 4

    @model_validator(mode="after")
    def _check_sources(self) -> "MixSettings":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]}")
        if sum(not source.paths for source in self.sources) > 1:
            raise ValueError("only one source can be the recipe's own data; the others need paths")
        starts = [stage.start for stage in self.stages]
        if starts != sorted(set(starts)):
            raise ValueError("stages must stand in the order of their start, each at another one")
        for stage in self.stages:
            unknown = sorted(set(stage.weights) - set(names))
            if unknown:
                raise ValueError(f"a stage has a weight for {unknown[0]!r}; the sources are {', '.join(names)}")
        for weights in self.weights_by_stage():
            if not any(weights):
                raise ValueError("in every stage, some source needs a weight above 0")
        for number, name in enumerate(names):
            if not any(weights[number] for weights in self.weights_by_stage()):
                raise ValueError(f"the source {name} has weight 0 in every stage")
        return self

    def weights_by_stage(self) -> list[tuple[float, ...]]:
        """Weights in the order of the sources, of the beginning and of each stage."""
        later = [tuple(stage.weights.get(source.name, 0.0) for source in self.sources) for stage in self.stages]
        return [tuple(source.weight for source in self.sources), *later]
