"""The ternary linears on a GPU, against what it reaches in the same run: its copies, its int8 and bf16 products.

    python benchmarks/gpu/linear.py --tune --seconds 450 --json linear.json    # also writes src/.../kernels/tiles.json
    python benchmarks/gpu/linear.py --seconds 450 --json linear.json           # with the tiles of the table
    TRITON_INTERPRET=1 python benchmarks/gpu/linear.py --dry-run               # all of its code, without a GPU

Data is random, never zero (zeros draw less power and clock higher). Weights are rotated over several times the L2
cache. Launches are captured in a CUDA graph and timed by events, so that Python is not in the time. Each kernel's
result is compared with the torch twin before it is timed. `bandwidth`: bytes of weights, codes and result a second by
those of a large copy. `int8`: operations a second by the best of torch._int_mm. `bf16`: cuBLAS's time by ours.

Peers in the same run, on rotated weights too: gemlite where it can be imported, and microsoft/BitNet's kernel with
--microsoft (peers.py says how they are made). gemlite takes floats: its time is compared with ours of quantisation and
product. What a peer does not have, or had no time for, says so in its row.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from peers import NotMeasuredError, Peer, differs, open_peers

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json
from tritwise.kernels import Planar, Quantised, Tile, from_codes, linear, prepare, quantise, twins
from tritwise.kernels.tiles import GEMV_TOKENS, TABLE, bucket, choose, default_tile, read_table, write_table

# (hidden, ffn, rows of q, k and v together). 2B4T: arXiv 2504.12285; 3B: BitNet b1.58; 7B, 13B, 70B: LLaMA and LLaMA 2.
MODELS = {"2b4t": (2560, 6912, 3840), "3b": (3200, 8640, 9600), "7b": (4096, 11008, 12288),
          "13b": (5120, 13824, 15360), "70b": (8192, 28672, 10240)}
SCALE = 0.01
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 1024, 4096)
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
# kernel: (bn, bm, bk, warps, stages); a table of what is worth trying, by what fits registers and shared memory.
CANDIDATES = {
    "gemv": [(4, 1, 128, 1, 2), (8, 1, 128, 1, 2), (4, 1, 256, 2, 2), (2, 1, 128, 1, 2), (1, 1, 128, 1, 2)],
    "small_batch": [(64, 0, 128, 4, 4), (128, 0, 128, 4, 3), (128, 0, 128, 8, 4), (64, 0, 256, 4, 3),
                    (64, 0, 64, 4, 5)],
    "prefill": [(128, 128, 64, 8, 4), (128, 128, 128, 8, 3), (128, 256, 64, 8, 4), (128, 256, 128, 8, 3),
                (64, 256, 64, 4, 4), (64, 128, 128, 4, 4)],
}


def layers(model: str) -> list[tuple[str, int, int]]:
    """(name, N, K) of a model's linears as they are run: q, k, v in one and gate, up in one."""
    hidden, ffn, qkv = MODELS[model]
    return [("qkv", qkv, hidden), ("out", hidden, hidden), ("gate_up", 2 * ffn, hidden), ("down", hidden, ffn)]


class Clock:
    """Times launches: on a GPU inside a graph, by events; without one (the dry run) by the wall."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick

    def seconds(self, calls: list[Callable[[], object]], target: float = 0.02) -> float:
        """Seconds of one call, the median over repeats of all `calls` one after the other."""
        if self.device.type != "cuda":
            begin = time.perf_counter()
            for call in calls[:1]:
                call()
            return time.perf_counter() - begin
        for call in calls:
            call()  # compiles, and lets cuBLAS choose, outside of the graph
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for call in calls:
            call()
        torch.cuda.synchronize()
        once = time.perf_counter() - begin
        # At least 20 launches in a graph, so that its own start is little of the time, unless they are long.
        rounds = max(1, min(-(-20 // len(calls)), int(0.02 / once)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(rounds):
                for call in calls:
                    call()
        launches = rounds * len(calls)
        graph.replay()
        once = self._replay(graph)
        repeats = max(3, min(50, int((target / 3 if self.quick else target) / max(once, 1e-6))))
        return statistics.median(self._replay(graph) for _ in range(repeats)) / launches

    @staticmethod
    def _replay(graph: "torch.cuda.CUDAGraph") -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def copy_bandwidth(clock: Clock, device: torch.device, size: int) -> float:
    """Bytes read and written a second by a copy of `size` bytes."""
    source = torch.randint(-128, 128, (size,), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2 * size / clock.seconds([lambda: target.copy_(source)], 0.2)


def limits(clock: Clock, device: torch.device, size: int, side: int) -> dict[str, float]:
    """What the device reaches: bytes a second of a copy, int8 and bf16 operations a second of square products."""
    copy = copy_bandwidth(clock, device, size)
    a = torch.randint(-128, 128, (side, side), dtype=torch.int8, device=device)
    b = torch.randint(-128, 128, (side, side), dtype=torch.int8, device=device)
    ternary = torch.randint(-1, 2, (side, side), dtype=torch.int8, device=device)
    a16, b16 = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    operations = 2 * side**3
    return {"copy_bytes_s": copy,
            "int8_random_ops_s": operations / clock.seconds([lambda: torch._int_mm(a, b.T)], 0.2),
            "int8_ternary_ops_s": operations / clock.seconds([lambda: torch._int_mm(a, ternary.T)], 0.2),
            "bf16_ops_s": operations / clock.seconds([lambda: a16 @ b16.T], 0.2)}


def rotated(n: int, k: int, device: torch.device, rotation: int) -> list[Planar]:
    """As many random matrices as it takes to be `rotation` bytes together, at most 64."""
    count = max(1, min(64, -(-4 * rotation // (n * k))))
    return [from_codes(torch.randint(-1, 2, (n, k), dtype=torch.int8, device=device), SCALE) for _ in range(count)]


def check(x: Quantised, weights: Planar, y: torch.Tensor, tile: Tile) -> None:
    """The kernel's first and last rows against the twin, to the bit. Raises SystemExit where they differ."""
    n, k = weights.shape
    for rows in (slice(0, min(n, 256)), slice(max(0, n - 256), n)):
        part = Planar(weights.packed[rows].contiguous(), weights.scales[rows].contiguous(), (rows.stop - rows.start, k))
        if not torch.equal(y[:, rows], twins.linear(x, part)):
            raise SystemExit(f"{tile} gives other sums than the twin for M = {x.tokens}, N = {n}, K = {k}")


def candidates(m: int, n: int, k4: int, default: Tile, processors: int, shared_bytes: int) -> Iterator[Tile]:
    """Tiles worth timing for a product, the default first."""
    yield default
    kernels = ["gemv"] if m <= GEMV_TOKENS else []
    kernels += ["small_batch"] if m <= 128 else []
    kernels += ["prefill"] if m >= 64 else []
    for kernel in kernels:
        for bn, bm, bk, warps, stages in CANDIDATES[kernel]:
            if kernel == "small_batch":
                bm = min(64, max(16, bucket(m)))
            # Accumulators of a thread have to fit in 255 registers, the pipeline's stages in shared memory.
            registers = {"gemv": bn * bucket(m) * bk * 4, "small_batch": bn * bm * 4, "prefill": bn * bm}[kernel]
            room = {"gemv": 0, "small_batch": bn * bk + 4 * bm * bk, "prefill": bk * (bn + bm)}[kernel]
            if registers > 128 * 32 * warps or stages * room > shared_bytes or bm > max(64, 2 * bucket(m)):
                continue
            tiles = -(-n // bn) * -(-m // bm)
            steps = -(-(k4 // 4 if kernel == "gemv" else k4) // bk)
            for splits in SPLITS:
                crowd = (64 if kernel == "gemv" else 8) * processors
                if splits == 1 or (splits * 2 <= steps and tiles * splits <= crowd):
                    tile = Tile(kernel, bn, bm, bk, splits, warps, stages)
                    if tile != default:
                        yield tile


def tuned(clock: Clock, x: Quantised, matrices: list[Planar], default: Tile, deadline: float, limit: int) -> Tile:
    """The fastest candidate; a first look at one split of each kind of tile, then the splits of the two best kinds."""
    device = x.codes.device
    properties = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    processors = properties.multi_processor_count if properties else 4
    shared = getattr(properties, "shared_memory_per_block_optin", 160 << 10) if properties else 160 << 10
    (n, _), k4 = matrices[0].shape, matrices[0].packed.shape[1]
    kinds: dict[tuple, list[Tile]] = {}
    for tile in candidates(x.tokens, n, k4, default, processors, shared):
        kinds.setdefault((tile.kernel, tile.bn, tile.bm, tile.bk, tile.warps, tile.stages), []).append(tile)

    times: dict[Tile, float] = {}

    def measure(tile: Tile) -> None:
        if tile in times or time.monotonic() > deadline:
            return
        try:
            check(x, matrices[0], linear(x, matrices[0], tile=tile), tile)
            times[tile] = clock.seconds([lambda w=w: linear(x, w, tile=tile) for w in matrices], 0.004)
        except Exception as error:  # a tile that a device has no room for is no candidate there
            if "out of resource" not in str(error).lower():
                raise
            times[tile] = float("inf")

    for kind in list(kinds.values())[:limit]:
        measure(kind[len(kind) // 2])
        measure(kind[0])
    best = sorted((min(times.get(tile, float("inf")) for tile in kind), i) for i, kind in enumerate(kinds.values()))
    for _, i in best[:2]:
        for tile in list(kinds.values())[i][:limit]:
            measure(tile)
    return min(times, key=times.get) if times else default


def timed_peers(clock: Clock, prepared: dict[Peer, tuple[list, torch.Tensor] | str], x: Quantised, hidden: torch.Tensor,
                ours: dict[bool, float]) -> dict[str, dict | str]:
    """Of each peer microseconds and their ratio to ours, with (True) or without quantisation; or why there are none."""
    found: dict[str, dict | str] = {}
    for peer, weights in prepared.items():
        try:
            if isinstance(weights, str):
                raise NotMeasuredError(weights)
            forms, codes = weights
            calls = [peer.call(form, x, hidden) for form in forms]
            begin = time.monotonic()
            wrong = differs(calls[0](), codes, SCALE, x)
            first = time.monotonic() - begin
            if not wrong < 0.05:
                raise NotMeasuredError(f"its result is {wrong:.1%} of the largest value away from the exact one")
            seconds = clock.seconds(calls)
        except NotMeasuredError as error:
            found[peer.name] = f"not measured: {error}"
            continue
        found[peer.name] = {"us": seconds * 1e6, "over_ours": seconds / ours[peer.from_floats], "difference": wrong,
                            "first_call_s": first}
    return found


def prepare_peers(peers: list[Peer], n: int, k: int, count: int, device: torch.device) -> dict:
    """Their forms of `count` random matrices, and the codes of the first; or why they have none."""
    prepared: dict[Peer, tuple[list, torch.Tensor] | str] = {}
    for peer in peers:
        forms, first = [], None
        try:
            for _ in range(count):
                codes = torch.randint(-1, 2, (n, k), dtype=torch.int8, device=device)
                first = codes if first is None else first
                forms.append(peer.weights(codes, SCALE))
            prepared[peer] = forms, first[:256].clone()
        except NotMeasuredError as error:
            prepared[peer] = str(error)
    return prepared


def measure(options: argparse.Namespace, device: torch.device) -> dict:
    """The whole run: limits, then rows until the time is over; what was not reached is named."""
    begin = time.monotonic()
    deadline = begin + options.seconds
    dry = device.type != "cuda"
    clock = Clock(device, options.tune)
    torch.manual_seed(0)
    prepare(device)
    found: dict = {"device": "dry run" if dry else torch.cuda.get_device_name(device), "torch": torch.__version__,
                   "limits": limits(clock, device, 1 << 12 if dry else 1 << 31, 32 if dry else 8192),
                   "rows": [], "not_reached": []}
    peers, missing = open_peers(device, options.microsoft)
    found["peers"] = [peer.name for peer in peers]
    found["not_measured"] = missing
    for name, why in missing.items():
        print(f"{name} is not measured: {why}", flush=True)
    reached = ", ".join(f"{name} {value:.4g}" for name, value in found["limits"].items())
    print(f"{found['device']}: {reached}", flush=True)
    int8 = max(found["limits"]["int8_random_ops_s"], found["limits"]["int8_ternary_ops_s"])
    cache = 0 if dry else torch.cuda.get_device_properties(device).L2_cache_size
    table = read_table(options.table) if options.tune else {}
    shapes = [(model, *layer) for model in options.models for layer in layers(model)]
    if dry:
        shapes = [("tiny", "square", 40, 96), ("tiny", "odd", 33, 130)]
    # Models take turns, so that a run which ends early has some of each.
    shapes.sort(key=lambda shape: [name for name, *_ in layers("7b")].index(shape[1]) if not dry else 0)
    for at, (model, layer, n, k) in enumerate(shapes):
        # Each shape has its share of the time that is left; what one does not use is the next ones'.
        share = time.monotonic() + max(0.0, deadline - time.monotonic()) / (len(shapes) - at)
        if time.monotonic() > deadline:
            found["not_reached"].append({"model": model, "layer": layer, "m": list(options.tokens)})
            continue
        matrices = rotated(n, k, device, 0 if dry else 4 * cache)
        dense_count = max(1, min(16, -(-4 * cache // (2 * n * k))))
        dense = [torch.randn(n, k, device=device).to(torch.bfloat16) for _ in range(dense_count)]
        prepared = prepare_peers(peers, n, k, len(matrices), device)
        for position, m in enumerate(options.tokens):
            if time.monotonic() > share and time.monotonic() > deadline - 5:
                found["not_reached"].append({"model": model, "layer": layer, "m": list(options.tokens[position:])})
                break
            hidden = torch.randn(m, k, device=device)
            x, x16 = quantise(hidden), hidden.to(torch.bfloat16)
            k4 = matrices[0].packed.shape[1]
            tile = choose(m, n, k4, device)
            if options.tune:
                until = time.monotonic() + max(0.0, share - time.monotonic()) / (len(options.tokens) - position)
                tile = tuned(clock, x, matrices, tile, until, 2 if dry else 1000)
                table.setdefault(found["device"], {}).setdefault(f"{n}x{4 * k4}", {})[bucket(m)] = tile
            y = linear(x, matrices[0], tile=tile)
            check(x, matrices[0], y, tile)
            seconds = clock.seconds([lambda w=w, x=x, tile=tile: linear(x, w, tile=tile) for w in matrices])
            bf16 = clock.seconds([lambda w=w, x16=x16: x16 @ w.T for w in dense])
            moved = matrices[0].bytes + x.codes.numel() + 4 * y.numel()
            row = {"model": model, "layer": layer, "n": n, "k": k, "m": m, "us": seconds * 1e6, "bf16_us": bf16 * 1e6,
                   "bandwidth": moved / seconds / found["limits"]["copy_bytes_s"],
                   "int8": 2 * m * n * k / seconds / int8, "over_bf16": bf16 / seconds, "tile": asdict(tile),
                   "default": tile == default_tile(m, n, k4)}
            if peers:
                whole = clock.seconds([lambda w=w, h=hidden, tile=tile: linear(quantise(h), w, tile=tile)
                                       for w in matrices])
                row["quantise_and_product_us"] = whole * 1e6
                row["peers"] = timed_peers(clock, prepared, x, x16, {False: seconds, True: whole})
            found["rows"].append(row)
            print(f"{model:>5} {layer:<8}{n:>6} x {k:<6} M {m:<5}{row['us']:>10.2f} us  bandwidth "
                  f"{row['bandwidth']:>6.1%}  int8 {row['int8']:>6.1%}  bf16 {row['bf16_us']:>9.2f} us = "
                  f"{row['over_bf16']:.2f}x  {tile.kernel} {tile.bn}x{tile.bm}x{tile.bk} /{tile.splits}"
                  + "".join(f"  {name} {peer['us']:.2f} us = {peer['over_ours']:.2f}x"
                            for name, peer in row.get("peers", {}).items() if isinstance(peer, dict)), flush=True)
        del matrices, dense, prepared
    if options.tune:
        if not dry or options.table != TABLE:
            write_table(table, options.table)
        found["table"] = str(options.table)
    found["seconds"] = time.monotonic() - begin
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS), help="values of M")
    parser.add_argument("--seconds", type=float, default=420, help="no new measurement begins after this time")
    parser.add_argument("--tune", action="store_true", help="time other tiles too, and write the best into the table")
    parser.add_argument("--table", type=Path, default=TABLE, help="the table that --tune extends")
    parser.add_argument("--microsoft", type=Path, help="libbitnet.so of microsoft/BitNet's kernel")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU, in Triton's interpreter")
    options = parser.parse_args()
    if options.dry_run:
        options.tokens = options.tokens if len(options.tokens) < len(TOKENS) else [1, 20, 70]
    elif not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device; --dry-run with TRITON_INTERPRET=1 needs none")
    try:
        found = measure(options, torch.device("cpu") if options.dry_run else torch.device("cuda", 0))
    except TritwiseError as error:
        raise SystemExit(str(error)) from error
    if found["not_reached"]:
        print(f"not measured, the time was over: {json.dumps(found['not_reached'])}")
    if options.json:
        atomic_write_json(options.json, found)


if __name__ == "__main__":
    main()
