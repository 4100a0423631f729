"""Decode and prefill of one shape: this engine against llama.cpp's TQ2_0, interleaved in one run.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install llama-cpp-python gguf
    python benchmarks/compare_llama_cpp.py --peer-python /tmp/peer/bin/python --shape 2b4t --threads 2 --rounds 5

llama-cpp-python builds llama.cpp from source for the processor at hand. Both run random weights of the same shape on
the same threads: 128 tokens one at a time after a prompt of 8, then 512 tokens at once. The two take turns in every
round and sleep while the other runs, so the ratio of a round is of one moment of a machine. llama.cpp's architecture
`bitnet` has SiLU where 2B4T has squared ReLU, a difference too small to show. Its head is Q6_K, as llama-quantize makes
it; ours is int8 a row.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROMPT_DECODE_PREFILL = [8, 128, 512]
WORKERS = Path(__file__).parent / "workers"


class Worker:
    """A process that holds one model and runs a round when told to."""

    def __init__(self, python: str, script: str, *arguments: str) -> None:
        self.process = subprocess.Popen([python, str(WORKERS / script), *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self.process.wait()}")
        return line

    def run(self) -> dict[str, float]:
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return json.loads(self._answer())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="a Python with llama-cpp-python and gguf")
    parser.add_argument("--shape", default="2b4t", help="a shape whose widths are multiples of 256")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    from tritwise.measure.shapes import shape_config

    config, sizes = shape_config(arguments.shape).model_dump_json(), json.dumps(PROMPT_DECODE_PREFILL)
    threads = str(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        ours = Worker(sys.executable, "tritwise_worker.py", arguments.shape, threads, sizes)
        file = str(Path(directory, "peer.gguf"))
        peer = Worker(arguments.peer_python, "llama_cpp_worker.py", config, file, threads, sizes)
        rounds = []
        for number in range(arguments.rounds):
            a, b = ours.run(), peer.run()
            rounds.append((a, b))
            speeds = (f"{work} {a[work]:.1f} / {b[work]:.1f} tok/s = {a[work] / b[work]:.2f}" for work in a)
            print(f"round {number + 1}: {', '.join(speeds)}", flush=True)
        ours.close()
        peer.close()
    for work in ("decode", "prefill"):
        ratios = [a[work] / b[work] for a, b in rounds]
        mine, theirs = (statistics.median(r[side][work] for r in rounds) for side in (0, 1))
        print(f"{work}: ours {mine:.1f}, llama.cpp TQ2_0 {theirs:.1f} tok/s (medians); ratio of a round: median "
              f"{statistics.median(ratios):.2f}, min {min(ratios):.2f}, max {max(ratios):.2f}")


if __name__ == "__main__":
    main()
