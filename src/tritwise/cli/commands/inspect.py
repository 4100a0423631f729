"""`tritwise inspect`: what a model directory holds."""

from pathlib import Path

from tritwise.cli.output import format_bytes, print_facts, print_json, print_table
from tritwise.measure.inspection import inspect_model


def inspect(model: Path, /, *, json: bool = False) -> None:
    """Show configuration, parameters, bits a weight, and codes and scale of every tensor.

    Parameters
    ----------
    model
        The model directory.
    json
        Print one JSON object.
    """
    report = inspect_model(model)
    if json:
        print_json(report.to_json())
        return
    settings = report.config.model_dump(mode="json", exclude_none=True)
    print_facts([(key, str(value)) for key, value in settings.items()], title=str(model))
    print()
    by_kind = (f"{report.parameters_block:,} in blocks, {report.parameters_embedding:,} in embedding and head, "
               f"{report.parameters_norm:,} in norms"
               + (f", {report.parameters_router:,} in routers" if report.parameters_router else ""))
    facts = [("parameters", f"{report.parameters:,} ({by_kind})"),
             ("weights stored", f"{format_bytes(report.stored_bytes)}, {report.bits_per_weight:.3f} bits a parameter")]
    if report.bits_per_quantised_weight is not None:
        facts.append(("of these, codes", f"{format_bytes(report.quantised_bytes)}, "
                                         f"{report.bits_per_quantised_weight:.3f} bits a weight"))
    print_facts(facts)
    print()
    if report.quantised:
        print_table(["quantised tensor", "shape", "scale", "-1 %", "0 %", "+1 %"],
                    [[t.name, _shape(t.shape), f"{t.scale:.6g}", *[f"{100 * share:.2f}" for share in t.shares]]
                     for t in report.quantised])
        print()
    print_table(["tensor", "shape", "type", "mean", "std"],
                [[t.name, _shape(t.shape), t.dtype, f"{t.mean:.6f}", f"{t.std:.6f}"] for t in report.dense])


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
