"""Settings: `ModelConfig` (Hugging Face's key names) and `Recipe` (one TOML file for the whole way)."""

from tritwise.config.data import DataRecipe
from tritwise.config.data_tokens import FimSettings, MixSettings, PackingSettings
from tritwise.config.model import ModelConfig, ParameterCount, QuantizationConfig
from tritwise.config.ranks import RankSettings
from tritwise.config.recipe import (
    CorpusRecipe,
    Recipe,
    ScheduleRecipe,
    TokenizerRecipe,
    TrainRecipe,
    VariantRecipe,
    load_data_recipe,
    load_recipe,
)
from tritwise.config.rope import RopeScaling

__all__ = [
    "CorpusRecipe", "DataRecipe", "FimSettings", "MixSettings", "ModelConfig", "PackingSettings",
    "ParameterCount", "QuantizationConfig", "RankSettings", "Recipe", "RopeScaling", "ScheduleRecipe",
    "TokenizerRecipe", "TrainRecipe", "VariantRecipe", "load_data_recipe", "load_recipe",
]
