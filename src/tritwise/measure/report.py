"""The report of a run: `report.json` holds every number, `report.html` shows them on one page that needs no network.

    from tritwise.measure.report import write_report
    write_report(report, Path("runs/quickstart"))

`report` is plain JSON data. Its shape:

    name, key, repeat      what was run, and how to run it again (command, versions, hashes)
    models                 in the recipe's order, each: name, config, parameters, training, files, bench, held_out,
                           layers (code counts, empty for a dense model), completions
    held_out               the text all models are scored on: bytes, documents, repositories, xz_bits_per_byte
    data, machine, stages  facts of the data, the machine, and the seconds each stage took
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tritwise.common.files import atomic_write, atomic_write_json

HTML, JSON = "report.html", "report.json"


def write_report(report: Mapping[str, Any], out: Path) -> None:
    """Write `report.html` and then `report.json` into `out`; equal data gives equal bytes.

    report.json records the SHA-256 of the page, so that a page that was cut off or edited is noticed.
    """
    from tritwise.measure.report_page import page

    html = page(report)
    atomic_write(out / HTML, html)
    digest = hashlib.sha256(html.encode()).hexdigest()
    atomic_write_json(out / JSON, {**report, "html_sha256": digest})


def layer_counts(tensors: Mapping[str, Mapping[str, int]]) -> list[dict[str, int]]:
    """Counts of -1, 0 and +1 summed over the linears of each layer, in order of depth.

    `tensors` maps a tensor's name (`model.layers.N. ...`) to its counts `minus`, `zero`, `plus`.
    """
    layers: dict[int, dict[str, int]] = {}
    for name, counts in tensors.items():
        layer = int(name.split(".")[2])
        total = layers.setdefault(layer, {"minus": 0, "zero": 0, "plus": 0})
        for key in total:
            total[key] += int(counts[key])
    return [layers[index] for index in sorted(layers)]


def training_curve(log: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The columns of a training log that the report keeps: `step`, `tokens`, `loss`, `learning_rate`.

    A resumed training may have logged the steps after its last checkpoint twice; the later line counts.
    """
    by_step = {int(line["step"]): line for line in log}
    lines = [by_step[step] for step in sorted(by_step)]
    return {key: [line[key] for line in lines] for key in ("step", "tokens", "loss", "learning_rate")}
