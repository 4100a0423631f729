"""Training speed and memory of BitLinear on one GPU against three others, in one run, on the same tokens.

    python benchmarks/gpu/training.py --budget 600 --json training.json
    python benchmarks/gpu/training.py --dry-run          # tiny, on the CPU in Triton's interpreter: all of this code

A row is a few LLaMA blocks of a published width with a whole step: forward, backward and fused AdamW on float32 master
weights, activations in bfloat16. Systems: `tritwise`; `dense`, the same blocks with nn.Linear under autocast;
`fake-quant`, the form that BitNet's published FAQ describes (quantise, subtract, detach, add, then a dense product);
`torchao`, its BitNet training where it is installed. All blocks go through torch.compile; a row has the number of its
graphs and of the places where one broke off. Each system has the GPU for itself and sees the same input: peak memory is
what its weights, gradients, moments and activations take together once everything is compiled, and a row has the bytes
that were taken before it began. A time is the median over bursts. Rows that the budget leaves no time for are listed as
such.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

if "--dry-run" in sys.argv:  # the interpreter has to be chosen before kernels are defined
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from tritwise.config import ModelConfig
from tritwise.model.bitlinear import kernels_everywhere
from tritwise.model.decoder import Block, rotary_tables, rotate


@dataclass(frozen=True)
class Shape:
    """The width of a model; `layers` of its blocks are measured."""

    hidden: int
    intermediate: int
    heads: int
    layers: int = 4

    def config(self) -> ModelConfig:
        return ModelConfig(model_type="llama", linear_type="ternary", vocab_size=32, hidden_size=self.hidden,
                           intermediate_size=self.intermediate, num_hidden_layers=self.layers, hidden_act="silu",
                           num_attention_heads=self.heads, num_key_value_heads=self.heads)


# BitNet b1.58 (arXiv 2402.17764) trains LLaMA's widths of these sizes.
SHAPES = {"700M": Shape(1536, 4096, 24), "1.3B": Shape(2048, 5460, 32), "3B": Shape(3200, 8640, 32)}
TINY = {"tiny": Shape(32, 48, 2, layers=1)}
SYSTEMS = ("tritwise", "dense", "fake-quant", "torchao")


class FakeQuantLinear(nn.Linear):
    """BitLinear as the FAQ describes it: RMSNorm, both sides quantised and dequantised, straight-through by detach."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.rms_norm(x, x.shape[-1:], eps=1e-5)
        step = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / 127
        x = x + ((x / step).round().clamp(-128, 127) * step - x).detach()
        mean = self.weight.abs().mean().clamp(min=1e-5)
        weight = self.weight + ((self.weight / mean).round().clamp(-1, 1) * mean - self.weight).detach()
        return F.linear(x, weight)


class PlainBlock(nn.Module):
    """LLaMA's block out of torch's own parts; `linear` makes the linears, `norms` whether it norms before them."""

    def __init__(self, shape: Shape, linear: type[nn.Linear], norms: bool) -> None:
        super().__init__()
        self.heads, self.norms = shape.heads, norms
        self.q, self.k, self.v, self.o = (linear(shape.hidden, shape.hidden, bias=False) for _ in range(4))
        self.gate, self.up = (linear(shape.hidden, shape.intermediate, bias=False) for _ in range(2))
        self.down = linear(shape.intermediate, shape.hidden, bias=False)
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(shape.hidden)) for _ in range(2 if norms else 0))

    def _norm(self, x: Tensor, at: int) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.gains[at].to(x.dtype), 1e-5) if self.norms else x

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = self._norm(x, 0)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.q(h), self.k(h), self.v(h)))
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        h = self._norm(x, 1)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def blocks_of(system: str, shape: Shape) -> nn.ModuleList:
    """The blocks of a system; ImportError where it is not installed."""
    if system == "tritwise":
        return nn.ModuleList(_initialised(Block(shape.config())) for _ in range(shape.layers))
    kinds = {"dense": (nn.Linear, True), "fake-quant": (FakeQuantLinear, False), "torchao": (nn.Linear, True)}
    blocks = nn.ModuleList(PlainBlock(shape, *kinds[system]) for _ in range(shape.layers))
    if system == "torchao":
        from torchao import quantize_
        from torchao.prototype.quantized_training import bitnet_training

        quantize_(blocks, bitnet_training())
    return blocks


def _initialised(block: Block) -> Block:
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.02)
    return block


def step_of(system: str, shape: Shape, batch: int, length: int, device: str) -> Callable[[], None]:
    """A function that makes one whole optimizer step."""
    blocks = blocks_of(system, shape).to(device)
    cos, sin = (table.to(device, torch.bfloat16) for table in rotary_tables(length, shape.config()))
    calls = [torch.compile(block, backend="inductor" if device == "cuda" else "aot_eager") for block in blocks]
    optimizer = torch.optim.AdamW(blocks.parameters(), lr=1e-4, fused=True)
    x = torch.randn(batch, length, shape.hidden, generator=torch.Generator().manual_seed(0)).bfloat16().to(device)
    cast = nullcontext() if system == "tritwise" else torch.autocast(device, torch.bfloat16)

    def step() -> None:
        y = x
        with cast:
            for call in calls:
                y = call(y, cos, sin)
            loss = y.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(step: Callable[[], None], tokens: int, device: str, bursts: int, steps: int) -> dict[str, float | None]:
    """Median tokens/s over bursts and peak memory in bytes."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2 if device == "cuda" else 1):
        step()
    if device == "cuda":  # not before: a compiler tries variants out, on memory of its own
        torch.cuda.reset_peak_memory_stats()
    speeds = []
    for _ in range(bursts):
        wait()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        speeds.append(steps * tokens / (time.perf_counter() - began))
    return {"tokens_per_second": statistics.median(speeds), "slowest": min(speeds), "fastest": max(speeds),
            "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None}


def rows(options: argparse.Namespace, device: str) -> list[dict]:
    shapes = TINY if options.dry_run else {name: SHAPES[name] for name in options.shapes.split(",")}
    batch, length = (1, 8) if options.dry_run else (options.batch, options.length)
    bursts, steps = (1, 1) if options.dry_run else (options.bursts, options.steps)
    deadline = time.monotonic() + options.budget
    found = []
    for name, shape in shapes.items():
        for system in options.systems.split(","):
            row = {"shape": name, "system": system, "layers": shape.layers, "tokens_a_step": batch * length}
            if time.monotonic() > deadline:
                found.append(row | {"left_out": "no time left"})
                continue
            row["bytes_before"] = torch.cuda.memory_allocated() if device == "cuda" else None
            counters.clear()
            try:
                step = step_of(system, shape, batch, length, device)
                row |= measure(step, batch * length, device, bursts, steps)
                row |= {"graphs": counters["stats"]["unique_graphs"],
                        "graph_breaks": sum(counters["graph_break"].values())}
            except (ImportError, torch.OutOfMemoryError) as error:
                row["left_out"] = f"{type(error).__name__}: {error}"
            except Exception as error:
                if system != "torchao":
                    raise
                row["left_out"] = f"{type(error).__name__}: {error}"  # a peer that fails costs its own row alone
            step = None
            gc.collect()
            torch._dynamo.reset()
            if device == "cuda":
                torch.cuda.empty_cache()
            found.append(row)
            print(_line(row), file=sys.stderr, flush=True)
    return found


def _line(row: dict) -> str:
    if "left_out" in row:
        return f"{row['shape']:>5} {row['system']:>10}  left out: {row['left_out']}"
    memory = f"{row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] else "memory not measured"
    return f"{row['shape']:>5} {row['system']:>10}  {row['tokens_per_second']:>12,.0f} tokens/s  {memory}"


def ratios(found: list[dict]) -> list[dict]:
    """For each shape, `tritwise` divided by each other system: speed, and memory."""
    by = {(row["shape"], row["system"]): row for row in found if "left_out" not in row}
    return [{"shape": shape, "against": system,
             "speed": by[shape, "tritwise"]["tokens_per_second"] / row["tokens_per_second"],
             "memory": by[shape, "tritwise"]["peak_bytes"] / row["peak_bytes"] if row["peak_bytes"] else None}
            for (shape, system), row in by.items() if system != "tritwise" and (shape, "tritwise") in by]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps in a burst")
    parser.add_argument("--budget", type=float, default=600, help="seconds after which no row is begun")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("no GPU: --dry-run goes through the code without one")
    device = "cpu" if options.dry_run else "cuda"
    with kernels_everywhere() if options.dry_run else nullcontext():
        found = rows(options, device)
    result = {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU, dry run: no measurement",
              "torch": torch.__version__, "rows": found, "ratios": [] if options.dry_run else ratios(found)}
    text = json.dumps(result, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
