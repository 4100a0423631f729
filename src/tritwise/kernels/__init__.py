"""Triton kernels of the GPU backend, each with a plain torch twin. Importing this needs neither torch nor Triton."""
