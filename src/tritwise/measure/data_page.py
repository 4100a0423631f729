"""The page of a data directory: what came in, what each stage kept and dropped, and how files depend on each other."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tritwise.measure.arcs import arc_diagram
from tritwise.measure.page import facts, html_page, number, section, size, table, with_bar

Data = Mapping[str, Any]
_BLUE, _OTHER = "var(--series-1)", "var(--other)"
# Languages that get a row of their own; the rest is one row.
_MOST_LANGUAGES = 25
_MOST_GROUPS, _MOST_MEMBERS = 10, 12
# What the stages drop; `tritwise.data.funnel` names them.
_STAGES = {
    "all files": "as they were found",
    "sources": "no source text: unknown languages, binary, vendored, generated, minified, unreadable",
    "filters": "rules on the text; secrets are replaced in what stays",
    "dedup": "nearly equal repositories, equal files, nearly equal files",
    "screening": "wrong syntax, unreadable code, low quality",
    "decontamination": "parts of test sets",
}
_REDACTED = {"email": "e-mail addresses", "key": "keys and tokens", "password": "passwords",
             "ip_address": "IP addresses"}


def data_page(report: Data) -> str:
    """The whole page; `report` as `tritwise.measure.data_report` describes it."""
    parts = [_header(report), _cards(report), _funnel(report["funnel"]), _languages(report), _rules(report["rules"]),
             _clusters(report["clusters"]), _graphs(report["graphs"]), _redactions(report), _windows(report),
             _time(report["steps"]),
             _repeat(report)]
    return html_page(f"{report['name']}: data report", parts)


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}\u00a0%" if whole else ""


def _header(report: Data) -> str:
    first, last = report["funnel"][0], report["funnel"][-1]
    repositories = report["repositories"]
    return (f"<header><h1>{escape(report['name'])}: data</h1><p class=\"lead\">Found: "
            f"{number(repositories['found'])} repositories with {number(first['files'])} files, "
            f"{size(first['bytes'])}. Kept: {number(repositories['kept'])} repositories with {number(last['files'])} "
            f"files, {size(last['bytes'])}.</p></header>")


def _cards(report: Data) -> str:
    first, last = report["funnel"][0], report["funnel"][-1]
    splits = report["splits"]
    tokens = sum(split["tokens"] for split in splits.values())
    cards = [
        ("Bytes kept", *size(last["bytes"]).split(" "), f"{_share(last['bytes'], first['bytes'])} of what came in"),
        ("Files kept", number(last["files"]), "", f"of {number(first['files'])}"),
        ("Tokens", number(tokens), "", ", ".join(f"{escape(name.replace('_', ' '))}\u00a0{number(split['tokens'])}"
                                                 for name, split in splits.items())),
        ("Bytes a token", number(splits["train"]["bytes_per_token"] or 0), "",
         f"{number(report['vocab_size'])} tokens in the vocabulary"),
    ]
    boxes = "".join(f'<div class="card"><div class="what">{what}</div><div class="value">{value} <small>{unit}</small>'
                    f'</div><div class="beside">{rest}</div></div>' for what, value, unit, rest in cards)
    return f'<div class="cards">{boxes}</div>'


def _funnel(funnel: Sequence[Data]) -> str:
    largest = funnel[0]["bytes"]
    rows = []
    for stage, before in zip(funnel, [funnel[0], *funnel], strict=False):
        means = _STAGES.get(stage["name"])
        lost = before["files"] - stage["files"]
        rows.append([escape(stage["name"]) + (f'<div class="note">{means}</div>' if means else ""),
                     number(lost) if lost else "", number(stage["files"]),
                     with_bar(size(stage["bytes"]), stage["bytes"], largest, _BLUE), _share(stage["bytes"], largest)])
    columns = ["stage", "files dropped", "files left", "bytes left", "of all"]
    return section("What each stage left", table(columns, rows))


def _languages(report: Data) -> str:
    languages = report["languages"]
    found, kept = (sum(each[when][1] for each in languages) for when in ("before", "after"))
    # Those that matter before or after; a language of which nothing is left must not vanish among the others.
    weight = {each["language"]: max(each["before"][1] / max(found, 1), each["after"][1] / max(kept, 1))
              for each in languages}
    large = set(sorted(weight, key=lambda name: (-weight[name], name))[:_MOST_LANGUAGES])
    rest = [each for each in languages if each["language"] not in large]
    largest = max((each["after"][1] for each in languages), default=0)

    def row(name: str, before: Sequence[int], after: Sequence[int], paper: str) -> list[str]:
        return [name, number(before[0]), size(before[1]), _share(before[1], found), number(after[0]),
                with_bar(size(after[1]), after[1], largest, _BLUE) if after[1] else "", _share(after[1], kept), paper]

    rows = [row(escape(each["language"]), each["before"], each["after"],
                "" if each["paper_percent"] is None else f"{each['paper_percent']:.2f} %")
            for each in languages if each["language"] in large]
    if rest:
        before, after = ([sum(each[when][i] for each in rest) for i in (0, 1)] for when in ("before", "after"))
        rows.append(row(f"{len(rest)} others", before, after, ""))
    return section("Languages", table(["", "files found", "bytes", "share", "files kept", "bytes", "share", "paper"],
                                      rows),
                   '<p class="note">Paper: shares of DeepSeek-Coder\'s data, arXiv 2401.14196, table 1.</p>')


def _rules(rules: Sequence[Data]) -> str:
    if not rules:
        return ""
    largest = max(rule["bytes"] for rule in rules)
    rows = []
    for rule in rules:
        most = ", ".join(f"{escape(name or 'none known')}\u00a0{number(files)}" for name, (files, _) in sorted(
            rule["languages"].items(), key=lambda item: (-item[1][0], item[0]))[:4])
        most += ", \u2026" if len(rule["languages"]) > 4 else ""
        rows.append([f"<code>{escape(rule['rule'])}</code>", escape(rule["stage"]), number(rule["files"]),
                     with_bar(size(rule["bytes"]), rule["bytes"], largest, _OTHER), most])
    samples = []
    for rule in rules:
        shown = "".join(
            f"<p class=\"note\"><code>{escape(sample['repository'])}: {escape(sample['path'])}</code>, "
            f"{size(sample['size'])}{', ' + escape(sample['detail']) if sample['detail'] else ''}</p>"
            + (f"<pre>{escape(sample['text'])}</pre>" if sample["text"] else "") for sample in rule["samples"])
        samples.append(f"<details><summary><code>{escape(rule['rule'])}</code>: {escape(rule['why'])}; "
                       f"{number(rule['files'])} files</summary>"
                       f"{shown}</details>")
    return section("What was dropped, and why", table(["rule", "stage", "files", "bytes", "languages, files"], rows),
                   *samples)


def _clusters(clusters: Data) -> str:
    parts = []
    for level, found in clusters.items():
        if not found:
            continue
        parts.append(f"<h3>{escape(level[:1].upper() + level[1:])}: the largest groups</h3>")
        for cluster in found[:_MOST_GROUPS]:
            first, *others = cluster["listed"][:_MOST_MEMBERS]
            members = "".join(f"<li><code>{escape(member)}</code></li>" for member in (first, *others))
            left = cluster["members"] - 1 - len(others)
            more = f"<p class=\"note\">and {number(left)} more</p>" if left else ""
            parts.append(f"<details><summary>{number(cluster['members'])} alike, {number(cluster['kept'])} kept: "
                         f"<code>{escape(first)}</code></summary><ul>{members}</ul>{more}</details>")
    return section("Duplicates", '<p class="note">The first of a group is kept, and so is each member that resembles '
                   "no kept one closely enough.</p>", *parts) if parts else ""


def _graphs(graphs: Sequence[Data]) -> str:
    parts = []
    for graph in graphs:
        place = {path: index for index, path in enumerate(graph["order"])}
        edges = [(path, target) for path, targets in graph["dependencies"].items() for target in targets]
        upwards = sum(place[target] > place[path] for path, target in edges)
        name = ": ".join(filter(None, (graph["repository"], graph["folder"])))
        drawing = arc_diagram([path.removeprefix(graph["folder"]) for path in graph["order"]], {
            path.removeprefix(graph["folder"]): {target.removeprefix(graph["folder"]) for target in targets}
            for path, targets in graph["dependencies"].items()})
        counts = f"{len(place)} files, {len(edges)} dependencies" + (
            f", {upwards} in cycles that had to be broken" if upwards else "")
        parts.append(f"<details{' open' if not parts else ''}><summary><code>{escape(name)}</code>, "
                     f"{escape(graph['language'])}: {counts}</summary><figure>{drawing}</figure></details>")
    return section("Order of files", '<p class="note">From top to bottom as the model reads them; an arc joins a file '
                   "with one below it that depends on it, in orange where a cycle sets the order aside. Of each "
                   "repository the folder with the most dependencies.</p>", *parts) if parts else ""


def _redactions(report: Data) -> str:
    rows = [(_REDACTED.get(kind, kind), number(count)) for kind, count in report["redacted"].items() if count]
    found = sorted(report["licences"].items(), key=lambda item: (-item[1][1], item[0]))
    licences = [(name or "none found", f"{number(files)} files, {size(total)}") for name, (files, total) in found]
    parts = [f"<h3>Secrets and personal data that were replaced</h3>{facts(rows)}" if rows else "",
             f"<h3>Licences of what was kept</h3>{facts(licences)}" if licences else ""]
    return section("Inside the files", *parts) if any(parts) else ""


def _windows(report: Data) -> str:
    counts = report["splits"]["train"]
    if not counts.get("windows"):
        return ""
    total = counts["tokens"] + counts["padding"]
    rows = [("windows", number(counts["windows"])), ("tokens of padding", f"{number(counts['padding'])}, "
                                                      f"{_share(counts['padding'], total)} of all"),
            ("in more than one window", f"{number(counts['cut_documents'])} documents"),
            ("the same, were they one stream", f"{number(counts['cut_if_concatenated'])} documents")]
    return section("Windows of the training", facts(rows))


def _time(steps: Sequence[Data]) -> str:
    largest = max((step["seconds"] for step in steps), default=0)
    rows = [[escape(step["name"]), number(step["tasks"]),
             with_bar(f"{step['seconds']:.1f} s", step["seconds"], largest, _BLUE),
             "" if not step["bytes"] or not step["seconds"] else f"{step['bytes'] / 1e6 / step['seconds']:.1f}"]
            for step in steps]
    return section("Time", table(["step", "tasks", "processor time, all tasks", "MB/s a core"], rows))


def _repeat(report: Data) -> str:
    hashes = [(name, f'<span class="hash">{escape(value)}</span>') for name, value in report["hashes"].items()]
    return section("Repeat it", f"<pre>{escape(report['command'])}</pre>", "<h3>SHA-256</h3>", facts(hashes),
                   '<p class="note">The same numbers as data: <code>data-report.json</code> beside this page.</p>')
