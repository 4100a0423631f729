"""A decode step can be captured in a CUDA graph: with tensors that are on no host, nothing looks at what they hold.

torch's meta device stands for the GPU: its tensors have shapes and no data. Whatever needs data on the host fails:
`item`, a branch on a tensor, boolean indexing, a copy between devices. What a capture might still refuse fails too,
because the operations that may run are listed. Kernels are not run: what they are given is looked at.
"""

import contextlib
import sys

import pytest
import torch
from step_launches import CONTEXT, decoder_of
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

from tritwise.engine.cuda import graphs
from tritwise.kernels import Planar, Tile, linear, prepare, quantise
from tritwise.kernels.adjustments import adjust_rows, adjustments, count_drawn
from tritwise.kernels.attention import attend, decode_plan, workspace
from tritwise.kernels.cache import CACHE_TYPES, KVCache
from tritwise.kernels.device_sampling import RowSettings, draw_room, sample_rows
from tritwise.kernels.head import HeadWeights, best_of, head_room, logits_of
from tritwise.kernels.rotary import rotate_and_cache
from tritwise.measure.shapes import shape_config

DEVICE = torch.device("meta")
# Allocations, views, and elementwise operations: kernels on the current stream and nothing else.
LEGAL = {"aten.empty.memory_format", "aten.zeros_like.default", "aten.view.default", "aten.view.dtype",
         "aten.slice.Tensor", "aten.gt.Scalar", "aten.ge.Scalar", "aten.lt.Scalar", "aten.eq.Scalar",
         "aten.bitwise_and.Tensor", "aten.bitwise_or.Tensor", "aten.zero_.default",
         "aten._to_copy.default", "aten.detach.default",
         "aten.index_select.default", "aten.add.Tensor", "aten.add_.Tensor", "aten.clamp.default", "aten.copy_.default",
         "aten.mm.default", "aten.addmm_.default", "aten.t.default", "aten._unsafe_view.default",
         "aten.permute.default"}
HOST_DATA = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy}


class NoHostData(TorchFunctionMode):
    """Refuses tensors from Python's or numpy's numbers: on a GPU they are a copy from the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in HOST_DATA, f"{func.__name__} copies from the host"
        return func(*args, **kwargs or {})


class Operations(TorchDispatchMode):
    """Refuses operations that a capture would, and those that are not known to be legal in one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {each.device for each in args if isinstance(each, torch.Tensor)}
        if kwargs.get("device"):
            devices.add(torch.device(kwargs["device"]))
        assert str(func) in LEGAL, f"{func} is not known to be legal in a capture"
        assert devices == {DEVICE}, f"{func} on {devices}"
        return func(*args, **kwargs)


@contextlib.contextmanager
def captured():
    with NoHostData(), Operations():
        yield


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels that are launched; each gets tensors of the device, numbers and nothing else."""
    names = []

    def launch(kernel, *args, grid, warmup, **kwargs):
        given = [*args, *kwargs.values()]
        tensors = [each for each in given if isinstance(each, torch.Tensor)]
        assert tensors
        assert all(each.device == DEVICE for each in tensors), kernel.fn.__name__
        assert all(isinstance(each, torch.Tensor | int | float | str) for each in given), kernel.fn.__name__
        assert all(isinstance(each, int) for each in grid), kernel.fn.__name__
        names.append(kernel.fn.__name__)

    monkeypatch.setattr(InterpretedFunction, "run", launch)
    for name in ("linear", "quantise", "norm"):
        monkeypatch.setattr(sys.modules[f"tritwise.kernels.{name}"], "check_device", lambda device: None)
    monkeypatch.setattr(sys.modules["tritwise.kernels.linear"], "_workspaces", {})
    return names


def on_gpu(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_quantise(launches, activation):
    x, gain = on_gpu(3, 256), on_gpu(256 if activation == "none" else 128)
    with captured():
        quantise(x, gain, activation=activation)
    assert launches == ["absmax_kernel"]


@pytest.mark.parametrize("m", [1, 3, 16, 64, 200])
def test_linear_of_every_kernel_behind_prepare(launches, m):
    prepare(DEVICE)
    weights = Planar(on_gpu(96, 64, dtype=torch.int8), on_gpu(96), (96, 256))
    x, residual = quantise(on_gpu(m, 256)), on_gpu(m, 96)
    launches.clear()
    with captured():
        linear(x, weights, residual, out=residual)
        linear(x, weights, tile=Tile("small_batch", 32, 16, 16, 2, 4, 2))
    assert launches[1:] == ["small_batch"]
    assert launches[0] == ("gemv" if m == 1 else "small_batch" if m <= 64 else "prefill")


def test_linear_without_prepare_is_what_a_capture_refuses(launches):
    weights = Planar(on_gpu(96, 64, dtype=torch.int8), on_gpu(96), (96, 256))
    x = quantise(on_gpu(1, 256))
    with captured(), pytest.raises(AssertionError, match="zeros"):
        linear(x, weights)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_rotate_and_attend_with_a_decode_plan(launches, cache_type, norm):
    layer = KVCache(cache_type, layers=1, pages=9, kv_heads=2, head_dim=64, device=DEVICE).layer(0)
    cos, sin = on_gpu(512, 32), on_gpu(512, 32)
    tables, norms = on_gpu(5, 8, dtype=torch.int32), {"q_norm": on_gpu(64), "k_norm": on_gpu(64), "eps": 1e-5}
    qkv, q, out = on_gpu(3, 512), on_gpu(3, 4, 64), on_gpu(3, 4, 64)
    plan, room = decode_plan(3, 2, DEVICE), workspace(3, 4, 2, 64, DEVICE)
    with captured():
        rotate_and_cache(qkv, layer, tables, plan.slots, plan.positions, cos, sin, q, **(norms if norm else {}))
        attend(q, layer, tables, plan, room, out)
    assert launches == ["rotate_head", "attend_chunks", "merge_chunks"]


def head_of(kind, vocab=700, hidden=96):
    dtype = {"int8": torch.int8, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    return HeadWeights(kind, on_gpu(vocab, 128, dtype=dtype), on_gpu(vocab if kind == "int8" else 0), hidden)


@pytest.mark.parametrize("kind", ["int8", "f16", "bf16"])
def test_logits_and_the_best_of_them(launches, kind):
    head, states, logits, best = head_of(kind), on_gpu(20, 96), on_gpu(20, 700), on_gpu(20, dtype=torch.int32)
    room = head_room(head, 20)
    with captured():
        logits_of(states, head, room, logits)
        best_of(logits, room, best)
    assert launches == ["split_state", "head_rows", "best_of_block", "best_of_blocks"]


def test_adjustments_and_every_part_of_the_sampling(launches):
    m, vocab = 4, 700
    logits, changed, drawn = on_gpu(m, vocab), on_gpu(m, vocab), on_gpu(m, dtype=torch.int32)
    slots, positions = on_gpu(m, dtype=torch.int32), on_gpu(m, dtype=torch.int64)
    double = {"dtype": torch.float64}
    how = RowSettings(on_gpu(m, **double), on_gpu(m, dtype=torch.int32), on_gpu(m, **double), on_gpu(m, **double),
                      on_gpu(m, dtype=torch.int64))
    head, room, of = head_room(head_of("int8", vocab), m), draw_room(m, vocab, DEVICE), adjustments(3, vocab, DEVICE)
    with captured():
        adjust_rows(logits, slots, of, changed)
        sample_rows(changed, how, positions, head, room, drawn)
        count_drawn(drawn, slots, of)
    assert launches == ["adjust_block", "best_of_block", "best_of_blocks", "weigh_blocks",
                        *["add_digits", "narrow_top_k"] * 3, "narrow_top_p", *["add_digits", "narrow_top_p"] * 2,
                        "cut_blocks", "draw_rows", "count_token"]


@pytest.mark.parametrize("shape", ["2b4t", "2b4t-dense"])
def test_the_whole_step_of_the_backend(launches, shape):
    config = shape_config(shape).with_changes(num_hidden_layers=1, vocab_size=700)
    with DEVICE:
        decoder = decoder_of(config, "int8", vocab=700)
    room, of = graphs.graph_room(decoder, 16, CONTEXT), adjustments(4, 700, DEVICE)
    step = graphs.DecodeGraph(decoder, room, 8, 2, steps={"draws": True, "top_k": True, "top_p": True},
                              adjusted=of)
    prepare(DEVICE)
    with captured():
        step.replay()
    assert launches.count("rotate_head") == 1
    assert launches[-1] == "count_token"
    assert ("small_batch" in launches) == (config.linear_type == "ternary")


@pytest.mark.parametrize("looks", [
    lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: x.cpu(), lambda x: bool(x.any()),
    lambda x: x.copy_(torch.zeros(3)), lambda x: torch.tensor([1, 2], device=DEVICE), lambda x: x.tolist(),
    lambda x: torch.masked_select(x, x > 0), lambda x: torch.zeros(3).to(DEVICE), lambda x: torch.sort(x)])
def test_what_looks_at_the_host_is_refused(launches, looks):
    x = on_gpu(3)
    with captured(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        looks(x)
