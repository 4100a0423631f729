"""Post-training quantisation of a dense model: the baseline that training in 1.58 bits has to beat.

    quantise_model("model", "model-int4", to="int4", method="gptq", group_size=128, text=calibration)

`grids` says which values a weight can have, `gptq` how roundings make up for each other, `calibration` where the
inputs come from (PyTorch, for GPTQ alone), `model` reads and writes directories.
"""

from tritwise.quantize.gptq import gptq, layer_error
from tritwise.quantize.grids import GRIDS, Quantised, round_to_nearest
from tritwise.quantize.model import QuantisationReport, quantise_model

__all__ = ["GRIDS", "QuantisationReport", "Quantised", "gptq", "layer_error", "quantise_model", "round_to_nearest"]
