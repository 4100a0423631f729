"""Worker of compare.py: llama.cpp through llama-cpp-python, in an environment of its own that need not hold Tritwise.

Argument and answers as in tritwise_worker.py; the path is that of a GGUF file.
"""

import ctypes
import json
import random
import sys
import time
from pathlib import Path

import llama_cpp

_QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)  # the library keeps a pointer only


class Peer:
    """One model and one context of llama.cpp, with its defaults: f16 cache, flash attention where it takes it."""

    def __init__(self, path: str, threads: int, context: int, sequences: int) -> None:
        llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit("llama.cpp did not open the file")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context * sequences
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit("llama.cpp did not make a context")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.rows = llama_cpp.llama_batch_init(512, 0, 1)

    def draw(self, count: int) -> list[int]:
        return [random.randrange(self.vocabulary) for _ in range(count)]

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self.memory, True)

    def step(self, tokens: list[int], sequences: list[int], positions: list[int], wanted: set[int]) -> None:
        batch = self.rows
        batch.n_tokens = len(tokens)
        for row, (token, sequence, position) in enumerate(zip(tokens, sequences, positions, strict=True)):
            batch.token[row], batch.pos[row] = token, position
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            batch.logits[row] = row in wanted
        status = llama_cpp.llama_decode(self.context, batch)
        if status:
            raise SystemExit(f"llama_decode returned {status}")
        llama_cpp.llama_synchronize(self.context)

    def feed(self, count: int, sequence: int = 0) -> None:
        """A prompt of random tokens, 512 at a time."""
        for first in range(0, count, 512):
            rows = min(512, count - first)
            self.step(self.draw(rows), [sequence] * rows, list(range(first, first + rows)), {rows - 1})

    def decode(self, count: int) -> float:
        self.clear()
        tokens = self.draw(count)
        began = time.perf_counter()
        for position, token in enumerate(tokens):
            self.step([token], [0], [position], {0})
        return count / (time.perf_counter() - began)

    def prefill(self, count: int) -> float:
        self.clear()
        began = time.perf_counter()
        self.feed(count)
        return count / (time.perf_counter() - began)

    def batch(self, sequences: int, prompt: int, steps: int) -> float:
        for sequence in range(sequences):
            llama_cpp.llama_memory_seq_rm(self.memory, sequence, prompt, -1)
        everyone, wanted = list(range(sequences)), set(range(sequences))
        began = time.perf_counter()
        for position in range(prompt, prompt + steps):
            self.step(self.draw(sequences), everyone, [position] * sequences, wanted)
        return sequences * steps / (time.perf_counter() - began)


def peak_rss_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    request = json.loads(sys.argv[1])
    kind, size = request["kind"], request["size"]
    random.seed(1)
    began = time.perf_counter()
    peer = Peer(request["path"], request["threads"], request["context"], size if kind == "batch" else 1)
    if kind == "load":
        peer.feed(1)
        seconds = time.perf_counter() - began
    if kind == "memory":
        peer.feed(size - 1)
        peer.step(peer.draw(1), [0], [size - 1], {0})
    if kind == "batch":
        for sequence in range(size):
            peer.feed(request["prompt"], sequence)
    burst = {"decode": lambda: peer.decode(size), "prefill": lambda: peer.prefill(size),
             "batch": lambda: peer.batch(size, request["prompt"], request["steps"]),
             "load": lambda: seconds, "memory": peak_rss_bytes}
    if kind in ("decode", "prefill"):
        burst[kind]()  # warm-up
    print(json.dumps({"version": llama_cpp.__version__}), flush=True)
    for _ in sys.stdin:
        print(burst[kind](), flush=True)


if __name__ == "__main__":
    main()
