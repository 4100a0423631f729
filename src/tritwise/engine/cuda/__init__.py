"""The CUDA backend: Triton's kernels of `tritwise.kernels` behind the backend contract. Needs PyTorch and Triton.

    backend.py    the contract: pages, which way a step goes, answers to the host
    decoder.py    the forward pass of any rows
    device.py     which GPU, its stream, page-locked memory, captures
    graphs.py     a decode step as one CUDA graph, from token ids to drawn tokens
    weights.py    a model's tensors in the layouts of the kernels
"""

from tritwise.engine.cuda.backend import CudaBackend

__all__ = ["CudaBackend"]
