"""`tritwise train`: one variant of a recipe."""

import os
import sys
from pathlib import Path
from typing import Literal

from tritwise.common.errors import TritwiseError
from tritwise.config import load_recipe
from tritwise.pipeline import train_variant
from tritwise.pipeline.walk import require


def train(recipe: Path, /, *, variant: str, data: Path | None = None, out: Path | None = None,
          device: Literal["cpu", "cuda"] = "cpu") -> None:
    """Train one variant of a recipe; an interrupted training goes on where it stopped.

    Without --data and --out this is the training stage of `tritwise run`: the data is built when it is not there yet,
    and `tritwise run` reuses the result.

    Several processes share a training under torchrun: torchrun --nproc-per-node 2 -m tritwise.cli.app train ...,
    with --data and --out.

    Parameters
    ----------
    recipe
        The TOML file.
    variant
        Which of its [variants.*] to train.
    data
        Directory of an earlier data stage; runs/NAME/data when not given. Needs --out.
    out
        Directory for log and checkpoints; runs/NAME/train-VARIANT when not given. Needs --data.
    device
        What computes. cuda needs --data and --out and is untried: its kernels have run in Triton's interpreter only.
    """
    if (data is None) != (out is None):
        raise TritwiseError("--data and --out belong together", why="without them the directories are those of "
                            "`tritwise run`", fix="give both or neither")
    if data is None and device != "cpu":
        raise TritwiseError(f"--device {device} needs --data and --out", why="`tritwise run` trains on the CPU",
                            fix="tritwise data build RECIPE --out DATA, then --data DATA --out OUT")
    require("training", "torch", "pyarrow")
    from tritwise.train.ranks import world_size

    if data is None and world_size() > 1:
        raise TritwiseError("several ranks need --data and --out", why="each of them would build the data",
                            fix="tritwise data build RECIPE --out DATA, then torchrun ... --data DATA --out OUT")
    if data is not None:
        from tritwise.train import train as train_model

        checkpoint = train_model(load_recipe(recipe), variant, data, out, device=device)
    else:
        from tritwise.train import latest_checkpoint

        checkpoint = latest_checkpoint(train_variant(recipe, variant))
    if int(os.environ.get("RANK", "0")):  # the first rank speaks for all that torchrun started
        return
    print(checkpoint)
    print(f"tritwise export {checkpoint} MODEL  makes a model directory of it", file=sys.stderr)
