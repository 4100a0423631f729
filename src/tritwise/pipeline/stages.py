"""Stages: a directory each, finished when its stage.json holds the key of what went into it.

The key is the SHA-256 of the stage's name, its version (raised when its code changes what it writes), the
settings that matter to it and the keys of the stages it reads. So a changed training setting retrains and does not
rebuild data.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, canonical_json, fsync_path, read_json, sha256_bytes

RECORD = "stage.json"
UNFINISHED = "stage-unfinished.json"
SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    `build(directory)` makes the directory, whose parent exists. A `resumable` stage works in its final place and
    is called again on what a kill left there; any other is built aside and renamed when it is whole.
    """

    name: str
    build: Callable[[Path], None] = field(compare=False)
    settings: Any
    version: int = 1
    reads: tuple[str, ...] = ()
    resumable: bool = False


@dataclass(frozen=True)
class StageRecord:
    """What happened: the stage's key, the seconds its building took, and whether this run reused it."""

    name: str
    key: str
    seconds: float
    reused: bool


def stage_keys(stages: Sequence[Stage]) -> dict[str, str]:
    """The key of each stage; stages stand in the order in which they read each other."""
    keys: dict[str, str] = {}
    for stage in stages:
        content = {"stage": stage.name, "version": stage.version, "settings": stage.settings,
                   "reads": {name: keys[name] for name in stage.reads}}
        keys[stage.name] = sha256_bytes(canonical_json(content).encode())
    return keys


def run_stages(stages: Sequence[Stage], out: Path, *,
               say: Callable[[str], None] | None = None) -> dict[str, StageRecord]:
    """Build what is not finished yet, in order, in `out/NAME`; returns what happened by name.

    A finished directory with another key is never mixed with the new one: a resumable stage's (hours of training)
    is moved to `out/superseded`, another is replaced once the new one is whole. Both are said.
    """
    say = say or _say
    keys = stage_keys(stages)
    records: dict[str, StageRecord] = {}
    for number, stage in enumerate(stages, start=1):
        key, directory = keys[stage.name], out / stage.name
        finished = _record_of(directory)
        title = f"[{number}/{len(stages)}] {stage.name}"
        if finished.get("key") == key:
            say(f"{title}: unchanged, reused")
            records[stage.name] = StageRecord(stage.name, key, float(finished["seconds"]), reused=True)
            continue
        say(title)
        _refuse_foreign(directory)
        build = _build_in_place if stage.resumable else _build_aside
        records[stage.name] = StageRecord(stage.name, key, build(stage, key, directory, say), reused=False)
    return records


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _record_of(directory: Path) -> Mapping[str, Any]:
    path = directory / RECORD
    return read_json(path, what="the record of a finished stage") if path.exists() else {}


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not (directory / RECORD).exists() and not (directory / UNFINISHED).exists():
        raise TritwiseError(f"{directory} is in the way", why="it exists, but no stage of a recipe wrote it",
                            fix="give another directory with --out, or move this one away")


def _finish(stage: Stage, key: str, directory: Path, seconds: float) -> None:
    for entry in sorted(directory.rglob("*")):  # everything is on the disk before the record says so
        fsync_path(entry)
    atomic_write_json(directory / RECORD, {"stage": stage.name, "version": stage.version, "key": key,
                                           "settings": stage.settings, "seconds": seconds})
    (directory / UNFINISHED).unlink(missing_ok=True)


def _build_aside(stage: Stage, key: str, directory: Path, say: Callable[[str], None]) -> float:
    partial, old = (directory.with_name(f".{directory.name}.{suffix}") for suffix in ("partial", "old"))
    # Leftovers of a killed run, those of `atomic_directory` too; none can be continued.
    for leftover in (partial, old, *directory.parent.glob(f".{partial.name}.*")):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    stage.build(partial)
    seconds = round(time.monotonic() - began, 3)
    _finish(stage, key, partial, seconds)
    if directory.exists():
        say(f"    {directory} was made from other settings and is replaced")
        os.replace(directory, old)
    os.replace(partial, directory)
    fsync_path(directory.parent)
    shutil.rmtree(old, ignore_errors=True)
    return seconds


def _build_in_place(stage: Stage, key: str, directory: Path, say: Callable[[str], None]) -> float:
    marker, spent = directory / UNFINISHED, 0.0
    if directory.exists():
        begun = read_json(marker, what="the mark of a begun stage") if marker.exists() else {}
        if begun.get("key") == key:
            spent = float(begun["seconds"])
            say(f"    continuing what an earlier run began in {directory}")
        else:
            moved = _free_name(directory.parent / SUPERSEDED / directory.name)
            moved.parent.mkdir(parents=True, exist_ok=True)
            os.replace(directory, moved)
            say(f"    {directory} was made from other settings: moved to {moved}; delete it at will")
    directory.mkdir(parents=True, exist_ok=True)
    atomic_write_json(marker, {"stage": stage.name, "key": key, "seconds": spent})
    began = time.monotonic()
    try:
        stage.build(directory)
    except BaseException:
        # The time of the interrupted part counts; a kill -9 loses only this number.
        spent += time.monotonic() - began
        atomic_write_json(marker, {"stage": stage.name, "key": key, "seconds": round(spent, 3)})
        raise
    seconds = round(spent + time.monotonic() - began, 3)
    _finish(stage, key, directory, seconds)
    return seconds


def _free_name(path: Path) -> Path:
    number = 1
    while (candidate := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return candidate
