"""Decode attention over the paged cache on a GPU: against torch's SDPA and against the measured copy bandwidth.

    python benchmarks/gpu/attention.py --seconds 120 --json attention.json
    TRITON_INTERPRET=1 python benchmarks/gpu/attention.py --dry-run        # goes through all of it without a GPU

One layer of 32 query heads, 8 key-value heads and head size 128 unless told otherwise; keys and values are random,
pages lie in random order, and calls rotate over as many caches as exceed the L2 cache twice. Times are of captured
graphs of 20 calls, median of 7; on the dry run of single calls, which say nothing about speed.

SDPA gets contiguous float16 keys and values, whose key-value heads are shared (enable_gqa), and the same rotation. Its
bytes and ours are counted as what one call has to read of keys and values once. When the seconds are used up, what is
left is listed as not measured, and so is what does not fit into memory.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tritwise.kernels.attention import attend, plan_attention, workspace
from tritwise.kernels.cache import CACHE_TYPES, KVCache

CONTEXTS, BATCHES = (512, 2048, 8192, 32768), (1, 8, 32, 128, 256)
PAGE = 64
_CALLS, _REPEATS = 20, 7


def timed(calls: list[Callable[[], None]], dry: bool) -> float:
    """Seconds of one call, of calls that take turns."""
    for call in calls:
        call()
    if dry:
        begin = time.perf_counter()
        calls[0]()
        return time.perf_counter() - begin
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(_CALLS):
            calls[i % len(calls)]()
    graph.replay()
    seconds = []
    for _ in range(_REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3 / _CALLS)
    return statistics.median(seconds)


def copy_bandwidth(device: str, dry: bool) -> float:
    """Bytes read and written a second by a copy far beyond the L2 cache."""
    source = torch.empty(1 << (20 if dry else 30), dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed([lambda: target.copy_(source)], dry)


def random_cache(cache_type: str, pages: int, kv_heads: int, head_dim: int, device: str) -> KVCache:
    """One layer of random codes with scales near 1/50, never zeros."""
    cache = KVCache(cache_type, layers=1, pages=pages, kv_heads=kv_heads, head_dim=head_dim, page_tokens=PAGE,
                    device=device)
    for stored, scales in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales)):
        stored.normal_() if cache_type == "f16" else stored.random_(1, 256)
        scales.uniform_(0.01, 0.03)
    return cache


def ours(cache_type: str, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, copies: int,
         device: str) -> tuple[list[Callable[[], None]], int]:
    """Calls for each copy of the cache, and the bytes of keys, values and scales that one has to read."""
    held = -(-context // PAGE)
    pages = batch * held
    q = torch.randn(batch, heads, head_dim, device=device)
    out = torch.empty_like(q)
    order = np.random.default_rng(0).permutation(pages).astype(np.int32).reshape(batch, held)
    tables = torch.from_numpy(order).to(device)
    plan = plan_attention(np.arange(batch, dtype=np.int32), np.full(batch, context - 1, np.int32),
                          group=heads // kv_heads, device=device)
    caches = [random_cache(cache_type, pages, kv_heads, head_dim, device) for _ in range(copies)]
    room = workspace(batch, heads, plan.chunks, caches[0].layer(0).width, device)
    calls = [partial(attend, q, cache.layer(0), tables, plan, room, out) for cache in caches]
    return calls, caches[0].bytes_per_token * batch * context


def sdpa(batch: int, context: int, heads: int, kv_heads: int, head_dim: int, copies: int,
         device: str) -> list[Callable[[], None]]:
    """torch's attention of one query a sequence over contiguous float16 keys and values."""
    q = torch.randn(batch, heads, 1, head_dim, device=device, dtype=torch.float16)
    caches = [torch.randn(2, batch, kv_heads, context, head_dim, device=device, dtype=torch.float16)
              for _ in range(copies)]
    attention = torch.nn.functional.scaled_dot_product_attention
    return [lambda cache=cache: attention(q, cache[0], cache[1], enable_gqa=True) for cache in caches]


def copies_of(bytes_each: int, dry: bool) -> int:
    """Caches that calls take turns with, so that none is in the L2 cache when its turn comes."""
    return 1 if dry else max(1, min(_CALLS, -(-(180 << 20) // bytes_each)))


def measure(arguments: argparse.Namespace, device: str) -> dict:
    """All rows of the table; those for which there was no time or memory have None for seconds."""
    dry, shape = arguments.dry_run, (arguments.heads, arguments.kv_heads, arguments.head_dim)
    begin = time.monotonic()
    bandwidth = copy_bandwidth(device, dry)
    rows = []
    for context in arguments.contexts:
        for batch in arguments.batches:
            halves = batch * context * 4 * arguments.kv_heads * arguments.head_dim
            for which in ("sdpa", *CACHE_TYPES):
                row = {"what": which, "context": context, "batch": batch, "seconds": None}
                rows.append(row)
                if time.monotonic() - begin > arguments.seconds:
                    row["why"] = "the time was used up"
                    continue
                size = halves * {"sdpa": 16, "f16": 16, "int8": 9, "int4": 5}[which] // 16
                copies = copies_of(size, dry)
                try:
                    if which == "sdpa":
                        calls, read = sdpa(batch, context, *shape, copies, device), halves
                    else:
                        calls, read = ours(which, batch, context, *shape, copies, device)
                    seconds = timed(calls, dry)
                except torch.cuda.OutOfMemoryError:
                    row["why"] = "it does not fit into memory"
                    continue
                finally:
                    calls = None
                    if not dry:
                        torch.cuda.empty_cache()
                row |= {"seconds": seconds, "bytes": read, "share_of_copy": read / seconds / bandwidth}
    name = "dry run: no speed" if dry else torch.cuda.get_device_name()
    return {"device": name, "torch": torch.__version__, "copy_bytes_per_second": bandwidth, "heads": shape[0],
            "kv_heads": shape[1], "head_dim": shape[2], "page_tokens": PAGE, "rows": rows}


def table(result: dict) -> str:
    """The rows as text, each beside SDPA of the same context and batch."""
    peers = {(row["context"], row["batch"]): row["seconds"] for row in result["rows"] if row["what"] == "sdpa"}
    lines = [f"{result['device']}, copy {result['copy_bytes_per_second'] / 1e9:.0f} GB/s, {result['heads']} heads, "
             f"{result['kv_heads']} key-value heads of {result['head_dim']}",
             f"{'what':<6}{'context':>9}{'batch':>7}{'us':>11}{'of copy':>9}{'vs SDPA':>9}"]
    for row in result["rows"]:
        start = f"{row['what']:<6}{row['context']:>9}{row['batch']:>7}"
        if row["seconds"] is None:
            lines.append(f"{start}  not measured: {row['why']}")
            continue
        peer = peers[row["context"], row["batch"]]
        ratio = f"{peer / row['seconds']:8.2f}x" if peer else f"{'':>9}"
        lines.append(f"{start}{row['seconds'] * 1e6:11.1f}{row['share_of_copy']:9.1%}{ratio}")
    return "\n".join(lines)


def main(given: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="no measurement begins after this")
    parser.add_argument("--json", type=Path, help="where the numbers are written too")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, under the interpreter")
    parser.add_argument("--contexts", type=int, nargs="+")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--heads", type=int)
    parser.add_argument("--kv-heads", type=int)
    parser.add_argument("--head-dim", type=int)
    arguments = parser.parse_args(given)
    defaults = {"contexts": (70, 300), "batches": (1, 2), "heads": 2, "kv_heads": 1, "head_dim": 32} if (
        arguments.dry_run) else {"contexts": CONTEXTS, "batches": BATCHES, "heads": 32, "kv_heads": 8, "head_dim": 128}
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if not arguments.dry_run and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here: TRITON_INTERPRET=1 and --dry-run go through the benchmark without one")
    result = measure(arguments, "cpu" if arguments.dry_run else "cuda")
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
