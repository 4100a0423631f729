"""Decode and prefill speed of a model directory, or of a random model in a published shape.

    bench(shape="2b4t").decode_tokens_per_second
    bench_in_child("runs/quickstart/ternary").peak_rss_bytes
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine import Backend, Batch
from tritwise.engine.model import PREFILL_CHUNK, backend_named
from tritwise.formats import open_model
from tritwise.measure.memory import peak_rss_bytes, reset_peak_rss
from tritwise.measure.shapes import random_tensors, shape_config

# The decode steps continue a prompt of this many tokens.
_PROMPT_TOKENS = 16
_WARM_UP_STEPS = 8


@dataclass(frozen=True)
class BenchResult:
    """Speeds in tokens per second, sizes in bytes, times in seconds.

    Decode: single-token steps, each fed with the greedy choice of the one before, divided by their whole time.
    Prefill: a prompt in chunks up to the choice of the first new token, which is also `time_to_first_token`.
    Both are medians over the runs, whose own rates are listed. `peak_rss_bytes` is the process's peak from just before
    loading on (VmHWM; mapped files count while they are open); `peak_device_bytes` is the most that was allocated on
    the GPU, None on the CPU. `threads` is 0 on a GPU.
    """

    model: str
    threads: int
    kernel: str
    head: str
    prefill_tokens: int
    decode_tokens: int
    decode_tokens_per_second: float
    prefill_tokens_per_second: float
    time_to_first_token: float
    load_seconds: float
    weight_bytes: int
    weight_bytes_per_token: int  # that a greedy step read on average: inputs that were zero are left out
    peak_rss_bytes: int
    decode_runs: list[float]
    prefill_runs: list[float]
    backend: str
    peak_device_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """The fields, ready for `json.dumps`."""
        return asdict(self)


def bench(path: str | Path | None = None, *, shape: str | None = None, backend: str = "cpu",
          threads: int | None = None, kernel: str | None = None, head: str | None = None, prefill: int = 512,
          decode: int = 128, prefill_chunk: int = PREFILL_CHUNK, repeats: int = 3) -> BenchResult:
    """Time `decode` single-token steps and a prefill of `prefill` tokens, `repeats` times in turn.

    Either `path`, a model directory, or `shape`, a name of `tritwise.measure.shapes.SHAPES` (with `-dense` for the
    16-bit twin), whose random weights are built in memory and freed at the end. Before the first run, a few steps
    touch every weight. The counts are cut to the positions a model has. `backend`, `threads`, `kernel` and `head` as of
    `load`. Raises TritwiseError as `load` does.
    """
    for name, value in (("prefill", prefill), ("decode", decode), ("repeats", repeats),
                        ("prefill_chunk", prefill_chunk)):
        if value < 1:
            raise TritwiseError(f"{name} is {value}", why="at least 1 is needed")
    if (path is None) == (shape is None):
        raise TritwiseError("there is no single model to measure", why="either a directory or a shape is needed",
                            fix="tritwise bench --shape 2b4t")
    make = backend_named(backend)
    reset_peak_rss()
    began = time.perf_counter()
    if shape is not None:
        config = shape_config(shape)
        tensors = random_tensors(config)
    else:
        directory = open_model(path)
        config = directory.config
        tensors = ((name, directory.read(name)) for name in directory.names())
    context = min(config.max_position_embeddings, max(prefill, _PROMPT_TOKENS + decode))
    if context <= _PROMPT_TOKENS:
        raise TritwiseError("the model is too short to measure",
                            why=f"it knows {config.max_position_embeddings} positions")
    prefill, decode = min(prefill, context), min(decode, context - _PROMPT_TOKENS)
    runner = make(config, tensors, threads=threads, kernel=kernel, head=head, slots=1, context=context)
    directory = tensors = None  # an open directory keeps its file mapped
    load_seconds = time.perf_counter() - began
    try:
        tokens = _random_ids(config, max(prefill, _PROMPT_TOKENS))
        # A GPU's kernels are compiled and its graphs captured when a size first occurs: all of them before.
        whole = backend != "cpu"
        _decode(runner, tokens[:_PROMPT_TOKENS], decode if whole else min(_WARM_UP_STEPS, decode))
        _prefill(runner, tokens[:prefill if whole else min(prefill, prefill_chunk)], prefill_chunk)
        prefill_seconds, decode_seconds = [], []
        skipped = _skipped(runner)
        for _ in range(repeats):
            prefill_seconds.append(_prefill(runner, tokens[:prefill], prefill_chunk))
            decode_seconds.append(_decode(runner, tokens[:_PROMPT_TOKENS], decode))
        skipped = (_skipped(runner) - skipped) // (repeats * decode)
        info = runner.info
        peak_device = getattr(runner, "peak_bytes", None)  # of a GPU
    finally:
        runner.close()
    return BenchResult(
        model=shape or str(path), threads=info.threads, kernel=info.kernel, head=info.head,
        prefill_tokens=prefill, decode_tokens=decode,
        decode_tokens_per_second=decode / statistics.median(decode_seconds),
        prefill_tokens_per_second=prefill / statistics.median(prefill_seconds),
        time_to_first_token=statistics.median(prefill_seconds), load_seconds=load_seconds,
        weight_bytes=info.weight_bytes, weight_bytes_per_token=info.weight_bytes_per_best - skipped,
        peak_rss_bytes=peak_rss_bytes(), decode_runs=[decode / s for s in decode_seconds],
        prefill_runs=[prefill / s for s in prefill_seconds], backend=info.backend, peak_device_bytes=peak_device)


def bench_in_child(path: str | Path | None = None, **settings: Any) -> BenchResult:
    """`bench` in a fresh Python process, so that `peak_rss_bytes` is of this model alone."""
    request = {"path": None if path is None else str(path)} | settings
    child = subprocess.run([sys.executable, "-m", "tritwise.measure.bench"], input=json.dumps(request), text=True,
                           capture_output=True, check=False)
    if child.returncode != 0:
        raise TritwiseError("the measuring process failed", why=child.stderr.strip() or f"exit {child.returncode}")
    answer = json.loads(child.stdout)
    if "error" in answer:
        raise TritwiseError(answer["error"]["what"], why=answer["error"]["why"], fix=answer["error"]["fix"])
    return BenchResult(**answer)


def _skipped(backend: Backend) -> int:
    """Bytes of weights that steps left out so far, because their inputs were zero; only the CPU's kernels do."""
    return getattr(backend, "weight_bytes_skipped", 0)


def _random_ids(config: ModelConfig, count: int) -> list[int]:
    return np.random.default_rng(0).integers(0, config.vocab_size, count).tolist()


def _forward(backend: Backend, tokens: list[int], start: int, *, last: bool) -> int | None:
    """Feed tokens from position `start` on; with `last`, the greedy choice for what follows them."""
    count = len(tokens)
    wanted = np.arange(count - 1, count) if last else np.arange(0)
    output = backend.forward(Batch(
        np.array(tokens, dtype=np.int32), np.zeros(count, dtype=np.int32),
        np.arange(start, start + count, dtype=np.int32), np.empty(0, dtype=np.int32), wanted.astype(np.int32)))
    return int(output.best[0]) if last else None


def _prefill(backend: Backend, tokens: list[int], chunk: int) -> float:
    began = time.perf_counter()
    for start in range(0, len(tokens), chunk):
        _forward(backend, tokens[start:start + chunk], start, last=start + chunk >= len(tokens))
    return time.perf_counter() - began


def _decode(backend: Backend, prompt: list[int], steps: int) -> float:
    token = _forward(backend, prompt, 0, last=True)
    began = time.perf_counter()
    for step in range(steps):
        token = _forward(backend, [token], len(prompt) + step, last=True)
    return time.perf_counter() - began


def _child() -> None:
    """One request as JSON on standard input, one answer on standard output."""
    request = json.load(sys.stdin)
    try:
        answer = bench(request.pop("path"), **request).to_json()
    except TritwiseError as error:
        answer = {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _child()
