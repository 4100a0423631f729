"""What a tally says, stage by stage, language by language and rule by rule: the tables of a report."""

from typing import Any

from tritwise.data.languages import PAPER_TABLE
from tritwise.data.read import RULES as READ_RULES
from tritwise.data.rules import RULES as FILTER_RULES
from tritwise.data.screening.heuristics import RULES as HEURISTIC_RULES
from tritwise.data.screening.syntax import RULES as SYNTAX_RULES
from tritwise.data.sources import KINDS, SKIPS
from tritwise.data.tally import Tally, sum_of

# What each stage drops, and why; a rule belongs to the first stage that names it.
STAGES: dict[str, dict[str, str]] = {
    "sources": SKIPS | READ_RULES | KINDS,
    "filters": FILTER_RULES | {"slow": "the parser did not end within its time"},
    "dedup": {"near_duplicate_repository": "nearly the code of another repository",
              "duplicate": "the text of another file", "near_duplicate": "nearly the text of another file"},
    "screening": SYNTAX_RULES | HEURISTIC_RULES | {"quality": "a score below screening.min_quality"},
    "decontamination": {"contamination": "holds a part of a test set"},
}


def _stage_of(rule: str) -> str:
    return next((stage for stage, rules in STAGES.items() if rule in rules), "other")


def funnel(tally: Tally) -> list[dict[str, Any]]:
    """Files and bytes that came in, and those left after each stage."""
    files, size = sum_of(tally["kept"])
    lost = {stage: [0, 0] for stage in STAGES}
    for rule, languages in tally["dropped"].items():
        dropped = sum_of(languages)
        entry = lost.setdefault(_stage_of(rule), [0, 0])
        entry[0] += dropped[0]
        entry[1] += dropped[1]
    left = [files + sum(each[0] for each in lost.values()), size + sum(each[1] for each in lost.values())]
    rows = [{"name": "all files", "files": left[0], "bytes": left[1]}]
    for stage, (lost_files, lost_bytes) in lost.items():
        left = [left[0] - lost_files, left[1] - lost_bytes]
        rows.append({"name": stage, "files": left[0], "bytes": left[1]})
    return rows


def language_table(tally: Tally) -> list[dict[str, Any]]:
    """Per language [files, bytes] before and after, and its share of the paper's data in percent; most bytes first."""
    before = {language: list(counts) for language, counts in tally["kept"].items()}
    for languages in tally["dropped"].values():
        for language, (files, size) in languages.items():
            entry = before.setdefault(language, [0, 0])
            entry[0] += files
            entry[1] += size
    rows = [{"language": language or "none known", "before": counts, "after": tally["kept"].get(language, [0, 0]),
             "paper_percent": PAPER_TABLE[language].percent if language in PAPER_TABLE else None}
            for language, counts in before.items()]
    return sorted(rows, key=lambda row: (-row["after"][1], -row["before"][1], row["language"]))


def rule_table(tally: Tally) -> list[dict[str, Any]]:
    """What each rule dropped, in the order of the stages, with samples; rules that dropped nothing are left out."""
    known = [(stage, rule, why) for stage, rules in STAGES.items() for rule, why in rules.items()
             if _stage_of(rule) == stage]
    unknown = [("other", rule, "") for rule in sorted(tally["dropped"]) if _stage_of(rule) == "other"]
    return [{"rule": rule, "stage": stage, "why": why, "files": sum_of(tally["dropped"][rule])[0],
             "bytes": sum_of(tally["dropped"][rule])[1], "languages": tally["dropped"][rule],
             "samples": tally["samples"].get(rule, [])}
            for stage, rule, why in [*known, *unknown] if rule in tally["dropped"]]
