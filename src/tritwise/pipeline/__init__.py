"""The stages of `tritwise run`: what each does, what it is keyed by, and when it may be skipped.

    from tritwise.pipeline import run_recipe
    report = run_recipe(Path("recipes/quickstart.toml"))
"""

from tritwise.pipeline.walk import run_recipe, stages_of, train_variant

__all__ = ["run_recipe", "stages_of", "train_variant"]
