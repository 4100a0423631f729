"""What the native model refuses, what it counts, and how it lives beside others."""

import threading

import numpy as np
import pytest
from native_models import config, ints, load, pack_stripes, random_weights, rotary_of, run

from tritwise import _native

KERNEL = _native.kernels()[0]
TOKENS = np.random.default_rng(5).integers(0, 70, 20).astype(np.int32)


@pytest.fixture
def model():
    c = config()
    return load(c, random_weights(c), slots=2, context=32)


@pytest.mark.parametrize(("tokens", "slots", "positions", "rows", "message"), [
    ([70], [0], [0], [0], "id 70 is not in a vocabulary of 70"),
    ([-1], [0], [0], [0], "id -1"),
    ([1], [2], [0], [0], "slot 2 does not exist, there are 2"),
    ([1], [-1], [0], [0], "slot -1"),
    ([1], [0], [32], [0], "position 32 is outside a context of 32"),
    ([1], [0], [-1], [0], "position -1"),
    ([1], [1], [1], [0], "leaves a gap, the cache holds 0"),
    ([1], [0], [0], [1], "logits are asked for token 1 of 1"),
    ([1], [0], [0], [-1], "logits are asked for token -1"),
])
def test_what_lies_outside_is_an_index_error_and_changes_nothing(model, tokens, slots, positions, rows, message):
    run(model, TOKENS[:3])
    with pytest.raises(IndexError, match=message):
        model.forward(ints(*tokens), ints(*slots), ints(*positions), ints(*rows))
    assert model.length(0) == 3


def test_tokens_of_a_slot_that_do_not_follow_one_another_are_refused(model):
    for positions in ((0, 2), (0, 0), (1, 0)):
        run(model, TOKENS[:2])
        with pytest.raises(ValueError, match="must be consecutive"):
            model.forward(ints(1, 2), ints(0, 0), ints(*positions), ints(0))


def test_arrays_of_different_lengths_are_refused(model):
    with pytest.raises(ValueError, match="one length"):
        model.forward(ints(1, 2), ints(0), ints(0, 1), ints(0))


def test_an_unknown_slot_has_no_length_and_cannot_be_reset(model):
    with pytest.raises(IndexError, match="slot 2"):
        model.length(2)
    with pytest.raises(IndexError, match="slot -1"):
        model.reset(-1)


def test_a_trace_longer_than_the_context_is_refused(model):
    with pytest.raises(IndexError, match="33 tokens are more than a context of 32"):
        model.trace(np.zeros(33, np.int32))


def new_model(**changes):
    settings = {"threads": 1, "kernel": KERNEL, "head": "stored", "slots": 1, "context": 8} | changes
    c = settings.pop("config", config())
    return _native.Model(c, **(rotary_of(c) | settings))


@pytest.mark.parametrize(("changes", "message"), [
    ({"threads": 0}, "threads is 0"),
    ({"kernel": "mmx"}, "kernel 'mmx' cannot run"),
    ({"head": "int3"}, "head is 'int3'"),
    ({"slots": 0}, "slots is 0"),
    ({"context": 0}, "context is 0"),
    ({"config": config(hidden_act="gelu")}, "hidden_act is 'gelu'"),
    ({"config": config(linear_type="int4")}, "linear_type is 'int4'"),
    ({"config": config(linear_type="dense", linear_rms_norm_eps=1e-6)}, "linear_rms_norm_eps is for ternary"),
    ({"config": config(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, norm_topk_prob=False,
                       linear_rms_norm_eps=1e-6)}, "models without experts"),
    ({"config": config(num_key_value_heads=3)}, "multiple of num_key_value_heads"),
    ({"inverse_frequencies": np.ones(5, np.float32)}, "inverse_frequencies has 5 values, 6 are needed"),
    ({"config": config(hidden_size=52)}, "heads \\* head_dim = hidden_size"),
])
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        new_model(**changes)


def test_every_missing_tensor_is_named():
    c = config()
    weights = random_weights(c)
    model = new_model()
    left_out = ["model.norm.weight", "model.layers.1.mlp.down_proj.weight"]
    for name, weight in weights.items():
        if name in left_out:
            continue
        if isinstance(weight, tuple):
            model.set_ternary(name, pack_stripes(weight[0]), len(weight[0]), weight[1])
        else:
            model.set_dense(name, weight)
    with pytest.raises(ValueError, match="missing") as caught:
        model.finish()
    assert all(name in str(caught.value) for name in left_out)
    assert "q_proj" not in str(caught.value)
    with pytest.raises(ValueError, match="finish"):
        model.forward(ints(1), ints(0), ints(0), ints(0))


def test_tensors_that_do_not_fit_are_refused_by_name():
    model = new_model()
    q, scale = "model.layers.0.self_attn.q_proj.weight", np.ones(1, np.float32)
    good = np.zeros((12, 48), np.uint8)
    for packed, out, scales, message in (
        (good, 44, scale, "is needed"), (np.zeros((12, 47), np.uint8), 48, scale, "is needed"),
        (np.zeros((11, 48), np.uint8), 48, scale, "is needed"), (good, 48, np.ones(2, np.float32), "2 scales"),
        (np.full((12, 48), 0x30, np.uint8), 48, scale, "holds 3"),
    ):
        with pytest.raises(ValueError, match=f"q_proj.*{message}"):
            model.set_ternary(q, packed, out, scales)
    with pytest.raises(ValueError, match="no tensor of that name"):
        model.set_ternary("model.layers.2.self_attn.q_proj.weight", good, 48, scale)
    with pytest.raises(ValueError, match=r"q_proj.*packed ternary"):
        model.set_dense(q, np.zeros((48, 48), np.float32))
    with pytest.raises(ValueError, match=r"norm.weight: shape \[47\] was given, \[48\] is needed"):
        model.set_dense("model.norm.weight", np.ones(47, np.float32))
    with pytest.raises(ValueError, match=r"model.norm.weight: needed is a float32"):
        model.set_dense("model.norm.weight", np.ones(48, np.float64))
    with pytest.raises(ValueError, match=r"embed_tokens.*keeps floats"):
        model.set_ternary("model.embed_tokens.weight", good, 48, scale)


def test_fused_tensors_of_different_types_are_refused():
    model = new_model(config=config(linear_type="dense"))
    model.set_dense("model.layers.0.mlp.gate_proj.weight", np.zeros((100, 48), np.float32))
    with pytest.raises(ValueError, match=r"up_proj.*its type differs"):
        model.set_dense("model.layers.0.mlp.up_proj.weight", np.zeros((100, 48), np.float16))


def test_two_models_at_once_do_not_disturb_each_other():
    c = config()
    first, second = load(c, random_weights(c, 1), threads=2), load(c, random_weights(c, 2), threads=3)
    expected = [run(load(c, random_weights(c, seed)), TOKENS).tobytes() for seed in (1, 2)]
    found = [b"", b""]

    def work(index, model):
        for _ in range(20):
            model.reset(0)
            found[index] = run(model, TOKENS, chunk=3).tobytes()

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    del first
    second.reset(0)
    assert run(second, TOKENS).tobytes() == expected[1]


def test_one_model_serves_several_threads_one_after_another():
    c = config()
    model = load(c, random_weights(c), threads=2)
    expected = run(model, TOKENS).tobytes()
    found = {}

    def work(slot):
        found[slot] = run(model, TOKENS, slot=slot, chunk=4).tobytes()

    model.reset(0)
    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found.values()) == {expected}


def test_many_more_threads_than_cores_give_the_same_bits():
    c = config()
    weights = random_weights(c)
    assert run(load(c, weights, threads=16), TOKENS).tobytes() == run(load(c, weights), TOKENS).tobytes()


def test_a_model_tells_what_it_is_and_what_it_holds():
    c = config(hidden_size=256, head_dim=64, intermediate_size=512, vocab_size=1024)
    weights = random_weights(c)
    model = load(c, weights, threads=2)
    assert (model.threads, model.kernel, model.head) == (2, KERNEL, "stored")
    # Bytes of a row in whole blocks: 4 for 20 inputs, 5 for 24, or 4 for 16.
    inputs, size = {"avx512vbmi": (20, 4), "avxvnni": (24, 5), "avx2": (24, 5)}.get(KERNEL, (16, 4))
    row = {256: -(-256 // inputs) * size}
    by_input = -(-512 // inputs) * inputs * 256 // 4  # down_proj behind squared ReLU: 2 bits
    codes = 2 * ((256 * 2 + 2 * 128 + 2 * 512) * row[256] + by_input)
    floats = sum(weight.nbytes for weight in weights.values() if not isinstance(weight, tuple))
    scales = 2 * 4 * (256 + 128 * 2 + 256 + 2 * 512 + 256)
    assert model.weight_bytes == codes + floats + scales
    assert model.weight_bytes_per_token == model.weight_bytes
    assert model.cache_bytes_per_token == 2 * 2 * 2 * 64 * 4  # layers, keys and values, heads, dimensions, float32
    quantised = load(c, weights, head="int8")
    head = 1024 * 256 + 1024 * 24  # codes, and six floats a row
    assert quantised.head == "int8"
    assert quantised.weight_bytes == model.weight_bytes + head
    assert quantised.weight_bytes_per_token == model.weight_bytes + head - 1024 * 256 * 4


def test_only_touched_cache_pages_take_memory():
    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    c = config()
    weights = random_weights(c)
    before = resident()
    model = load(c, weights, slots=64, context=100_000)
    run(model, TOKENS)
    assert 64 * 100_000 * model.cache_bytes_per_token > 2e9
    assert resident() - before < 64e6
