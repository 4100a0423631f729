"""ik_llama.cpp and bitnet.cpp as systems: their own llama-bench and llama-batched-bench, a process for each burst."""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf_file
from worker import last_line
from works import BATCH_PROMPT, BATCH_STEPS, Opened, RefusedError, Work

from tritwise.measure.shapes import shape_config


@dataclass(frozen=True)
class Finished:
    """What a process left behind."""

    output: str
    seconds: float
    peak_rss_bytes: int


class LlamaBench:
    """One program of the llama.cpp family with one type of the linears, one of the head and some flags.

    `flags` are switches; llama-bench wants a 1 behind each, llama-batched-bench nothing.
    """

    def __init__(self, program: str, binaries: Path, shape: str, cache: Path, *, kind: str, head: str,
                 architecture: str, flags: Sequence[str] = (), dense: bool = False) -> None:
        self._binaries, self._shape, self._cache, self._dense = binaries.resolve(), shape, cache.resolve(), dense
        self._kind, self._head, self._architecture = kind, head, architecture
        self._flags = tuple(flags)
        self.name = " ".join((f"{program} {kind}" + ("" if dense else f", head {head}"), *flags))

    def does(self, work: Work) -> bool:
        return work.dense == self._dense

    @contextmanager
    def open(self, work: Work) -> Iterator[Opened]:
        file, bytes_per_token, note = model_file(self._shape, self._cache, self._kind, self._head, self._architecture)
        command = self.command(work, file)
        note = ", ".join(filter(None, (note, command_text(command))))
        yield Opened(lambda: self._burst(work, command), bytes_per_token, note)

    def command(self, work: Work, file: Path) -> list[str]:
        same = ["-m", str(file), "-t", str(work.threads)]
        if work.kind == "batch":
            sizes = ["-c", str(work.size * work.context), "-b", "2048", "-ub", "512", "-npp", str(BATCH_PROMPT),
                     "-ntg", str(BATCH_STEPS), "-npl", str(work.size)]
            return [str(self._binaries / "llama-batched-bench"), *same, *sizes, *self._flags]
        asked = {"decode": ["-p", "0", "-n", str(work.size)], "prefill": ["-p", str(work.size), "-n", "0"],
                 "load": ["-p", "1", "-n", "0"], "memory": ["-p", "0", "-n", "0", "-pg", f"{work.size - 1},1"]}
        return [str(self._binaries / "llama-bench"), *same, *asked[work.kind], "-r", "1", "-o", "json",
                *(part for flag in self._flags for part in (flag, "1"))]

    def _burst(self, work: Work, command: list[str]) -> float:
        finished = run(command)
        if work.kind == "load":
            return finished.seconds
        if work.kind == "memory":
            return finished.peak_rss_bytes / 2**20
        return batched_speed(finished.output) if work.kind == "batch" else bench_speed(finished.output)


def model_file(shape: str, cache: Path, kind: str, head: str, architecture: str) -> tuple[Path, int, str]:
    """The peer's file in the cache, made if it is not there, its bytes a token, and what differs from the shape.

    Raises RefusedError when the type cannot hold the shape.
    """
    asked = shape_config(shape)
    architecture = "llama" if asked.model_type == "llama" else architecture
    config = gguf_file.fitted(asked, kind)
    head = gguf_file.head_type(config, head)
    file = cache / f"{shape}-{architecture}-{kind}-{head}.gguf"
    if not file.exists():
        gguf_file.write(file, config, kind=kind, head=head, architecture=architecture)
    notes = []
    if config != asked:
        notes.append(f"{kind} refuses {asked.intermediate_size} feed-forward inputs; filled up with zeros to "
                     f"{config.intermediate_size}")
    return file, gguf_file.bytes_per_token(config, kind, head, architecture), "; ".join(notes)


def run(command: Sequence[str]) -> Finished:
    """Run a process to its end, in a folder that goes with it: some leave a log. RefusedError when it fails."""
    with (tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors,
          tempfile.TemporaryDirectory() as folder):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, cwd=folder)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        for file in (output, errors):
            file.seek(0)
        text, words = output.read(), errors.read()
    if process.returncode:
        raise RefusedError(f"ended with status {process.returncode}: {last_line(words) or last_line(text)}")
    return Finished(f"{text}\n{words}", seconds, usage.ru_maxrss * 1024)


def bench_speed(output: str) -> float:
    """Tokens per second from `llama-bench -o json`. RefusedError for anything else."""
    found = re.search(r"^\[.*?^\]", output, re.DOTALL | re.MULTILINE)
    try:
        return float(json.loads(found[0])[-1]["avg_ts"])
    except (TypeError, ValueError, KeyError, IndexError):
        raise RefusedError(f"llama-bench printed no speed but: {last_line(output)}") from None


def batched_speed(output: str) -> float:
    """S_TG, the decode speed over all sequences, from llama-batched-bench's table. RefusedError for anything else."""
    lines = (line.strip().strip("|") for line in output.splitlines() if "|" in line)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    heads = next((row for row in rows if "S_TG t/s" in row), None)
    values = [row for row in rows if heads and len(row) == len(heads) and row[0].isdigit()]
    if not values:
        raise RefusedError(f"llama-batched-bench printed no table but: {last_line(output)}")
    return float(values[-1][heads.index("S_TG t/s")])


def command_text(command: Sequence[str]) -> str:
    """The command without the folders of this machine."""
    return " ".join(Path(part).name if "/" in part else part for part in command)
