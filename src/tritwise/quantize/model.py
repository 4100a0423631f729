"""From a dense model's directory to a quantised one.

What is written:

| grid | directory | what an engine computes |
|---|---|---|
| ternary, one scale a matrix | packed ternary layout | ternary weights, int8 activations |
| the same with `weights_only`; ternary in groups; int8; int4 | dense layout, dequantised values in float32 | floats |

The dense form takes float32's room in the file, so that every program opens it; provenance.json says how many bits a
weight the quantised values stand for.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.common.files import sha256_bytes, sha256_file
from tritwise.common.progress import progress
from tritwise.engine.text import TextCodec, load_tokenizer
from tritwise.formats import GGUFModel, ModelDirectory, TernaryTensor, open_model, write_model, write_quantised
from tritwise.formats.reader import linear_names
from tritwise.formats.writer import check_out, check_rows
from tritwise.quantize.gptq import DAMPING, gptq, layer_error
from tritwise.quantize.grids import GRIDS, Grid, GridName, Quantised, round_to_nearest

Method = Literal["rtn", "gptq"]
# Of the packed layout: four codes a byte.
_PACKED_BITS = 2.0


@dataclass(frozen=True)
class QuantisationReport:
    """What was made of the linears of the blocks; everything else is as it was.

    `bits_per_weight` counts codes, scales and zeros of the quantised linears. `relative_error` maps each to
    ||W - Q||^2 / ||W||^2, `output_error` (GPTQ) to the same of the layer's outputs on the calibration text.
    """

    to: GridName
    method: Method
    group_size: int | None
    form: Literal["packed", "dense"]
    activations: Literal["int8", "float"]
    bits_per_weight: float
    calibration_tokens: int
    relative_error: dict[str, float]
    output_error: dict[str, float]

    @property
    def mean_relative_error(self) -> float:
        """Mean over the linears."""
        return float(np.mean(list(self.relative_error.values())))

    def to_json(self) -> dict[str, Any]:
        """The fields and the mean."""
        return asdict(self) | {"mean_relative_error": self.mean_relative_error}


def quantise_model(path: str | Path, out: str | Path, *, to: GridName, method: Method = "rtn",
                   group_size: int | None = None, text: str | None = None, windows: int = 128, context: int = 512,
                   damping: float = DAMPING, weights_only: bool = False) -> QuantisationReport:
    """Quantise the linears of a dense model's blocks and write the result as the directory `out`.

    `group_size` inputs share a scale; all inputs of a row without it, and all weights of a ternary matrix. `gptq`
    needs a calibration `text`, of which at most `windows` pieces of `context` tokens are taken, evenly spread, and
    PyTorch. `weights_only` keeps a ternary model's activations in floats. Shows progress.
    Raises TritwiseError for a model that is quantised already, and for settings that do not fit each other.
    """
    directory = open_model(path)
    _check(directory, to, method, group_size, text, weights_only)
    linears = linear_names(directory.config.with_changes(linear_type="ternary"))
    packed = to == "ternary" and group_size is None and not weights_only
    # What writing would refuse is refused before hours of work.
    if Path(out).resolve() == Path(path).resolve():
        raise TritwiseError(f"{out} is the model itself", fix="give the name of a new directory")
    check_out(Path(out))
    if packed:
        check_rows(directory.config, linears)
    tensors: dict[str, Any] = {name: directory.read(name) for name in directory.names()}
    results: dict[str, Quantised] = {}
    errors: dict[str, dict[str, float]] = {"relative": {}, "output": {}}

    def keep(name: str, weight: NDArray, found: Quantised) -> NDArray[np.float32]:
        values = found.values()
        results[name] = found
        size = float(np.square(weight, dtype=np.float64).sum())
        change = float(np.square(weight - values, dtype=np.float64).sum())
        errors["relative"][name] = change / size if size else 0.0
        return values

    tokens = 0
    if method == "rtn":
        _round(tensors, linears, GRIDS[to], group_size, keep)
    else:
        ids = _calibration_ids(directory, text or "", windows, context)
        tokens = ids.size
        _gptq(directory, tensors, ids, GRIDS[to], group_size, damping, keep, errors["output"])
    count = sum(found.codes.size for found in results.values())
    bits = sum(found.codes.size * _PACKED_BITS + 32 if packed else found.bits for found in results.values())
    report = QuantisationReport(to, method, group_size, "packed" if packed else "dense",
                                "int8" if packed else "float", bits / count, tokens, errors["relative"],
                                errors["output"])
    provenance = {"quantized": report.to_json(), "source_sha256": {file.name: sha256_file(file)
                                                                   for file in directory.files}}
    if text is not None:
        provenance["calibration_sha256"] = sha256_bytes(text.encode())
    with _tokenizer_file(directory) as tokenizer:
        common: dict[str, Any] = {"tokenizer_file": tokenizer, "extra": {"provenance.json": provenance}}
        if packed:
            # float32 holds whatever was there; float16 would not go together with a squared ReLU.
            types = {array.dtype.name for array in tensors.values()}
            dtype = "bfloat16" if types == {"bfloat16"} else "float32"
            tensors |= {name: TernaryTensor.from_codes(found.codes.astype(np.int8), found.scales[0, 0])
                        for name, found in results.items()}
            write_quantised(out, directory.config.with_changes(linear_type="ternary"), tensors,
                            dtype=dtype, **common)
        else:
            tensors |= {name: found.values() for name, found in results.items()}
            write_model(out, directory.config, tensors, form="float", dtype="float32", **common)
    return report


Keep = Callable[[str, NDArray, Quantised], NDArray[np.float32]]


def _check(directory: ModelDirectory | GGUFModel, to: str, method: str, group_size: int | None, text: str | None,
           weights_only: bool) -> None:
    kind = directory.config.linear_type
    if kind != "dense":
        raise TritwiseError(f"{directory.path} is a {kind} model", why="only a dense model can be quantised after "
                            "training", fix="give its dense twin")
    if to not in GRIDS or method not in ("rtn", "gptq"):
        raise TritwiseError(f"there is no quantisation to {to} by {method}",
                            why=f"it goes to {', '.join(GRIDS)} by rtn or gptq")
    if group_size is not None and group_size < 1:
        raise TritwiseError(f"the group size is {group_size}", why="it counts the inputs that share a scale")
    if weights_only and (to != "ternary" or group_size is not None):
        raise TritwiseError("weights_only changes nothing here", why="only a ternary model with one scale a matrix "
                            "would have 8-bit activations", fix="leave it out")
    if method == "rtn" and text is not None:
        raise TritwiseError("rounding to nearest reads no calibration text", fix="leave it out, or take gptq")
    if method == "gptq" and text is None:
        raise TritwiseError("gptq needs a calibration text", why="roundings are chosen by what they do to the outputs "
                            "on it", fix="give --text FILE, some hundred kB like what the model will see")


def _round(tensors: dict[str, Any], linears: frozenset[str], grid: Grid, group_size: int | None, keep: Keep) -> None:
    with progress("quantising", len(linears)) as bar:
        for done, name in enumerate((name for name in tensors if name in linears), 1):
            weight = tensors[name].astype(np.float32)
            keep(name, weight, round_to_nearest(weight, grid, group_size))
            bar.update(done)


def _gptq(directory: ModelDirectory | GGUFModel, tensors: dict[str, Any], ids: NDArray[np.int64], grid: Grid,
          group_size: int | None, damping: float, keep: Keep, output_errors: dict[str, float]) -> None:
    from tritwise.quantize.calibration import quantise_with_inputs

    def quantise(name: str, weight: NDArray[np.float32], hessian: NDArray[np.float64]) -> NDArray[np.float32]:
        values = keep(name, weight, gptq(weight, hessian, grid, group_size, damping=damping))
        output_errors[name] = layer_error(weight, values, hessian)
        return values

    quantise_with_inputs(directory.config, tensors, ids, quantise)


def _calibration_ids(directory: ModelDirectory | GGUFModel, text: str, windows: int,
                     context: int) -> NDArray[np.int64]:
    """Ids [S, T] of at most `windows` pieces of the text, evenly spread. Raises TritwiseError when it has not one."""
    content = directory.tokenizer_json()
    if content is None:
        raise TritwiseError(f"{directory.path} has no tokenizer", why="the calibration text has to become tokens")
    if windows < 1 or context < 2:
        raise TritwiseError(f"{windows} windows of {context} tokens are no calibration",
                            why="at least 1 of 2 tokens is needed")
    context = min(context, directory.config.longest_context)
    ids = TextCodec(load_tokenizer(content, directory.path), directory.config).document(text)
    count = len(ids) // context
    if not count:
        raise TritwiseError(f"the calibration text has {len(ids)} tokens",
                            why=f"one window of {context} tokens is the least", fix="give a longer text")
    pieces = np.array(ids[:count * context], dtype=np.int64).reshape(count, context)
    return pieces[np.linspace(0, count - 1, min(windows, count)).round().astype(int)]


@contextmanager
def _tokenizer_file(directory: ModelDirectory | GGUFModel) -> Iterator[Path | None]:
    """The model's tokenizer as a file, whatever it is stored as; None when there is none."""
    content = directory.tokenizer_json()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        if content is not None:
            file.write_text(content, encoding="utf-8")
        yield None if content is None else file
