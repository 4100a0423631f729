"""Where forward passes spend their time, and the limits that this is compared with."""

import time

import numpy as np
import pytest
from native_models import config, load, random_weights

from tritwise import _native

KERNELS = _native.kernels()


def run(model: "_native.Model", n: int = 3) -> None:
    rows = np.arange(n, dtype=np.int32)
    model.forward(rows, np.zeros_like(rows), rows, rows[:0], rows[-1:])


def test_a_profile_counts_the_parts_of_a_step_and_what_they_read():
    shape = config()
    model = load(shape, random_weights(shape), head="int8")
    run(model)
    assert all(part["calls"] == 0 for part in model.profile.values())  # nobody asked for it
    model.start_profile()
    begin = time.perf_counter()
    run(model)
    seconds = time.perf_counter() - begin
    found = model.profile
    layers = shape["num_hidden_layers"]
    assert {name for name, part in found.items() if part["calls"] == layers} >= {"qkv", "attention", "o", "gate_up"}
    assert found["norms"]["calls"] == 3 * layers
    assert found["router"]["calls"] == 0
    assert 0 < sum(part["seconds"] for part in found.values()) <= seconds
    # Rows and inputs are padded to what the kernel takes, so these are lower bounds.
    hidden, inner, queries = shape["hidden_size"], shape["intermediate_size"], 8 * shape["head_dim"]
    assert found["qkv"]["products"] >= 3 * layers * hidden * queries
    assert found["gate_up"]["products"] >= 3 * layers * 2 * inner * hidden
    assert layers * hidden * queries / 8 < found["qkv"]["bytes"] < layers * hidden * queries
    model.start_profile(False)
    run(model)
    assert model.profile == {name: dict.fromkeys(part, 0) for name, part in found.items()}


def test_a_profile_counts_the_experts_that_were_touched():
    shape = config(num_experts=4, num_experts_per_tok=1, moe_intermediate_size=32, norm_topk_prob=False)
    model = load(shape, random_weights(shape), head="int8")
    model.start_profile()
    run(model, 1)
    one = model.profile
    model.start_profile()
    run(model, 16)
    assert one["router"]["calls"] == shape["num_hidden_layers"]
    assert one["gate_up"]["bytes"] < model.profile["gate_up"]["bytes"] <= 4 * one["gate_up"]["bytes"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_products_in_registers_are_a_rate(kernel: str):
    assert _native.measure_products(1, kernel, 2) > 1e8


def test_limits_refuse_what_cannot_be_measured():
    with pytest.raises(ValueError, match="threads is 0"):
        _native.measure_products(0, KERNELS[0], 1)
    with pytest.raises(ValueError, match="repeats"):
        _native.measure_products(1, KERNELS[0], 0)
    with pytest.raises(ValueError, match="sse9"):
        _native.measure_products(1, "sse9", 1)
