"""From a checkpoint to a model directory that the engine and transformers open."""

from pathlib import Path

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_text, sha256_file
from tritwise.config.tokens import END_OF_TEXT, PAD
from tritwise.formats import write_model
from tritwise.formats.tokenizer_files import parse_tokenizer
from tritwise.formats.writer import FloatType, Form, LinearClass

# What is run: codes for quantised linears, plain floats for dense ones.
DEPLOYED_FORM: dict[str, Form] = {"ternary": "packed", "binary": "packed", "dense": "float"}


def export_checkpoint(checkpoint: Path, out: Path, tokenizer_file: Path, *, form: Form | None = None,
                      linear_class: LinearClass = "autobitlinear", dtype: FloatType = "bfloat16") -> None:
    """Write a checkpoint (or the newest one of a training directory) as the model directory `out`.

    `form` is the deployed one when not given. The ids of end of text and padding come from the tokenizer.
    provenance.json beside the model says which checkpoint it is. Raises TritwiseError as `write_model` does.
    """
    from tritwise.train import latest_checkpoint, load_checkpoint_model

    if not Path(tokenizer_file).is_file():
        raise TritwiseError(f"{tokenizer_file} does not exist", why="a model directory holds its tokenizer",
                            fix="give the tokenizer.json that the training data was made with")
    config, tensors = load_checkpoint_model(checkpoint)
    newest = latest_checkpoint(checkpoint) if (checkpoint / "checkpoints").is_dir() else checkpoint
    tokenizer = parse_tokenizer(read_text(tokenizer_file, what="a tokenizer"), tokenizer_file)
    ids = {"eos_token_id": tokenizer.token_to_id(END_OF_TEXT), "pad_token_id": tokenizer.token_to_id(PAD)}
    config = config.with_changes(**{key: value for key, value in ids.items() if value is not None})
    provenance = {"checkpoint": newest.name, "sha256": sha256_file(newest / "model.safetensors"),
                  "tokenizer_sha256": sha256_file(tokenizer_file)}
    write_model(out, config, tensors, form=form or DEPLOYED_FORM[config.linear_type], linear_class=linear_class,
                dtype=dtype, tokenizer_file=tokenizer_file, extra={"provenance.json": provenance})
