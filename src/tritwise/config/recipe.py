"""`Recipe`: one TOML file that names the whole way, from repositories to a running model.

Every number that can change a result stands in the recipe. Unknown keys are refused.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from tritwise.common.errors import TritwiseError
from tritwise.config.data import DataRecipe
from tritwise.config.data_tokens import MixSettings
from tritwise.config.model import LinearType, ModelConfig, ScaleType, config_error
from tritwise.config.pre_tokenizers import STEPS
from tritwise.config.ranks import RankSettings
from tritwise.config.settings import Count, Fraction, NonNegative, Positive, Settings
from tritwise.config.tokens import END_OF_TEXT


def _known_pattern(name: str) -> str:
    if name not in STEPS:
        raise ValueError(f"{name!r} is none of {', '.join(STEPS)}")
    return name


class TokenizerRecipe(Settings):
    """Byte-level BPE trained with Hugging Face `tokenizers` on the training documents, or one that is there already."""

    # A tokenizer.json that is taken as it is; nothing is trained then, and vocab_size is that of the model.
    file: str | None = None
    end_of_text: str = END_OF_TEXT  # the token behind each document
    vocab_size: Annotated[int, Field(ge=300)] = 32_000
    # How text is cut before merges (pre_tokenizers.py). Other programs open GGUF files with any but `code`.
    pattern: Annotated[str, AfterValidator(_known_pattern)] = "code"
    # How much text the merges are learned from; an evenly spaced sample is taken beyond it.
    max_training_bytes: Count = 50_000_000


class ScheduleRecipe(Settings):
    """Learning rate and weight decay by step.

    `two_stage` is BitNet b1.58's (training notes, figure 1c): linear warm-up, then the straight line from `peak` at
    the end of warm-up down to `floor` at the last step; at `switch` of the steps the run jumps to the line that falls
    from `second_peak` to the same floor, and weight decay drops to zero.
    `cosine` is LLaMA's (arXiv 2302.13971, section 2.3): cosine from `peak` to `floor`, weight decay constant.
    """

    shape: Literal["two_stage", "cosine"]
    peak: Positive
    second_peak: Positive | None = None
    floor: NonNegative
    warmup_steps: Annotated[int, Field(ge=0)]
    switch: Fraction = 0.5
    weight_decay: NonNegative = 0.1

    @model_validator(mode="after")
    def _check_shape(self) -> "ScheduleRecipe":
        if (self.shape == "two_stage") != (self.second_peak is not None):
            raise ValueError("second_peak belongs to shape = 'two_stage', and is needed there")
        if self.floor > (self.second_peak or self.peak) or (self.second_peak or 0) > self.peak:
            raise ValueError("needed: floor <= second_peak <= peak")
        return self


class TrainRecipe(Settings):
    """What all variants share: the same tokens in the same order."""

    steps: Count
    # Sequences in an optimizer step, over all ranks; `micro_batch_size` of them go through the model at once.
    batch_size: Count
    micro_batch_size: Count | None = None
    sequence_length: Annotated[int, Field(gt=1)]
    # "auto" computes in bfloat16 where the processor multiplies it natively, in float32 elsewhere.
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    # What the scales of ternary and binary weights are rounded to, as they will be stored: float16 for GGUF's TQ1_0 and
    # TQ2_0, bfloat16 for a model that transformers opens in bfloat16.
    scale_dtype: ScaleType = "float32"
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    adam_eps: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    # Of models with experts: how much of the load-balancing loss is added (Hugging Face's key and default).
    router_aux_loss_coef: NonNegative = 0.001
    checkpoint_every: Count = 1000
    # "blocks" keeps of each block its input alone, and computes the rest again in the backward: a third more arithmetic
    # for the memory of one block's activations instead of all blocks'. No number changes.
    recompute: Literal["none", "blocks"] = "none"
    ranks: RankSettings = RankSettings()

    @model_validator(mode="after")
    def _check_batch(self) -> "TrainRecipe":
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of "
                             f"micro_batch_size {self.micro_batch_size}")
        return self


class VariantRecipe(Settings):
    """One of the models that a recipe trains, with its own published schedule."""

    model_type: Literal["bitnet", "llama", "qwen3"]
    linear_type: LinearType
    schedule: ScheduleRecipe
    # A model to go on from instead of random weights: a directory, a GGUF file or a name on the hub. It needs its own
    # tokenizer, in tokenizer.file.
    start: str | None = None


class CorpusRecipe(Settings):
    """What of a recipe leads from repositories to token shards."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    data: DataRecipe
    tokenizer: TokenizerRecipe = TokenizerRecipe()

    def with_absolute_paths(self) -> "CorpusRecipe":
        """The same recipe for tasks that run in other working directories. No name in it changes."""
        values = self.model_dump()
        data = values["data"]
        for holder, name in ((data["sources"], "paths"), (data["sources"], "folders"), (values["tokenizer"], "file"),
                             (data["decontamination"], "sets"), (data["screening"], "quality_model")):
            given = holder[name]
            if given is not None:
                holder[name] = _absolute(given) if isinstance(given, str) else tuple(map(_absolute, given))
        return type(self).model_validate(values)


class Recipe(CorpusRecipe):
    """The whole way. `model` holds Hugging Face keys that all variants share; `vocab_size` may be left out."""

    model: dict[str, Any]
    train: TrainRecipe
    # Without a mix, training sees the recipe's own data.
    mix: MixSettings | None = None
    variants: Annotated[dict[str, VariantRecipe], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_models(self) -> "Recipe":
        for name, variant in self.variants.items():
            self.model_config_of(name)
            if variant.start is not None and self.tokenizer.file is None:
                raise ValueError(f"variants.{name}.start is given, and tokenizer.file is not: a model's ids mean "
                                 "something with its own tokenizer only")
        window = self.data.packing.window
        if window is not None and window != self.train.sequence_length and self.mix is None:
            raise ValueError(f"data.packing.window is {window}, and train.sequence_length "
                             f"{self.train.sequence_length}: training reads one of these windows at a time")
        return self

    def model_config_of(self, variant: str) -> ModelConfig:
        """The `ModelConfig` of a variant, without the ids of special tokens (the tokenizer gives those)."""
        if variant not in self.variants:
            raise TritwiseError(f"the recipe {self.name} has no variant {variant!r}",
                                why=f"it has {', '.join(self.variants)}")
        chosen = self.variants[variant]
        defaults = {"vocab_size": self.tokenizer.vocab_size,
                    "max_position_embeddings": self.train.sequence_length}
        fixed = {"model_type": chosen.model_type, "linear_type": chosen.linear_type}
        if self.data.fim.rate > 0 and self.data.fim.spm_rate > 0.5:
            defaults["fim_order"] = "spm"
        if chosen.linear_type != "dense":
            defaults["scale_dtype"] = self.train.scale_dtype
        clash = sorted(set(self.model) & set(fixed))
        if clash:
            raise ValueError(f"model.{clash[0]} belongs into [variants.*]")
        return ModelConfig.model_validate(defaults | self.model | fixed)


AnyRecipe = TypeVar("AnyRecipe", bound=CorpusRecipe)


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file."""
    return _validated(Recipe, _read(path), path)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def load_data_recipe(path: str | Path) -> CorpusRecipe:
    """Read a recipe file of which only the data is asked for: a whole one, or one without model and training."""
    values = _read(path)
    whole = values.keys() & (Recipe.model_fields.keys() - CorpusRecipe.model_fields.keys())
    return _validated(Recipe if whole else CorpusRecipe, values, path)


def _read(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TritwiseError(f"the recipe {path} does not exist",
                            fix="tritwise run recipes/quickstart.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TritwiseError(f"the recipe {path} is not TOML", why=str(error)) from None


def _validated(kind: type[AnyRecipe], values: dict[str, Any], path: str | Path) -> AnyRecipe:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise config_error(error, f"the recipe {path}") from None
