"""`tritwise bench`: decode and prefill speed."""

from pathlib import Path

from tritwise.cli.output import format_bytes, print_facts, print_json
from tritwise.common.errors import TritwiseError
from tritwise.measure.bench import BenchResult
from tritwise.measure.bench import bench as measure


def bench(model: Path | None = None, /, *, shape: str | None = None, dense: bool = False, backend: str = "cpu",
          threads: int | None = None, kernel: str | None = None, head: str | None = None, prefill: int = 512,
          decode: int = 128, repeats: int = 3, json: bool = False) -> None:
    """Time decoding and prefill of a model, or of a random one of a published shape built in memory.

    Parameters
    ----------
    model
        The model directory.
    shape
        Instead of a model: 2b4t, paper-700m, -1.3b, -3b, -3.9b, -7b, -13b, -70b, llama-3-8b or
        olmoe-1b-7b.
    dense
        With --shape: its 16-bit LLaMA twin.
    backend
        cpu, or cuda for an NVIDIA GPU.
    threads
        Threads; the physical cores when not given.
    kernel
        A kernel of `tritwise doctor`; the fastest when not given.
    head
        int8, int4, f16 or stored: how the output matrix is held.
    prefill
        Tokens of the prompt that is timed.
    decode
        Single-token steps that are timed.
    repeats
        How often both are timed; the medians are shown.
    json
        Print one JSON object.
    """
    if dense and shape is None:
        raise TritwiseError("--dense needs --shape", why="a model directory says itself what it is",
                            fix="tritwise bench --shape 2b4t --dense")
    shape = f"{shape}-dense" if dense else shape
    result = measure(model, shape=shape, backend=backend, threads=threads, kernel=kernel, head=head, prefill=prefill,
                     decode=decode, repeats=repeats)
    if json:
        print_json(result.to_json())
        return
    per_second = result.weight_bytes_per_token * result.decode_tokens_per_second
    print_facts([
        ("decode", f"{result.decode_tokens_per_second:,.1f} tokens/s ({result.decode_tokens} steps, "
                   f"weights read at {per_second / 1e9:.1f} GB/s)"),
        ("prefill", f"{result.prefill_tokens_per_second:,.1f} tokens/s ({result.prefill_tokens} tokens)"),
        ("weights a token", format_bytes(result.weight_bytes_per_token)),
        ("peak memory", format_bytes(result.peak_rss_bytes)),
        *([] if result.peak_device_bytes is None else [("peak on the GPU", format_bytes(result.peak_device_bytes))]),
        ("load", f"{result.load_seconds:.2f} s"),
        ("kernel", f"{result.kernel}, {threads_of(result)}head {result.head}"),
    ], title=result.model)


def threads_of(result: BenchResult) -> str:
    return f"{result.threads} threads, " if result.threads else ""
