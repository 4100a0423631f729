"""The CUDA backend's dealings with CUDA, with a stand-in that is as late as a GPU is allowed to be (fake_cuda.py)."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_fakes import tiny_config
from quick_interpreter import quick_interpreter

from tritwise.common.errors import TritwiseError
from tritwise.engine import Batch, Sampling
from tritwise.engine.backend import Draw
from tritwise.engine.model import Model
from tritwise.engine.page_tables import OutOfPages
from tritwise.engine.sampling import History
from tritwise.measure.shapes import random_tensors

pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")
from fake_cuda import FakeCuda

from tritwise.engine.cuda import CudaBackend, device

CONFIG = tiny_config(vocab_size=96, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2,
                     num_key_value_heads=1)
PROMPT = np.random.default_rng(0).integers(0, 96, 40).tolist()
WORKS = [(PROMPT[:5], {}), (PROMPT[5:11], {"temperature": 0.8, "seed": 3, "frequency_penalty": 0.6})]


@pytest.fixture(scope="module", autouse=True)
def _quick_interpreter():
    with quick_interpreter(gemv=False):
        yield


@pytest.fixture
def fake(monkeypatch):
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    return cuda


def backend_of(config=CONFIG, **settings) -> CudaBackend:
    return CudaBackend(config, random_tensors(config), device="cpu", page_tokens=16, **settings)


def row(token: int, position: int, draw: Draw | None = None) -> Batch:
    one, none = np.array([0], np.int32), np.empty(0, np.int32)
    asked = {"best_for": one} if draw is None else {"draw_for": one, "draws": (draw,)}
    return Batch(np.array([token], np.int32), one, np.array([position], np.int32), none, **asked)


def prompt(ids, slot: int = 0) -> Batch:
    n, none = len(ids), np.empty(0, np.int32)
    return Batch(np.array(ids, np.int32), np.full(n, slot, np.int32), np.arange(n, dtype=np.int32), none)


def tokens_of(model: Model, works) -> list[list[int]]:
    streams = [model._generation(ids, max_tokens=4, **settings) for ids, settings in works]
    for work in streams:
        model._scheduler.submit(work)
    for work in streams:
        model._scheduler.finish(work)
    return [work.completion().token_ids for work in streams]


DENSE = {"model_type": "llama", "linear_type": "dense"}  # the quicker one in the interpreter


@pytest.mark.parametrize("kind", [{}, DENSE], ids=["ternary", "dense"])
def test_tokens_are_those_of_plain_steps_however_late_the_device_is(kind, monkeypatch):
    """Graphs, steps ahead, settings that change, two sequences of which one has penalties."""
    config = CONFIG.with_changes(**kind)
    works = WORKS[:1] if kind else WORKS
    expected = tokens_of(Model(config, backend_of(config, run_ahead=False), tokenizer=None), works)
    fake = FakeCuda()
    fake.install(monkeypatch)
    model = Model(config, backend_of(config), tokenizer=None)
    assert tokens_of(model, works) == expected
    captured = len(fake.graphs)
    assert sum(graph.replays for graph in fake.graphs) > captured + 1
    if kind:
        assert tokens_of(model, works) == expected
        assert len(fake.graphs) == captured  # what was captured is used again


def test_logits_and_rewinds_behind_a_step_ahead_are_those_of_plain_steps(monkeypatch):
    config = CONFIG.with_changes(**DENSE)
    plain = backend_of(config, run_ahead=False)
    steps = [prompt(PROMPT[:6]), row(1, 6), row(2, 7), row(3, 8), row(9, 7), row(4, 8),
             dataclasses.replace(row(5, 9), logits_for=np.array([0], np.int32), best_for=np.empty(0, np.int32))]
    expected = [plain.forward(step) for step in steps]
    FakeCuda().install(monkeypatch)
    late = backend_of(config)
    got = [late.forward(step) for step in steps]
    for one, other in zip(got, expected, strict=True):
        assert np.array_equal(one.logits, other.logits)
        assert np.array_equal(one.best, other.best)


def test_a_step_that_fails_leaves_nothing_counted_that_was_not_drawn(fake):
    """A step was started ahead, and another sequence asks for pages that are not there."""
    config = CONFIG.with_changes(**DENSE)
    backend, plain = backend_of(config, context=32, cache_tokens=32), backend_of(config, run_ahead=False)
    how = Sampling(repetition_penalty=2.0, frequency_penalty=1.5)
    histories = [History(PROMPT[:4]) for _ in range(2)]
    for each in (backend, plain):
        each.forward(prompt(PROMPT[:3]))
    token = PROMPT[3]
    for position in range(3, 8):
        if position == 6:
            assert backend._ahead is not None
            with pytest.raises(OutOfPages):
                backend.forward(prompt(PROMPT[:30], slot=1))
        drawn = [int(each.forward(row(token, position, Draw(how, history))).drawn[0])
                 for each, history in zip((backend, plain), histories, strict=True)]
        assert drawn[0] == drawn[1]
        token = drawn[0]
        for history in histories:
            history.append(token)


def test_memory_that_runs_out_in_a_step_is_an_error_that_says_what_to_do(monkeypatch):
    backend = backend_of()

    def fails(*_, **settings):
        raise torch.cuda.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(backend._decoder, "hidden", fails)
    with pytest.raises(TritwiseError, match=r"(?s)do not fit.*2 GiB") as caught:
        backend.forward(prompt(PROMPT[:3]))
    assert "cache_tokens" in caught.value.fix
    monkeypatch.setattr("tritwise.engine.cuda.backend.KVCache", fails)
    with pytest.raises(TritwiseError, match="do not fit"):
        backend_of()


def test_the_peak_of_memory_counts_from_when_the_backend_is_begun(fake):
    fake.peak = 7
    backend = backend_of()
    assert backend.peak_bytes == 0
    fake.peak = 9
    assert backend.peak_bytes == 9


def test_a_closed_backend_says_so():
    backend = backend_of()
    backend.close()
    with pytest.raises(TritwiseError, match="closed"):
        backend.forward(prompt(PROMPT[:3]))


def gpus(monkeypatch, *, available=True, built="13.0", capability=(9, 0)):
    """Two GPUs, the second of which is the thread's."""
    cuda = SimpleNamespace(is_available=lambda: available, current_device=lambda: 1, device_count=lambda: 2,
                           get_device_capability=lambda _: capability, get_device_name=lambda _: "Tesla V100")
    values = {**vars(torch), "cuda": cuda, "version": SimpleNamespace(cuda=built)}
    monkeypatch.setattr(device, "torch", SimpleNamespace(**values))


def test_a_gpu_is_the_threads_unless_it_is_named(monkeypatch):
    gpus(monkeypatch)
    assert device.open_device("cuda") == torch.device("cuda", 1)
    assert device.open_device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize(("name", "there", "message"), [
    ("cuda", {"available": False, "built": None}, "without CUDA"),
    ("cuda:1", {"available": False}, "no NVIDIA GPU or no driver"),
    ("cuda:2", {}, "no GPU 2"),
    ("cuda", {"capability": (7, 0)}, r"(?s)V100 is too old.*7\.0.*8\.0"),
    ("meta", {}, "no kernels for the device")])
def test_a_gpu_that_cannot_be_used_is_refused(name, there, message, monkeypatch):
    gpus(monkeypatch, **there)
    with pytest.raises(TritwiseError, match=message):
        device.open_device(name)
