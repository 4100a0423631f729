"""The report of the evidence: what each training came to, gaps with intervals, their trend, what changes did."""

import json
import math
import statistics
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from evidence_plan import DENSE, Size, Sweep, Training, next_training, search_trainings, sweep_of, variant_trainings
from evidence_training import DIVERGED, FACTS, SCORES, Place, Results

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write, canonical_json, read_json
from tritwise.common.progress import format_duration
from tritwise.evaluate.bootstrap import Interval, interval
from tritwise.measure.plots import binned, standalone, twins

JSON, MARKDOWN, SVG = "results.json", "results.md", "results.svg"
CURVE_POINTS = 100


class Documents:
    """Bits of each held-out document under finished trainings, and what differences of them come to."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._bits: dict[str, np.ndarray] = {}
        self.names: list[tuple[str, str]] | None = None
        self.bytes = np.zeros(0)

    def bits(self, name: str) -> np.ndarray:
        """Bits of each document under the training `name`. Raises TritwiseError where it scored other documents."""
        if name not in self._bits:
            rows = read_json(self.out / name / "held_out.json", what="held-out documents")["documents"]
            names = [(row["repository"], row["path"]) for row in rows]
            if self.names is None:
                self.names, self.bytes = names, np.array([row["bytes"] for row in rows], dtype=np.float64)
            if names != self.names:
                raise TritwiseError(f"{name} scored other documents than the rest", fix="delete it, and run again")
            self._bits[name] = np.array([row["nats"] for row in rows]) / math.log(2)
        return self._bits[name]

    def mean(self, names: list[str]) -> np.ndarray:
        """Bits of each document, mean over trainings."""
        return np.mean([self.bits(name) for name in names], axis=0)

    def ratio(self, bits: np.ndarray) -> dict[str, Any]:
        """Sum of bits over sum of bytes, with the intervals of resampled documents and of resampled repositories."""
        alone = interval(bits, self.bytes)
        whole = interval(bits, self.bytes, [repository for repository, _ in self.names])
        return {"estimate": alone.estimate, "documents": _ends(alone), "repositories": _ends(whole)}


def _ends(found: Interval) -> list[float]:
    return [found.low, found.high]


def training_report(out: Path, name: str) -> dict[str, Any]:
    """Settings, scores along the way, thinned losses, seconds and speed of a finished training."""
    directory = out / name
    facts = read_json(directory / FACTS, what="facts of a training")
    steps = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    tokens, loss = binned([s["tokens"] for s in steps], [s["loss"] for s in steps], CURVE_POINTS)
    diverged = read_json(directory / DIVERGED, what="a divergence") if (directory / DIVERGED).exists() else None
    scores = read_json(directory / SCORES, what="scores")["scores"] if (directory / SCORES).exists() else []
    return facts | {
        "bits_per_byte": None if diverged else scores[-1]["bits_per_byte"], "diverged": diverged and diverged["what"],
        "scores": scores, "loss": {"tokens": [round(t) for t in tokens], "nats": [round(n, 4) for n in loss]},
        "seconds": round(sum(s["seconds"] for s in steps), 1),
        "tokens_per_second": round(statistics.median(s["tokens_per_second"] for s in steps), 1) if steps else None}


def gap_report(documents: Documents, done: dict[tuple[str, int], Training], variant: str) -> dict[str, Any] | None:
    """`variant` - dense at one size, over the seeds that both were trained with; None where there is none."""
    seeds = sorted(seed for name, seed in done if name == variant and (DENSE, seed) in done)
    if not seeds:
        return None
    names = {each: [done[each, seed].name for seed in seeds] for each in (variant, DENSE)}
    by_seed = {seed: float((documents.bits(a) - documents.bits(b)).sum() / documents.bytes.sum())
               for seed, a, b in zip(seeds, names[variant], names[DENSE], strict=True)}
    return documents.ratio(documents.mean(names[variant]) - documents.mean(names[DENSE])) | {
        "seeds": by_seed, "deviation_over_seeds": statistics.stdev(by_seed.values()) if len(seeds) > 1 else None}


def trend_report(documents: Documents, points: list[tuple[float, np.ndarray]]) -> dict[str, Any] | None:
    """Slope of the gap in bits a byte per tenfold parameters; `points` are (parameters, differences of documents).

    The least-squares line's slope is a weighted sum of the gaps, and they are all taken on the same documents: so the
    weighted sum of each document's differences is resampled.
    """
    if len(points) < 2:
        return None
    x = np.log10([parameters for parameters, _ in points])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return documents.ratio(sum(w * bits for w, (_, bits) in zip(weights, points, strict=True))) | {"sizes": len(points)}


def make_report(place: Place, results: Results) -> dict[str, Any]:
    """Everything that is finished, as one object."""
    plan, documents = place.plan, Documents(place.out)
    trainings: dict[str, dict[str, Any]] = {}
    sizes: dict[str, dict[str, Any]] = {}
    lines: dict[str, list[tuple[float, np.ndarray]]] = {}
    search = None

    def add(training: Training) -> bool:
        """Take a training into the report if it is finished; whether it has bits to compare."""
        if results.score(training) is not None:
            trainings[training.name] = training_report(place.out, training.name)
        compared = math.isfinite(results.score(training) or math.inf)
        if compared:
            documents.bits(training.name)  # they must be those of the others
        return compared

    for size in plan.sizes:
        sweep, swept = sweep_of(plan, size, results.score), []

        def note(training: Training, swept: list[Training] = swept) -> float:
            swept.append(training)
            return found if (found := results.score(training)) is not None else math.inf

        if size.sweep_tokens is not None:
            _sweep_as_far_as_it_is(place, size, note)
            for training in swept:
                add(training)
        if isinstance(sweep, Training):
            sizes[size.name] = {"sweep": _unfinished(size, [trainings[t.name] for t in swept if t.name in trainings])}
            continue
        done = {(t.variant, t.seed): t for t in variant_trainings(plan, size, sweep, plan.seeds) if add(t)}
        _check_twins([trainings[t.name] for t in done.values()])
        sizes[size.name] = size_report(documents, size, sweep, done, trainings)
        for variant in plan.variants:
            gap = sizes[size.name]["gaps"].get(variant)
            if gap is not None:
                names = {each: [done[each, seed].name for seed in gap["seeds"]] for each in (variant, DENSE)}
                parameters = trainings[names[DENSE][0]]["parameters"]["block"]
                lines.setdefault(variant, []).append(
                    (parameters, documents.mean(names[variant]) - documents.mean(names[DENSE])))
        if plan.search is not None and plan.search.size == size.name:
            changed = [t for t in search_trainings(plan, sweep) if add(t)]
            base = {variant: done.get((variant, plan.seeds[0])) for variant in plan.variants}
            search = {"size": size.name, "changes": [
                {"change": t.change.name, "variant": t.variant, "settings": t.change.model_dump(
                    exclude_none=True, exclude_defaults=True, exclude={"name", "variant"}),
                 "bits_per_byte": trainings[t.name]["bits_per_byte"]}
                | documents.ratio(documents.bits(t.name) - documents.bits(base[t.variant].name))
                for t in changed if base[t.variant] is not None]}
            search["changes"].sort(key=lambda row: (row["variant"], row["estimate"]))
    following = next_training(plan, results.score)
    return {"plan": plan.model_dump(mode="json"), "next": following and following.name,
            "held_out": {"documents": len(documents.bytes), "bytes": int(documents.bytes.sum()),
                         "repositories": len({r for r, _ in documents.names or ()})},
            "sizes": sizes, "trend": {v: found for v, points in lines.items()
                                      if (found := trend_report(documents, points)) is not None},
            "search": search, "trainings": trainings}


def _sweep_as_far_as_it_is(place: Place, size: Size, note: Any) -> None:
    # With an infinite score for what is missing, the walk of an unfinished sweep goes over all that is there.
    with suppress(TritwiseError):  # no peak is any good yet
        sweep_of(place.plan, size, note)


def _unfinished(size: Size, swept: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, dict[str, float | None]] = {}
    for each in swept:
        found.setdefault(each["variant"], {})[f"{each['schedule']['peak']:g}"] = each["bits_per_byte"]
    return {"of": size.name, "finished": False, "bits_per_byte": found}


def _check_twins(trainings: list[dict[str, Any]]) -> None:
    seen: dict[int, tuple[str, str]] = {}
    for each in trainings:
        name, starts = seen.setdefault(each["seed"], (each["name"], each["sample_starts_sha256"]))
        if starts != each["sample_starts_sha256"]:
            raise TritwiseError(f"{each['name']} and {name} did not see the same tokens", fix="delete one of them")


def size_report(documents: Documents, size: Size, sweep: Sweep, done: dict[tuple[str, int], Training],
                trainings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One size: the sweep, every variant's scores and parameters, and the gaps to dense."""
    variants: dict[str, Any] = {}
    for (variant, seed), training in sorted(done.items()):
        facts = trainings[training.name]
        row = variants.setdefault(variant, {"parameters": _parameters(facts["parameters"]), "peak": training.peak,
                                            "tokens": facts["tokens"], "epochs": facts["epochs"], "seeds": {},
                                            "tokens_per_parameter": facts["tokens"] / facts["parameters"]["block"]})
        row["seeds"][seed] = facts["bits_per_byte"]
    for row in variants.values():
        row["bits_per_byte"] = statistics.fmean(row["seeds"].values())
    return {"sweep": {"of": sweep.size, "finished": True, "grid": list(sweep.grid),
                      "best": sweep.best, "at_end": list(sweep.at_end),
                      "bits_per_byte": {variant: {f"{peak:g}": None if math.isinf(bits) else bits
                                                  for peak, bits in found.items()}
                                        for variant, found in sweep.scores.items()}},
            "variants": variants,
            "gaps": {variant: gap for variant in variants if variant != DENSE
                     and (gap := gap_report(documents, done, variant)) is not None}}


def _parameters(counts: dict[str, int]) -> dict[str, Any]:
    total = sum(counts.values())
    return counts | {"total": total, "share_of_embedding_and_head": counts["embedding"] / total}


def _signed(found: dict[str, Any]) -> str:
    (low, high), (wide_low, wide_high) = found["documents"], found["repositories"]
    return f"{found['estimate']:+.4f} | {low:+.4f} to {high:+.4f} | {wide_low:+.4f} to {wide_high:+.4f}"


def show(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    if not report["trainings"]:
        return f"Nothing is trained yet: next is {report['next']}.\n"
    held = report["held_out"]
    lines = [f"Held-out bits a byte on {held['documents']} documents of {held['repositories']} repositories "
             f"({held['bytes']:,} bytes), scored in float32; all variants of a size saw the same tokens in the same "
             "order. Intervals: 95 %, bootstrap over documents and over whole repositories; they say nothing of other "
             "trainings, seeds do.", ""]
    lines += ["| size | variant | block / all parameters | embedding and head | tokens (a block parameter, epochs) | "
              "peak | bits a byte by seed | mean |", "|---|---|---|---|---|---|---|---|"]
    for name, size in report["sizes"].items():
        for variant, row in size.get("variants", {}).items():
            counts = row["parameters"]
            lines.append(f"| {name} | {variant} | {counts['block']:,} / {counts['total']:,} ({counts['norm']:,} of "
                         f"norms) | {100 * counts['share_of_embedding_and_head']:.0f} % | {row['tokens']:,} "
                         f"({row['tokens_per_parameter']:.1f}, {row['epochs']:.2f}) | {row['peak']:g} | "
                         + ", ".join(f"{bits:.4f}" for bits in row["seeds"].values())
                         + f" | {row['bits_per_byte']:.4f} |")
    gaps = [(name, variant, gap) for name, size in report["sizes"].items() for variant, gap in
            size.get("gaps", {}).items()]
    if gaps:
        lines += ["", "| gap to dense | size | bits a byte | over documents | over repositories | by seed |",
                  "|---|---|---|---|---|---|"]
        lines += [f"| {variant} | {name} | {_signed(gap)} | {', '.join(f'{g:+.4f}' for g in gap['seeds'].values())} |"
                  for name, variant, gap in gaps]
    for variant, trend in report["trend"].items():
        lines += ["", f"Trend of {variant} - dense per tenfold parameters of the blocks, a straight line through "
                  f"{trend['sizes']} sizes: {_signed(trend).replace(' | ', ', ')}. "
                  + ("Two points always lie on a line. " if trend["sizes"] == 2 else "")
                  + "Sizes differ in tokens a parameter, too; nothing is said beyond them."]
    for name, size in report["sizes"].items():
        lines += ["", *_show_sweep(name, size["sweep"])]
    if report["search"] is not None and report["search"]["changes"]:
        lines += ["", f"Changes at {report['search']['size']}, against the same variant without them (below 0 is "
                  "better):", "",
                  "| variant | change | bits a byte | difference | over documents | over repositories |",
                  "|---|---|---|---|---|---|"]
        lines += [f"| {row['variant']} | {row['change']} | {row['bits_per_byte']:.4f} | {_signed(row)} |"
                  for row in report["search"]["changes"]]
    diverged = [each["name"] for each in report["trainings"].values() if each["diverged"]]
    lines += ["", f"Diverged: {', '.join(diverged)}."] if diverged else []
    seconds = sum(each["seconds"] for each in report["trainings"].values())
    devices = sorted({f"{each['device']}, {each['dtype']}, torch {each['torch']}"
                      for each in report["trainings"].values()})
    lines += ["", f"{len(report['trainings'])} trainings, {format_duration(seconds)} of steps; {'; '.join(devices)}. "
              + (f"Not finished: next is {report['next']}." if report["next"] else "All of the plan is trained.")]
    return "\n".join(lines) + "\n"


def _show_sweep(name: str, sweep: dict[str, Any]) -> list[str]:
    if sweep["of"] != name:
        return [f"Peaks at {name}: those of {sweep['of']}, not swept again."]
    peaks = sorted({peak for found in sweep["bits_per_byte"].values() for peak in found}, key=float)
    if not peaks:
        return [f"Sweep at {name}: not begun."]
    lines = [f"| peak at {name} | " + " | ".join(peaks) + " |", "|---" * (len(peaks) + 1) + "|"]
    for variant, found in sweep["bits_per_byte"].items():
        best = min(found, key=lambda peak: math.inf if found[peak] is None else found[peak])
        cells = ["" if peak not in found else "diverged" if found[peak] is None
                 else f"**{found[peak]:.4f}**" if peak == best else f"{found[peak]:.4f}" for peak in peaks]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    if not sweep["finished"]:
        lines += ["", "This sweep is not finished."]
    elif sweep["at_end"]:
        lines += ["", f"The best peak of {', '.join(sweep['at_end'])} stands at the grid's end."]
    return lines


def draw(report: dict[str, Any]) -> str | None:
    """Curves and gaps as an SVG file; None before the first training of a size is finished."""
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    first = report["plan"]["seeds"][0]
    for each in report["trainings"].values():
        if each["kind"] == "variant" and each["bits_per_byte"] is not None and each["seed"] == first:
            curves.setdefault(each["variant"], {})[each["size"]] = (
                [score["tokens"] for score in each["scores"]], [score["bits_per_byte"] for score in each["scores"]])
    if not curves:
        return None
    gaps: dict[str, list[tuple[float, float, float, float]]] = {}
    for size in report["sizes"].values():
        for variant, gap in size.get("gaps", {}).items():
            gaps.setdefault(variant, []).append((size["variants"][variant]["parameters"]["block"], gap["estimate"],
                                                 *gap["documents"]))
    return standalone(twins(curves, gaps))


def write_report(place: Place, results: Results) -> str:
    """Write results.json, results.md and, when there are curves, results.svg into --out; returns the text."""
    report = make_report(place, results)
    text, plot = show(report), draw(report)
    atomic_write(place.out / JSON, canonical_json(report) + "\n")
    atomic_write(place.out / MARKDOWN, text)
    if plot is not None:
        atomic_write(place.out / SVG, plot)
    return text
