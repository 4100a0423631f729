"""`tritwise export`: from a checkpoint to a model directory."""

import sys
from pathlib import Path
from typing import Literal

from tritwise.common.errors import TritwiseError
from tritwise.pipeline.export import export_checkpoint
from tritwise.pipeline.walk import require


def export(checkpoint: Path, out: Path, /, *, form: Literal["packed", "online", "float"] | None = None,
           linear_class: Literal["bitlinear", "autobitlinear"] = "autobitlinear",
           dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16", tokenizer: Path | None = None) -> None:
    """Write a checkpoint as a Hugging Face directory that this engine and transformers open.

    Parameters
    ----------
    checkpoint
        A step-... directory, or a training directory (its newest whole checkpoint is taken).
    out
        The model directory to write.
    form
        packed: 2-bit codes, to run; online: latent weights, to train on; float: dense models.
        When not given: packed for ternary and binary models, float for dense ones.
    linear_class
        What a packed weight_scale means: bitlinear divides by it, autobitlinear multiplies.
    dtype
        Type of everything that is not packed.
    tokenizer
        The tokenizer.json; that of the run the checkpoint belongs to when not given.
    """
    require("reading a training checkpoint", "torch")
    if tokenizer is None:
        tokenizer = _tokenizer_of(checkpoint)
    export_checkpoint(checkpoint, out, tokenizer, form=form, linear_class=linear_class, dtype=dtype)
    print(out)


def _tokenizer_of(checkpoint: Path) -> Path:
    """runs/NAME/data/tokenizer.json for a checkpoint below runs/NAME/train-VARIANT."""
    for directory in list(checkpoint.resolve().parents)[:3]:
        candidate = directory / "data" / "tokenizer.json"
        if candidate.is_file():
            print(f"tokenizer: {candidate}", file=sys.stderr)
            return candidate
    raise TritwiseError(f"no tokenizer.json belongs to {checkpoint}",
                        why="there is no data directory beside its training directory",
                        fix=f"tritwise export {checkpoint} OUT --tokenizer DATA/tokenizer.json")
