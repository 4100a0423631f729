"""Shapes, random weights, speed measurement, memory, machine facts."""

import json
import math

import numpy as np
import pytest

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine import CpuBackend, available_cores, kernels
from tritwise.formats import TernaryTensor, write_model
from tritwise.measure.bench import BenchResult, bench, bench_in_child
from tritwise.measure.inspection import code_counts
from tritwise.measure.machine import machine_facts
from tritwise.measure.memory import peak_rss_bytes, reset_peak_rss
from tritwise.measure.shapes import SHAPES, random_tensors, shape_config

TINY = ModelConfig(vocab_size=200, hidden_size=64, intermediate_size=92, num_hidden_layers=2, num_attention_heads=4,
                   max_position_embeddings=128)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "model"
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in TINY.tensor_shapes().items()}
    write_model(path, TINY, tensors, form="packed")
    return path


def test_the_shapes_count_the_published_parameters():
    blocks = {name: config.parameter_count().block for name, config in SHAPES.items()}
    # recipes: BitNet training notes (0.679, 1.208, 3.222, 4.260 G); 2B4T's shapes.
    assert {name: round(count / 1e9, 3) for name, count in blocks.items()} == {
        "2b4t": 2.084, "paper-700m": 0.679, "paper-1.3b": 1.208, "paper-3b": 3.222, "paper-3.9b": 4.26,
        "paper-7b": 6.476, "paper-13b": 12.688, "paper-70b": 68.451, "llama-3-8b": 6.979, "olmoe-1b-7b": 6.711}
    # OLMoE's table 1: 6.9 G parameters, 1.3 G of them for a token.
    experts = SHAPES["olmoe-1b-7b"]
    assert round(experts.parameter_count().total / 1e9, 1) == 6.9
    assert round(experts.with_changes(num_experts=8).parameter_count().total / 1e9, 1) == 1.3
    assert SHAPES["2b4t"].parameter_count().total == 2_412_820_480


def test_a_dense_twin_is_a_llama_of_the_same_sizes():
    ternary, dense = shape_config("paper-1.3b"), shape_config("paper-1.3b-dense")
    assert (dense.model_type, dense.linear_type) == ("llama", "dense")
    assert dense.linear_shapes() == ternary.linear_shapes()


def test_an_unknown_shape_is_an_error_that_names_them():
    with pytest.raises(TritwiseError, match=r"no shape '7b'(.|\n)*paper-3.9b, (.|\n)*llama-3-8b"):
        shape_config("7b")


@pytest.mark.parametrize("kind", ["ternary", "binary", "dense"])
def test_random_tensors_are_whole_valid_and_repeatable(kind):
    config = TINY.with_changes(linear_type=kind, intermediate_size=90)  # rows that do not fill a byte
    tensors = dict(random_tensors(config, seed=1))
    shapes = config.tensor_shapes()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    for name, again in random_tensors(config, seed=1):
        if isinstance(again, TernaryTensor):
            codes = again.codes()  # refuses the field 3
            np.testing.assert_array_equal(codes, tensors[name].codes())
            shares = np.array(code_counts(again)) / codes.size
            expected = [0.25, 0.5, 0.25] if kind == "ternary" else [0.5, 0, 0.5]
            # Standard deviation of a share is below 0.5 / sqrt(n); six of them.
            np.testing.assert_allclose(shares, expected, atol=3 / math.sqrt(codes.size))
            if kind == "binary":
                assert codes.all()
        else:
            assert np.isfinite(again.astype(np.float32)).all()
    quantised = sum(isinstance(tensor, TernaryTensor) for tensor in tensors.values())
    assert quantised == (0 if kind == "dense" else 7 * config.num_hidden_layers)


def test_a_random_model_keeps_its_signal_alive():
    backend = CpuBackend(TINY, random_tensors(TINY), slots=1, threads=1)
    from tritwise.engine import Model

    logits = Model(TINY, backend, tokenizer=None).logits(range(50))
    assert np.isfinite(logits).all()
    assert logits.std(axis=1).min() > 1e-3


def test_bench_of_a_directory_reports_what_the_command_promises(directory):
    result = bench(directory, threads=1, prefill=40, decode=12, prefill_chunk=16, repeats=2)
    values = json.loads(json.dumps(result.to_json()))
    for key in ("decode_tokens_per_second", "prefill_tokens_per_second", "weight_bytes_per_token", "peak_rss_bytes",
                "load_seconds", "time_to_first_token"):
        assert values[key] > 0
    assert (values["threads"], values["kernel"], values["head"]) == (1, kernels()[0], "int8")
    assert (values["prefill_tokens"], values["decode_tokens"]) == (40, 12)
    assert len(values["decode_runs"]) == len(values["prefill_runs"]) == 2
    assert min(values["decode_runs"]) <= values["decode_tokens_per_second"] <= max(values["decode_runs"])
    assert math.isclose(values["prefill_tokens_per_second"] * values["time_to_first_token"], 40, rel_tol=1e-12)


def test_bench_of_a_shape_builds_it_in_memory(monkeypatch):
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    ternary = bench(shape="tiny", prefill=16, decode=4, repeats=1, kernel="scalar", head="stored")
    dense = bench(shape="tiny-dense", prefill=16, decode=4, repeats=1)
    assert (ternary.model, ternary.kernel, ternary.head) == ("tiny", "scalar", "stored")
    assert dense.head == "stored"
    assert dense.weight_bytes_per_token > 2 * ternary.weight_bytes_per_token


def test_bench_takes_another_backend_through_the_same_steps(monkeypatch):
    """The CUDA backend in Triton's interpreter; what it has allocated is said by a stand-in for the GPU's counter."""
    pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")
    from tritwise.engine import model
    from tritwise.engine.cuda import CudaBackend

    monkeypatch.setitem(SHAPES, "tiny", TINY.with_changes(num_hidden_layers=1, hidden_size=32, head_dim=32,
                                                       num_attention_heads=1, num_key_value_heads=1))
    monkeypatch.setitem(model.BACKENDS, "cuda", lambda *made, **settings: CudaBackend(*made, device="cpu", **settings))
    assert bench(shape="tiny-dense", prefill=3, decode=1, repeats=1, backend="cuda").peak_device_bytes is None
    monkeypatch.setattr(CudaBackend, "peak_bytes", 12345)
    result = bench(shape="tiny-dense", prefill=3, decode=1, repeats=1, backend="cuda")
    assert (result.backend, result.threads, result.kernel) == ("cuda", 0, "triton's interpreter")
    assert (result.head, result.peak_device_bytes) == ("bf16", 12345)
    assert result.decode_tokens_per_second > 0
    with pytest.raises(TritwiseError, match="no kernel 'scalar' on a GPU"):
        bench(shape="tiny", backend="cuda", kernel="scalar")
    with pytest.raises(TritwiseError, match="no backend 'tpu'"):
        bench(shape="tiny", backend="tpu")


def test_bench_counts_no_further_than_the_model_has_positions(directory):
    result = bench(directory, prefill=5000, decode=5000, repeats=1)
    assert (result.prefill_tokens, result.decode_tokens) == (128, 112)


def test_bench_in_a_child_gives_the_same_kind_of_result_and_its_own_peak(directory):
    ballast = np.ones(64 << 20, dtype=np.uint8)  # resident here, not in the child
    result = bench_in_child(directory, threads=1, prefill=8, decode=4, repeats=1)
    assert isinstance(result, BenchResult)
    assert result.peak_rss_bytes < peak_rss_bytes() - ballast.nbytes // 2


def test_an_error_in_the_child_is_the_same_error_here(directory):
    with pytest.raises(TritwiseError, match="no kernel 'sse9'"):
        bench_in_child(directory, kernel="sse9")


@pytest.mark.parametrize("settings", [{}, {"shape": "2b4t", "path": "x"}, {"shape": "2b4t", "decode": 0},
                                      {"shape": "2b4t", "prefill": 0}, {"shape": "2b4t", "repeats": 0}])
def test_bench_refuses_what_it_cannot_measure(settings):
    with pytest.raises(TritwiseError):
        bench(**settings)


def test_peak_memory_grows_with_what_is_touched_and_can_start_anew():
    assert reset_peak_rss()
    before = peak_rss_bytes()
    block = np.ones(48 << 20, dtype=np.uint8)
    assert peak_rss_bytes() - before > block.nbytes // 2
    del block
    assert reset_peak_rss()
    assert peak_rss_bytes() - before < 40 << 20


def test_machine_facts_name_processor_kernels_bandwidth_and_versions():
    facts = json.loads(json.dumps(machine_facts()))
    assert facts["kernels"] == kernels()
    assert facts["kernel"] == kernels()[0]
    assert facts["versions"]["numpy"] == np.__version__
    assert "torch" in facts["versions"]
    # No memory is slower than 100 MB/s or faster than 100 TB/s.
    assert set(facts["bandwidth_bytes_per_second"]) == {"1", str(available_cores())}
    assert all(1e8 < speed < 1e14 for speed in facts["bandwidth_bytes_per_second"].values())
    assert "bandwidth_bytes_per_second" not in machine_facts(bandwidth=False)
