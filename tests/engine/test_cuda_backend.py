"""The CUDA backend in Triton's interpreter: the contract of backends, and the tokens of all that shares a step."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from engine_fakes import tiny_config
from quick_interpreter import quick_interpreter

from tritwise.common.errors import TritwiseError
from tritwise.engine import Batch, CpuBackend, Sampling
from tritwise.engine.backend import Draw
from tritwise.engine.model import Model, load
from tritwise.engine.page_tables import OutOfPages
from tritwise.engine.sampling import History
from tritwise.measure.shapes import random_tensors

pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")
from tritwise.engine.cuda import CudaBackend
from tritwise.engine.cuda.backend import graph_rows

PROMPT = np.random.default_rng(0).integers(0, 96, 70).tolist()
KINDS = {
    "bitnet": {},
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3", "head_dim": 24},
    "binary": {"linear_type": "binary", "hidden_act": "relu2"},
    "inner norms": {"use_rms_norm": True},
    "tied": {"tie_word_embeddings": True},
    "dense": {"model_type": "llama", "linear_type": "dense"},
}
DRAWN = {"greedy": {}, "temperature": {"temperature": 0.8, "min_p": 0.01, "seed": 3},
         "top k": {"temperature": 1.0, "top_k": 20, "top_p": 0.9, "seed": 1},
         "top p": {"temperature": 0.7, "top_p": 0.9, "seed": 3},
         "adjusted": {"temperature": 0.8, "seed": 2, "repetition_penalty": 1.4, "frequency_penalty": 0.6,
                      "presence_penalty": 0.3, "logit_bias": {5: 3.0, 7: float("-inf")}}}


@pytest.fixture(scope="module", autouse=True)
def _quick_interpreter():
    with quick_interpreter(gemv=False):
        yield


def config_of(kind: str = "bitnet", **changes):
    sizes = {"vocab_size": 96, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2,
             "num_key_value_heads": 1}
    return tiny_config(**sizes | KINDS[kind] | changes)


def backend_of(config, **settings) -> CudaBackend:
    return CudaBackend(config, random_tensors(config), device="cpu", page_tokens=16, **settings)


def model_of(config, prefill_chunk: int = 256, **settings) -> Model:
    return Model(config, backend_of(config, **settings), tokenizer=None, prefill_chunk=prefill_chunk)


def rows(tokens, slot: int = 0, first: int = 0, *, wanted=None) -> Batch:
    n = len(tokens)
    wanted = range(n) if wanted is None else wanted
    return Batch(np.array(tokens, np.int32), np.full(n, slot, np.int32), np.arange(first, first + n, dtype=np.int32),
                 np.array(wanted, np.int32))


@pytest.mark.parametrize("kind", ["bitnet", "qwen3", "binary", "inner norms"])
def test_logits_are_the_same_bits_in_one_step_in_chunks_and_in_graphs(kind):
    config = config_of(kind)
    tokens = PROMPT[:20]
    whole = backend_of(config).forward(Batch(*(getattr(rows(tokens), name) for name in (
        "tokens", "slots", "positions")), np.arange(1, 20, dtype=np.int32))).logits  # one row unasked: no graph
    pieces = backend_of(config)
    assert np.array_equal(pieces.forward(rows(tokens[:17], slot=2)).logits[1:], whole[:16])  # no graph: too many rows
    assert np.array_equal(pieces.forward(rows(tokens[17:19], slot=2, first=17)).logits, whole[16:18])
    assert np.array_equal(pieces.forward(rows(tokens[19:], slot=2, first=19)).logits, whole[18:])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_near_those_of_the_cpu_core(kind):
    """A first look at every layout; test_cuda_reference.py has bounds that are derived."""
    config = config_of(kind)
    cpu, gpu = CpuBackend(config, random_tensors(config), cache_type="f32"), backend_of(config)
    expected, got = cpu.forward(rows(PROMPT[:9])).logits, gpu.forward(rows(PROMPT[:9])).logits
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.9995


@pytest.mark.parametrize("settings", DRAWN.values(), ids=DRAWN)
def test_the_device_draws_what_the_host_draws_from_its_logits(settings):
    config = config_of()
    tokens = {}
    for where in ("device", "host"):
        model = model_of(config)
        backend = model.backend
        if where == "host":
            backend.draws = lambda how: False
        assert where == "host" or backend.draws(Sampling(**settings))
        logprobs = 0 if where == "host" else None  # which takes greedy ones from the host's copy of the logits, too
        tokens[where] = model.generate(PROMPT[:4], max_tokens=4, logprobs=logprobs, **settings).token_ids
    assert tokens["device"] == tokens["host"]
    assert len(set(tokens["device"])) > 1


def test_what_the_device_cannot_draw_is_left_to_the_host():
    assert not backend_of(config_of()).draws(Sampling(temperature=1.0, logit_bias=[(3, 1.0), (3, 2.0)]))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # greedy rows beside drawn ones: -inf times 0
def test_a_step_that_was_started_before_it_was_asked_for_changes_no_token():
    """Greedy and drawn sequences side by side, of different lengths, past the end of a page; one ends early."""
    config = config_of()
    works = [(PROMPT[:14], {"max_tokens": 5}), (PROMPT[5:9], {"max_tokens": 2, **DRAWN["temperature"]}),
             (PROMPT[30:39], {"max_tokens": 4, **DRAWN["temperature"], "seed": 4})]
    alone = [model_of(config, run_ahead=False).generate(prompt, **settings).token_ids for prompt, settings in works]
    model = model_of(config, prefill_chunk=16)
    streams = [model._generation(prompt, **settings) for prompt, settings in works]
    for work in streams:
        model._scheduler.submit(work)
    for work in streams:
        model._scheduler.finish(work)
    assert [work.completion().token_ids for work in streams] == alone


def test_steps_in_work_are_used_when_asked_for_and_dropped_when_not():
    backend = backend_of(config_of())
    expected = backend_of(config_of(), run_ahead=False)
    started = []
    for each in (backend, expected):
        each.forward(rows(PROMPT[:9], wanted=[8]))

    def step(token: int, position: int) -> int:
        batch = rows([token], first=position, wanted=[])
        batch = dataclasses.replace(batch, best_for=np.array([0], np.int32))
        started.append(backend._ahead)
        best = [int(each.forward(batch).best[0]) for each in (backend, expected)]
        assert best[0] == best[1]
        return best[0]

    first = step(PROMPT[9], 9)
    second = step(first, 10)
    third = step(second, 11)
    assert started[:2] == [None, None]  # a second step in a row has to come before one is started
    assert started[2] is not None
    replays = []
    backend._ahead.graph.replay, replay = lambda: replays.append(1), backend._ahead.graph.replay
    backend._ahead.graph.replay = lambda: (replays.append(1), replay())
    fourth = step(third, 12)
    assert len(replays) == 1  # that of the step behind: the one asked for had been started
    step((fourth + 1) % 96, 13)
    assert len(replays) == 3  # another token than was drawn: again, and one ahead
    step(PROMPT[3], 11)  # a rewind


def test_rows_of_several_slots_may_share_pages_and_drafts_may_be_checked():
    """A shared beginning, a draft of four rows behind one sequence and single rows of others in one graph."""
    config = config_of()
    backend = backend_of(config)
    backend.forward(rows(PROMPT[:20], wanted=[19]))
    backend.cache.share(0, 1, 18)
    backend.cache.share(0, 3, 16)
    parts = [(PROMPT[60:64], 1, 18), (PROMPT[20:21], 0, 20), (PROMPT[1:2], 3, 16)]
    each = [rows(tokens, slot, first) for tokens, slot, first in parts]
    batch = Batch(*(np.concatenate([getattr(part, name) for part in each]) for name in (
        "tokens", "slots", "positions")), np.arange(6, dtype=np.int32))
    got = backend.forward(batch).logits
    histories = [PROMPT[:18] + PROMPT[60:64], PROMPT[:21], PROMPT[:16] + PROMPT[1:2]]
    expected = [backend_of(config).forward(rows(ids, wanted=range(len(ids) - count, len(ids)))).logits
                for ids, count in zip(histories, (4, 1, 1), strict=True)]
    assert np.array_equal(got, np.concatenate(expected))


def test_a_small_cache_gives_way_and_still_gives_the_same_tokens():
    config, cache_type = config_of(), "int4"
    prompts = [PROMPT[:14], PROMPT[3:17], PROMPT[20:34]]
    alone = [model_of(config, cache_type=cache_type).generate(prompt, max_tokens=3).token_ids for prompt in prompts]
    small = model_of(config, cache_type=cache_type, context=32, cache_tokens=48)
    together = small.generate_batch(prompts, max_tokens=3)
    assert [each.token_ids for each in together] == alone
    again = small.generate(prompts[2], max_tokens=3)
    assert again.token_ids == alone[2]


def test_a_full_cache_refuses_a_step_and_keeps_what_it_held():
    config = config_of()
    backend = backend_of(config, context=32, cache_tokens=32)
    backend.forward(rows(PROMPT[:18], wanted=[]))
    with pytest.raises(OutOfPages):
        backend.forward(rows(PROMPT[:3], slot=1))
    got = backend.forward(rows(PROMPT[18:20], first=18)).logits
    assert np.array_equal(got, backend_of(config).forward(rows(PROMPT[:20], wanted=[18, 19])).logits)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_logits_that_are_not_numbers_end_the_sequence_with_an_error():
    config = config_of()
    tensors = [(name, np.full_like(tensor, np.inf) if name == "model.norm.weight" else tensor)
               for name, tensor in random_tensors(config)]
    model = Model(config, CudaBackend(config, tensors, device="cpu"), tokenizer=None)
    for settings in DRAWN.values():
        with pytest.raises(TritwiseError, match="not numbers"):
            model.generate(PROMPT[:4], max_tokens=3, **settings)


REFUSED = {
    "kernel": ({}, {"kernel": "scalar"}, "no kernel 'scalar'"),
    "head": ({}, {"head": "int4"}, "no head 'int4'"),
    "cache": ({}, {"cache_type": "f32"}, "no cache type 'f32'"),
    "experts": ({"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 64}, {}, "experts"),
    "context": ({}, {"context": 1000}, "1000 tokens long"),
    "slots": ({}, {"slots": 0}, "slots is 0"),
}


@pytest.mark.parametrize(("changes", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_and_says_what_can(changes, settings, message):
    with pytest.raises(TritwiseError, match=message):
        backend_of(tiny_config(**changes), **settings)


def test_weights_that_do_not_make_the_model_are_refused():
    config = config_of()
    tensors = list(random_tensors(config))
    shorter = [(name, tensor[:-1] if name == "model.norm.weight" else tensor) for name, tensor in tensors]
    for wrong, message in ((tensors[:-1], "missing"), ([*tensors, tensors[0]], "twice"), (shorter, "not \\[64\\]")):
        with pytest.raises(TritwiseError, match=f"(?s)do not make a model.*{message}"):
            CudaBackend(config, wrong, device="cpu")


def test_without_a_gpu_the_error_names_the_backend_that_works(tmp_path, monkeypatch):
    import torch

    from tritwise.formats import write_model

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    config = config_of()
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) if len(shape) > 1 else np.ones(shape, np.float32)
               for name, shape in config.tensor_shapes().items()}
    write_model(tmp_path / "model", config, tensors, form="packed")
    with pytest.raises(TritwiseError, match="no GPU") as caught:
        load(tmp_path / "model", backend="cuda")
    assert "backend=\"cpu\"" in caught.value.fix


def test_without_pytorch_the_error_names_what_to_install(tmp_path):
    code = ("import sys; sys.modules['torch'] = None\n"
            "from tritwise.engine.model import BACKENDS\n"
            "from tritwise.common.errors import TritwiseError\n"
            "try:\n    BACKENDS['cuda'](None, [])\n"
            "except TritwiseError as error:\n    print(error.fix)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tritwise[gpu]" in done.stdout
    assert "backend=\"cpu\"" in done.stdout


def test_importing_the_engine_asks_for_no_gpu():
    code = "import sys, tritwise.engine; print([m for m in ('torch', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Even:
    """Allows even ids, at every third token all of them."""

    def mask(self, ids):
        return None if len(ids) % 3 == 2 else np.full(3, 0x55555555, np.uint32)

    def accept(self, token):
        pass


def test_masks_and_penalties_follow_their_sequences_through_slots_and_steps():
    """A constrained sequence beside one with penalties; afterwards the same slots hold others that have neither."""
    config = config_of()
    works = [(PROMPT[:5], {"temperature": 0.0}, True), (PROMPT[5:9], DRAWN["adjusted"], False)]
    tokens = {}
    for where in ("device", "host"):
        model = model_of(config)
        if where == "host":
            model.backend.draws = lambda how: False
        generations = [model._generation(prompt, max_tokens=4, constraint=Even() if constrained else None, **settings)
                       for prompt, settings, constrained in works]
        for work in generations:
            model._scheduler.submit(work)
        for work in generations:
            model._scheduler.finish(work)
        tokens[where] = [work.completion().token_ids for work in generations]
        tokens[where].append(model.generate(PROMPT[:3], max_tokens=2, **DRAWN["temperature"]).token_ids)
    assert tokens["device"] == tokens["host"]
    assert all(token % 2 == 0 for place, token in enumerate(tokens["device"][0]) if place % 3 != 2)


def test_what_was_counted_ahead_in_vain_is_counted_anew():
    """Another sequence comes between: the device has counted one draw too many by then."""
    config = config_of()
    how = Sampling(repetition_penalty=2.0, frequency_penalty=1.5)
    backend, plain = backend_of(config), backend_of(config, run_ahead=False)
    history = {each: History(PROMPT[:4]) for each in (backend, plain)}
    for each in (backend, plain):
        each.forward(rows(PROMPT[:3], wanted=[]))
    token, ahead = PROMPT[3], []
    for position in range(3, 9):
        if position == 7:
            for each in (backend, plain):
                each.forward(rows(PROMPT[:2], slot=1, wanted=[]))
        ahead.append(backend._ahead is not None)
        batch = dataclasses.replace(rows([token], first=position, wanted=[]), draw_for=np.array([0], np.int32))
        drawn = [int(each.forward(dataclasses.replace(batch, draws=(Draw(how, history[each]),))).drawn[0])
                 for each in (backend, plain)]
        assert drawn[0] == drawn[1]
        token = drawn[0]
        for each in history.values():
            each.append(token)
    assert ahead == [False, False, True, True, False, False]


def test_graphs_serve_a_few_more_rows_than_asked_and_no_more():
    sizes = [graph_rows(rows) for rows in range(1, 300)]
    assert sizes[:16] == [1, 2, 4, 4, 8, 8, 8, 8] + [16] * 8
    assert all(size >= rows for rows, size in enumerate(sizes, 1))
    assert sorted({size for size in sizes if size > 16}) == [*range(32, 129, 16), 192, 256, 320]
