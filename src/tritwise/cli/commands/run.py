"""`tritwise run`: the whole way of a recipe."""

import contextlib
from pathlib import Path
from typing import Any

from tritwise.cli.output import format_bytes, print_facts, print_json, print_table
from tritwise.common.progress import format_duration
from tritwise.pipeline import run_recipe


def run(recipe: Path, /, *, out: Path | None = None, json: bool = False) -> None:
    """Walk a recipe: data, training of each variant, export, completions and speed, report.

    Finished stages are reused; an interrupted training goes on where it stopped.

    Parameters
    ----------
    recipe
        The TOML file, for example recipes/quickstart.toml.
    out
        Directory for everything it makes; runs/NAME when not given.
    json
        Print the report's data as one JSON object instead of the summary.
    """
    report = run_recipe(recipe, out)
    if json:
        print_json(report)
        return
    summary(report, out or Path("runs") / report["name"])


def summary(report: dict[str, Any], out: Path) -> None:
    """Print what a run found: scores, sizes, speeds, times, and where the report is."""
    models, xz = report["models"], report["held_out"]["xz_bits_per_byte"]
    print_table(
        ["held-out bits a byte", "engine", "training model"],
        [*[[m["name"], f"{m['held_out']['bits_per_byte']:.4f}", f"{m['training']['bits_per_byte']:.4f}"]
           for m in models], ["xz -9e, each file alone", f"{xz:.4f}", "-"]])
    print()
    print_table(
        ["model", "size", "peak memory", "decode tok/s", "prefill tok/s", "first token ms", "kernel"],
        [[m["name"], format_bytes(m["files"]["bytes"]), format_bytes(m["bench"]["peak_rss_bytes"]),
          f"{m['bench']['decode_tokens_per_second']:,.0f}", f"{m['bench']['prefill_tokens_per_second']:,.0f}",
          f"{1000 * m['completions'][0]['seconds_to_first_token']:.1f}", m["bench"]["kernel"]] for m in models])
    print()
    stages = [(s["name"], format_duration(s["seconds"]) + ("  (reused)" if s.get("reused") else ""))
              for s in report["stages"]]
    total = sum(s["seconds"] for s in report["stages"])
    print_facts([*stages, ("together", format_duration(total))], title="time by stage, m:ss")
    print()
    print(f"report: {out / 'report.html'}")
    with contextlib.suppress(ValueError):
        print(f"        {(out / 'report.html').resolve().as_uri()}")
