"""Compiles every kernel of a decode step as its launcher launches it, for GPUs that are not there; prints JSON.

    python decode_step_aot.py 90 1     # capability, rows; without TRITON_INTERPRET
"""

import json
import sys

import torch
from triton import JITFunction

from tritwise.kernels import Planar, aot, linear, prepare, quantise, tiles
from tritwise.kernels.adjustments import adjust_rows, adjustments, count_drawn
from tritwise.kernels.attention import attend, decode_plan, workspace
from tritwise.kernels.cache import KVCache
from tritwise.kernels.device_sampling import RowSettings, draw_room, sample_rows
from tritwise.kernels.head import HeadWeights, head_room, logits_of
from tritwise.kernels.rotary import rotate_and_cache

DEVICE = torch.device("meta")  # shapes and types, which are all that a launch is specialised for
HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2560, 6912, 20, 5, 128, 128256


def empty(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device=DEVICE)


def step(m: int, cache_type: str, kind: str) -> None:
    """What is launched for one layer, the head and the draw of `m` rows."""
    def weights(n, k):
        return Planar(empty(n, k // 4, dtype=torch.int8), empty(n), (n, k))

    prepare(DEVICE)
    x, q, mixed = empty(m, HIDDEN), empty(m, HEADS, HEAD_DIM), empty(m, HEADS, HEAD_DIM)
    qkv = linear(quantise(x, empty(HIDDEN)), weights((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN))
    layer = KVCache(cache_type, layers=1, pages=9, kv_heads=KV_HEADS, head_dim=HEAD_DIM, device=DEVICE).layer(0)
    tables, turns = empty(m, 64, dtype=torch.int32), (empty(4096, HEAD_DIM // 2), empty(4096, HEAD_DIM // 2))
    plan = decode_plan(m, 16, DEVICE)
    rotate_and_cache(qkv, layer, tables, plan.slots, plan.positions, *turns, q)
    attend(q, layer, tables, plan, workspace(m, HEADS, 16, HEAD_DIM, DEVICE), mixed)
    linear(quantise(mixed.flatten(1), empty(HIDDEN)), weights(HIDDEN, HIDDEN), x, out=x)
    gates = linear(quantise(x, empty(HIDDEN)), weights(2 * FFN, HIDDEN))
    linear(quantise(gates, empty(FFN), activation="relu2"), weights(HIDDEN, FFN), x, out=x)
    matrix = empty(VOCAB, HIDDEN, dtype={"int8": torch.int8, "bf16": torch.bfloat16}[kind])
    head, logits = HeadWeights(kind, matrix, empty(VOCAB), HIDDEN), empty(m, VOCAB)
    room, of = head_room(head, m), adjustments(m, VOCAB, DEVICE)
    logits_of(x, head, room, logits)
    adjust_rows(logits, plan.slots, of, logits)
    drawn, doubles = empty(m, dtype=torch.int32), [empty(m, dtype=torch.float64) for _ in range(3)]
    how = RowSettings(doubles[0], empty(m, dtype=torch.int32), *doubles[1:], empty(m, dtype=torch.int64))
    sample_rows(logits, how, empty(m, dtype=torch.int64), room, draw_room(m, VOCAB, DEVICE), drawn)
    count_drawn(drawn, plan.slots, of)


def main() -> None:
    capability, m = int(sys.argv[1]), int(sys.argv[2])
    launches = {}

    def record(kernel, *args, grid, warmup, **kwargs):
        key = [kernel.fn.__name__]
        key += [str(each.dtype) if isinstance(each, torch.Tensor) else str(each) for each in (*args, *kwargs.values())]
        launches.setdefault(tuple(key), (kernel, args, kwargs))

    run, JITFunction.run = JITFunction.run, record
    tiles._properties = lambda device: ("not here", 132, capability // 10)
    for name in ("linear", "quantise"):
        sys.modules[f"tritwise.kernels.{name}"].check_device = lambda device: None
    for cache_type, kind in (("int8", "int8"), ("int4", "bf16")):
        step(m, cache_type, kind)
    JITFunction.run = run
    report = []
    for kernel, args, kwargs in launches.values():
        code = aot.launch_code(kernel, args, kwargs, capability=capability)
        report.append({"kernel": kernel.fn.__name__, "spills": code.count("LDL|STL"), "shared": code.shared})
    print(json.dumps(report))


main()
