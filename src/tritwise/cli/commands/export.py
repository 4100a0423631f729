"""`tritwise export`: from a checkpoint, or any model that opens, to a model directory or a GGUF file."""

import sys
from pathlib import Path
from typing import Any, Literal

from tritwise.common.errors import TritwiseError
from tritwise.pipeline.export import export_directory, export_gguf, is_checkpoint, open_source, verify_export
from tritwise.pipeline.walk import require

_OF = {"form": "hf", "linear_class": "hf", "dtype": "hf", "type": "gguf", "float_type": "gguf", "ids_only": "gguf"}


def export(model: Path, out: Path, /, *, to: Literal["hf", "gguf"] | None = None,
           type: Literal["tq1_0", "tq2_0", "i2_s", "f32", "f16", "bf16"] | None = None,
           float_type: Literal["f32", "f16", "bf16", "q8_0"] | None = None, ids_only: bool = False,
           form: Literal["packed", "online", "float"] | None = None,
           linear_class: Literal["bitlinear", "autobitlinear"] | None = None,
           dtype: Literal["bfloat16", "float16", "float32"] | None = None, tokenizer: Path | None = None,
           i2s_layout: Literal["x86", "arm", "rows"] | None = None, no_verify: bool = False) -> None:
    """Write a model as a Hugging Face directory or a GGUF file that other programs open, too.

    Parameters
    ----------
    model
        A checkpoint, a training directory (its newest checkpoint), a model directory or a GGUF file.
    out
        The directory or file to write.
    to
        A Hugging Face directory, or a GGUF file for llama.cpp and its relatives; by the ending of OUT if not given.
    type
        gguf: ternary matrices; tq2_0 if not given. i2_s: bitnet.cpp (x86); floats: for other quantisers.
    float_type
        gguf: embedding, head and dense matrices; theirs if not given (bf16 from a checkpoint).
    ids_only
        gguf: no tokenizer for other programs, where they do not have it; this engine reads it all the same.
    form
        hf: packed: codes, to run; online: latent weights, to train on; float: dense.
    linear_class
        hf: a packed weight_scale divides (bitlinear) or multiplies (autobitlinear, if not given).
    dtype
        hf: type of everything that is not packed; theirs if not given (bfloat16 from a checkpoint).
    tokenizer
        The tokenizer.json; the model's or its run's own if not given.
    i2s_layout
        MODEL's layout of I2_S: x86 if not given; arm; rows: x86 without ACT_PARALLEL. Files do not say it.
    no_verify
        Do not read the result back and compare it with the model.
    """
    to = to or ("gguf" if out.suffix == ".gguf" else "hf")
    options: dict[str, Any] = {"form": form, "linear_class": linear_class, "dtype": dtype, "type": type,
                               "float_type": float_type, "ids_only": ids_only or None}
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if _OF[key] != to:
            raise TritwiseError(f"--{key.replace('_', '-')} does not go with --to {to}",
                                why=f"it is a setting of --to {_OF[key]}")
    if is_checkpoint(model):
        require("reading a training checkpoint", "torch")
        tokenizer = tokenizer or _tokenizer_of(model)
    source = open_source(model, tokenizer, i2s_layout=i2s_layout)
    if to == "hf":
        export_directory(source, out, **given)
    else:
        export_gguf(source, out, ternary_type=(type or "tq2_0").upper(),
                    float_type=float_type and float_type.upper(), ids_only=ids_only)
    if not no_verify and form != "online":  # latent weights rounded to another type may have other codes: documented
        print(verify_export(source, out), file=sys.stderr)
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
