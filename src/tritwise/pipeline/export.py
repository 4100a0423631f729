"""From a checkpoint, or any model that opens, to a model directory or a GGUF file."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write, read_text, sha256_file
from tritwise.config import ModelConfig
from tritwise.config.tokens import END_OF_TEXT, PAD
from tritwise.formats import TernaryTensor, chat_template, open_model, write_gguf, write_model, write_quantised
from tritwise.formats.gguf_values import I2SLayout
from tritwise.formats.gguf_writer import FloatType as GGUFFloatType
from tritwise.formats.gguf_writer import TernaryType
from tritwise.formats.tokenizer_files import parse_tokenizer
from tritwise.formats.writer import FloatType, Form, LinearClass, deployed

EMBEDDING = "model.embed_tokens.weight"
# What is run: codes for quantised linears, plain floats for dense ones.
DEPLOYED_FORM: dict[str, Form] = {"ternary": "packed", "binary": "packed", "dense": "float"}


@dataclass(frozen=True)
class Source:
    """A model to be exported: `tensors` are latent weights of a checkpoint, or None where `read` gives all there is."""

    path: Path
    config: ModelConfig
    read: Callable[[str], np.ndarray | TernaryTensor]
    tokenizer: str | None
    chat_template: str | None = None
    tensors: dict[str, np.ndarray] | None = None
    provenance: dict[str, Any] | None = None
    opens: bool = False  # by its path alone, in the engine

    def names(self) -> tuple[str, ...]:
        """Every tensor's name."""
        return tuple(self.config.tensor_shapes())


def is_checkpoint(path: Path) -> bool:
    """Whether a directory is a checkpoint or a training directory above some."""
    return (path / "checkpoints").is_dir() or (path / "state.json").is_file()


def open_source(path: Path, tokenizer_file: Path | None = None, *, i2s_layout: I2SLayout | None = None) -> Source:
    """A checkpoint (or the newest one of a training directory) with its tokenizer, or a model that `open_model` opens.

    A checkpoint's ids of end of text and padding come from the tokenizer. A model's own tokenizer is kept, unless
    another is given. Raises TritwiseError when one of them cannot be read, or a checkpoint comes without a tokenizer.
    """
    if tokenizer_file is not None and not Path(tokenizer_file).is_file():
        raise TritwiseError(f"{tokenizer_file} does not exist", why="a model holds its tokenizer",
                            fix="give the tokenizer.json that the training data was made with")
    given = None if tokenizer_file is None else read_text(tokenizer_file, what="a tokenizer")
    if is_checkpoint(Path(path)):
        return _checkpoint(Path(path), given, tokenizer_file)
    model = open_model(path, i2s_layout=i2s_layout)
    template = chat_template(model)
    return Source(model.path, model.config, model.read, model.tokenizer_json() if given is None else given,
                  None if template is None else template.source, opens=i2s_layout is None)


def _checkpoint(path: Path, tokenizer: str | None, tokenizer_file: Path | None) -> Source:
    from tritwise.train import latest_checkpoint, load_checkpoint_model

    if tokenizer is None:
        raise TritwiseError(f"{path} comes without a tokenizer", why="a model holds its tokenizer",
                            fix="give the tokenizer.json that the training data was made with")
    config, tensors = load_checkpoint_model(path)
    newest = latest_checkpoint(path) if (path / "checkpoints").is_dir() else path
    known = parse_tokenizer(tokenizer, tokenizer_file)
    ids = {"eos_token_id": known.token_to_id(END_OF_TEXT), "pad_token_id": known.token_to_id(PAD)}
    config = config.with_changes(**{key: value for key, value in ids.items() if value is not None})
    provenance = {"checkpoint": newest.name, "sha256": sha256_file(newest / "model.safetensors"),
                  "tokenizer_sha256": sha256_file(tokenizer_file)}
    return Source(path, config, lambda name: deployed(config, name, tensors[name]), tokenizer,
                  tensors=tensors, provenance=provenance)


def export_directory(source: Source, out: Path, *, form: Form | None = None,
                     linear_class: LinearClass = "autobitlinear", dtype: FloatType | None = None) -> None:
    """Write a Hugging Face directory; `form` is the deployed one when not given, `dtype` that of a model's embedding
    and bfloat16 from a checkpoint.

    provenance.json beside a checkpoint's weights says which checkpoint it is. Raises TritwiseError as `write_model`
    does, and for latent weights of a model that has codes only.
    """
    form = form or DEPLOYED_FORM[source.config.linear_type]
    if dtype is None:
        dtype = "bfloat16" if source.tensors is not None else source.read(EMBEDDING).dtype.name
    extra = None if source.provenance is None else {"provenance.json": source.provenance}
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = None
        if source.tokenizer is not None:
            tokenizer = Path(scratch) / "tokenizer.json"
            atomic_write(tokenizer, source.tokenizer)
        options: dict[str, Any] = {"dtype": dtype, "tokenizer_file": tokenizer,
                                   "chat_template": source.chat_template, "extra": extra}
        names = source.config.tensor_shapes()
        if source.tensors is not None:
            write_model(out, source.config, source.tensors, form=form, linear_class=linear_class, **options)
        elif form == "packed":
            write_quantised(out, source.config, {name: source.read(name) for name in names},
                            linear_class=linear_class, **options)
        elif form == "float":
            write_model(out, source.config, {name: source.read(name) for name in names}, form=form, **options)
        else:
            raise TritwiseError(f"latent weights cannot be written to {out}", why="the model that was given holds "
                                "codes, and only a checkpoint holds what training goes on with")


def export_gguf(source: Source, out: Path, *, ternary_type: TernaryType = "TQ2_0",
                float_type: GGUFFloatType | None = None, ids_only: bool = False) -> None:
    """Write a GGUF file; see `write_gguf`. A checkpoint's floats become BF16 when nothing else is said."""
    if float_type is None and source.tensors is not None:
        float_type = "BF16"
    write_gguf(out, source.config, source.read, ternary_type=ternary_type, float_type=float_type,
               tokenizer=source.tokenizer, chat_template=source.chat_template, ids_only=ids_only)


def verify_export(source: Source, out: Path) -> str:
    """What was found equal between a model and what was made of it, in one line.

    Every tensor is read back. A model that the engine opens as it is also has to make the same predictions.
    Raises TritwiseError, with the first difference, when the two are not the same model.
    """
    from tritwise.evaluate import compare_weights, verify

    if source.opens:
        report = verify(source.path, out)
        tensors, differences, found = report.tensors, list(report.differences), report.predictions
    else:
        tensors, differences = compare_weights(source, open_model(out))
        found = None
    if differences:
        raise TritwiseError(f"{out} was written, and is not the model of {source.path}: {differences[0]}",
                            why="; ".join(differences[1:]), fix=f"tritwise verify {source.path} {out}")
    quantised = [tensor for tensor in tensors if tensor.codes_differ is not None]
    relations = sorted({tensor.relation for tensor in quantised})
    floats = sorted({tensor.relation for tensor in tensors if tensor.codes_differ is None})
    parts = [f"{len(quantised)} matrices with every code equal (scales: {', '.join(relations)})"] if quantised else []
    parts.append(f"{len(tensors) - len(quantised)} other tensors ({', '.join(floats)})")
    if found is not None:
        parts.append(f"top token the same for {100 * found.agreement:.2f} % of {found.tokens}, "
                     f"KL {found.divergence:.1e}")
    return "verified: " + ", ".join(parts)
