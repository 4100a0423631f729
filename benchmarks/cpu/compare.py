"""This engine against other CPU runtimes for 1.58-bit models: same shape, same threads, taking turns in one run.

    python benchmarks/cpu/compare.py --shape 2b4t --threads 2 --work decode,prefill --llama-cpp-python PEERS/venv \\
        --ik PEERS/ik_llama.cpp/build/bin --bitnet-cpp PEERS/BitNet/build/bin --rounds 5 --out result.json

All run random weights. In every round each system does one short burst, A B A B; the read bandwidth is measured between
the bursts. docs/benchmarks.md says how the peers are built and what exactly is measured.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import quiet
import summary
import worker
from llama_bench import LlamaBench
from llama_cpp_python import LlamaCppPython
from ours import Tritwise
from works import RefusedError, System, Work, works

from tritwise import _native
from tritwise.common.errors import TritwiseError
from tritwise.measure.machine import machine_facts

IK_FLAGS = ("-mqkv", "-rtr", "-thp")


def systems(options: argparse.Namespace) -> tuple[list[System], dict[str, str]]:
    """The rows, ours first, and the peers that are not at hand, each with why."""
    shape, cache = options.shape, options.cache
    rows: list[System] = [Tritwise(shape, cache, dict(options.tritwise)),
                          Tritwise(f"{shape}-dense", cache, {}, dense=True)]
    left_out = {}
    if options.ik:
        # The architecture of 2B4T has squared ReLU there. -fa 1 is the default; -rtr repacks the head too.
        architecture = "bitnet-b1.58" if shape == "2b4t" else "bitnet"
        for head, flags in (("q6_K", ()), ("q6_K", ("-mqkv",)), ("q6_K", IK_FLAGS), ("q8_0", ()), ("q8_0", IK_FLAGS)):
            rows.append(LlamaBench("ik_llama.cpp", options.ik, shape, cache, kind="IQ2_BN_R4", head=head,
                                   architecture=architecture, flags=flags))
        rows.append(LlamaBench("ik_llama.cpp", options.ik, shape, cache, kind="bf16", head="bf16", architecture="llama",
                               dense=True))
    else:
        left_out["ik_llama.cpp"] = "no --ik"
    if options.bitnet_cpp:
        for head in ("q6_K", "f16"):
            rows.append(LlamaBench("bitnet.cpp", options.bitnet_cpp, shape, cache, kind="I2_S", head=head,
                                   architecture="bitnet"))
    else:
        left_out["bitnet.cpp"] = "no --bitnet-cpp"
    if options.llama_cpp_python:
        rows.append(LlamaCppPython(options.llama_cpp_python, shape, cache, kind="TQ2_0", head="q6_K",
                                   architecture="bitnet"))
        for kind in ("f16", "bf16"):
            rows.append(LlamaCppPython(options.llama_cpp_python, shape, cache, kind=kind, head=kind,
                                       architecture="llama", dense=True))
    else:
        left_out["llama.cpp"] = "no --llama-cpp-python"
    for name in options.leave_out:
        left_out |= {row.name: "--leave-out" for row in rows[2:] if name in row.name}
    return [row for row in rows if row.name not in left_out], left_out


def measure(work: Work, rows: list[System], options: argparse.Namespace) -> dict[str, Any]:
    """One work: open what does it, then rounds of one burst each, in the order of the rows."""
    records = [{"system": row.name} for row in rows]
    with ExitStack() as stack:
        bursts: dict[int, Callable[[], float]] = {}
        for index, row in enumerate(rows):
            try:
                opened = stack.enter_context(row.open(work))
            except (RefusedError, TritwiseError) as problem:
                refuse(records[index], problem)
            else:
                bursts[index] = opened.burst
                records[index] |= {"note": opened.note, "bytes_per_token": opened.bytes_per_token, "samples": []}
        for number in range(options.rounds if work.repeated else 1):
            for index in list(bursts):
                try:
                    found = sample(work, bursts[index], options)
                except RefusedError as problem:
                    refuse(records[index], problem)
                    del bursts[index]
                    continue
                records[index]["samples"].append(found)
                others = "" if found["others"] is None else f", {found['others']:.0%} of the processors with others"
                print(f"{work.name}, round {number + 1}: {rows[index].name} {found['value']:.2f} {work.unit}{others}",
                      file=sys.stderr, flush=True)
    return {"work": work.name, "unit": work.unit, "threads": work.threads, "size": work.size, "rows": records}


def sample(work: Work, burst: Callable[[], float], options: argparse.Namespace) -> dict[str, Any]:
    """One burst: its value, the share of the processors that others took, the bandwidth before and after.

    Of several attempts the calmest counts, never the fastest.
    """
    attempts = []
    for _ in range(options.attempts):
        if options.attempts > 1:
            quiet.wait_until_quiet(options.quiet, options.patience)
        before = bandwidth(work)
        value, others = quiet.disturbance(burst, worker.running)
        attempts.append({"value": value, "others": others, "bandwidth": (before + bandwidth(work)) / 2})
        if others is None or others <= options.quiet:
            break
    return min(attempts, key=lambda attempt: attempt["others"] or 0.0)


def refuse(record: dict[str, Any], problem: Exception) -> None:
    record["refused"] = " ".join(str(problem).split())
    record.pop("samples", None)
    print(f"{record['system']}: {record['refused']}", file=sys.stderr, flush=True)


def bandwidth(work: Work) -> float:
    """Bytes a second that the work's threads read now; 0 where it is no bound."""
    return float(_native.measure_read_bandwidth(work.threads, 1 << 28, 3)) if work.bound_by_bandwidth else 0.0


def setting(text: str) -> list[tuple[str, Any]]:
    """`head=int8,slots=1` as pairs; a value is JSON where it can be, a text otherwise."""
    pairs = []
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{item!r} is not of the form key=value")
        try:
            pairs.append((key, json.loads(value)))
        except ValueError:
            pairs.append((key, value))
    return pairs


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="2b4t", help="a shape of tritwise.measure.shapes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", default="decode,prefill,batch32,memory,load,dense",
                        help="decode, decode1, prefill, batch8, batch32, memory, load, dense, dense1; 1: one thread")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ik", type=Path, help="folder with ik_llama.cpp's llama-bench and llama-batched-bench")
    parser.add_argument("--bitnet-cpp", type=Path, help="the same of bitnet.cpp")
    parser.add_argument("--llama-cpp-python", type=Path, help="virtual environment with llama-cpp-python")
    parser.add_argument("--tritwise", type=setting, default=[], help="arguments of tritwise.load: head=int8,slots=1")
    parser.add_argument("--leave-out", action="append", default=[], help="peers with this in their name; repeatable")
    parser.add_argument("--attempts", type=int, default=1,
                        help="bursts to try when other programs disturb one; the calmest counts")
    parser.add_argument("--quiet", type=float, default=0.05, help="share of the processors that others may take")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for that before an attempt")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where the model files are kept")
    parser.add_argument("--out", type=Path, help="JSON with every sample; the table beside it, as .md")
    return parser


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peers' processes end with this one
    options = argument_parser().parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    try:
        chosen, (rows, left_out) = works(options.work, options.threads), systems(options)
    except TritwiseError as error:
        raise SystemExit(str(error)) from None
    result = {"shape": options.shape, "started": time.strftime("%Y-%m-%d %H:%M:%S"), "rounds": options.rounds,
              "command": sys.argv, "machine": machine_facts(), "left_out": left_out, "works": []}
    for work in chosen:
        result["works"].append(measure(work, [row for row in rows if row.does(work)], options))
        text = summary.table(summary.finish(result))
        if options.out:  # after every work, so that an end before the last one loses nothing
            options.out.write_text(json.dumps(result, indent=1))
            options.out.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
