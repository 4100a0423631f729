"""What the CUDA backend computes, step by step from its own inputs: integers exactly, floats within derived bounds.

Rounding a value that lies near a half may go either way, and a code that moves by one moves everything behind it. So
each step is compared by itself: its inputs are those that the backend had, its output has a bound that follows from the
roundings of the step, u = 2^-24 for float32 and h = 2^-11 for float16.
"""

import dataclasses
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from engine_fakes import tiny_config
from quick_interpreter import quick_interpreter

from tritwise.engine import Batch
from tritwise.formats import TernaryTensor
from tritwise.measure.shapes import random_tensors
from tritwise.ternary import absmax, matmul

pytest.importorskip("triton", reason="Triton is for Linux, where CI runs this")
from tritwise.engine.cuda import CudaBackend
from tritwise.kernels import quantise
from tritwise.kernels.norm import normed

U, H = 2.0**-24, 2.0**-11
TOKENS = 11
KINDS = {
    "bitnet": {"hidden_act": "relu2"},
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3", "head_dim": 24},
    "binary": {"linear_type": "binary"},
    "inner norms": {"use_rms_norm": True},
}


@dataclass
class Recorded:
    """One call of linears: input, norm, activation and residual, and what came out."""

    linears: object
    calls: list[dict] = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.linears, name)

    def __call__(self, x, gain, eps, *, activation="none", residual=None):
        call = {"x": x.clone(), "gain": gain, "eps": eps, "activation": activation,
                "residual": None if residual is None else residual.clone()}
        call["out"] = self.linears(x, gain, eps, activation=activation, residual=residual)
        self.calls.append({name: value.clone() if name == "out" else value for name, value in call.items()})
        return call["out"]


@dataclass
class Trace:
    config: object
    tensors: dict
    backend: CudaBackend
    logits: np.ndarray

    def call(self, name: str) -> dict:
        return getattr(self.backend.weights.blocks[0], name).calls[0]


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def trace(request):
    """A prompt that went through a block, with everything that its linears saw."""
    config = tiny_config(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=80,
                         **{"head_dim": 32} | request.param)
    tensors = dict(random_tensors(config))
    gains = np.random.default_rng(1)
    tensors = {name: gains.uniform(0.5, 1.5, tensor.shape).astype(np.float32) if "norm" in name else tensor
               for name, tensor in tensors.items()}
    backend = CudaBackend(config, tensors.items(), device="cpu")
    blocks = backend.weights.blocks
    blocks[0] = dataclasses.replace(blocks[0], **{name: Recorded(getattr(blocks[0], name))
                                                  for name in ("qkv", "o", "gate_up", "down")})
    ids = np.random.default_rng(2).integers(0, 300, TOKENS).astype(np.int32)
    places = np.arange(TOKENS, dtype=np.int32)
    with quick_interpreter():
        output = backend.forward(Batch(ids, places * 0, places, places[1:]))
    return Trace(config, tensors, backend, output.logits)


PARTS = {"qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "o": ("self_attn.o_proj",),
         "gate_up": ("mlp.gate_proj", "mlp.up_proj"), "down": ("mlp.down_proj",)}


def exact(call: dict) -> tuple[np.ndarray, float]:
    """What is quantised in a call, in float64, and the largest relative error that float32 makes of it."""
    x, relative = call["x"].double().numpy(), 0.0
    if call["activation"] != "none":
        gate, up = np.split(x, 2, axis=1)
        # silu: exp (2 u), the sum, the division, the product. relu2: two products.
        x, relative = (gate / (1 + np.exp(-gate)) * up, 6 * U) if call["activation"] == "silu" else (
            np.maximum(gate, 0)**2 * up, 2 * U)
    if call["gain"] is not None:
        x, relative = rms_norm(x, call["gain"], call["eps"], relative)
    return x, relative


def rms_norm(x, gain, eps, relative):
    # Of a mean of squares: twice the inputs' error, a product and log2 K sums, halved by the root; then root,
    # reciprocal and two products.
    rstd = 1 / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    return x * rstd * gain.double().numpy(), 2 * relative + (np.log2(x.shape[1]) + 6) * U


@pytest.mark.parametrize("name", PARTS)
def test_the_integer_sums_of_every_product_are_those_of_the_numpy_reference(trace, name):
    """From the codes that the kernel made: the output to the last bit, residual and scales included."""
    call, linears = trace.call(name), getattr(trace.backend.weights.blocks[0], name)
    inputs = []
    if linears.gains:
        x = call["x"] if call["gain"] is None and call["activation"] == "none" else normed(
            call["x"], call["gain"], call["eps"], activation=call["activation"])
        inputs = [quantise(x, gain, linears.eps) for gain in linears.gains]
    else:
        inputs = [quantise(call["x"], call["gain"], call["eps"], call["activation"])] * len(PARTS[name])
    outputs = []
    for part, x in zip(PARTS[name], inputs, strict=True):
        weight = trace.tensors[f"model.layers.0.{part}.weight"]
        acc = matmul(x.codes[:, :x.length].numpy(), weight.codes())
        outputs.append(acc.astype(np.float32) * (x.scale.numpy()[:, None] * weight.scale))
    expected = np.concatenate(outputs, axis=1)
    if call["residual"] is not None:
        expected = expected + call["residual"].numpy()
    assert np.array_equal(call["out"].numpy(), expected)


@pytest.mark.parametrize("name", PARTS)
def test_every_product_is_that_of_exact_arithmetic_within_its_bound(trace, name):
    call, linears = trace.call(name), getattr(trace.backend.weights.blocks[0], name)
    values, relative = exact(call)
    references, bounds, ties = [], [], 0.0
    for index, part in enumerate(PARTS[name]):
        x, error = values, relative
        if linears.gains:
            x, error = rms_norm(x, linears.gains[index], linears.eps, relative)
        weight = trace.tensors[f"model.layers.0.{part}.weight"]
        codes, scale = weight.codes().astype(np.float64), float(weight.scale[0])
        largest = np.abs(x).max(axis=1, keepdims=True)
        quotient = x * (127 / largest)
        # The value and the largest one err by `error`; the reciprocal, its product with 127 and the last product by u.
        near = np.abs(quotient - np.floor(quotient) - 0.5) <= np.abs(quotient) * (2 * error + 3 * U)
        ties = max(ties, near.mean())
        sums = np.rint(quotient) @ codes.T
        step = largest / 127 * scale
        references.append(sums * step)
        bounds.append(step * (near.astype(np.float64) @ np.abs(codes).T) + np.abs(sums) * step * (error + 4 * U))
    reference, bound = np.concatenate(references, axis=1), np.concatenate(bounds, axis=1)
    if call["residual"] is not None:
        reference = reference + call["residual"].double().numpy()
        bound = bound + np.abs(reference) * U
    difference = np.abs(call["out"].double().numpy() - reference)
    assert (difference <= bound * (1 + 1e-6) + 1e-30).all(), (difference / bound).max()
    assert ties < 0.01  # or the bound would allow anything
    assert np.median(bound) < 1e-5 * np.abs(reference).max()


def test_attention_is_that_of_exact_arithmetic_within_its_bound(trace):
    """Queries, keys, values and weights are rounded to float16, everything else to float32."""
    config = trace.config
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    qkv = trace.call("qkv")["out"].double().numpy().reshape(TOKENS, heads + 2 * kv_heads, size)
    q, k, v = np.split(qkv, [heads, heads + kv_heads], axis=1)
    rounding = 3 * U
    if config.has_head_norms:
        block = trace.backend.weights.blocks[0]
        q, k = ((each / np.sqrt((each**2).mean(axis=-1, keepdims=True) + config.rms_norm_eps))
                * gain.double().numpy() for each, gain in ((q, block.q_norm), (k, block.k_norm)))
        rounding += (np.log2(size) + 6) * U
    inverse, factor = config.rotary()
    angles = (np.arange(TOKENS, dtype=np.float32)[:, None] * inverse).astype(np.float64)
    cos, sin = (np.concatenate([each, each], axis=1)[:, None] * factor for each in (np.cos(angles), np.sin(angles)))

    def turned(x, sign=1.0):
        first, second = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-second * sign, first], axis=-1) * sin

    magnitude = [np.abs(each) * np.abs(cos) + np.abs(np.roll(each, size // 2, axis=-1)) * np.abs(sin)
                 for each in (q, k)]
    # The cosine is rounded (u), so is each product and the sum; then the result to float16.
    q, k = turned(q), turned(k)
    q_error, k_error = (m * (rounding + U) + np.abs(x) * H + 2.0**-25 for m, x in zip(magnitude, (q, k), strict=True))
    got = trace.call("o")["x"].double().numpy().reshape(TOKENS, heads, size)
    for head in range(heads):
        kv = head // (heads // kv_heads)
        keys, values = k[:, kv], v[:, kv]
        for row in range(TOKENS):
            seen = slice(0, row + 1)
            scores = keys[seen] @ q[row, head] / np.sqrt(size)
            spread = (np.abs(keys[seen]) @ q_error[row, head] + k_error[seen, kv] @ (np.abs(q[row, head])
                      + q_error[row, head])) / np.sqrt(size)
            spread += size * U * (np.abs(keys[seen]) @ np.abs(q[row, head])) / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            # A weight's numerator and the sum both err by exp(spread); exp2, the sum and the division by a few u; the
            # numerator, at most 1, is rounded to float16.
            error = np.expm1(2 * spread.max()) + H + (TOKENS + 8) * U
            expected = weights @ values[seen]
            bound = (weights @ np.abs(values[seen])) * (error + H) * (1 + error) + 2.0**-24 * np.abs(
                values[seen]).sum(axis=0) + 2.0**-25
            difference = np.abs(got[row, head] - expected)
            assert (difference <= bound).all(), (row, head, (difference / bound).max())
            assert np.median(bound) < 0.02 * np.abs(values).max()


def test_logits_are_those_of_exact_arithmetic_within_their_bound(trace):
    """The 8-bit head: rows become codes of 8 bits, states of 15; a state near a half may go either way."""
    last = trace.call("down")["out"].double().numpy()[1:]
    gain = torch.from_numpy(trace.tensors["model.norm.weight"])
    states, error = rms_norm(last, gain, trace.config.rms_norm_eps, 0.0)
    head = trace.tensors["lm_head.weight"].astype(np.float32)
    codes, scales = absmax(head)
    largest = np.abs(states).max(axis=1, keepdims=True)
    quotient = states * (16256 / largest)
    near = np.abs(quotient - np.floor(quotient) - 0.5) <= np.abs(quotient) * (2 * error + 3 * U)
    weights = codes.astype(np.float64)
    sums = np.rint(quotient) @ weights.T
    step = largest / 16256 * scales.astype(np.float64).reshape(1, -1)
    bound = step * (near.astype(np.float64) @ np.abs(weights).T) + np.abs(sums) * step * (error + 7 * U)
    difference = np.abs(trace.logits.astype(np.float64) - sums * step)
    assert (difference <= bound * (1 + 1e-6) + 1e-30).all(), (difference / bound).max()
    assert np.median(bound) < 1e-4 * np.abs(trace.logits).max()
    assert near.mean() < 0.1


def test_the_reference_is_the_torch_model(trace):
    """The block of `tritwise.model`, from the backend's embedding, gives what the recorded steps give, codes that moved
    at a half apart: so the bounds above are bounds on a difference from it."""
    from tritwise.model import Decoder

    config = trace.config
    model = Decoder(config)
    state = {}
    for name, tensor in trace.tensors.items():
        if not isinstance(tensor, TernaryTensor):
            values = np.asarray(tensor, np.float32)
        elif config.linear_type == "binary":  # its own sign and mean magnitude give codes and scale back
            values = tensor.codes() * tensor.scale
        else:
            values = tensor.latent()
        state[name] = torch.from_numpy(np.ascontiguousarray(values))
    model.load_state_dict(state)
    ids = torch.from_numpy(np.random.default_rng(2).integers(0, 300, TOKENS))
    with torch.no_grad():
        x = model.model.embed_tokens(ids[None])
        assert torch.equal(x[0], trace.call("qkv")["x"])
        block = model.model.layers[0]
        y = block(x, *model._rotary(TOKENS))[0]
    got = trace.call("down")["out"]
    # A hundredth is what a handful of moved codes and float16 keys make of a block; other arithmetic is far off.
    assert (got - y).abs().max() < 0.02 * y.abs().max()


def test_binary_and_ternary_weights_on_the_device_are_those_of_the_file(trace):
    from tritwise.kernels import codes_of

    for name, parts in PARTS.items():
        matrices = getattr(trace.backend.weights.blocks[0], name).matrices
        got = np.concatenate([codes_of(matrix).numpy() for matrix in matrices])
        scales = np.concatenate([matrix.scales.numpy() for matrix in matrices])
        weights = [trace.tensors[f"model.layers.0.{part}.weight"] for part in parts]
        assert np.array_equal(got, np.concatenate([weight.codes() for weight in weights]))
        assert np.array_equal(scales, np.concatenate([weight.row_scales() for weight in weights]))


def test_the_recorder_sees_one_call_of_each(trace):
    assert all(len(getattr(trace.backend.weights.blocks[0], name).calls) == 1 for name in PARTS)
    assert "tritwise.kernels.linear" in sys.modules
