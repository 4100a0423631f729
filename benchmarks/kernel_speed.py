"""Speed of the native core alone, on random weights: decode and prefill against the measured read bandwidth.

    python benchmarks/kernel_speed.py --shape 2b4t --threads 2 --head int8 --profile

No tokenizer, no sampling, no scheduler: what `tritwise._native.Model` can do. Bandwidth is measured right before and
after each decode run, because on a shared machine it changes within seconds. `--profile` prints where the time goes,
each part beside its bound: the bytes of its weights at the read bandwidth, or its products at the rate that the
kernel's instructions reach in registers, whichever takes longer.
"""

import argparse
import json
import statistics
import time

import numpy as np

from tritwise import _native
from tritwise.engine import Batch, CpuBackend, kernels
from tritwise.engine.cpu import CACHE_TYPES
from tritwise.measure.shapes import SHAPES, random_tensors, shape_config


def step(backend: CpuBackend, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, rows: np.ndarray) -> float:
    """Seconds of one call."""
    batch = Batch(*(array.astype(np.int32) for array in (tokens, slots, positions, rows[:0], rows)))
    begin = time.perf_counter()
    output = backend.forward(batch)
    seconds = time.perf_counter() - begin
    if (output.best < 0).any():
        raise SystemExit("the logits are not finite")
    return seconds


def print_profile(title: str, backend: CpuBackend, steps: int, seconds: float, bandwidth: float, rate: float) -> None:
    """The parts of `steps` steps that took `seconds` together; bandwidth in bytes, rate in products a second."""
    print(f"{title}: {seconds / steps * 1e3:.2f} ms a step, {bandwidth / 1e9:.1f} GB/s, "
          f"{rate / 1e9:.0f} G products/s in registers")
    print(f"  {'part':<12}{'ms':>9}{'share':>8}{'GB/s':>8}{'Gprod/s':>9}{'bound ms':>10}{'of bound':>10}")
    rest, bounds = seconds, 0.0
    for part, found in backend.profile.items():
        if not found["calls"]:
            continue
        spent, rest = found["seconds"], rest - found["seconds"]
        bound = max(found["bytes"] / bandwidth, found["products"] / rate)
        bounds += bound
        print(f"  {part:<12}{spent / steps * 1e3:>9.3f}{spent / seconds:>8.1%}{found['bytes'] / spent / 1e9:>8.1f}"
              f"{found['products'] / spent / 1e9:>9.1f}{bound / steps * 1e3:>10.3f}{bound / spent:>10.0%}")
    print(f"  {'outside':<12}{rest / steps * 1e3:>9.3f}{rest / seconds:>8.1%}")
    print(f"  {'together':<12}{seconds / steps * 1e3:>9.3f}{1:>8.1%}{'':>17}{bounds / steps * 1e3:>10.3f}"
          f"{bounds / seconds:>10.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="2b4t", help=f"{', '.join(SHAPES)}, each also with -dense")
    parser.add_argument("--hidden-act", choices=("silu", "relu2"), help="another one than the shape's: behind silu no "
                        "input of down_proj is zero, so every weight is read")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kernel", default=kernels()[0])
    parser.add_argument("--head", choices=("stored", "f16", "int8", "int4"), default="int8")
    parser.add_argument("--slots", type=int, default=1, help="sequences that decode together")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--filled", type=int, default=0, help="positions that are in the cache before the steps")
    parser.add_argument("--cache-type", choices=CACHE_TYPES, default="f16")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()

    config = shape_config(options.shape)
    if options.hidden_act:
        config = config.with_changes(hidden_act=options.hidden_act)
    begin = time.perf_counter()
    context = max(options.prefill, options.filled + options.steps) + 8
    backend = CpuBackend(config, random_tensors(config), threads=options.threads, kernel=options.kernel,
                         head=options.head, slots=options.slots, context=context,
                         cache_type=options.cache_type, cache_tokens=options.slots * (context + _native.page_positions))
    info = backend.info
    print(f"built in {time.perf_counter() - begin:.1f} s, {info.weight_bytes / 1e6:.0f} MB of weights, "
          f"{info.weight_bytes_per_best / 1e6:.0f} MB read a step, kernel {info.kernel}, {info.threads} threads")
    slots, prompt = np.arange(options.slots), np.arange(options.prefill) % config.vocab_size
    rate = _native.measure_products(options.threads, options.kernel, 5) if options.profile else 0.0
    shares = []
    for _ in range(options.repeats):
        for slot in slots if options.filled else ():
            filling = np.arange(options.filled)
            step(backend, filling % config.vocab_size, np.full_like(filling, slot), filling, filling[-1:])
        before = _native.measure_read_bandwidth(options.threads, 1 << 29, 3)
        skipped = backend.weight_bytes_skipped
        backend.start_profile(options.profile)
        seconds = [step(backend, slots + 1, slots, np.full(options.slots, options.filled + position), slots)
                   for position in range(options.steps)]
        read = info.weight_bytes_per_best - (backend.weight_bytes_skipped - skipped) // (options.slots * options.steps)
        after = _native.measure_read_bandwidth(options.threads, 1 << 29, 3)
        if options.profile:
            print_profile("decode", backend, options.steps, sum(seconds), (before + after) / 2, rate)
            backend.start_profile()
        prompt_seconds = step(backend, prompt, np.zeros_like(prompt), prompt, prompt[-1:])
        prefill = options.prefill / prompt_seconds
        if options.profile:
            print_profile(f"prefill {options.prefill}", backend, 1, prompt_seconds, after, rate)
        median = statistics.median(seconds)
        shares.append(read / median / max(before, after))
        print(json.dumps({
            "decode_tokens_per_second": round(options.slots * options.steps / sum(seconds), 2),
            "decode_tokens_per_second_median_step": round(options.slots / median, 2),
            "prefill_tokens_per_second": round(prefill, 1),
            "weight_gigabytes_per_second": round(read / median / 1e9, 1),
            # Of the larger bandwidth of the two, with the bytes that were read.
            "share_of_read_bandwidth": round(shares[-1], 3),
            "read_bandwidth_before_after": [round(before / 1e9, 1), round(after / 1e9, 1)],
        }), flush=True)
    print(f"share of the read bandwidth: {statistics.median(shares):.3f} (median of {len(shares)}; "
          f"{min(shares):.3f} to {max(shares):.3f})")


if __name__ == "__main__":
    main()
