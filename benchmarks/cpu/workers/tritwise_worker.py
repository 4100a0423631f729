"""Worker of compare.py: this engine on a model directory, loaded with `tritwise.load`.

Argument: a JSON object with path, kind, threads, size, context, prompt and steps of a batch, and options (further
arguments of `load`). It prints one JSON object when it is ready, and a number for every line on standard input: tokens
per second of a fresh short burst (decode, prefill, batch), or, once, seconds (load) or bytes (memory).
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

import tritwise
from tritwise.engine import Batch
from tritwise.measure.memory import peak_rss_bytes


def decode(model, count: int, draw: Callable[[int], list[int]]) -> float:
    """Greedy, from a prompt of one token: `count` steps of one token each."""
    prompt = draw(1)
    began = time.perf_counter()
    completion = model.generate(prompt, max_tokens=count)
    seconds = time.perf_counter() - began
    if len(completion.token_ids) != count:
        raise SystemExit(f"{len(completion.token_ids)} tokens came instead of {count}")
    return count / seconds


def prefill(model, count: int, draw: Callable[[int], list[int]]) -> float:
    prompt = draw(count)
    began = time.perf_counter()
    model.generate(prompt, max_tokens=1)
    return count / (time.perf_counter() - began)


class Together:
    """Decode steps of `sequences` at once, greedy, behind prompts that are cached once; all sequences' tokens count."""

    def __init__(self, model, sequences: int, prompt: int, steps: int, draw: Callable[[int], list[int]]) -> None:
        self.backend, self.slots = model.backend, np.arange(sequences, dtype=np.int32)
        self.prompt, self.steps, self.draw = prompt, steps, draw
        for slot in self.slots:
            positions = np.arange(prompt, dtype=np.int32)
            self.backend.forward(Batch(tokens=np.array(draw(prompt), np.int32), slots=np.full(prompt, slot, np.int32),
                                       positions=positions, logits_for=positions[-1:]))

    def __call__(self) -> float:
        tokens = np.array(self.draw(len(self.slots)), np.int32)
        began = time.perf_counter()
        for position in range(self.prompt, self.prompt + self.steps):
            positions = np.full(len(self.slots), position, np.int32)
            tokens = self.backend.forward(Batch(tokens=tokens, slots=self.slots, positions=positions,
                                                logits_for=self.slots[:0], best_for=self.slots)).best
        return self.steps * len(self.slots) / (time.perf_counter() - began)


def main() -> None:
    request = json.loads(sys.argv[1])
    kind, size = request["kind"], request["size"]
    began = time.perf_counter()
    slots = size if kind == "batch" else 1
    model = tritwise.load(request["path"], threads=request["threads"], context=request["context"], slots=slots,
                          cache_tokens=slots * -(-request["context"] // 64) * 64, **request["options"])  # whole pages
    rng = np.random.default_rng(1)

    def draw(count: int) -> list[int]:
        return rng.integers(0, model.config.vocab_size, count).tolist()

    if kind == "load":
        model.generate(draw(1), max_tokens=1)
        seconds = time.perf_counter() - began
    if kind == "memory":
        model.generate(draw(size - 1), max_tokens=2)
    together = Together(model, size, request["prompt"], request["steps"], draw) if kind == "batch" else None
    burst: dict[str, Callable[[], float]] = {
        "decode": lambda: decode(model, size, draw), "prefill": lambda: prefill(model, size, draw),
        "batch": lambda: together(), "load": lambda: seconds, "memory": peak_rss_bytes}
    if kind in ("decode", "prefill"):
        burst[kind]()  # warm-up
    info = model.info  # all bursts are greedy
    skipped = model.backend.weight_bytes_skipped // size if kind == "decode" else 0  # in the warm-up's steps
    print(json.dumps({"bytes_per_token": info.weight_bytes_per_best - skipped, "kernel": info.kernel,
                      "head": info.head}), flush=True)
    for _ in sys.stdin:
        print(burst[kind](), flush=True)


if __name__ == "__main__":
    main()
