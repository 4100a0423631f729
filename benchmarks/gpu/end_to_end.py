"""A whole model on a GPU: ternary against dense 16 bits of the same shape, in this engine and in transformers.

    python benchmarks/gpu/end_to_end.py --shapes paper-3b paper-7b --seconds 400 --json end_to_end.json
    python benchmarks/gpu/end_to_end.py --shapes paper-70b --layers 20 --seconds 400 --json 70b.json
    python benchmarks/gpu/end_to_end.py --model-only                         # what the cost model says, without a GPU
    TRITON_INTERPRET=1 python benchmarks/gpu/end_to_end.py --dry-run         # all of its code, without a GPU

Decode: steps of a batch, each sequence at --context positions, fed with the likeliest token of the step before, through
`Backend.forward` as the scheduler calls it (so the host's part is in the time). Prefill: --context tokens of one
sequence in one step. Weights, keys and values are random, never zero. The systems are built side by side and take
turns, so that ratios are of the same minutes: ours ternary (int8 head), ours dense (bfloat16, cuBLAS), and
transformers' LlamaForCausalLM in bfloat16 with a static cache, its forward compiled as `--transformers` says.

Memory: bytes of weights and cache as counted by the backend, and the most that torch had allocated while the system was
built and decoded alone. With --layers a model has fewer; then seconds and bytes of all layers are also given, from a
second build with half of them: what a layer adds, times the layers that are missing. Such rows say "scaled".

Throughput: the largest batch at a sequence length that the cost model finds for one card, and its step by the same
scaling; dense on as many cards as its weights need is "computed" by the cost model alone (measure/gpu_cost.py).
"""

import argparse
import inspect
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tritwise.common.files import atomic_write_json
from tritwise.config import ModelConfig
from tritwise.engine import Batch
from tritwise.engine.cuda import CudaBackend
from tritwise.engine.cuda.weights import BlockWeights, DenseLinears, Linears, ModelWeights, TernaryLinears
from tritwise.kernels import concatenate, from_codes
from tritwise.kernels.head import make_head
from tritwise.measure.gpu_cost import CARDS, throughput, weight_bytes
from tritwise.measure.shapes import shape_config

GOALS = {"paper-3b": {"decode": 2.71, "memory": 3.55}, "paper-70b": {"decode": 4.1, "memory": 7.16}}
PAPER = {"batch": 11.0, "tokens_per_second": 8.9}  # BitNet b1.58, table 3: 70B on two A100, sequences of 512
CACHE_TYPES = ("f16", "int8", "int4")
_STEPS = 32


def random_weights(config: ModelConfig, device: torch.device) -> ModelWeights:
    """Random weights made on the device, of the size that keeps a layer's output near its input's."""
    dense, shapes = config.linear_type == "dense", config.linear_shapes()

    def floats(n: int, k: int) -> torch.Tensor:
        return (torch.randn(n, k, device=device, dtype=torch.bfloat16) * k**-0.5)

    def linears(*names: str) -> Linears:
        if dense:
            return DenseLinears(torch.cat([floats(*shapes[name]) for name in names]))
        parts = [from_codes(torch.randint(-1, 2, shapes[name], dtype=torch.int8, device=device),
                            (1.5 / shapes[name][1]) ** 0.5) for name in names]
        return TernaryLinears((concatenate(parts) if len(parts) > 1 else parts[0],), (), 0.0)

    def gain(size: int) -> torch.Tensor:
        return torch.rand(size, device=device) + 0.5

    hidden = config.hidden_size
    blocks = []
    for _ in range(config.num_hidden_layers):
        subs = (gain(hidden), gain(config.intermediate_size)) if config.has_sub_norms else (None, None)
        blocks.append(BlockWeights(
            linears("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), linears("self_attn.o_proj"),
            linears("mlp.gate_proj", "mlp.up_proj"), linears("mlp.down_proj"), gain(hidden), gain(hidden), *subs, None,
            None))
    embedding, output = floats(config.vocab_size, hidden), floats(config.vocab_size, hidden)
    return ModelWeights(embedding, blocks, gain(hidden), make_head(output, "stored" if dense else "int8"))


@dataclass
class System:
    """One way to run a model: seconds of a step and of a prompt, and what it holds."""

    name: str
    step: Callable[[], float]
    prefill: Callable[[], float] | None
    weight_bytes: int
    cache_bytes: int
    peak_bytes: int


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_system(name: str, config: ModelConfig, device: torch.device, *, batch: int, context: int, steps: int,
               cache_type: str = "f16") -> System:
    """This engine, with `batch` sequences whose first `context` positions hold random keys and values."""
    room = context + 2 * steps + 64
    config = config.with_changes(max_position_embeddings=max(config.max_position_embeddings, room))
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    backend = CudaBackend(config, random_weights(config, device), device=device.type, slots=batch, context=room,
                          cache_tokens=batch * -(-room // 64) * 64, cache_type=cache_type)
    pages = backend.keys_and_values
    for values in (pages.keys, pages.values):
        values.copy_(torch.randn_like(values) if values.is_floating_point() else torch.randint_like(values, 0, 256))
    for scales in (pages.key_scales, pages.value_scales):
        scales.copy_(torch.rand_like(scales) * 0.02)
    slots = np.arange(batch, dtype=np.int32)
    state = {"position": context, "tokens": np.arange(1, batch + 1, dtype=np.int32) % config.vocab_size}

    def hold(position: int) -> None:
        backend.cache.reserve([(int(slot), 0, position) for slot in slots])
        for slot in slots:
            backend.cache.set_length(int(slot), position)
        state["position"] = position

    def step() -> float:
        if state["position"] + 2 >= room:
            for slot in slots:
                backend.cache.reset(int(slot))
            hold(context)
        everything = np.full(batch, state["position"], np.int32)
        began = time.perf_counter()
        output = backend.forward(Batch(state["tokens"], slots, everything, np.empty(0, np.int32), slots))
        seconds = time.perf_counter() - began
        state["tokens"] = np.maximum(output.best, 0)
        state["position"] += 1
        return seconds

    def prefill() -> float:
        for slot in slots:
            backend.cache.reset(int(slot))
        tokens = np.arange(context, dtype=np.int32) % config.vocab_size
        _synchronise(device)
        began = time.perf_counter()
        backend.forward(Batch(tokens, tokens * 0, np.arange(context, dtype=np.int32), np.empty(0, np.int32),
                              np.array([context - 1], np.int32)))
        seconds = time.perf_counter() - began
        for slot in slots:
            backend.cache.reset(int(slot))
        hold(context)
        return seconds

    hold(context)
    for _ in range(-(-steps // 4)):
        step()
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    cache = backend.info.cache_bytes_per_token * backend.cache.pages_total * backend.cache.page_tokens
    return System(name, step, prefill, backend.info.weight_bytes, cache, peak)


def transformers_system(config: ModelConfig, device: torch.device, *, batch: int, context: int, steps: int,
                        compiled: str) -> System:
    """transformers' LlamaForCausalLM in bfloat16; `compiled` is "eager" or a mode of torch.compile."""
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    room = context + 2 * steps + 64
    values = {name: getattr(config, name) for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "rms_norm_eps")}
    theirs = LlamaConfig(**values, max_position_embeddings=room, tie_word_embeddings=False)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = type("Llama", (LlamaForCausalLM,), {"_init_weights": lambda self, module: None})(theirs).eval()
    finally:
        torch.set_default_dtype(default)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5 if parameter.dim() > 1
                            else torch.ones_like(parameter))
    cache = StaticCache(theirs, max_cache_len=room)
    # What older versions call past_key_values.
    cache_name = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
    forward = model.forward if compiled == "eager" else torch.compile(model.forward, mode=compiled, fullgraph=True)
    state = {"position": context, "tokens": torch.ones(batch, 1, dtype=torch.int64, device=device)}

    def run(tokens: torch.Tensor, first: int, call: Callable) -> torch.Tensor:
        positions = torch.arange(first, first + tokens.shape[1], device=device)
        return call(tokens, **{cache_name: cache}, use_cache=True, position_ids=positions[None],
                    logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)

    def step() -> float:
        if state["position"] + 2 >= room:
            cache.reset()
            state["position"] = 0
            prefill()
        _synchronise(device)
        began = time.perf_counter()
        with torch.no_grad():
            tokens = run(state["tokens"].clone(), state["position"], forward)
        host = tokens.cpu()  # as whoever reads the text has to
        seconds = time.perf_counter() - began
        state["tokens"] = host.to(device)
        state["position"] += 1
        return seconds

    def prefill() -> float:
        cache.reset()
        tokens = (torch.arange(context, device=device) % config.vocab_size).repeat(batch, 1)
        _synchronise(device)
        began = time.perf_counter()
        with torch.no_grad():
            run(tokens, 0, model)
        _synchronise(device)
        state["position"] = context
        return time.perf_counter() - began

    prefill()
    for _ in range(-(-steps // 4)):
        step()
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    held = sum(parameter.nbytes for parameter in model.parameters())
    width = 2 * theirs.num_hidden_layers * theirs.num_key_value_heads * config.head_dim * 2
    return System(f"transformers {compiled}", step, prefill if batch == 1 else None, held, batch * room * width, peak)


def take_turns(systems: list[System], rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Median seconds of a step for each system, by round, and of a prompt where it has one."""
    seconds: dict[str, list[float]] = {system.name: [] for system in systems}
    prompts: dict[str, list[float]] = {system.name: [] for system in systems}
    for _ in range(rounds):
        for system in systems:
            seconds[system.name].append(statistics.median(system.step() for _ in range(steps)))
            if system.prefill is not None:
                prompts[system.name].append(system.prefill())
    return {system.name: {
        "step_seconds": seconds[system.name], "prefill_seconds": prompts[system.name],
        "weight_bytes": system.weight_bytes, "cache_bytes": system.cache_bytes, "peak_bytes": system.peak_bytes,
    } for system in systems}


def compared(shape: str, layers: int | None, device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    """One shape at one batch: all systems in turns, and ratios of ours ternary to the others, by round."""
    ternary, dense = (reduced(shape + suffix, layers, arguments.tiny) for suffix in ("", "-dense"))
    sizes = {"batch": arguments.batch, "context": arguments.context, "steps": arguments.steps}
    systems = [our_system("ternary", ternary, device, **sizes), our_system("dense", dense, device, **sizes)]
    missing = None
    try:
        systems.append(transformers_system(dense, device, **sizes, compiled=arguments.transformers))
    except (ImportError, RuntimeError, TypeError) as error:  # another version's signature, a failing compilation
        missing = f"{type(error).__name__}: {error}"[:300]
    found = take_turns(systems, arguments.rounds, arguments.steps)
    ours = found["ternary"]
    ratios = {name: {
        "decode": [theirs / mine for theirs, mine in zip(values["step_seconds"], ours["step_seconds"], strict=True)],
        "weights": values["weight_bytes"] / ours["weight_bytes"],
    } for name, values in found.items() if name != "ternary"}
    return {"shape": shape, "layers": ternary.num_hidden_layers, **sizes, "systems": found, "ratios": ratios,
            "not_measured": {} if missing is None else {"transformers": missing}}


def reduced(shape: str, layers: int | None, tiny: bool) -> ModelConfig:
    """A shape with fewer layers; `tiny` for dry runs."""
    config = shape_config(shape)
    if tiny:
        return config.with_changes(hidden_size=64, intermediate_size=96, num_attention_heads=2, num_key_value_heads=1,
                                   head_dim=32, vocab_size=320, num_hidden_layers=layers or 2)
    return config if layers is None else config.with_changes(num_hidden_layers=layers)


def scaled(whole: dict[str, Any], half: dict[str, Any], layers: int) -> dict[str, dict[str, float]]:
    """Seconds and bytes of all layers: what a layer adds between two builds, times those that are missing."""
    found = {}
    for name, values in whole["systems"].items():
        if name not in half["systems"]:
            continue
        less = half["systems"][name]
        missing, between = layers - whole["layers"], whole["layers"] - half["layers"]
        seconds, short = (statistics.median(each["step_seconds"]) for each in (values, less))
        found[name] = {"step_seconds": seconds + missing * (seconds - short) / between,
                       "weight_bytes": values["weight_bytes"] + missing * (
                           values["weight_bytes"] - less["weight_bytes"]) / between}
    return found


def serving(shape: str, device: torch.device, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The largest batch on one card by cache type, and its step from builds of few layers; "not measured" without."""
    card, rows = CARDS[arguments.card], []
    config, layers = reduced(shape, None, False), arguments.layers or 8
    for cache_type in CACHE_TYPES:
        computed = throughput(config, card, cards=1, sequence=arguments.sequence, cache_type=cache_type, head="int8")
        row = {"cache": cache_type, "sequence": arguments.sequence, "batch": computed.batch, "card": card.name,
               "computed_tokens_per_second": computed.tokens_per_second, "scaled_tokens_per_second": None}
        if time.perf_counter() < arguments.until:
            batch = 3 if arguments.tiny else computed.batch
            seconds = []
            for count in (layers, layers // 2):
                system = our_system("ternary", reduced(shape, count, arguments.tiny), device, batch=batch,
                                    context=arguments.sequence - arguments.steps, steps=arguments.steps,
                                    cache_type=cache_type)
                seconds.append(statistics.median(system.step() for _ in range(arguments.steps)))
                del system
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            whole = seconds[0] + (config.num_hidden_layers - layers) * (seconds[0] - seconds[1]) / (
                layers - layers // 2)
            row["scaled_tokens_per_second"] = batch / whole
        rows.append(row)
    return rows


def computed_rows(shape: str, card_name: str, sequence: int) -> list[dict[str, Any]]:
    """Ternary on one card and dense on as many as hold it, by the cost model; the paper's pair of A100 too."""
    ternary, dense, rows = shape_config(shape), shape_config(f"{shape}-dense"), []
    for card, cards in ((CARDS[card_name], 1), (CARDS[card_name], 2), (CARDS["A100"], 2)):
        for cache_type in CACHE_TYPES:
            ours = throughput(ternary, card, cards=cards, sequence=sequence, cache_type=cache_type, head="int8")
            theirs = throughput(dense, card, cards=cards, sequence=sequence, cache_type="f16", head="stored")
            rows.append({
                "shape": shape, "card": card.name, "cards": cards, "sequence": sequence, "cache": cache_type,
                "ternary_batch": ours.batch, "ternary_tokens_per_second": ours.tokens_per_second,
                "dense_batch_f16": theirs.batch, "dense_tokens_per_second": theirs.tokens_per_second,
                "batch_ratio": ours.batch / theirs.batch if theirs.batch else None,
                "throughput_ratio": ours.tokens_per_second / theirs.tokens_per_second if theirs.batch else None,
                "weight_ratio": weight_bytes(dense, "stored") / weight_bytes(ternary, "int8"), "how": "computed"})
    return rows


def show(results: dict[str, Any]) -> None:
    """What a person wants to see first."""
    for row in results["decode"]:
        print(f"{row['shape']}, {row['layers']} layers, batch {row['batch']}, {row['context']} positions")
        for name, values in row["systems"].items():
            ratio = row["ratios"].get(name)
            beside = "" if ratio is None else (f"  {statistics.median(ratio['decode']):.2f}x our time, "
                                               f"{ratio['weights']:.2f}x our weights")
            print(f"  {name:28}{statistics.median(values['step_seconds']) * 1e3:9.3f} ms a step, "
                  f"{values['weight_bytes'] / 1e9:.3f} GB weights{beside}")
        for name, values in row.get("scaled", {}).items():
            print(f"  {name:28}{values['step_seconds'] * 1e3:9.3f} ms a step with all layers, "
                  f"{values['weight_bytes'] / 1e9:.3f} GB (scaled)")
        if row["shape"] in GOALS:
            print(f"  goals: {GOALS[row['shape']]['decode']}x latency, {GOALS[row['shape']]['memory']}x memory")
    for row in results["serving"]:
        print(f"throughput, {row['card']}, {row['cache']}: batch {row['batch']}, scaled "
              f"{row['scaled_tokens_per_second'] or 0:,.0f} tokens/s, computed at most "
              f"{row['computed_tokens_per_second']:,.0f}")
    for row in results["computed"]:
        ratios = "dense does not fit" if row["batch_ratio"] is None else (
            f"{row['batch_ratio']:.1f}x the batch, {row['throughput_ratio']:.1f}x the tokens/s of dense")
        print(f"computed: {row['shape']}, {row['cards']} x {row['card']}, {row['cache']}: "
              f"batch {row['ternary_batch']}, {row['ternary_tokens_per_second']:,.0f} tokens/s; "
              f"dense (f16 cache) {row['dense_batch_f16']}, "
              f"{row['dense_tokens_per_second']:,.0f}; {ratios} (paper: {PAPER['batch']}x, "
              f"{PAPER['tokens_per_second']}x)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["paper-3b", "paper-7b"])
    parser.add_argument("--layers", type=int, help="of each shape, where all do not fit or take too long")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--steps", type=int, default=_STEPS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequence", type=int, default=512, help="positions of a sequence in the throughput part")
    parser.add_argument("--card", choices=CARDS, default="H200", help="whose limits the cost model takes")
    parser.add_argument("--transformers", default="reduce-overhead",
                        help="eager, default, reduce-overhead or max-autotune: how its forward is compiled")
    parser.add_argument("--serving", action="store_true", help="measure the throughput of paper-70b too")
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model-only", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="tiny models in Triton's interpreter, all code")
    arguments = parser.parse_args()
    arguments.tiny = arguments.dry_run
    arguments.until = time.perf_counter() + arguments.seconds
    if arguments.dry_run:
        arguments.shapes, arguments.layers, arguments.context, arguments.steps = ["paper-70b"], 2, 5, 1
        arguments.rounds, arguments.sequence, arguments.serving, arguments.transformers = 1, 8, True, "eager"
        arguments.batch = 2  # one row's kernel takes the interpreter ten times longer
    results: dict[str, Any] = {"decode": [], "serving": [], "not_measured": [],
                               "computed": computed_rows("paper-70b", arguments.card, 512)}
    if not arguments.model_only:
        device = torch.device("cpu" if arguments.dry_run else "cuda")
        results["device"] = "interpreter" if arguments.dry_run else torch.cuda.get_device_name()
        for shape in arguments.shapes:
            if time.perf_counter() > arguments.until:
                results["not_measured"].append(shape)
                continue
            row = compared(shape, arguments.layers, device, arguments)
            if arguments.layers:
                half = compared(shape, max(1, arguments.layers // 2), device, arguments)
                row["scaled"] = scaled(row, half, shape_config(shape).num_hidden_layers)
            results["decode"].append(row)
            if arguments.json:
                atomic_write_json(arguments.json, results)
        if arguments.serving:
            results["serving"] = serving("paper-70b", device, arguments)
    show(results)
    if arguments.json:
        atomic_write_json(arguments.json, results)
    print(json.dumps({"not_measured": results["not_measured"]}))


if __name__ == "__main__":
    main()
