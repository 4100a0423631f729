"""`write_model`: latent weights in Hugging Face's names to a directory that transformers opens unchanged.

Three forms, by what the model is and what the directory is for:

| form | for | linears in the file | config.json |
|---|---|---|---|
| packed | ternary, binary: to run | uint8 row stripes + `weight_scale` | quantization_config offline |
| online | ternary: to train on | latent floats | quantization_config autobitlinear online |
| float | dense | floats | no quantization_config |

`weight_scale` is float32 whatever the other floats are. transformers rounds it at load to the type the model is opened
in: opened in float32 nothing is lost, in bfloat16 as much as if bfloat16 had been stored. With `autobitlinear` the
scale comes back bit for bit; with `bitlinear` its inverse is stored, and two roundings of 2^-24 lie between.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_directory, atomic_write, atomic_write_json
from tritwise.config import ModelConfig, QuantizationConfig
from tritwise.formats.packing import CODES_PER_BYTE, TernaryTensor, quantise
from tritwise.formats.reader import WEIGHTS, all_finite, linear_names
from tritwise.formats.tokenizer_files import tokenizer_config

Form = Literal["packed", "online", "float"]
LinearClass = Literal["bitlinear", "autobitlinear"]
FloatType = Literal["bfloat16", "float16", "float32"]
_FLOAT_TYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16),
                "float32": np.dtype(np.float32)}
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def write_model(
    out: str | Path, config: ModelConfig, tensors: Mapping[str, np.ndarray], *, form: Form,
    linear_class: LinearClass = "autobitlinear", dtype: FloatType = "bfloat16",
    tokenizer_file: Path | None = None, chat_template: str | None = None, extra: Mapping[str, Any] | None = None,
) -> None:
    """Write latent weights as the directory `out`, whole or not at all.

    `tensors` maps the names of `config.tensor_shapes()` to float arrays of those shapes (a tied head may be among
    them). `packed` quantises the linears from the given values (absmean, or sign for binary), so float32 masters
    give the codes of the trained model; `online` rounds them to `dtype` first, so only float32 keeps all codes.
    `dtype` is that of everything that is not packed. `tokenizer_file` is copied as tokenizer.json, with a
    tokenizer_config.json for transformers; `chat_template` becomes chat_template.jinja; `extra` maps more file names
    (provenance.json) to JSON values.

    Raises TritwiseError, before anything is written, for missing, unexpected, misshapen or non-finite tensors, for
    rows that Hugging Face's layer cannot hold, for a form that does not fit `linear_type`, and when `out` is
    something else than an old model directory.
    """
    _check_form(config, form)
    weights = _checked(config, tensors)
    if form != "packed":
        quantisation = QuantizationConfig(linear_class="autobitlinear", quantization_mode="online")
        stored = config.with_changes(quantization_config=quantisation) if form == "online" else config
        _write(Path(out), stored, _as_type(weights, dtype), dtype, tokenizer_file, chat_template, extra)
        return
    check_rows(config, linear_names(config))
    write_quantised(out, config, {name: deployed(config, name, array) for name, array in weights.items()},
                    linear_class=linear_class, dtype=dtype, tokenizer_file=tokenizer_file, chat_template=chat_template,
                    extra=extra)


def deployed(config: ModelConfig, name: str, latent: np.ndarray) -> np.ndarray | TernaryTensor:
    """A latent weight as it is deployed: codes and scale for the linears of a ternary or binary model, else itself."""
    return quantise(config, latent) if name in linear_names(config) else latent


def write_quantised(
    out: str | Path, config: ModelConfig, tensors: Mapping[str, np.ndarray | TernaryTensor], *,
    linear_class: LinearClass = "autobitlinear", dtype: FloatType = "bfloat16",
    tokenizer_file: Path | None = None, chat_template: str | None = None, extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model whose linears are `TernaryTensor`s already, as `write_model` does with form `packed`.

    What `open_model(...).read` gives for every name of a ternary or binary directory can be handed in unchanged.
    """
    _check_form(config, "packed")
    weights = _checked(config, tensors)
    linears = linear_names(config)
    check_rows(config, linears)
    for name, tensor in weights.items():
        if isinstance(tensor, TernaryTensor) != (name in linears):
            raise TritwiseError(f"{name} cannot be written as {type(tensor).__name__}",
                                why="the block linears, and only they, are TernaryTensors")
        if isinstance(tensor, TernaryTensor) and tensor.scales.size != 1:
            raise TritwiseError(f"{name} cannot be written packed", why=f"it has {tensor.scales.size} scales, and "
                                "Hugging Face's layer holds one")
    stored = _as_type({name: array for name, array in weights.items() if name not in linears}, dtype)
    for name in sorted(linears):
        tensor = weights[name]
        with np.errstate(divide="ignore", over="ignore"):
            scale = np.float32(1) / tensor.scale if linear_class == "bitlinear" else tensor.scale
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise TritwiseError(f"{name} cannot be written", why=f"its scale is {float(tensor.scale[0])}; "
                                "it must be positive, and so must its inverse")
        stored |= {name: tensor.packed, f"{name}_scale": scale}
    quantisation = QuantizationConfig(linear_class=linear_class, quantization_mode="offline")
    _write(Path(out), config.with_changes(quantization_config=quantisation), stored, dtype, tokenizer_file,
           chat_template, extra)


def _check_form(config: ModelConfig, form: str) -> None:
    allowed = {"ternary": ("packed", "online"), "binary": ("packed",), "dense": ("float",)}[config.linear_type]
    if form not in allowed:
        why = {"online": "Hugging Face's layer quantises latent weights to ternary, so it would open another model",
               "float": "without quantization_config other readers take the latent weights for a dense model",
               "packed": "only quantised linears have a packed form"}.get(form, "there is no such form")
        raise TritwiseError(f"a {config.linear_type} model cannot be written in the form {form!r}",
                            why=why, fix=f"use form {' or '.join(allowed)}")


def _checked(config: ModelConfig, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of the configuration, all there and of the right shape; a tied head, if equal, is left out."""
    shapes, weights = config.tensor_shapes(), dict(tensors)
    head = weights.pop(_HEAD, None) if config.tie_word_embeddings else None
    if head is not None and _EMBEDDING in weights and not np.array_equal(head, weights[_EMBEDDING]):
        raise TritwiseError(f"{_HEAD} differs from {_EMBEDDING}", why="tie_word_embeddings is true")
    for names, problem in ((set(shapes) - set(weights), "is missing"),
                           (set(weights) - set(shapes), "is not a tensor of this configuration")):
        if names:
            raise TritwiseError(f"the model cannot be written: {min(names)} {problem}",
                                why=f"the configuration describes {len(shapes)} tensors, and {len(weights)} are given")
    for name, tensor in weights.items():
        if tuple(tensor.shape) != shapes[name]:
            raise TritwiseError(f"the model cannot be written: {name} has shape {list(tensor.shape)}",
                                why=f"the configuration asks for {list(shapes[name])}")
        if isinstance(tensor, TernaryTensor):
            continue
        if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16":
            raise TritwiseError(f"the model cannot be written: {name} is of type {tensor.dtype}",
                                why="latent weights are floats")
        if not np.isfinite(tensor).all():
            raise TritwiseError(f"the model cannot be written: {name} holds NaN or infinite values",
                                why="a model with such a weight computes nothing",
                                fix="look for the step at which training diverged")
    return weights


def check_rows(config: ModelConfig, linears: frozenset[str]) -> None:
    """Raise TritwiseError for linears whose rows do not fill whole bytes of the packed layout."""
    shapes = config.tensor_shapes()
    for name in sorted(linears):
        rows = shapes[name][0]
        if rows % CODES_PER_BYTE:
            below, above = rows // CODES_PER_BYTE * CODES_PER_BYTE, -(-rows // CODES_PER_BYTE) * CODES_PER_BYTE
            nearest = f"{below} or {above}" if below else f"{above}"
            raise TritwiseError(
                f"{name} has {rows} rows and cannot be written packed",
                why=f"four rows share a byte, and Hugging Face's layer makes room for {rows} // 4 packed rows",
                fix=f"train with an output size that is a multiple of {CODES_PER_BYTE}; the nearest is {nearest}")


def _as_type(weights: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    result = {}
    for name, array in weights.items():
        with np.errstate(over="ignore"):  # float16 ends at 65504; what lies beyond is refused by name below
            converted = np.ascontiguousarray(array, dtype=_FLOAT_TYPES[dtype])
        if not all_finite(converted):
            raise TritwiseError(f"{name} cannot be written as {dtype}",
                                why=f"its largest value, {float(np.abs(array).max()):g}, is beyond {dtype}",
                                fix="use dtype bfloat16 or float32")
        result[name] = converted
    return result


def check_out(out: Path) -> None:
    """Raise TritwiseError where writing a model would replace something that is no model."""
    if out.exists() and not out.is_dir():
        raise TritwiseError(f"{out} cannot be written", why="a file of that name is there")
    if out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise TritwiseError(f"{out} cannot be written", why="it is a directory with other files, no old model, and "
                            "writing would replace all of it", fix="give the name of a new directory")


def _write(out: Path, config: ModelConfig, stored: dict[str, np.ndarray], dtype: str,
           tokenizer_file: Path | None, chat_template: str | None, extra: Mapping[str, Any] | None) -> None:
    if dtype == "float16" and config.hidden_act == "relu2":
        raise TritwiseError("a relu2 model cannot be written as float16",
                            why="squared ReLU passes float16's largest number, 65504, and other readers would "
                                "compute in float16", fix="use dtype bfloat16 or float32")
    check_out(out)
    files: dict[str, Any] = {"config.json": config.to_hf(dtype=dtype)}
    ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if any(value is not None for value in ids.values()):
        files["generation_config.json"] = {key: value for key, value in ids.items() if value is not None}
    tokenizer = None
    if tokenizer_file is not None:
        tokenizer, files["tokenizer_config.json"] = tokenizer_config(Path(tokenizer_file), config)
    for name, content in (extra or {}).items():
        if name in files or Path(name).name != name or not name.endswith(".json") or name == "tokenizer.json":
            raise TritwiseError(f"{name} cannot be written beside the model",
                                why="an extra file is a .json of another name than the model's own")
        files[name] = content
    with atomic_directory(out) as directory:
        for name, content in files.items():
            atomic_write_json(directory / name, content)
        if tokenizer is not None:
            atomic_write(directory / "tokenizer.json", tokenizer)
        if chat_template is not None:
            atomic_write(directory / "chat_template.jinja", chat_template)
        save_file(stored, directory / WEIGHTS, metadata={"format": "pt"})
