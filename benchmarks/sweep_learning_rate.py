"""The same small sweep of the peak learning rate for every variant of a recipe.

    python benchmarks/sweep_learning_rate.py recipes/quickstart.toml --data runs/quickstart/data --steps 300

A run has the recipe's settings but for the number of steps and the peak; the second peak and the floor keep their share
of the peak. Each variant is judged by its held-out bits per byte. Finished runs in --out are reused, so that a grid can
be widened.
"""

import argparse
import json
from pathlib import Path

from tritwise.config import Recipe, load_recipe
from tritwise.train import train


def with_peak(recipe: Recipe, peak: float, steps: int) -> Recipe:
    """The recipe with `steps` and every variant's schedule scaled to `peak`."""
    values = recipe.model_dump(exclude_none=True)
    values["train"] |= {"steps": steps, "checkpoint_every": steps}
    for variant in values["variants"].values():
        schedule = variant["schedule"]
        factor = peak / schedule["peak"]
        schedule |= {key: schedule[key] * factor for key in ("peak", "second_peak", "floor") if key in schedule}
    return Recipe.model_validate(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="what the recipe's data stage wrote")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--peaks", type=float, nargs="+", default=[1.5e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2])
    parser.add_argument("--variants", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    table: dict[str, dict[float, float]] = {}
    for variant in arguments.variants or recipe.variants:
        for peak in arguments.peaks:
            out = arguments.out / f"{variant}-{peak:g}-{arguments.steps}"
            if not (out / "result.json").exists():
                train(with_peak(recipe, peak, arguments.steps), variant, arguments.data, out)
            score = json.loads((out / "result.json").read_text())["held_out"]["bits_per_byte"]
            table.setdefault(variant, {})[peak] = score
            print(f"{variant:10} peak {peak:8.2e}: {score:.4f} bits per byte", flush=True)
    for variant, scores in table.items():
        best = min(scores, key=scores.get)
        edge = " (at the edge of the grid: widen it)" if best in (min(scores), max(scores)) else ""
        print(f"{variant}: best peak {best:g}, {scores[best]:.4f} bits per byte{edge}")


if __name__ == "__main__":
    main()
