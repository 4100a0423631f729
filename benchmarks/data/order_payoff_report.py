"""The tables of order_payoff.py: means of each order, and paired differences with intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritwise.evaluate import CrossFileScore
from tritwise.evaluate.bootstrap import interval

MEASURES = ("bits", "name_bits", "exact", "edit_similarity", "identifiers_exact", "identifier_f1")
HEADINGS = {"bits": "bits/byte", "name_bits": "name bits/byte", "exact": "exact %", "edit_similarity": "edit sim. %",
            "identifiers_exact": "names exact %", "identifier_f1": "names F1 %"}
CONTROLS = (("dependencies", "alone"), ("definition", "alone"), ("others", "alone"), ("dependencies", "others"))
Values = dict[tuple[str, str, str], NDArray[np.float64]]  # (order, arm, measure): a value a task


def make_report(scores: dict[tuple[str, int], dict[str, Any]], unseen: set[str]) -> dict[str, Any]:
    """Means and differences of what `score_model` wrote for each (order, seed); `unseen` are ids of tasks."""
    orders = list(dict.fromkeys(order for order, _ in scores))
    lines = {key: CrossFileScore.from_json(value["cross_file"]) for key, value in scores.items()}
    first = next(iter(lines.values()))
    arms = list(first.arms)
    values: Values = {}
    for order in orders:
        of_order = [line for (name, _), line in lines.items() if name == order]
        for arm in arms:
            for measure in MEASURES:
                if getattr(first.arms[arm][0], measure) is not None:
                    values[order, arm, measure] = np.mean(
                        [[float(getattr(s, measure)) for s in line.arms[arm]] for line in of_order], axis=0)
    is_unseen = np.array([task in unseen for task in first.tasks])
    groups = {"all": np.ones(len(first.tasks), dtype=bool), "name not in the file": is_unseen,
              "name in an import": ~is_unseen}
    return {"tasks": {name: int(group.sum()) for name, group in groups.items()},
            "repositories": len(set(first.repositories)), "seeds": len({seed for _, seed in scores}),
            "held_out": _held_out(scores, orders),
            "by_seed": {f"{order}-{seed}": {
                "held_out": {mode: sum(bits) / sum(scores[order, seed]["held_out"]["bytes"])
                             for mode, bits in scores[order, seed]["held_out"]["bits"].items()},
                "cross_file": line.summary()} for (order, seed), line in lines.items()},
            "cross_file": {name: _group(values, first, orders, arms, group)
                           for name, group in groups.items() if group.any()}}


def _difference(a: NDArray, b: NDArray, weights: NDArray | None, repositories: list[str]) -> dict[str, Any]:
    """a - b over the same tasks, with the intervals of resampled tasks and of resampled repositories."""
    tasks = interval(a - b, weights)
    whole = interval(a - b, weights, repositories)
    return {"difference": tasks.estimate, "tasks": [tasks.low, tasks.high], "repositories": [whole.low, whole.high]}


def _group(values: Values, first: CrossFileScore, orders: list[str], arms: list[str],
           group: NDArray[np.bool_]) -> dict[str, Any]:
    names = [name for name, chosen in zip(first.repositories, group, strict=True) if chosen]
    weights = {"bits": np.array(first.bytes)[group], "name_bits": np.array(first.name_bytes)[group]}

    def mean(key: tuple[str, str, str]) -> float:
        weight = weights.get(key[2])
        return float(values[key][group].sum() / (len(names) if weight is None else weight.sum()))

    def difference(a: tuple[str, str, str], b: tuple[str, str, str]) -> dict[str, Any]:
        return _difference(values[a][group], values[b][group], weights.get(a[2]), names)

    return {
        "means": {order: {arm: {m: mean((order, arm, m)) for m in MEASURES if (order, arm, m) in values}
                          for arm in arms} for order in orders},
        "orders": {f"{orders[0]} - {other}": {
            arm: {m: difference((orders[0], arm, m), (other, arm, m)) for m in MEASURES
                  if (other, arm, m) in values} for arm in arms} for other in orders[1:]},
        "controls": {order: {f"{a} - {b}": {m: difference((order, a, m), (order, b, m)) for m in MEASURES
                                            if (order, a, m) in values and (order, b, m) in values}
                             for a, b in CONTROLS if a in arms and b in arms} for order in orders}}


def _held_out(scores: dict[tuple[str, int], dict[str, Any]], orders: list[str]) -> dict[str, Any]:
    """Bits per byte of held-out files by the order of training and what stands before a file in scoring."""
    first = next(iter(scores.values()))["held_out"]
    sizes, modes = np.array(first["bytes"]), list(first["bits"])
    bits = {(order, mode): np.mean([score["held_out"]["bits"][mode] for (name, _), score in scores.items()
                                    if name == order], axis=0) for order in orders for mode in modes}

    def difference(a: tuple[str, str], b: tuple[str, str]) -> dict[str, Any]:
        return _difference(bits[a], bits[b], sizes, first["repositories"])

    return {
        "files": len(sizes), "bytes": int(sizes.sum()), "repositories": len(set(first["repositories"])),
        "bits_per_byte": {order: {mode: float(bits[order, mode].sum() / sizes.sum()) for mode in modes}
                          for order in orders},
        "orders": {f"{orders[0]} - {other}": {mode: difference((orders[0], mode), (other, mode)) for mode in modes}
                   for other in orders[1:]},
        "controls": {order: {f"{mode} - alone": difference((order, mode), (order, "alone")) for mode in modes
                             if mode != "alone"} for order in orders}}


def _number(measure: str, value: float) -> str:
    return f"{value:.4f}" if measure.endswith("bits") else f"{100 * value:.2f}"


def _signed(measure: str, found: dict[str, Any]) -> str:
    scale, digits = (1, 4) if measure.endswith("bits") else (100, 2)
    value, (low, high), (wide_low, wide_high) = found["difference"], found["tasks"], found["repositories"]
    return (f"{scale * value:+.{digits}f} [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}] "
            f"[{scale * wide_low:+.{digits}f}, {scale * wide_high:+.{digits}f}]")


def show(report: dict[str, Any]) -> str:
    """The report as text. Differences: estimate, interval over tasks (files), interval over repositories."""
    held = report["held_out"]
    modes = list(next(iter(held["bits_per_byte"].values())))
    lines = [f"held-out bits per byte, {held['files']} files of {held['repositories']} repositories, "
             f"{held['bytes']:,} bytes; columns: what stands before a file",
             f"  {'trained on':14}" + "".join(f"{mode:>13}" for mode in modes)]
    lines += [f"  {order:14}" + "".join(f"{row[mode]:13.4f}" for mode in modes)
              for order, row in held["bits_per_byte"].items()]
    for title in ("orders", "controls"):
        for name, row in held[title].items():
            lines += [f"  {name + ', ' + mode:40} {_signed('bits', found)}" for mode, found in row.items()]
    if report["seeds"] > 1:
        lines += ["", "each training: held-out bits per byte alone, bits per byte of references behind dependencies"]
        lines += [f"  {name:20}{found['held_out']['alone']:10.4f}"
                  f"{found['cross_file']['dependencies']['bits_per_byte']:10.4f}"
                  for name, found in report["by_seed"].items()]
    for group, count in report["tasks"].items():
        if group not in report["cross_file"]:
            continue
        part = report["cross_file"][group]
        lines += ["", f"cross-file tasks, {group}: {count}",
                  f"  {'trained on':14}{'window':14}" + "".join(f"{HEADINGS[m]:>16}" for m in MEASURES)]
        for order, arms in part["means"].items():
            for arm, row in arms.items():
                lines.append(f"  {order:14}{arm:14}" + "".join(
                    f"{_number(m, row[m]) if m in row else '-':>16}" for m in MEASURES))
        for title in ("orders", "controls"):
            for name, arms in part[title].items():
                for arm, row in arms.items():
                    lines += [f"  {name + ', ' + arm:44}{HEADINGS[m]:16}{_signed(m, row[m])}"
                              for m in ("bits", "exact", "edit_similarity") if m in row]
    return "\n".join(lines)
