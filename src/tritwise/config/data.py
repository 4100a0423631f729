"""`DataRecipe`: where documents come from, what is kept of them, and in which order they become tokens."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tritwise.config.data_dedup import DedupRecipe
from tritwise.config.data_rules import FilterSettings, SecretSettings
from tritwise.config.data_screening import ContaminationSettings, HeuristicSettings, SyntaxSettings
from tritwise.config.data_sources import SourceSettings
from tritwise.config.data_tokens import FimSettings, PackingSettings
from tritwise.config.settings import Count, Fraction, Settings


class ScreeningRecipe(Settings):
    """What is asked of a file's code, each part switchable."""

    check_syntax: bool = True
    syntax: SyntaxSettings = SyntaxSettings()
    check_heuristics: bool = True
    heuristics: HeuristicSettings = HeuristicSettings()
    # A quality model (`tritwise data quality train`); files that score below the minimum are dropped.
    quality_model: str | None = None
    min_quality: Fraction = 0.5


class DecontaminationRecipe(Settings):
    """Test sets whose parts drop a file: HumanEval, MBPP, GSM8K, MATH, or any others."""

    # Files of test sets, directories of them (every .jsonl, .jsonl.gz and .parquet file in one), or one file that
    # `TestSets.save` wrote. Empty: nothing is looked for.
    sets: tuple[str, ...] = ()
    rules: ContaminationSettings = ContaminationSettings()


class DataRecipe(Settings):
    """The stages from repositories to tokens, in their order, with every threshold."""

    sources: SourceSettings = SourceSettings()
    filters: FilterSettings = FilterSettings()
    secrets: SecretSettings = SecretSettings()
    dedup: DedupRecipe = DedupRecipe()
    screening: ScreeningRecipe = ScreeningRecipe()
    decontamination: DecontaminationRecipe = DecontaminationRecipe()
    # Of the files of a repository: what is depended on before what depends on it (DeepSeek-Coder), by path, or at
    # random (DeepSeek-Coder-V2).
    order: Literal["topological", "path", "random"] = "topological"
    # Whole repositories are held out, chosen by a seeded hash, until they hold this share of the bytes.
    held_out_fraction: Fraction = 0.03
    fim: FimSettings = FimSettings()
    packing: PackingSettings = PackingSettings()
    # A repository is in memory as a whole; files behind this many kept bytes are dropped.
    max_repository_bytes: Count = 256_000_000
    # A part, what one task holds of a large corpus, is closed when its repositories have this many bytes as they are
    # stored. More for a crawl: a file of documents and shards is written for each part.
    part_bytes: Count = 32 << 20
    # Tasks of the steps that are shuffled by key, at least: their memory falls with the number, and no result depends
    # on it. One for each 512 MiB of sources when that is more, up to 4096.
    partitions: Annotated[int, Field(ge=1, le=4096)] = 8

    @model_validator(mode="after")
    def _check_window(self) -> "DataRecipe":
        stored = self.packing.method == "best_fit" or self.fim.level == "context"
        if stored != (self.packing.window is not None):
            raise ValueError("packing.window belongs to packing.method = 'best_fit' and to fim.level = 'context', and "
                             "is needed there: as many tokens as train.sequence_length")
        return self
