"""Plots as SVG text that stands inside a page: it takes the page's font and colours, light or dark.

matplotlib draws with stand-in colours, which are then replaced by CSS variables (`var(--series-1)`, `currentColor`).
Equal data gives equal bytes: the salt of the ids is fixed and no date is written.
"""

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from tritwise.measure.report_style import COLOURS

SERIES_COUNT = 4
# Stand-ins: values no plot would use otherwise, so the replacement cannot hit anything else.
_INK, _FAINT = "#010203", "#010204"
_SERIES = tuple(f"#01030{i}" for i in range(1, SERIES_COUNT + 1))
_CODES = ("#010401", "#010402", "#010403")
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--grid)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(_SERIES, start=1)} | {
    colour: f"var(--code-{name})" for colour, name in zip(_CODES, ("minus", "zero", "plus"), strict=True)}
MAX_POINTS = 600
_LINES = ("-", "--", ":", "-.")


def binned(x: Sequence[float], y: Sequence[float], points: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """At most `points` means over equal runs of the series, so that a long training does not make a huge file."""
    size = -(-len(x) // points) if len(x) else 1
    starts = range(0, len(x), size)
    return ([float(np.mean(x[i:i + size])) for i in starts], [float(np.mean(y[i:i + size])) for i in starts])


def smoothed(y: Sequence[float], radius: int) -> list[float]:
    """Mean over the value and `radius` values on each side, at the ends over those that there are.

    A window that stays centred follows a falling curve without lagging behind it.
    """
    total = np.concatenate([[0.0], np.cumsum(np.asarray(y, dtype=np.float64))])
    index = np.arange(len(y))
    low, high = np.maximum(index - radius, 0), np.minimum(index + radius + 1, len(y))
    return ((total[high] - total[low]) / (high - low)).tolist()


def loss_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Loss above, learning rate below, over tokens; `curves` maps a model's name to `tokens`, `loss`, `learning_rate`.

    Loss is in nats a token. Each step is a faint line; the strong line is its moving average. The axis ends where
    the first steps, which fall from ln(vocabulary), would flatten everything else.
    """
    figure, (top, bottom) = _figure(8.2, 4.6, rows=2, height_ratios=(3, 1))
    lows, highs = [], []
    for colour, (name, curve) in zip(_SERIES, curves.items(), strict=False):
        tokens = np.asarray(curve["tokens"]) / 1e6
        loss = np.asarray(curve["loss"])
        mean = smoothed(loss, radius=max(1, len(loss) // 60))
        top.plot(*binned(tokens, loss), color=colour, linewidth=0.8, alpha=0.35)
        top.plot(*binned(tokens, mean), color=colour, linewidth=1.8, label=name)
        bottom.plot(*binned(tokens, curve["learning_rate"]), color=colour, linewidth=1.6)
        settled = loss[len(loss) // 20:]
        lows.append(settled.min())
        highs.append(settled.max())
    margin = 0.05 * (max(highs) - min(lows) or 1.0)
    top.set_ylim(min(lows) - margin, max(highs) + margin)
    top.set_ylabel("loss, nats a token")
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("training tokens, millions")
    bottom.set_ylim(bottom=0)
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
    top.sharex(bottom)
    top.tick_params(labelbottom=False)
    top.legend(frameon=False, labelcolor=_INK, loc="upper right")
    return _svg(figure, "loss")


def code_shares(layers: Sequence[Mapping[str, float]], *, name: str) -> str:
    """Share of -1, 0 and +1 among a model's block weights, one stacked bar a layer.

    `layers` holds `minus`, `zero` and `plus` counts, in order of depth.
    """
    figure, (axes,) = _figure(8.2, 2.6)
    counts = np.array([[layer[key] for key in ("minus", "zero", "plus")] for layer in layers], dtype=float)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    positions, bottom = np.arange(len(layers)), np.zeros(len(layers))
    for column, (label, colour) in enumerate(zip(("−1", "0", "+1"), _CODES, strict=True)):
        axes.bar(positions, shares[:, column], bottom=bottom, color=colour, width=0.82, label=label)
        if len(layers) <= 16:
            for x, start, share in zip(positions, bottom, shares[:, column], strict=True):
                if share >= 8:
                    axes.text(x, start + share / 2, f"{share:.0f}", ha="center", va="center", color=_INK, fontsize=8)
        bottom += shares[:, column]
    axes.set_xticks(positions if len(layers) <= 32 else positions[::4])
    axes.set_xlabel("layer")
    axes.set_ylabel("weights, %")
    axes.set_ylim(0, 100)
    axes.grid(visible=False)
    axes.legend(frameon=False, labelcolor=_INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _svg(figure, f"codes-{name}")


def twins(curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
          gaps: Mapping[str, Sequence[tuple[float, float, float, float]]]) -> str:
    """Held-out bits per byte over tokens of several kinds of models at several sizes and, below, their gaps.

    `curves` maps a kind to {size: (tokens, bits per byte)}: a colour a kind, a line style a size. `gaps` maps a kind to
    (parameters, gap, low, high) of each size; where no kind has two, that plot is left out.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    gaps = {kind: found for kind, found in gaps.items() if len(found) > 1}
    figure, (top, *rest) = _figure(8.2, 6.4 if gaps else 4.0, rows=2 if gaps else 1,
                                   height_ratios=(3, 2) if gaps else (1,))
    sizes = list(dict.fromkeys(size for found in curves.values() for size in found))
    colours = dict(zip(curves, _SERIES, strict=False))
    for kind, found in curves.items():
        for size, (tokens, bits) in found.items():
            top.plot(np.asarray(tokens) / 1e6, bits, color=colours[kind], linewidth=1.6, marker="o", markersize=3.5,
                     linestyle=_LINES[sizes.index(size) % len(_LINES)], label=f"{kind}, {size}")
    top.set_xscale("log")
    top.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    top.xaxis.set_major_formatter("{x:g}")
    top.xaxis.set_minor_formatter(NullFormatter())
    top.set_xlabel("training tokens, millions")
    top.set_ylabel("held-out bits a byte")
    top.legend(frameon=False, labelcolor=_INK, fontsize=9)
    for axes in rest:
        for kind, found in gaps.items():
            x, y, low, high = np.array(found).T
            axes.errorbar(x / 1e6, y, yerr=[y - low, high - y], color=colours[kind], linewidth=1.6, marker="o",
                          markersize=3.5, capsize=3, label=f"{kind} − dense")
        axes.set_xscale("log")
        axes.set_xticks(places := sorted({point[0] / 1e6 for found in gaps.values() for point in found}),
                        [f"{place:.2g}" for place in places])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("parameters of the blocks, millions")
        axes.set_ylabel("gap, bits a byte")
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    return _svg(figure, "twins")


def standalone(svg: str) -> str:
    """A plot as a file of its own, with the colours that a page would give it."""
    opening, rest = svg.split(">", 1)
    return f"{opening}><style>{COLOURS}svg {{ color: var(--ink); }}</style>{rest}\n"


def _figure(width: float, height: float, *, rows: int = 1, height_ratios: Sequence[float] = (1,)):
    # The object interface without pyplot: no global state, no window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.add_gridspec(rows, 1, height_ratios=height_ratios)
    axes = [figure.add_subplot(grid[row]) for row in range(rows)]
    for each in axes:
        each.patch.set_alpha(0)
        each.tick_params(colors=_INK, labelsize=9, length=0)
        each.xaxis.label.set_color(_INK)
        each.yaxis.label.set_color(_INK)
        each.xaxis.get_offset_text().set_color(_INK)
        each.yaxis.get_offset_text().set_color(_INK)
        each.grid(color=_FAINT, linewidth=0.8)
        each.set_axisbelow(True)
        for spine in each.spines.values():
            spine.set_visible(False)
    return figure, axes


def _svg(figure, name: str) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"tritwise-{name}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    # Several plots stand in one page: their ids must not meet.
    prefix = re.sub(r"[^A-Za-z0-9-]", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    # The page gives the size; the view box keeps the proportions.
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
                  count=1).strip()
