"""The inputs of a dense model's linears on a calibration text, layer by layer, with what came before quantised already.

Each block runs once for q, k, v, once for o, once for gate and up, once for down, and once more for the inputs of the
next block: every linear sees what it will get from the quantised model (arXiv 2210.17323, section 4).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritwise.common.progress import progress
from tritwise.config import ModelConfig
from tritwise.model import Decoder
from tritwise.model.decoder import rotary_tables

# (name of a linear, its weight [N, K], X^T X of its inputs [K, K]) to the values that take the weight's place.
Quantise = Callable[[str, NDArray[np.float32], NDArray[np.float64]], NDArray[np.float32]]
_WINDOWS_AT_ONCE = 4


@torch.inference_mode()
def quantise_with_inputs(config: ModelConfig, tensors: Mapping[str, NDArray], windows: NDArray[np.int64],
                         quantise: Quantise) -> None:
    """Call `quantise` for each linear of the blocks, in the order in which they are used.

    `tensors` are those of a dense model in float32, `windows` token ids [S, T], each from its own beginning. Linears
    that read the same input get the same Hessian. Shows progress in linears.
    """
    model = Decoder(config)
    model.load_state_dict({name: torch.from_numpy(np.array(tensor, np.float32)) for name, tensor in tensors.items()})
    parts = torch.from_numpy(windows).split(_WINDOWS_AT_ONCE)
    states = [model.model.embed_tokens(part) for part in parts]
    cos, sin = rotary_tables(windows.shape[1], config)
    stages, done = _stages(config), 0
    with progress("quantising", config.num_hidden_layers * len(config.linear_shapes())) as bar:
        for number, layer in enumerate(model.model.layers):
            for stage in stages:
                sums = {names: _Sum(layer.get_submodule(names[0])) for names in stage}
                for state in states:
                    layer(state, cos, sin)
                for names, total in sums.items():
                    total.close()
                    for name in names:
                        linear = layer.get_submodule(name)
                        values = quantise(f"model.layers.{number}.{name}.weight", linear.weight.numpy(), total.hessian)
                        linear.weight.copy_(torch.from_numpy(values))
                        done += 1
                        bar.update(done, name)
            states = [layer(state, cos, sin) for state in states]


def _stages(config: ModelConfig) -> list[list[tuple[str, ...]]]:
    """Linears by the run of the block after which they are quantised; those in one tuple read the same input."""
    parts = list(config.feed_forward_sizes())
    return [[("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")], [("self_attn.o_proj",)],
            [(f"{part}.gate_proj", f"{part}.up_proj") for part in parts], [(f"{part}.down_proj",) for part in parts]]


class _Sum:
    """X^T X over all inputs [.., K] that a linear sees until `close`; zeros for an expert that sees none."""

    def __init__(self, linear: torch.nn.Module) -> None:
        columns = linear.weight.shape[1]
        self.hessian = np.zeros((columns, columns))
        self._linear = linear
        linear.observer = self._add

    def _add(self, x: Tensor) -> None:
        flat = x.flatten(0, -2)
        self.hessian += (flat.T @ flat).numpy()

    def close(self) -> None:
        self._linear.observer = None
