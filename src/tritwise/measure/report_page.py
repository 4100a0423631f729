"""The page of a run's report: data in, HTML text out. All text that comes from outside is escaped here."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from tritwise.common.progress import format_duration
from tritwise.measure.page import facts, html_page, number, section, size, table, with_bar
from tritwise.measure.plots import SERIES_COUNT, code_shares, loss_curves

Data = Mapping[str, Any]


def page(report: Data) -> str:
    """The whole page; `report` as `tritwise.measure.report` describes it."""
    models = report["models"]
    title = f"{report['name']}: Tritwise report"
    parts = [_header(report), _cards(report), _quality(report), _training(models), _speed(models), _weights(models),
             _completions(models), _data(report), _repeat(report)]
    return html_page(title, parts)


def _colour(index: int) -> str:
    return f"var(--series-{index % SERIES_COUNT + 1})"


def _key(models: Sequence[Data], index: int) -> str:
    return f'<span class="key" style="background:{_colour(index)}"></span>{escape(models[index]["name"])}'


def _header(report: Data) -> str:
    models, machine = report["models"], report["machine"]
    names = " and ".join(f"{escape(m['name'])} ({number(m['parameters']['total'] / 1e6)} M parameters)" for m in models)
    tokens = number(models[0]["training"]["tokens"] / 1e6)
    return (f"<header><h1>{escape(report['name'])}</h1><p class=\"lead\">{names}, trained on {tokens} M tokens, "
            f"the same ones in the same order. Scores, speeds and completions are the native engine's, on the "
            f"exported files, measured on {escape(machine['cpu'])}.</p></header>")


def _cards(report: Data) -> str:
    first, others = report["models"][0], report["models"][1:]

    def beside(value: Callable[[Data], str]) -> str:
        return ", ".join(f"{escape(m['name'])} {value(m)}" for m in others)

    xz = f"xz -9e {number(report['held_out']['xz_bits_per_byte'])}"
    quality = beside(lambda m: number(m["held_out"]["bits_per_byte"]))
    cards = [
        ("Held-out text", number(first["held_out"]["bits_per_byte"]), "bits a byte", f"{quality}, {xz}".lstrip(", ")),
        ("Model on disk", *size(first["files"]["bytes"]).split(" "), beside(lambda m: size(m["files"]["bytes"]))),
        ("Decoding", number(first["bench"]["decode_tokens_per_second"]), "tokens/s",
         beside(lambda m: number(m["bench"]["decode_tokens_per_second"]))),
        ("Peak memory", *size(first["bench"]["peak_rss_bytes"]).split(" "),
         beside(lambda m: size(m["bench"]["peak_rss_bytes"]))),
    ]
    boxes = "".join(
        f'<div class="card"><div class="what">{what}, {escape(first["name"])}</div><div class="value">{value} '
        f'<small>{unit}</small></div><div class="beside">{rest}</div></div>' for what, value, unit, rest in cards)
    return f'<div class="cards">{boxes}</div>'


def _quality(report: Data) -> str:
    models, held_out = report["models"], report["held_out"]
    largest = max([held_out["xz_bits_per_byte"], *[m["held_out"]["bits_per_byte"] for m in models]])
    rows = []
    for index, model in enumerate(models):
        score = model["held_out"]["bits_per_byte"]
        rows.append([_key(models, index), with_bar(f"{score:.4f}", score, largest, _colour(index)),
                     f"{model['training']['bits_per_byte']:.4f}", number(model["held_out"]["perplexity"], 4)])
    xz = held_out["xz_bits_per_byte"]
    rows.append(['<span class="key" style="background:var(--other)"></span>xz -9e, each file alone',
                 with_bar(f"{xz:.4f}", xz, largest, "var(--other)"), "", ""])
    first = models[0]["held_out"]
    return section(
        "Held-out text",
        f'<p class="note">{number(held_out["documents"])} documents, {number(held_out["bytes"])} bytes, from '
        f'repositories no model saw. Bits a byte: the negative log2 likelihood of the text over its bytes; less is '
        f'better. Windows of {first["context"]} tokens, each scored token with at least '
        f'{first["context"] - first["stride"]} tokens before it where the document has them.</p>',
        table(["", "native engine, exported files", "training model", "perplexity a token"], rows))


def _training(models: Sequence[Data]) -> str:
    plot = loss_curves({model["name"]: model["training"]["curve"] for model in models})
    rows = [[_key(models, index), number(t["steps"]), f"{number(t['tokens'] / 1e6)} M",
             f"{t['final_loss']:.3f}", format_duration(t["seconds"]), number(t["tokens"] / t["step_seconds"])]
            for index, t in enumerate(model["training"] for model in models)]
    return section("Training", f"<figure>{plot}</figure>",
                    '<p class="note">Faint: each step. Strong: moving average. The vertical axis leaves out the '
                    "first twentieth of the steps.</p>",
                    table(["", "steps", "tokens", "loss, mean of the last 5 % of steps", "time with scoring, m:ss",
                            "tokens/s"], rows))


def _speed(models: Sequence[Data]) -> str:
    def row(label: str, value: Callable[[Data], float], text: Callable[[float], str]) -> list[str]:
        values = [value(model) for model in models]
        return [label, *[with_bar(text(v), v, max(values), _colour(i)) for i, v in enumerate(values)]]

    rows = [
        row("decoding, tokens/s", lambda m: m["bench"]["decode_tokens_per_second"], number),
        row("prefill, tokens/s", lambda m: m["bench"]["prefill_tokens_per_second"], number),
        row("weights read for a token", lambda m: m["bench"]["weight_bytes_per_token"], size),
        row("peak memory of the process", lambda m: m["bench"]["peak_rss_bytes"], size),
        row("files on disk", lambda m: m["files"]["bytes"], size),
        row("time to load, s", lambda m: m["bench"]["load_seconds"], number),
    ]
    bench = models[0]["bench"]
    return section(
        "Speed and memory",
        table(["", *[_key(models, index) for index in range(len(models))]], rows, even=True),
        f'<p class="note">{bench["decode_tokens"]} decode steps and a prefill of {bench["prefill_tokens"]} tokens, '
        f'{bench["threads"]} threads, kernel {escape(str(bench["kernel"]))}, each model in a fresh process. Peak '
        f'memory counts the interpreter and its libraries too, which outweigh a small model.</p>')


def _weights(models: Sequence[Data]) -> str:
    parts = []
    for model in models:
        if not model["layers"]:
            continue
        total = {key: sum(layer[key] for layer in model["layers"]) for key in ("minus", "zero", "plus")}
        count = sum(total.values())
        shares = ", ".join(f"{label} {100 * total[key] / count:.1f} %"
                           for label, key in (("−1", "minus"), ("0", "zero"), ("+1", "plus")))
        rows = [[str(index), *[f"{100 * layer[key] / sum(layer.values()):.2f} %" for key in ("minus", "zero", "plus")],
                 number(sum(layer.values()))] for index, layer in enumerate(model["layers"])]
        parts.append(f"<h3>{escape(model['name'])}: {shares} of {number(count)} block weights</h3>"
                     f"<figure>{code_shares(model['layers'], name=model['name'])}</figure>"
                     "<details><summary>The same as a table</summary>"
                     + table(["layer", "−1", "0", "+1", "weights"], rows) + "</details>")
    return section("Weights", *parts) if parts else ""


def _completions(models: Sequence[Data]) -> str:
    parts = ['<p class="note">Functions of held-out files, chosen by a hash, not by eye. Grey: what the model was '
             "given. Coloured: what it wrote, by greedy decoding.</p>"]
    kinds = {"completion": "Completion", "infill": "Fill in the middle"}
    for index, shown in enumerate(models[0]["completions"]):
        parts.append(f"<h3>{kinds[shown['kind']]}: <code>{escape(shown['source'])}</code></h3>")
        for position, model in enumerate(models):
            answer = model["completions"][index]
            rate = answer["tokens_per_second"]
            speed = "too short to time" if rate is None else f"{number(rate)} tokens/s"
            timing = f"{speed}, first token after {number(1000 * answer['seconds_to_first_token'])} ms"
            parts.append(
                f'<p class="note">{_key(models, position)}: {answer["tokens"]} tokens, {timing}</p>'
                f'<pre><span class="given">{escape(answer["prefix"])}</span><mark>{escape(answer["text"])}</mark>'
                f'<span class="given">{escape(answer["suffix"])}</span></pre>')
        parts.append("<details><summary>What the file really says there</summary>"
                     f"<pre>{escape(shown['original'])}</pre></details>")
    return section("Completions", *parts)


def _data(report: Data) -> str:
    rows = [(name, escape(str(value))) for name, value in report["data"].items()]
    return section("Data", facts(rows))


def _repeat(report: Data) -> str:
    repeat = report["repeat"]
    versions = ", ".join(f"{escape(name)} {escape(str(value))}" for name, value in repeat["versions"].items())
    hashes = [(name, f'<span class="hash">{escape(value)}</span>') for name, value in repeat["hashes"].items()]
    machine = [(name, escape(str(value))) for name, value in report["machine"].items()]
    stages = [[escape(stage["name"]), format_duration(stage["seconds"]),
               f'<span class="hash">{escape(stage["key"][:16])}</span>'] for stage in report["stages"]]
    total = sum(stage["seconds"] for stage in report["stages"])
    return section(
        "Repeat it", f"<pre>{escape(repeat['command'])}</pre>", f'<p class="note">{versions}</p>',
        "<h3>Stages</h3>", table(["stage", f"time, m:ss (together {format_duration(total)})", "key"], stages),
        "<h3>Machine</h3>", facts(machine), "<h3>SHA-256</h3>", facts(hashes),
        '<p class="note">The same numbers as data: <code>report.json</code> beside this page.</p>')
