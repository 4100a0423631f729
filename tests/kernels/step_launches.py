"""Every launch of decode and prefill steps, compiled as Triton would at that launch, for a GPU that is not here.

    python tests/kernels/step_launches.py CAPABILITY SHAPE CACHE_TYPE ROWS...

Runs a block of a published shape on CPU tensors that say they are on a GPU, with a driver that has a target and no
more: types, constants and alignments of each launch are Triton's own, an argument of 1 becomes a constant. Prints a
JSON line for each kernel: name, registers, bytes of stack (spills) and of shared memory. Sums are not computed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

import tritwise.kernels
from tritwise.config import ModelConfig
from tritwise.engine.cuda import graphs
from tritwise.engine.cuda.decoder import Decoder
from tritwise.engine.cuda.weights import BlockWeights, DenseLinears, Linears, ModelWeights, TernaryLinears
from tritwise.kernels import Planar, tiles
from tritwise.kernels.adjustments import adjustments
from tritwise.kernels.attention import plan_attention
from tritwise.kernels.cache import KVCache
from tritwise.kernels.head import HeadWeights
from tritwise.kernels.planar import padded
from tritwise.measure.shapes import shape_config

VOCAB, CONTEXT, PROMPT = 32_000, 1024, 200
# The parts of the sampling that a graph may have (graphs.steps_of): every kernel is in the first, the others differ in
# what the kernels leave out.
STEPS = [{"draws": draws, "top_k": top_k, "top_p": top_p} for draws, top_k, top_p in (
    (True, True, True), (True, False, True), (True, True, False), (False, False, False))]
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Target:
    """What of a driver is asked before a kernel is loaded."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers a thread and bytes of its stack."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True,
                              check=True, env={**os.environ, "PATH": f"{TOOLS}:{os.environ.get('PATH', '')}"}).stdout
    return tuple(int(re.search(rf"{what}:(\d+)", said)[1]) for what in ("REG", "STACK"))


def compile_instead_of_launching(capability: int) -> None:
    """From here on launches compile; their results are what was in memory."""
    run, seen = JITFunction.run, set()

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        if kernel.hash not in seen:
            seen.add(kernel.hash)
            registers, stack = usage(kernel.asm["cubin"])
            print(json.dumps({"kernel": self.fn.__name__, "registers": registers, "stack": stack,
                              "shared": kernel.metadata.shared}), flush=True)

    driver.set_active(Target(capability))
    JITFunction.run = compile_only
    torch.Tensor.is_cuda = property(lambda self: True)
    for name in ("linear", "quantise", "norm"):
        sys.modules[f"tritwise.kernels.{name}"].check_device = lambda device: None
    tiles._properties = lambda device: ("no name in a table", 132, capability // 10)


def linears(config: ModelConfig, *names: str) -> Linears:
    shapes = config.linear_shapes()
    n, k = sum(shapes[name][0] for name in names), shapes[names[0]][1]
    if config.linear_type == "dense":
        return DenseLinears(torch.zeros(n, k, dtype=torch.bfloat16))
    packed = torch.zeros(n, padded(k) // 4, dtype=torch.int8)
    return TernaryLinears((Planar(packed, torch.zeros(n), (n, k)),), (), 0.0)


def decoder_of(config: ModelConfig, cache_type: str, vocab: int = VOCAB) -> Decoder:
    """One block of zeros."""
    gain, hidden, dense = torch.zeros, config.hidden_size, config.linear_type == "dense"
    subs = (gain(hidden), gain(config.intermediate_size)) if config.has_sub_norms else (None, None)
    block = BlockWeights(
        linears(config, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        linears(config, "self_attn.o_proj"), linears(config, "mlp.gate_proj", "mlp.up_proj"),
        linears(config, "mlp.down_proj"), gain(hidden), gain(hidden), *subs, None, None)
    embedding = torch.zeros(vocab, hidden, dtype=torch.bfloat16)
    head = HeadWeights("bf16", embedding, gain(0), hidden) if dense else HeadWeights(
        "int8", torch.zeros(vocab, hidden, dtype=torch.int8), gain(vocab), hidden)
    weights = ModelWeights(embedding, [block], gain(hidden), head)
    cache = KVCache(cache_type, layers=1, pages=4, kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
                    device=embedding.device)
    return Decoder(config, weights, cache, torch.zeros(4, CONTEXT // 64, dtype=torch.int32), CONTEXT)


def main(capability: int, shape: str, cache_type: str, rows: list[int]) -> None:
    compile_instead_of_launching(capability)
    config = shape_config(shape).with_changes(num_hidden_layers=1, vocab_size=VOCAB)
    decoder = decoder_of(config, cache_type)
    room, adjusted = graphs.graph_room(decoder, max(rows), CONTEXT), adjustments(4, VOCAB)
    for count in rows:
        for chunks in (1, CONTEXT // 256):
            for steps in STEPS:
                graphs.DecodeGraph(decoder, room, count, chunks, steps=steps,
                                   adjusted=adjusted if steps["draws"] else None).replay()
    positions = np.arange(PROMPT, dtype=np.int32)
    plan = plan_attention(positions * 0, positions, group=config.num_attention_heads // config.num_key_value_heads)
    decoder.states(decoder.hidden(torch.zeros(PROMPT, dtype=torch.int32), plan, None, decoder.mixed(PROMPT)))


if __name__ == "__main__":
    assert tritwise.kernels
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], [int(each) for each in sys.argv[4:]])
