"""`tritwise quantize`: a dense model in fewer bits, without training."""

from pathlib import Path
from typing import Literal

from tritwise.cli.commands.perplexity import read_text
from tritwise.cli.output import Text, print_facts, print_json
from tritwise.pipeline.walk import require
from tritwise.quantize import quantise_model


def quantize(model: Path, out: Path, /, *, to: Literal["ternary", "int8", "int4"],
             method: Literal["rtn", "gptq"] = "rtn", group_size: int | None = None, text: Text | None = None,
             windows: int = 128, context: int = 512, damping: float = 0.01, weights_only: bool = False,
             json: bool = False) -> None:
    """Quantise the linears of a dense model after its training.

    Parameters
    ----------
    model
        The dense model: a directory or a GGUF file.
    out
        The model directory to write.
    to
        What the weights become.
    method
        rtn rounds to nearest; gptq lets roundings make up for each other.
    group_size
        Inputs that share a scale; a row's, or a ternary matrix's, when not given.
    text
        The UTF-8 text that gptq is calibrated on.
    windows
        Most pieces of it that are taken, evenly spread.
    context
        Tokens of a piece.
    damping
        What gptq adds to the diagonal, of its mean.
    weights_only
        Keep a ternary model's activations in floats.
    json
        Print one JSON object.
    """
    if method == "gptq":
        require("running a model for its calibration", "torch")
    report = quantise_model(model, out, to=to, method=method, group_size=group_size,
                            text=None if text is None else read_text(text), windows=windows, context=context,
                            damping=damping, weights_only=weights_only)
    if json:
        print_json(report.to_json())
        return
    written = {"packed": "2-bit codes, 8-bit activations", "dense": "dequantised values, to be read as a dense model"}
    facts = [("bits a weight", f"{report.bits_per_weight:.3f}"), ("written", written[report.form]),
             ("squared error", f"{report.mean_relative_error:.3e} of the weights, mean over the linears")]
    if report.output_error:
        mean = sum(report.output_error.values()) / len(report.output_error)
        facts.append(("", f"{mean:.3e} of their outputs on {report.calibration_tokens:,} calibration tokens"))
    print_facts(facts, title=str(out))
