"""Settings: `ModelConfig` (Hugging Face's key names) and `Recipe` (one TOML file for the whole way)."""

from tritwise.config.model import ModelConfig, ParameterCount, QuantizationConfig
from tritwise.config.recipe import (
    DataRecipe,
    FilterRecipe,
    FimRecipe,
    Recipe,
    ScheduleRecipe,
    TokenizerRecipe,
    TrainRecipe,
    VariantRecipe,
    load_recipe,
)

__all__ = [
    "DataRecipe", "FilterRecipe", "FimRecipe", "ModelConfig", "ParameterCount", "QuantizationConfig", "Recipe",
    "ScheduleRecipe", "TokenizerRecipe", "TrainRecipe", "VariantRecipe", "load_recipe",
]
