"""One BitLinear on one input: accumulators equal those of transformers' layers, outputs agree to float rounding."""

import numpy as np
import pytest
import torch
from transformers.integrations import bitnet as hf_bitnet

from tritwise.formats import TernaryTensor
from tritwise.model.bitlinear import BitLinear
from tritwise.ternary import absmax, absmean, matmul, sign

ROUNDING = 2.0**-24  # the largest relative error of one float32 operation
SHAPES = [(8, 5), (64, 96), (20, 333), (128, 1024)]


def random_input(inner: int, tokens: int = 11) -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(inner).standard_t(3, (tokens, inner)).astype(np.float32))
    x[0] = 0
    return x


def theirs(linear_class: str, tensor: TernaryTensor) -> torch.nn.Module:
    """transformers' layer that holds the same codes and scale."""
    out, inner = tensor.shape
    if linear_class == "bitlinear":
        layer = hf_bitnet.BitLinear(inner, out, bias=False, dtype=torch.float32)
        layer.load_state_dict({"weight": torch.from_numpy(tensor.packed.copy()),
                               "weight_scale": 1 / torch.from_numpy(tensor.scale)})
        return layer
    layer = hf_bitnet.AutoBitLinear(inner, out, bias=False, dtype=torch.float32)
    layer.load_state_dict({"weight": torch.from_numpy(tensor.codes()).float(),
                           "weight_scale": torch.from_numpy(tensor.scale)})
    return layer


def our_layer(linear_type: str, latent: np.ndarray) -> tuple[BitLinear, TernaryTensor]:
    layer = BitLinear(latent.shape[1], latent.shape[0], linear_type)
    layer.load_state_dict({"weight": torch.from_numpy(latent)})
    return layer, TernaryTensor.from_codes(*{"ternary": absmean, "binary": sign}[linear_type](latent))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
def test_accumulators_are_those_inside_transformers_bitlinear(monkeypatch, shape, linear_type):
    latent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    layer, tensor = our_layer(linear_type, latent)
    seen, rescale = [], hf_bitnet.BitLinear.post_quant_process
    monkeypatch.setattr(hf_bitnet.BitLinear, "post_quant_process",
                        lambda self, y, *scales: (seen.append(y), rescale(self, y, *scales))[1])
    x = random_input(shape[1])
    expected = theirs("bitlinear", tensor)(x)
    accumulators = matmul(absmax(x.numpy())[0], tensor.codes())
    assert np.array_equal(accumulators, seen[0].numpy())
    # After the exact accumulator ours rounds 3 times (x scale, product of scales, output), theirs 5 times: the stored
    # inverse, 127 / max (which torch computes as a reciprocal and a product), the product of scales, the output.
    assert (layer(x) - expected).abs().le(8 * ROUNDING * expected.abs()).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("linear_type", ["ternary", "binary"])
def test_outputs_are_those_of_transformers_autobitlinear_to_float_rounding(shape, linear_type):
    latent = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    layer, tensor = our_layer(linear_type, latent)
    x = random_input(shape[1])
    # Theirs sums K dequantised floats: at most K + 4 roundings of terms that add up to `magnitude`.
    codes, x_scale = absmax(x.numpy())
    magnitude = matmul(np.abs(codes), np.abs(tensor.codes())) * (x_scale.astype(np.float64) * float(tensor.scale[0]))
    difference = (layer(x) - theirs("autobitlinear", tensor)(x)).abs().numpy()
    assert (difference <= (shape[1] + 8) * ROUNDING * magnitude).all()
    if linear_type == "ternary":
        online = hf_bitnet.AutoBitLinear(shape[1], shape[0], bias=False, dtype=torch.float32, online_quant=True)
        online.load_state_dict({"weight": torch.from_numpy(latent)})
        # Their float32 mean of n weights may be off by n roundings.
        assert ((layer(x) - online(x)).abs().numpy() <= (shape[1] + latent.size + 8) * ROUNDING * magnitude).all()
