"""Worker of compare_llama_cpp.py: this engine on random weights, with the default head for ternary models (int8 a row).

Arguments: the shape, the threads, [prompt, decode, prefill] as JSON. Speaks as workers/llama_cpp_worker.py does.
"""

import json
import sys
import time

import numpy as np

from tritwise.engine import Batch, CpuBackend
from tritwise.measure.shapes import random_tensors, shape_config


def main() -> None:
    config, threads = shape_config(sys.argv[1]), int(sys.argv[2])
    prompt, decode, prefill = json.loads(sys.argv[3])
    backend = CpuBackend(config, random_tensors(config), threads=threads, head="int8", slots=1, context=1024)
    rng = np.random.default_rng(1)

    def step(count: int, begin: int) -> None:
        ids = rng.integers(0, config.vocab_size, count, dtype=np.int32)
        positions = np.arange(begin, begin + count, dtype=np.int32)
        backend.forward(Batch(tokens=ids, slots=np.zeros(count, np.int32), positions=positions,
                              logits_for=np.empty(0, np.int32), best_for=np.array([count - 1], np.int32)))

    def run() -> dict[str, float]:
        step(prompt, 0)
        began = time.perf_counter()
        for position in range(prompt, prompt + decode):
            step(1, position)
        decoding = time.perf_counter() - began
        began = time.perf_counter()
        step(prefill, 0)
        return {"decode": decode / decoding, "prefill": prefill / (time.perf_counter() - began)}

    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), flush=True)


if __name__ == "__main__":
    main()
