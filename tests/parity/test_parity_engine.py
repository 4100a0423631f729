"""The native engine, module by module, against transformers' modules on the same input.

Each of their modules is given what ours was given, so an int8 rounding flip cannot travel: accumulators are equal as
integers, and everything between two of them agrees to float rounding. u = 2^-24 is the largest relative error of one
float32 operation; a bound counts the operations on both sides. Where a float becomes an int8 code, ours must be a right
rounding of their value: no further than half a step plus that bound.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import LAYERS, MODES
from transformers.integrations import bitnet as hf_bitnet

import tritwise
from tritwise.engine import kernels
from tritwise.formats import TernaryTensor, open_model, write_model

U = 2.0**-24
NORMED = {"linear_norm_eps": 3e-4}  # a norm inside of each linear, with an eps that is told apart
LAYOUTS = {"bitnet-silu-tied": ("bitnet", {"hidden_act": "silu", "tie_word_embeddings": True}),
           "bitnet-relu2": ("bitnet", {"hidden_act": "relu2"}),
           "bitnet-one-kv-head": ("bitnet", {"hidden_act": "silu", "num_key_value_heads": 1}),
           "llama": ("llama", {"num_key_value_heads": 4}),
           "llama-tied": ("llama", {"tie_word_embeddings": True}),
           "qwen3": ("qwen3", {"head_dim": 24}),
           "llama-norms-in-linears": ("llama", NORMED),
           "bitnet-relu2-norms-in-linears": ("bitnet", NORMED | {"hidden_act": "relu2"}),
           "qwen3-norms-in-linears": ("qwen3", NORMED | {"head_dim": 24})}


@dataclass
class Pair:
    """Our trace and their model for one directory."""

    trace: dict[str, np.ndarray]
    scales: dict[str, np.float32]
    model: torch.nn.Module
    tokens: int

    def linear(self, name: str) -> np.ndarray:
        """The output of one of our linears, by the contract: float32(accumulator) * (x_scale * w_scale)."""
        x_scale = self.trace[f"{name}.input_scale"][:, None]
        return self.trace[f"{name}.accumulator"].astype(np.float32) * (x_scale * self.scales[name])

    def theirs(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        """What their module gives for our input [T, ...]."""
        return self.model.get_submodule(name)(*(torch.from_numpy(x)[None] for x in inputs))[0].numpy()

    def fed(self, name: str, x: np.ndarray, roundings: int) -> tuple[np.ndarray, int]:
        """What their linear quantises for its input x [T, K], and the roundings in each element of that.

        An error of x that is common to all of a token would leave a norm unchanged; here it counts, once for x and once
        for the root.
        """
        if self.model.get_submodule(f"model.{name}").rms_norm is None:
            return x, roundings
        return self.theirs(f"model.{name}.rms_norm", x), 2 * roundings + norm_roundings(x.shape[1])

    def without_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """The output of their linear for x, as what its quantiser is given."""
        linear = self.model.get_submodule(f"model.{name}")
        norm, linear.rms_norm = linear.rms_norm, None
        try:
            return self.theirs(f"model.{name}", x)
        finally:
            linear.rms_norm = norm


def traced(path: Path, ids: torch.Tensor, model: torch.nn.Module, kernel: str) -> Pair:
    directory = open_model(path)
    tensors = {name: directory.read(name) for name in directory.names()}
    with tritwise.load(path, threads=2, kernel=kernel, head="stored", cache_type="f32") as engine:
        trace = engine.backend._model.trace(ids.numpy().astype(np.int32))  # the native model's own, for tests alone
    scales = {name.removeprefix("model.").removesuffix(".weight"): tensor.scale[0]
              for name, tensor in tensors.items() if isinstance(tensor, TernaryTensor)}
    return Pair(trace, scales, model, len(ids))


def assert_near(ours: np.ndarray, theirs: np.ndarray, bound: np.ndarray | float) -> None:
    assert ours.shape == theirs.shape
    assert (np.abs(ours.astype(np.float64) - theirs) <= bound).all()


def norm_roundings(width: int) -> int:
    """Roundings in RMSNorm on both sides: half of those of the sum of squares (the root), and five more."""
    return width + 10


def assert_right_codes(codes: np.ndarray, theirs: np.ndarray, roundings: int) -> None:
    """int8 codes against the float input [T, K] of their quantiser, each element of which has `roundings` errors."""
    value = theirs.astype(np.float64) * 127 / np.maximum(np.abs(theirs).max(-1, keepdims=True), 1e-5)
    assert codes.dtype == np.int8
    assert (np.abs(codes - value) <= 0.5 + 127 * (2 * roundings + 3) * U).all()


def assert_same_accumulators(pair: Pair, name: str, spied: list[torch.Tensor]) -> None:
    """Their linear on our quantised input has our integer accumulators."""
    codes, x_scale = pair.trace[f"{name}.input_codes"], pair.trace[f"{name}.input_scale"][:, None]
    ours = pair.trace[f"{name}.accumulator"]
    assert ours.dtype == np.int32
    spied.clear()
    theirs = pair.without_norm(name, codes.astype(np.float32) * x_scale)
    if spied:  # bitlinear: the product of codes itself
        assert np.array_equal(spied[0][0].numpy(), ours)
        return
    # autobitlinear multiplies dequantised floats; divided by the scales they are the accumulators to rounding.
    recovered = theirs.astype(np.float64) / (x_scale.astype(np.float64) * float(pair.scales[name]))
    assert np.array_equal(np.rint(recovered), ours)
    assert np.abs(recovered - ours).max() < 0.05


@pytest.fixture
def spied(monkeypatch) -> list[torch.Tensor]:
    """The accumulators inside transformers' BitLinear, as they come by."""
    seen, rescale = [], hf_bitnet.BitLinear.post_quant_process
    monkeypatch.setattr(hf_bitnet.BitLinear, "post_quant_process",
                        lambda self, y, *scales: (seen.append(y), rescale(self, y, *scales))[1])
    return seen


def attention_of(pair: Pair, layer: int, normed: np.ndarray) -> np.ndarray:
    """Their attention's output before `o_proj` (and before the sub-norm), on our normed input."""
    attention = pair.model.model.layers[layer].self_attn
    seen = []
    last = attention.attn_sub_norm if hasattr(attention, "attn_sub_norm") else attention.o_proj
    with last.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        hidden = torch.from_numpy(normed)[None]
        positions = torch.arange(pair.tokens)[None]
        mask = torch.full((pair.tokens, pair.tokens), float("-inf")).triu(1)[None, None]
        attention(hidden, position_embeddings=pair.model.model.rotary_emb(hidden, positions), attention_mask=mask)
    return seen[0][0].numpy()


def attention_bound(pair: Pair, prefix: str) -> float:
    """How far two float32 attentions on equal q, k, v may lie apart, for any order of their sums."""
    config = pair.model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, k, v = (pair.linear(f"{prefix}{name}_proj").astype(np.float64) for name in "qkv")
    norms = 0
    if hasattr(pair.model.get_submodule(f"model.{prefix[:-1]}"), "q_norm"):
        q, k = (pair.theirs(f"model.{prefix}{name}_norm", x.astype(np.float32).reshape(pair.tokens, -1, size))
                for name, x in (("q", q), ("k", k)))
        norms = 2 * norm_roundings(size)
    longest_q, longest_k = (np.linalg.norm(x.reshape(pair.tokens, -1, size), axis=-1).max() for x in (q, k))
    # A score: `size` products, norms of query and key if there are any, and two rotations whose angles (up to T) carry
    # a rounding each on top of their own.
    score = 2 * (size + 4 * pair.tokens + norms + 16) * U * longest_q * longest_k / np.sqrt(size)
    # A weight's relative error is twice that of its score plus that of the sum of T weights; then T products.
    return (4 * score + 2 * (2 * pair.tokens + 10) * U) * np.abs(v).max()


def compare_layer(pair: Pair, n: int, before: np.ndarray, spied: list[torch.Tensor]) -> None:
    """Layer n, whose input was `before` [T, hidden]."""
    prefix, hidden, trace = f"layers.{n}.", before.shape[1], pair.trace
    attention, mlp, linear = f"{prefix}self_attn.", f"{prefix}mlp.", pair.linear
    sub_norms = hasattr(pair.model.model.layers[n].mlp, "ffn_sub_norm")
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert_same_accumulators(pair, attention + name, spied)
    for name in ("gate_proj", "up_proj", "down_proj"):
        assert_same_accumulators(pair, mlp + name, spied)

    normed = pair.theirs(f"model.{prefix}input_layernorm", before)
    assert_near(trace[f"{prefix}input_layernorm"], normed, norm_roundings(hidden) * U * np.abs(normed))
    for name in ("q_proj", "k_proj", "v_proj"):
        fed = pair.fed(attention + name, trace[f"{prefix}input_layernorm"], 1)
        assert_right_codes(trace[f"{attention}{name}.input_codes"], *fed)

    output = trace[f"{attention}output"]
    assert_near(output, attention_of(pair, n, trace[f"{prefix}input_layernorm"]), attention_bound(pair, attention))
    fed = pair.theirs(f"model.{attention}attn_sub_norm", output) if sub_norms else output
    fed = pair.fed(f"{attention}o_proj", fed, norm_roundings(output.shape[1]))
    assert_right_codes(trace[f"{attention}o_proj.input_codes"], *fed)

    middle = before + linear(f"{attention}o_proj")
    normed = pair.theirs(f"model.{prefix}post_attention_layernorm", middle)
    for name in ("gate_proj", "up_proj"):
        fed = pair.fed(mlp + name, normed, norm_roundings(hidden) + 1)
        assert_right_codes(trace[f"{mlp}{name}.input_codes"], *fed)
    gate, up = linear(f"{mlp}gate_proj"), linear(f"{mlp}up_proj")
    fed = pair.model.model.layers[n].mlp.act_fn(torch.from_numpy(gate)).numpy() * up
    if sub_norms:
        fed = pair.theirs(f"model.{mlp}ffn_sub_norm", fed)
    # silu is an exponential good to 2 units in the last place, a sum, a quotient; then the product with up.
    fed = pair.fed(f"{mlp}down_proj", fed, norm_roundings(gate.shape[1]) + 16)
    assert_right_codes(trace[f"{mlp}down_proj.input_codes"], *fed)

    down = linear(f"{mlp}down_proj")
    assert_near(trace[f"{prefix}output"], middle + down, 2 * U * (np.abs(middle) + np.abs(down)))


def compared_models(pair: Pair, ids: torch.Tensor, spied: list[torch.Tensor]) -> int:
    """Assert of each module from the embedding to the logits; returns how many layers there were."""
    before = pair.model.model.embed_tokens(ids).numpy()
    for n in range(LAYERS):
        compare_layer(pair, n, before, spied)
        before = pair.trace[f"layers.{n}.output"]
    normed = pair.theirs("model.norm", before)
    assert_near(pair.trace["norm"], normed, norm_roundings(before.shape[1]) * U * np.abs(normed))
    logits = pair.theirs("lm_head", pair.trace["norm"])
    magnitude = np.abs(pair.trace["norm"]) @ np.abs(pair.model.lm_head.weight.numpy()).T
    assert_near(pair.trace["logits"], logits, 2 * (before.shape[1] + 1) * U * magnitude)
    return LAYERS


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_module_of_the_engine_does_what_transformers_does(saved, opened, ids, spied, layout, mode, kernel):
    model_type, changes = LAYOUTS[layout]
    path = saved(model_type, mode, **changes)
    assert compared_models(traced(path, ids, opened(path), kernel), ids, spied) == LAYERS
    assert bool(spied) == (mode == "bitlinear")


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("model_type", ["bitnet", "llama"])
def test_sizes_that_are_no_multiple_of_anything_give_what_transformers_gives(saved, opened, ids, spied, model_type,
                                                                             kernel):
    sizes = {"hidden_size": 38, "intermediate_size": 85, "num_attention_heads": 1, "num_key_value_heads": 1}
    path = saved(model_type, "autobitlinear online", hidden_act="silu", **sizes)
    assert compared_models(traced(path, ids, opened(path), kernel), ids, spied) == LAYERS


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
def test_a_binary_export_gives_in_the_engine_what_it_gives_in_transformers(tmp_path, saved, opened, ids, spied,
                                                                           linear_class, kernel):
    dense = open_model(saved("bitnet", "dense"))
    write_model(tmp_path / "binary", dense.config.with_changes(linear_type="binary"),
                {name: dense.read(name) for name in dense.names()}, form="packed", linear_class=linear_class,
                dtype="float32")
    assert compared_models(traced(tmp_path / "binary", ids, opened(tmp_path / "binary"), kernel), ids, spied) == LAYERS
