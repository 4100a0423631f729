"""Running a model: token ids in, logits out, and everything that makes text of them.

    model = load("runs/quickstart/ternary")
    print(model.generate("def add(a, b):", max_tokens=32).text)

The scheduler and the sampler see a backend only as `Backend.forward(batch) -> Output`. No PyTorch.
"""

from tritwise.engine.backend import Backend, BackendInfo, Batch, Output, available_cores
from tritwise.engine.cpu import CpuBackend, kernels
from tritwise.engine.drafters import DraftModel, NgramSpeculation
from tritwise.engine.model import Model, Stream, load
from tritwise.engine.sampling import Constraint, Sampling, TokenLogprob
from tritwise.engine.sequence import Completion
from tritwise.engine.speculation import Drafter, Speculation

__all__ = [
    "Backend", "BackendInfo", "Batch", "Completion", "Constraint", "CpuBackend", "DraftModel", "Drafter", "Model",
    "NgramSpeculation", "Output", "Sampling", "Speculation", "Stream", "TokenLogprob", "available_cores", "kernels",
    "load",
]
