"""From samples to medians, ratios and a table. Pure functions over what compare.py writes as JSON."""

import statistics
from collections.abc import Sequence
from typing import Any


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours over theirs, round by round: both samples of a round are of about the same moment of the machine."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def shares(speeds: Sequence[float], bytes_per_token: int, bandwidths: Sequence[float]) -> dict[str, float]:
    """Bytes of weights a second over the read bandwidth around each sample."""
    return spread([speed * bytes_per_token / bandwidth for speed, bandwidth in zip(speeds, bandwidths, strict=True)])


def best(rows: Sequence[dict[str, Any]], lower_is_better: bool) -> dict[str, Any] | None:
    """The row of the best median; None when all were refused."""
    measured = [row for row in rows if "value" in row]
    pick = min if lower_is_better else max
    return pick(measured, key=lambda row: row["value"]["median"], default=None)


def column(row: dict[str, Any], key: str) -> list[float]:
    return [sample[key] for sample in row["samples"]]


def finish(result: dict[str, Any]) -> dict[str, Any]:
    """Add `value`, `share` and `ratio` to each row, and to each work the best peer. The first row of a work is ours."""
    for work in result["works"]:
        ours, *peers = work["rows"]
        for row in work["rows"]:
            if "samples" not in row:
                continue
            values = column(row, "value")
            row["value"] = spread(values)
            if all(column(row, "bandwidth")):
                row["share"] = shares(values, row["bytes_per_token"], column(row, "bandwidth"))
            if row is not ours and "samples" in ours:
                row["ratio"] = ratios(column(ours, "value"), values)
        winner = best(peers, work["unit"] in ("s", "MiB"))
        work["best_peer"] = winner and winner["system"]
    return result


def table(result: dict[str, Any]) -> str:
    """Markdown: a section for each work, the best peer's row in bold."""
    lines = []
    for work in result["works"]:
        lines += [f"### {work['work']}: {result['shape']}, {work['threads']} threads, {work['unit']}", ""]
        lines += ["| system | median (min-max) | ours / it, of a round: median (min-max) | share of read bandwidth |",
                  "|---|---|---|---|"]
        for row in work["rows"]:
            name = f"**{row['system']}**" if row["system"] == work.get("best_peer") else row["system"]
            if "refused" in row:
                lines.append(f"| {name} | refused: {row['refused']} | | |")
                continue
            digits = 0 if work["unit"] == "MiB" else 2 if work["unit"] == "s" else 1
            lines.append(f"| {name} | {_shown(row['value'], digits)} | {_shown(row.get('ratio'), 2)} "
                         f"| {_shown(row.get('share'), 2)} |")
        lines.append("")
    lines += [f"Left out: {name} ({why})." for name, why in result["left_out"].items()]
    return "\n".join(lines)


def _shown(value: dict[str, float] | None, digits: int) -> str:
    if value is None:
        return ""
    middle, low, high = (f"{value[key]:.{digits}f}" for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low}-{high})"
